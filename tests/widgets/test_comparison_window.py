"""The whole dock on a project with a finished comparison: real masks, real layers, real tables."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_backsplit.backend import links
from napari_backsplit.backend.comparing import begin
from napari_backsplit.backend.comparison.tasks import run_compare
from napari_backsplit.backend.jobs import JobContext, list_jobs, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.comparing_support import ended, fine_tuned, predicted
from tests.backend.improvement_support import GRID, MASKS, SHAPE, box, make_own, write_foreign
from tests.widgets.conftest import Window

BASELINE, OURS = "jobs/0001-train/model", "jobs/0002-train/model"
TEST = ("case_007", "case_008")
COMPARE = 3


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose fine-tune finds the lesion that its baseline misses in one of two cases."""
    home = tmp_path_factory.mktemp("compared")
    foreign = write_foreign(home / "nnUNetTrainer__tiny__3d_fullres")
    folder = _with_cases(home)
    make_own(folder, foreign)
    fine_tuned(folder, foreign, BASELINE)
    lesion, elsewhere = MASKS["lesion"].astype(bool), box(0, 2).astype(bool)
    predicted(folder, BASELINE, {TEST[0]: elsewhere, TEST[1]: lesion})
    predicted(folder, OURS, dict.fromkeys(TEST, lesion))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "enqueue", lambda *given, **how: submit(*given, start=False, **how))
        begin(folder, {"old": BASELINE, "ours": OURS}, "old", TEST)
    run_compare(JobContext(JobFolder(ended(list_jobs(folder)[-1]).folder)))
    return folder


def _with_cases(home: Path) -> Path:
    """Make a project of eight cases with noise for images, the last two held out."""
    noise, folder = np.random.default_rng(0), home / "project"
    with Project.create(folder, "boxes", ["CT"], ["lesion"], ["liver", "kidney"]) as project:
        for number in range(8):
            file = home / f"image_{number}.nii.gz"
            write_volume(Volume(noise.normal(size=SHAPE).astype(np.float32), GRID), file)
            case = project.add_case({"CT": file}).id
            for name, mask in MASKS.items():
                project.set_mask(case, name, Volume(mask, GRID), {})
        project.reserve_test(ids=list(TEST))
    return folder


@pytest.fixture
def window(make_window: Callable[[], Window], compared: Path, tmp_path: Path) -> Window:
    """The dock with that project open, in the step that compares."""
    window = make_window()
    window.dock.resize(400, 800)
    window.dock.show()
    window.open(Path(shutil.copytree(compared, tmp_path / "project")))
    window.bot.mouseClick(window.dock.steps.button(COMPARE), Qt.MouseButton.LeftButton)
    window.until(lambda: window.dock.comparison.layers.loaded is not None)
    return window


def test_the_result_opens_by_itself_on_the_image(window: Window) -> None:
    panel = window.dock.comparison
    assert panel.comparing.shown.arms == ("old", "ours")
    assert "Finds 2 of 2 lesions against 1" in panel.result.sentence.text()
    assert window.work.case == TEST[0]
    assert "agreement" in [layer.name for layer in window.viewer.layers if layer.visible]


def test_the_legend_tells_what_the_masks_hold(window: Window) -> None:
    parts = window.dock.comparison.parts
    voxel_ml = 1 / 1000
    window.until(lambda: parts.volumes[2].text())
    lesion, false = int(MASKS["lesion"].sum()), int(box(0, 2).sum())
    assert parts.volumes[2].text() == f"{lesion * voxel_ml:.2f} ml"  # only the new one is right
    assert parts.volumes[6].text() == f"{false * voxel_ml:.2f} ml"  # the baseline's false one
    assert parts.volumes[1].text() == "0.00 ml"


def test_a_row_brings_all_planes_to_its_lesion(window: Window) -> None:
    panel = window.dock.comparison
    row = panel.table.model.shown[0]
    panel.table.go(row)
    place = window.dock.layers.place
    assert place is not None
    point = np.asarray(window.viewer.dims.point[-3:])
    assert np.allclose(point, place.to_world(row.voxel))


def test_the_next_disagreement_is_found_in_the_table_and_the_other_case_is_opened(
    window: Window,
) -> None:
    panel = window.dock.comparison
    panel.table.step_case(1)
    window.until(lambda: window.desk.annotation and window.work.case == TEST[1])
    window.until(lambda: panel.layers.loaded and panel.layers.loaded.overlay.case == TEST[1])
    panel.table.jumps["disagreement", 1].click()
    window.until(lambda: window.desk.annotation and window.work.case == TEST[0])
    assert panel.table.here.found_by == ("ours",)


def test_a_press_queues_the_comparison_and_shows_it(
    window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "enqueue", lambda *given, **how: submit(*given, start=False, **how))
    panel = window.dock.comparison
    window.until(lambda: panel.choosing.button.isEnabled())
    assert panel.choosing.button.text() == "Compare"
    assert "All predictions are there already" in panel.choosing.sentence.text()
    window.bot.mouseClick(panel.choosing.button, Qt.MouseButton.LeftButton)
    window.until(lambda: panel.monitor.view is not None)
    assert panel.monitor.view.job.spec.task == "compare"
    assert not panel.choosing.button.isEnabled()


def test_leaving_the_step_takes_the_layers_away_and_gives_the_masks_back(window: Window) -> None:
    window.dock.show_step(0)
    seen = {layer.name for layer in window.viewer.layers if layer.visible}
    assert "agreement" not in seen
    assert "kidney" in seen
    window.dock.show_step(COMPARE)
    panel = window.dock.comparison
    window.until(lambda: "agreement" in {x.name for x in window.viewer.layers if x.visible})
    assert panel.comparing.shown is not None
