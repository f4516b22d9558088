"""What is said of how the models of a comparison were trained, from their cards."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from napari_backsplit.backend.comparison.arms import Arm, ArmFolder
from napari_backsplit.backend.comparison.chosen import _training_notes
from napari_backsplit.backend.comparison.trainings import Training, training_of
from napari_backsplit.backend.training.spec import RunSpec


@pytest.fixture
def write(tmp_path):
    def written(model, run, plan_set="own", **more):
        content = {"run": run.model_dump(mode="json"), "plan_set": plan_set, **more}
        place = tmp_path / model / "dataset.json"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({"backsplit": content}))
        return model

    return written


def notes(folder, **models):
    arms = [
        Arm(
            name,
            tuple(ArmFolder(name, folder, {"model": {"path": m}}) for m in each.split() or [""]),
        )
        for name, each in models.items()
    ]
    return list(_training_notes(SimpleNamespace(folder=folder), arms))


def test_only_what_differs_from_a_runs_defaults_is_listed(write, tmp_path):
    run = RunSpec(loss="focal", labels="hard", initial_lr=0.003, support_cases=0.5, workers=3)
    assert training_of(tmp_path, write("jobs/1/model", run)).changed == (
        "support cases 0.5, loss focal, initial learning rate 0.003"
    )
    plain = training_of(tmp_path, write("jobs/2/model", RunSpec(), trained={"epochs": 7}))
    assert (plain.changed, plain.plan_set, plain.settings["epochs"]) == ("none", "own", "7")
    deep = write("jobs/3/model", RunSpec(deep_supervision=True))
    assert training_of(tmp_path, deep).changed == "none", "a U-Net has it anyway"


def test_of_a_model_without_a_card_nothing_is_known(tmp_path):
    for model in ("", "/somewhere/else"):
        assert training_of(tmp_path, model) == Training()
    assert Training().changed == ""


def test_what_differs_beside_arm_and_supports_is_named(write, tmp_path):
    write("jobs/1/model", RunSpec(arm="binary", epochs=5))
    write("jobs/2/model", RunSpec(loss="focal", missing="background", epochs=5, seed=3, workers=2))
    assert notes(tmp_path, a="jobs/1/model", b="jobs/2/model") == [
        "Beside arm and supports the models also differ in: "
        "missing label-set (a), background (b); loss dice-ce (a), focal (b)."
    ]


def test_arms_that_differ_in_their_labels_alone_need_no_note(write, tmp_path):
    write("jobs/1/model", RunSpec(arm="binary", epochs=5))
    write("jobs/2/model", RunSpec(supports=("kidney",), epochs=5, fold=1, device="cuda"))
    write("jobs/3/model", RunSpec(recipe=("blobs",), epochs=5))
    assert notes(tmp_path, a="jobs/1/model", b="jobs/2/model", c="jobs/3/model") == []


def test_a_fine_tune_beside_a_training_from_scratch_is_named(write, tmp_path):
    write("jobs/1/model", RunSpec(arm="binary", epochs=9))
    write("jobs/2/model", RunSpec(epochs=5, baseline="jobs/1/model"))
    (note,) = notes(tmp_path, a="jobs/1/model", b="jobs/2/model")
    assert "started from scratch (a), 1 (b); epochs 9 (a), 5 (b)" in note


def test_plan_sets_that_differ_are_marked(write, tmp_path):
    write("jobs/1/model", RunSpec())
    write("jobs/2/model", RunSpec(), "2d")
    write("jobs/3/model", RunSpec())
    (note,) = notes(tmp_path, a="jobs/1/model jobs/3/model", b="jobs/2/model")
    assert note.startswith("The arms are of different plan sets")
    assert "own (a), 2d (b)" in note


def test_the_plan_set_of_an_adopted_model_is_the_one_with_its_plans(write, tmp_path):
    model = write("baselines/baseline-1", RunSpec())
    assert training_of(tmp_path, model).plan_set == "own of another project"
    place = tmp_path / "nnunet" / "plan_sets" / "theirs.json"
    place.parent.mkdir(parents=True)
    place.write_text(json.dumps({"spec": {"baseline": model}}))
    assert training_of(tmp_path, model).plan_set == "theirs"


def test_a_model_whose_training_is_not_recorded_is_named_beside_one_whose_is(write, tmp_path):
    write("jobs/1/model", RunSpec())
    (note,) = notes(tmp_path, a="jobs/1/model", b="")
    assert note.startswith("How b was trained is not recorded")
    assert notes(tmp_path, a="", b="") == []
