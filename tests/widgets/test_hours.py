"""Half an hour of clicking in a real window: memory does not grow."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from napari_backsplit.backend.geometry import from_parts
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from tests.widgets.display_support import on_a_virtual_display

MINUTES = float(os.environ.get("BACKSPLIT_SOAK_MINUTES", "30"))
GROWTH = 0.05
PAGES = int(os.environ.get("BACKSPLIT_SOAK_PAGES", "200"))
SHAPE, CASES = (64, 128, 128), 10


def make_cases(folder: Path, *, masks: bool = False) -> Path:
    """Make a project of noisy images with a bright box each; return its folder."""
    rng = np.random.default_rng(0)
    geometry = from_parts(SHAPE, (2.5, 1.0, 1.0), (5.0, 6.0, 7.0), np.eye(3))
    place = folder / "project"
    with Project.create(place, "hours", ["CT"], ["lesion"], ["kidney", "liver", "spleen"]) as made:
        for number in range(CASES):
            image = rng.normal(scale=12, size=SHAPE).astype(np.int16)
            image[20:44, 40:88, 40:88] += 130
            file = folder / f"image_{number}.nii.gz"
            write_volume(Volume(image, geometry), file)
            case = made.add_case({"CT": file}, name=f"case {number}").id
            for name in ("lesion", "kidney", "liver") if masks else ():
                mask = Volume((image > 100).astype(np.uint8), geometry)
                made.set_mask(case, name, mask, {"engine": "test"})
    return place


@pytest.mark.soak
@pytest.mark.timeout(3600 + 60 * MINUTES)
def test_memory_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_cases(tmp_path)
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path / "settings"))
    engine = os.environ.get("BACKSPLIT_SOAK_ENGINE", "nninteractive")
    code = (
        "from pathlib import Path\n"
        "from tests.widgets.hours_support import main\n"
        f"main(Path({str(project)!r}), {MINUTES}, {engine!r})\n"
    )
    told = on_a_virtual_display(code, tmp_path, timeout_s=600 + 90 * MINUTES)
    samples = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    for sample in samples:
        row = "{minutes:6.1f} min  case {case:4.0f}  napari {mb:7.1f} MB  server {server_mb:7.1f}"
        sys.stdout.write(row.format(**sample) + "\n")
    warm = [s["mb"] for s in samples if 0.1 <= s["minutes"] / MINUTES <= 0.3]
    end = [s["mb"] for s in samples if s["minutes"] / MINUTES >= 0.8]
    assert warm, f"{len(samples)} cases in {MINUTES} minutes: set BACKSPLIT_SOAK_MINUTES higher"
    growth = median(end) / median(warm) - 1
    sys.stdout.write(f"{median(warm):.1f} MB after warm-up, {growth:+.1%} at the end\n")
    assert growth < GROWTH


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_memory_does_not_grow_with_the_pages_of_a_review(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = make_cases(tmp_path, masks=True)
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path / "settings"))
    code = (
        "from pathlib import Path\n"
        "from tests.widgets.hours_support import review\n"
        f"review(Path({str(project)!r}), {PAGES})\n"
    )
    told = on_a_virtual_display(code, tmp_path, timeout_s=3000)
    mb = [json.loads(line)["mb"] for line in told.splitlines() if line.startswith("{")]
    warm, end = median(mb[PAGES // 10 : PAGES // 4]), median(mb[-PAGES // 8 :])
    sys.stdout.write(f"{warm:.1f} MB after warm-up, {end / warm - 1:+.1%} at the end\n")
    assert end / warm - 1 < GROWTH
