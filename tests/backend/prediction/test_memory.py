from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.jobs import devices
from napari_backsplit.backend.prediction.memory import MemoryTooSmall, Need, check_memory
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.wanted import Wanted
from napari_backsplit.backend.volume import read_geometry

MASK = Wanted(("lesion",))


@pytest.fixture(scope="module")
def opened(model: Path) -> ModelFolder:
    return ModelFolder.open(model)


def _need(model: ModelFolder, planes: int = 600, wanted: Wanted = MASK, **more: Any) -> Need:
    return Need.of((planes, 512, 512), (planes, 480, 480), model, wanted, **more)


def test_a_2_gb_volume_does_not_fit_into_2_gb(opened: ModelFolder) -> None:
    volume = Need.of((1900, 512, 512), (1900, 512, 512), opened, MASK)  # 2 GB as float32
    with pytest.raises(MemoryTooSmall, match=r"needs about \d+\.\d GB.* 2\.0 GB are free.*Close"):
        check_memory(volume, 2 * 10**9)
    check_memory(volume, volume.peak)


def test_the_need_grows_with_what_is_wanted(opened: ModelFolder) -> None:
    plain = _need(opened)
    assert _need(opened, 1200).peak > 1.8 * plain.peak
    assert _need(opened, wanted=replace(MASK, probabilities=True)).exporting > plain.exporting
    assert _need(opened, folds=5).computing > plain.computing
    assert _need(opened, separate=True).preprocessing > plain.preprocessing
    assert _need(opened, on_cpu=False).computing < plain.computing


def test_all_classes_count_only_where_nnunet_resamples_them(
    opened: ModelFolder, tiny: Any, tmp_path: Path
) -> None:
    """A map of 157 million voxels is 0.6 GB, and so is another while it is written."""
    maps = Wanted(("lesion",), probabilities=True, gap=True, labels=True)
    labels = {"lesion": 1, **{f"organ{i}": i for i in range(2, 25)}}
    kwargs = {"is_seg": False, "order": 3}
    made = [
        tiny.write_model(tmp_path / name, labels, plans_changes=changes)
        for name, changes in (
            ("linear", {}),
            ("cubic", {"resampling_fn_probabilities_kwargs": kwargs}),
        )
    ]
    linear, cubic = map(ModelFolder.open, made)
    assert _need(linear, wanted=maps).exporting < 4e9
    assert _need(cubic, wanted=maps).exporting > 25 * 600 * 512 * 512 * 10
    assert _need(cubic).exporting > 25 * 600 * 480 * 480 * (2 + 8), "logits, and in float64"


def test_an_image_under_way_keeps_the_room_that_it_will_take(
    opened: ModelFolder, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predicting = pytest.importorskip("napari_backsplit.backend.prediction.predictor")
    preparation = pytest.importorskip("napari_backsplit.backend.prediction.preparation")
    image = tiny.write_image(tmp_path / "image.nii.gz")
    predictor = predicting.Predictor(opened)
    need = predictor._preparation.need(read_geometry(image), preparation.Turn(), MASK)
    monkeypatch.setattr(preparation, "free_memory_bytes", lambda: int(1.5 * need.peak))
    first = predictor.prepare([image], MASK)
    with pytest.raises(MemoryTooSmall):
        predictor.prepare([image], MASK)
    del first
    predictor.prepare([image], MASK)


def test_the_sums_do_not_grow_with_the_depth_of_the_image(opened: ModelFolder) -> None:
    """Beside the preprocessed image (4 bytes a voxel) and the mask (2), nothing does."""
    grown = _need(opened, 1200).computing - _need(opened, 600).computing
    assert grown == 600 * (4 * 480 * 480 + 2 * 512 * 512)


def _group(folder: Path, **files: object) -> Path:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("_", ".", 1)).write_text(f"{value}\n")
    return folder


def test_a_control_group_limits_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = devices.psutil.virtual_memory().available
    new = _group(
        tmp_path / "v2",
        memory_max=900_000,
        memory_current=700_000,
        memory_stat="anon 5\ninactive_file 100000",
    )
    monkeypatch.setattr(devices, "_control_groups", lambda: [new])
    assert devices.free_memory_bytes() == 300_000
    (new / "memory.max").write_text("max\n")
    assert devices.free_memory_bytes() == pytest.approx(machine, rel=0.5)
    old = _group(tmp_path / "v1")
    (old / "memory.limit_in_bytes").write_text("500000\n")
    (old / "memory.usage_in_bytes").write_text("600000\n")
    monkeypatch.setattr(devices, "_control_groups", lambda: [new, old])
    assert devices.free_memory_bytes() == 0
