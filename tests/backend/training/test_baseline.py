from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.files import link_or_copy, read_json, write_json
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import baseline, environment
from napari_backsplit.backend.training.baseline import (
    adopt_model,
    find_baseline,
    learning_of,
    model_path,
    start_of,
)
from napari_backsplit.backend.training.label_names import renamed_labels
from napari_backsplit.backend.training.prepare import make_plan_set
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from tests.backend.prediction import tiny_model

LABELS = {"background": 0, "tumour": 1}


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A binary nnU-Net model from elsewhere, with a folder name that says whose it is."""
    folder = tmp_path / "Dr_X_Y" / "nnUNetTrainer__tinyPlans__3d_fullres"
    tiny_model.write_model(folder, {"tumour": 1}, channel_names={"0": "CT"})
    plans = read_json(folder / "plans.json")
    configuration = plans["configurations"]["3d_fullres"]
    configuration["normalization_schemes"] = ["CTNormalization"]
    configuration["spacing"] = [9.6, 9.6, 9.6]
    figures = ("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5")
    plans["foreground_intensity_properties_per_channel"] = {
        "0": dict.fromkeys(figures, 10.0) | {"percentile_00_5": -50.0, "percentile_99_5": 90.0}
    }
    write_json(folder / "plans.json", plans)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_a_foreign_model_is_adopted_once_and_left_as_it_was(foreign: Path, sample: Path) -> None:
    before = _files(foreign)

    first = adopt_model(sample, foreign)
    again = model_path(sample, str(foreign))

    assert first == again == "baselines/baseline-1"
    assert _files(foreign) == before
    assert ModelFolder.open(sample / first).hashes() == ModelFolder.open(foreign).hashes()
    checkpoint = "fold_0/checkpoint_final.pth"
    assert (foreign / checkpoint).samefile(sample / first / checkpoint)


def test_a_zip_is_unpacked_checked_and_gone(foreign: Path, sample: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "model"), "zip", foreign.parent)

    assert model_path(sample, archive) == "baselines/baseline-1"
    assert model_path(sample, str(foreign)) == "baselines/baseline-1", "the same model"
    assert [path.name for path in sample.iterdir() if path.name.startswith(".unpack")] == []


def test_an_adoption_that_broke_off_leaves_nothing(
    foreign: Path, sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, destination: Path) -> str:
        if source.suffix == ".pth":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return link_or_copy(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(baseline, "link_or_copy", full)
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            adopt_model(sample, foreign)
    assert not any((sample / "baselines").iterdir())
    first = adopt_model(sample, foreign)
    assert adopt_model(sample, sample / first / "fold_0") == first == "baselines/baseline-1"


def test_a_gpu_is_counted_among_those_the_environment_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert environment.visible_gpu(1) == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    assert [environment.visible_gpu(index) for index in range(3)] == ["4", "6", ""]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert environment.visible_gpu(0) == ""


def test_plans_that_name_code_are_refused_before_anything_is_taken(
    foreign: Path, sample: Path
) -> None:
    plans = read_json(foreign / "plans.json")
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"
    write_json(foreign / "plans.json", plans)

    with pytest.raises(UntrustedModelError, match=r"os\.system"):
        adopt_model(sample, foreign)
    assert not (sample / "baselines").exists()


def test_a_fine_tune_keeps_its_baselines_plans(foreign: Path, sample: Path) -> None:
    with pytest.raises(InputError, match="backsplit plan --adopt"):
        find_baseline(sample, str(foreign))
    adopted = model_path(sample, str(foreign))
    spec = PlanSpec(name="theirs", baseline=adopted, folds=3)
    with Project.open(sample, read_only=True) as project:
        plan_set = make_plan_set(project, spec, lambda what, done, total: None)

    found = find_baseline(sample, str(foreign))

    assert found == {"baseline": adopted, "plan_set": "theirs", "fold": 0}
    theirs = read_json(foreign / "plans.json")["configurations"]["3d_fullres"]
    assert plan_set.plans()["configurations"]["3d_fullres"] == theirs


def test_a_baseline_of_another_modality_is_refused(foreign: Path, sample: Path) -> None:
    plans = read_json(foreign / "plans.json")
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["ZScoreNormalization"]
    write_json(foreign / "plans.json", plans)
    spec = PlanSpec(baseline=model_path(sample, str(foreign)), folds=3)

    with Project.open(sample, read_only=True) as project:
        with pytest.raises(InputError, match="ZScoreNormalization") as error:
            make_plan_set(project, spec, lambda what, done, total: None)
        assert "--accept-unfit" in str(error.value)
        accepted = spec.model_copy(update={"accept_unfit": True, "name": "sure"})
        assert make_plan_set(project, accepted, lambda what, done, total: None).ready


def test_an_unknown_model_is_named(sample: Path) -> None:
    with pytest.raises(InputError, match="'no-such-model'"):
        model_path(sample, "no-such-model")


def test_labels_follow_names_or_the_only_pair() -> None:
    assert renamed_labels(LABELS, ["lesion"], RunSpec()) == {"background": 0, "lesion": 1}
    two = {"background": 0, "a": 1, "b": 2}
    mapped = renamed_labels(two, ["lesion", "cyst"], RunSpec(label_mapping={"a": "cyst"}))
    assert mapped == {"background": 0, "cyst": 1, "b": 2}
    with pytest.raises(InputError, match="ignore"):
        renamed_labels({**LABELS, "ignore": 2}, ["lesion"], RunSpec())
    with pytest.raises(InputError, match="regions"):
        renamed_labels({"background": 0, "whole": [1, 2]}, ["lesion"], RunSpec())


def test_what_plans_do_not_say_of_an_adopted_network_is_taken_over(sample: Path) -> None:
    run = RunSpec(architecture="segresnet", width=8, deep_supervision=False)
    card = {"run": run.model_dump(mode="json"), "plan_set": "own"}
    tiny_model.write_model(sample / "baselines/baseline-1", backsplit=card)
    found = start_of(sample, "baselines/baseline-1")
    assert found == {
        "baseline": "baselines/baseline-1", "plan_set": "", "fold": 0, "deep_supervision": False,
    }  # fmt: skip


def test_a_fine_tune_takes_over_how_its_baseline_learnt(foreign: Path, sample: Path) -> None:
    learnt = {"optimiser": "adamw", "initial_lr": 3e-3, "weight_decay": 0.01, "loss": "focal"}
    run = RunSpec(**learnt, epochs=3).model_dump(mode="json")
    tiny_model.write_model(sample / "jobs/0002-train/model", backsplit={"run": run})
    found = learning_of(sample, "jobs/0002-train/model")
    assert found == {**found, **learnt}
    assert "epochs" not in found, "only how it learnt, not how long"
    assert learning_of(sample, adopt_model(sample, foreign)) == {}, "nnU-Net's own, as a run's"
