"""A foreign baseline's plans: its reader, its configuration, and what is refused beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import nnunet, prepare
from napari_backsplit.backend.training.baseline import adopt_model
from napari_backsplit.backend.training.prepare import PlanSet, make_plan_set
from napari_backsplit.backend.training.spec import PlanSpec
from tests.backend.prediction import tiny_model

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def adopted(tmp_path: Path, sample: Path) -> Callable[..., PlanSet]:
    """Adopt a foreign model, its plans changed, and plan with it."""

    def adopt(change: Change = lambda plans: None, **spec: Any) -> PlanSet:
        folder = tmp_path / "nnUNetTrainer__tinyPlans__3d_fullres"
        tiny_model.write_model(folder, {"lesion": 1}, channel_names={"0": "CT"})
        plans = read_json(folder / "plans.json")
        configuration = plans["configurations"]["3d_fullres"]
        configuration["normalization_schemes"] = ["CTNormalization"]
        configuration["spacing"] = [9.6, 9.6, 9.6]
        names = ("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5")
        values = dict.fromkeys(names, 10.0)
        plans["foreground_intensity_properties_per_channel"] = {"0": values}
        change(plans)
        write_json(folder / "plans.json", plans)
        asked = PlanSpec(baseline=adopt_model(sample, folder), folds=3, **spec)
        with Project.open(sample, read_only=True) as project:
            return make_plan_set(project, asked, lambda what, done, total: None)

    return adopt


def test_labels_are_turned_as_the_baselines_reader_turns_images(
    adopted: Callable[..., PlanSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_nnunet: dict[str, np.ndarray] = {}
    ours = prepare._write_labels

    def look_first(project: Project, plan_set: PlanSet, *rest: Any) -> None:
        for case in plan_set.cases:
            stem = plan_set.arrays("binary") / case
            by_nnunet[case] = nnunet._read_array(stem, "_seg")
        ours(project, plan_set, *rest)

    monkeypatch.setattr(prepare, "_write_labels", look_first)

    def reorient(plans: dict[str, Any]) -> None:
        plans["image_reader_writer"] = "SimpleITKIOWithReorient"

    plan_set = adopted(reorient)
    assert any((labels > 0).any() for labels in by_nnunet.values())
    for case, expected in by_nnunet.items():
        labels = blosc2.open(str(plan_set.arrays("binary") / f"{case}_seg.b2nd"), mode="r")[:]
        np.testing.assert_array_equal(np.maximum(labels, 0), np.maximum(expected, 0))


def test_what_a_configuration_inherits_is_written_out(adopted: Callable[..., PlanSet]) -> None:
    def inherit(plans: dict[str, Any]) -> None:
        base = plans["configurations"]["3d_fullres"]
        base["previous_stage"] = None
        plans["configurations"] = {
            "base": base,
            "3d_fullres": {"inherits_from": "base", "batch_size": 1},
        }

    (configuration,) = adopted(inherit).plans()["configurations"].values()
    assert configuration["batch_size"] == 1
    assert configuration["spacing"] == [9.6, 9.6, 9.6]
    assert "inherits_from" not in configuration


def test_another_configuration_than_the_baselines_is_refused(
    adopted: Callable[..., PlanSet],
) -> None:
    with pytest.raises(InputError, match="is 3d_fullres, not 2d") as error:
        adopted(configuration="2d")
    assert "--configuration 3d_fullres" in str(error.value)


def test_what_the_baseline_decides_is_not_silently_ignored(
    adopted: Callable[..., PlanSet],
) -> None:
    with pytest.raises(InputError, match="decide patch size"):
        adopted(patch_size=(16, 16, 16))


def test_a_refused_plan_does_not_keep_the_name(adopted: Callable[..., PlanSet]) -> None:
    with pytest.raises(InputError, match="decide patch size"):
        adopted(patch_size=(16, 16, 16))
    plan_set = adopted()
    assert plan_set.ready
    assert plan_set.arms == {"binary": "Dataset001_own-binary"}
