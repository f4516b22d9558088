"""What a report says of models, versions and licences, from a project's own files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_backsplit.backend.comparison.sources import NOT_RECORDED, sources_of
from tests.backend.fusion.cohort import make_cohort, put


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture
def project(tmp_path):
    with make_cohort(tmp_path, cases=1) as made:
        put(made, "case_001", "lesion", (2, 2, slice(2, 4)))
        put(made, "case_001", "kidney", (6, 6, 6))
        yield made


def predicted(project, name, model):
    folder = project.folder / "jobs" / name
    record = {
        "model": {"path": model, "folds": ["0", "1"], "hashes": {"fold_0/a.pth": "ab" * 32},
                  "seen": {"training": ["one", "two"]}},
        "settings": {"checkpoint": "checkpoint_final.pth", "rule": "p > 0.5", "mirroring": False},
        "cases": {},
    }  # fmt: skip
    write(folder / "predictions" / "predictions.json", record)
    write(folder / "job.json", {"versions": {"torch": "2.9.1", "secret": "x"}})
    return folder


def test_our_models_card_and_job_are_read(project):
    card = {"arm": "backsplit", "supports": ["kidney"], "versions": {"nnunetv2": "2.8.1"},
            "licences": {"kidney": ["CC BY 4.0"]}, "plan_set": "own",
            "run": {"loss": "focal", "epochs": 1000}, "trained": {"epochs": 40}}  # fmt: skip
    write(project.folder / "jobs" / "1" / "model" / "dataset.json", {"backsplit": card})
    folder = predicted(project, "2", "jobs/1/model")
    found = sources_of(project, {"new": [folder]}, ["case_001"])
    assert found.models["new"]["Supports"] == "kidney"
    assert found.models["new"]["Trained on"] == "2 images"
    assert found.models["new"]["Plan set"] == "own"
    assert found.models["new"]["Epochs"] == "40"
    assert found.models["new"]["Changed settings"] == "loss focal"
    assert found.models["new"]["Folds"] == "0, 1"
    assert found.models["new"]["Lesion where"] == "p > 0.5"
    assert found.models["new"]["Mirrored"] == "no"
    assert found.versions["Prediction by new"] == {"torch": "2.9.1"}
    assert found.versions["Training of new"] == {"nnunetv2": "2.8.1"}
    by_what = {line.what: line for line in found.licences}
    assert "kidney: CC BY 4.0" in by_what["Model new"].made_with
    assert by_what["Masks of kidney (organ)"].licences == NOT_RECORDED


def test_a_model_from_elsewhere_has_no_licence_that_we_know(project):
    folder = predicted(project, "2", "/somewhere/else/model")
    found = sources_of(project, {"old": [folder]}, ["case_001"])
    (line,) = [line for line in found.licences if line.what == "Model old"]
    assert (line.made_with, line.licences) == ("a model from elsewhere", NOT_RECORDED)
    assert "somewhere" not in repr(found)


def test_plain_masks_without_any_record_are_no_error(project, tmp_path):
    (tmp_path / "masks").mkdir()
    found = sources_of(project, {"old": [tmp_path / "masks"]}, ["case_001"])
    assert found.models["old"]["Trained on"] == NOT_RECORDED
    assert "Prediction by old" not in found.versions
    decided = ("Plan set", "Changed settings", "Lesion where", "Mirrored", "Step of the window")
    assert {found.models["old"][word] for word in decided} == {"not known"}


def test_an_adopted_model_is_not_said_to_be_the_projects_own(project):
    card = {"arm": "binary", "licences": {"lesion": ["CC BY 4.0"]}}
    place = project.folder / "baselines" / "baseline-1" / "dataset.json"
    for licence in ("", "MIT"):
        write(place, {"backsplit": {**card, "licence": licence}})
        folder = predicted(project, "2", "baselines/baseline-1")
        found = sources_of(project, {"old": [folder]}, ["case_001"])
        (line,) = [line for line in found.licences if line.what == "Model old"]
        assert line.made_with == "adopted, masks it learnt from: lesion: CC BY 4.0"
        assert line.licences == (licence or "not stated")


def test_what_a_job_leaves_out_is_what_is_usual(project):
    folder = predicted(project, "2", "jobs/1/model")
    record = folder / "predictions" / "predictions.json"
    write(record, {"model": {}, "settings": {"checkpoint": "checkpoint_final.pth"}, "cases": {}})
    known = sources_of(project, {"new": [folder]}, ["case_001"]).models["new"]
    assert [known[word] for word in ("Lesion where", "Mirrored")] == ["argmax", "yes"]
