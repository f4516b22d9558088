from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend.comparison.tasks import run_compare
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.jobs import Progress
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import write_volume

ARMS = {"baseline": "jobs/1", "backsplit": "jobs/2"}


class Context:
    """A job's context without a job."""

    def __init__(self, project, **params):
        self.project_folder = project
        self.folder = project / "jobs" / "0003-compare"
        self.params = {"arms": ARMS, "baseline": "baseline", "resamples": 200, **params}
        self.events = []

    def path(self, relative):
        return self.project_folder / relative

    def report(self, event):
        self.events.append(event)

    def checkpoint(self):
        pass


@pytest.fixture
def project(draw, tmp_path):
    """Seven cases, one lesion-free, predicted by two arms; the folder names a patient."""
    sources = tmp_path / "X_Y"
    sources.mkdir()
    folder = tmp_path / "project"
    drawn = {}
    with Project.create(folder, "cysts", ["CT"], ["lesion"]) as project:
        for k in range(1, 8):
            one = draw(k, shape=(20, 40, 40), free=k == 3)
            write_volume(one.image, sources / f"X^Y_{k}.nii.gz")
            case = project.add_case({"CT": sources / f"X^Y_{k}.nii.gz"}, patient=f"X^Y {k}")
            reference = one.image.with_array(one.reference["lesion"])
            project.set_mask(case.id, "lesion", reference, {"source": "file"})
            drawn[case.id] = one
    for arm, job in ARMS.items():
        for case, one in drawn.items():
            predict(folder / job, case, one, arm)
        record(folder / job, {case: {"seen": "verified", "role": "unseen"} for case in drawn})
    return folder


def predict(job, case, one, arm):
    mask = one.predictions[arm]["lesion"].astype(np.uint8)
    write_volume(one.image.with_array(mask), job / "predictions" / f"{case}.nii.gz")


def record(job, cases, **model):
    write_json(job / "predictions" / "predictions.json", {"cases": cases, "model": model})


def test_a_comparison_job(project):
    context = Context(project)
    result = run_compare(context)
    assert result["cases"] == 7
    assert result["report"] == "comparisons/0003-compare/report.html"
    assert len(result["verdict"]) == 1
    assert (project / result["report"]).exists()
    assert (project / result["folder"] / "figures" / "slice-1-1-1.png").exists()
    progress = [event for event in context.events if isinstance(event, Progress)]
    assert (progress[-1].done, progress[-1].total) == (7, 7)


def test_no_name_of_a_patient_is_written(project):
    run_compare(Context(project))
    for path in (project / "comparisons").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"X_Y" not in content
            assert b"X^Y" not in content
            assert str(project).encode() not in content


def test_a_case_seen_by_either_arm_is_not_counted(project):
    cases = [f"case_{k:03}" for k in range(1, 8)]
    states = {case: {"seen": "verified", "role": "unseen"} for case in cases}
    states["case_001"] = {"seen": "verified", "role": "training"}
    states["case_002"] = {"seen": "unknown", "role": None}
    record(project / ARMS["backsplit"], states)
    result = run_compare(Context(project))
    summary = json.loads((project / result["folder"] / "summary.json").read_text())
    assert summary["cases"]["case_001"] == "seen"
    assert summary["cases"]["case_002"] == "unknown"
    assert sum(s["cases"] for s in summary["summaries"] if s["arm"] == "baseline") == 5


def test_a_hash_in_the_models_record_weighs_more_than_a_declaration(project):
    with Project.open(project, read_only=True) as opened:
        digest = opened.case("case_001").images["CT"].sha256
    cases = {f"case_{k:03}": {"seen": "declared"} for k in range(1, 8)}
    record(project / ARMS["baseline"], cases, seen={"training": [digest], "validation": None})
    result = run_compare(Context(project))
    summary = json.loads((project / result["folder"] / "summary.json").read_text())
    assert summary["cases"]["case_001"] == "seen"
    assert summary["cases"]["case_002"] == "declared"


def test_probabilities_are_used_where_there_are_any(project, draw):
    for k in range(1, 8):
        one = draw(k, shape=(20, 40, 40), free=k == 3)
        for arm, job in ARMS.items():
            soft = one.predictions[arm]["lesion"].astype(np.float32) * 0.9
            path = project / job / "predictions" / f"case_{k:03}_probability.nii.gz"
            write_volume(one.image.with_array(soft), path)
    result = run_compare(Context(project))
    summary = json.loads((project / result["folder"] / "summary.json").read_text())
    assert summary["matched_sensitivity"]


def test_chosen_cases_and_those_left_out(project):
    (project / ARMS["backsplit"] / "predictions" / "case_007.nii.gz").unlink()
    result = run_compare(Context(project, cases=["case_001", "case_003"]))
    assert result["cases"] == 2
    assert "5 predicted cases left out" in (project / result["report"]).read_text()
    with pytest.raises(InputError, match="case_007"):
        run_compare(Context(project, cases=["case_007"]))


def test_a_prediction_on_another_grid_is_refused(project, draw):
    one = draw(1, shape=(20, 40, 41))
    predict(project / ARMS["backsplit"], "case_001", replace(one), "backsplit")
    with pytest.raises(GeometryError, match="case_001 by backsplit"):
        run_compare(Context(project))


def test_an_arm_without_predictions_is_refused(project):
    with pytest.raises(InputError, match="The arm new has no finished predictions"):
        run_compare(Context(project, arms={**ARMS, "new": "jobs/9"}))


# ---------------------------------------------------------------- pooled folds


@pytest.fixture
def folds(project, draw):
    """The arms' predictions, each arm's in a job for each of two folds."""
    cases = [f"case_{k:03}" for k in range(1, 8)]
    parts = {"0": cases[:4], "1": cases[4:]}
    arms = {}
    for arm, job in ARMS.items():
        arms[arm] = [f"{job}-{fold}" for fold in parts]
        for fold, own in parts.items():
            (project / f"{job}-{fold}" / "predictions").mkdir(parents=True)
            for case in own:
                source = project / job / "predictions" / f"{case}.nii.gz"
                source.rename(project / f"{job}-{fold}" / "predictions" / source.name)
            held_out = {case: {"seen": "verified", "role": "held out"} for case in own}
            with Project.open(project, read_only=True) as opened:
                digests = [opened.case(case).images["CT"].sha256 for case in own]
            record(
                project / f"{job}-{fold}", held_out, seen={"training": [], "validation": digests}
            )
    return arms


def test_folds_are_pooled_and_their_own_cases_counted(project, folds):
    result = run_compare(Context(project, arms=folds, about={"backsplit": "with kidney"}))
    assert result["cases"] == 7
    summary = json.loads((project / result["folder"] / "summary.json").read_text())
    assert set(summary["cases"].values()) == {"verified"}
    report = (project / result["report"]).read_text()
    assert "Cross-validation: 7 of 7 cases" in report
    assert "with kidney" in report


def test_pooled_folds_measure_what_one_job_would(project, folds, draw):
    pooled = run_compare(Context(project, arms=folds))
    summary = json.loads((project / pooled["folder"] / "summary.json").read_text())
    for arm, folders in folds.items():
        for folder in folders:
            for file in (project / folder / "predictions").glob("*.nii.gz"):
                file.rename(project / ARMS[arm] / "predictions" / file.name)
    alone = run_compare(Context(project))
    same = json.loads((project / alone["folder"] / "summary.json").read_text())
    assert summary["summaries"] == same["summaries"]
    assert summary["differences"] == same["differences"]


def test_a_case_that_a_fold_was_taught_is_not_counted(project, folds):
    with Project.open(project, read_only=True) as opened:
        digest = opened.case("case_001").images["CT"].sha256
    job = project / folds["backsplit"][0]
    cases = {f"case_{k:03}": {"seen": "verified", "role": "held out"} for k in range(1, 5)}
    cases["case_002"]["role"] = "validation"  # the best checkpoint, or patience
    record(job, cases, seen={"training": [digest], "validation": []})
    result = run_compare(Context(project, arms=folds))
    summary = json.loads((project / result["folder"] / "summary.json").read_text())
    seen = [case for case, state in summary["cases"].items() if state == "seen"]
    assert seen == ["case_001", "case_002"]
    assert "Cross-validation: 6 of 7" in (project / result["report"]).read_text()


def test_a_case_in_two_folds_is_refused(project, folds):
    twice = {**folds, "backsplit": [*folds["backsplit"], folds["backsplit"][0]]}
    with pytest.raises(InputError, match="case_001 was predicted twice for the arm backsplit"):
        run_compare(Context(project, arms=twice))
