from __future__ import annotations

import json
import weakref
from dataclasses import replace

import numpy as np
import pytest

from napari_backsplit.backend.comparison.arms import Arm
from napari_backsplit.backend.comparison.case_reader import CaseReader
from napari_backsplit.backend.comparison.lesion_table import read_lesions
from napari_backsplit.backend.comparison.tables import write_tables
from napari_backsplit.backend.comparison.tasks import run_compare
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.jobs import Progress
from napari_backsplit.backend.project import Project, ProjectReader
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
    with Project.create(folder, "cysts", ["CT"], ["lesion"], ["left_half"]) as project:
        for k in range(1, 8):
            one = draw(k, shape=(20, 40, 40), free=k == 3)
            write_volume(one.image, sources / f"X^Y_{k}.nii.gz")
            case = project.add_case({"CT": sources / f"X^Y_{k}.nii.gz"}, patient=f"X^Y {k}")
            reference = one.image.with_array(one.reference["lesion"])
            project.set_mask(case.id, "lesion", reference, {"source": "file"})
            half = np.broadcast_to(np.arange(40) < 30, (20, 40, 40))
            project.set_mask(case.id, "left_half", one.image.with_array(half), {"source": "file"})
            drawn[case.id] = one
    for arm, job in ARMS.items():
        for case, one in drawn.items():
            predict(folder / job, case, one, arm)
        record(folder / job, {case: {"seen": "verified", "role": "unseen"} for case in drawn})
    return folder


@pytest.fixture
def tables_only(monkeypatch):
    """Leave the figures and the page of the report out: they take most of the time."""

    def write(comparison, folder, load_case, info):
        write_tables(comparison, folder)
        return folder / "report.html"

    monkeypatch.setattr("napari_backsplit.backend.comparison.tasks.write_report", write)


def summary_of(project, result):
    return json.loads((project / result["folder"] / "summary.json").read_text())


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
    assert (project / result["folder"] / "figures" / "slice-1-1-1.svg").exists()
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


def test_a_case_seen_by_either_arm_is_not_counted(tables_only, project):
    cases = [f"case_{k:03}" for k in range(1, 8)]
    states = {case: {"seen": "verified", "role": "unseen"} for case in cases}
    states["case_001"] = {"seen": "verified", "role": "training"}
    states["case_002"] = {"seen": "unknown", "role": None}
    record(project / ARMS["backsplit"], states)
    result = run_compare(Context(project))
    summary = summary_of(project, result)
    assert summary["cases"]["case_001"] == "seen"
    assert summary["cases"]["case_002"] == "unknown"
    assert sum(s["cases"] for s in summary["summaries"] if s["arm"] == "baseline") == 5


def test_a_hash_in_the_models_record_weighs_more_than_a_declaration(tables_only, project):
    with Project.open(project, read_only=True) as opened:
        digest = opened.case("case_001").images["CT"].sha256
    cases = {f"case_{k:03}": {"seen": "declared"} for k in range(1, 8)}
    record(project / ARMS["baseline"], cases, seen={"training": [digest], "validation": None})
    result = run_compare(Context(project))
    summary = summary_of(project, result)
    assert summary["cases"]["case_001"] == "seen"
    assert summary["cases"]["case_002"] == "declared"


def test_probabilities_are_used_where_there_are_any(tables_only, project, draw):
    for k in range(1, 8):
        one = draw(k, shape=(20, 40, 40), free=k == 3)
        for arm, job in ARMS.items():
            soft = one.predictions[arm]["lesion"].astype(np.float32) * 0.9
            path = project / job / "predictions" / f"case_{k:03}_probability.nii.gz"
            write_volume(one.image.with_array(soft), path)
    result = run_compare(Context(project))
    summary = summary_of(project, result)
    assert summary["matched_sensitivity"]
    froc = json.loads((project / result["folder"] / "froc.json").read_text())
    points = froc["curves"]["lesion"]["backsplit"]
    assert all(point["cases"] == 7 for point in points)
    assert [p["threshold"] for p in points] == sorted(p["threshold"] for p in points)


def test_chosen_cases_and_those_left_out(project):
    (project / ARMS["backsplit"] / "predictions" / "case_007.nii.gz").unlink()
    result = run_compare(Context(project, cases=["case_001", "case_003"]))
    assert result["cases"] == 2
    note = (
        "5 of 7 predicted cases left out: "
        "5 not chosen (case_002, case_004, case_005, case_006, case_007)."
    )
    assert summary_of(project, result)["notes"] == [note]
    page = (project / result["report"]).read_text()
    assert page.index('class="verdict') < page.index(note) < page.index('class="counts"')
    with pytest.raises(InputError, match=r"case_007 cannot .* 1 not predicted by backsplit"):
        run_compare(Context(project, cases=["case_007"]))
    with pytest.raises(InputError, match=r"There is no case case_999\."):
        run_compare(Context(project, cases=["case_001", "case_999"]))


def test_each_reason_to_leave_a_case_out_is_counted(tables_only, project):
    for k in range(2, 8):
        (project / ARMS["backsplit"] / "predictions" / f"case_{k:03}.nii.gz").unlink()
    with Project.open(project) as opened:
        opened.judge("case_002", "rejected")
    (note,) = summary_of(project, run_compare(Context(project)))["notes"]
    assert note == (
        "6 of 7 predicted cases left out: 5 not predicted by backsplit (case_003, case_004, "
        "case_005, case_006, case_007); 1 rejected in the review (case_002)."
    )


def test_settings_that_differ_are_the_first_note(tables_only, project):
    """Of masks of another program nothing is said: nobody knows how they were made."""
    cases = {f"case_{k:03}": {"seen": "verified"} for k in range(1, 7)}
    for (arm, job), more in zip(
        ARMS.items(), ({}, {"rule": "p > 0.5", "step_size": 1}), strict=True
    ):
        place = project / job / "predictions" / "predictions.json"
        own = {"settings": {"model": arm, **more}, "model": {"folds": ["0"]}, "cases": cases}
        write_json(place, own)
    (project / ARMS["backsplit"] / "predictions" / "case_006.nii.gz").unlink()
    first, second = summary_of(project, run_compare(Context(project)))["notes"]
    assert "lesion where argmax (baseline), p > 0.5 (backsplit)" in first
    assert "step of the window 0.5 (baseline), 1 (backsplit)" in first
    assert "folds" not in first
    assert second.startswith("1 of 6 predicted cases left out")


def test_a_prediction_on_another_grid_is_refused(tables_only, project, draw):
    one = draw(1, shape=(20, 40, 41))
    predict(project / ARMS["backsplit"], "case_001", replace(one), "backsplit")
    with pytest.raises(GeometryError, match="case_001 by backsplit"):
        run_compare(Context(project))


def test_an_arm_without_predictions_is_refused(tables_only, project):
    with pytest.raises(InputError, match="The arm new has no finished predictions"):
        run_compare(Context(project, arms={**ARMS, "new": "jobs/9"}))


@pytest.mark.parametrize(
    "settings",
    [
        {"missed_hd95": "never"},
        {"tolerance_mm": -1},
        {"matching": "some"},
        {"connectivity": 8},
        {"iou_threshold": 0},
        {"strata_ml": [10, 1]},
        {"resamples": 5},
        {"interval": "normal"},
        {"baseline": "binary"},
    ],
)
def test_settings_that_cannot_be_are_refused(tables_only, project, settings):
    with pytest.raises(InputError):
        run_compare(Context(project, cases=["case_001"], **settings))


def test_settings_reach_the_measures(tables_only, project):
    params = {
        "missed_hd95": "image diagonal",
        "tolerance_mm": 0.5,
        "matching": "one-to-one",
        "iou_threshold": 0.3,
        "connectivity": 6,
        "strata_ml": [2.0],
        "seed": 3,
        "interval": "BCa",
    }
    result = run_compare(Context(project, title="Ours", **params))
    summary = summary_of(project, result)
    settings = summary["settings"]
    assert settings["policy"] == {"missed_distance": "diagonal"}
    assert settings["lesions"] == {
        "matching": "one-to-one",
        "iou_threshold": 0.3,
        "connectivity": 6,
        "strata_ml": [2.0],
    }
    assert (settings["bootstrap"]["seed"], settings["bootstrap"]["method"]) == (3, "BCa")
    assert settings["tolerance_mm"] == 0.5
    assert summary["title"] == "Ours"
    assert {d["stratum"] for d in summary["differences"]} <= {"all", "< 2 ml", ">= 2 ml"}


def test_lesions_are_listed_with_the_support_they_lie_in(tables_only, project):
    result = run_compare(Context(project))
    rows = read_lesions(project / result["folder"] / "lesions.csv")
    with Project.open(project, read_only=True) as opened:
        masks = {case: opened.mask(case, "lesion") for case in opened.case_ids()}
    for row in rows:
        assert masks[row.case][row.voxel] == (row.kind == "reference")
        assert row.nearest == "left_half"
        assert row.distance_mm == 0 or row.voxel[2] >= 30
    assert {row.organ for row in rows} == {"left_half", ""}
    with_lesions = {case for case, mask in masks.items() if mask.any()}
    assert {row.case for row in rows if row.kind == "reference"} == with_lesions


def test_a_support_is_read_when_it_is_asked_for(project, monkeypatch):
    """However many there are, one is in memory at a time."""
    asked = []
    read = ProjectReader.mask
    monkeypatch.setattr(
        ProjectReader, "mask", lambda self, case, name: asked.append(name) or read(self, case, name)
    )
    arms = tuple(Arm.open(name, [project / folder]) for name, folder in ARMS.items())
    with Project.open(project, read_only=True) as opened:
        one = CaseReader(opened, arms).read("case_001")
        assert asked == ["lesion"]
        assert dict(one.supports)["left_half"].sum() == 20 * 40 * 30
        assert asked == ["lesion", "left_half"]
        with pytest.raises(KeyError):
            one.supports["liver"]


def test_a_case_is_let_go_before_the_next_is_read(tables_only, project, monkeypatch):
    there = []
    read = CaseReader.read

    def noted(self, case, **options):
        assert not any(earlier() for earlier in there)
        one = read(self, case, **options)
        there.append(weakref.ref(one))
        return one

    monkeypatch.setattr(CaseReader, "read", noted)
    run_compare(Context(project))
    assert len(there) == 7


def test_predictions_of_other_targets_are_refused(project):
    path = project / ARMS["backsplit"] / "predictions" / "predictions.json"
    write_json(path, {**json.loads(path.read_text()), "targets": ["cyst"]})
    with pytest.raises(InputError, match=r"of backsplit are of cyst.*targets are lesion"):
        run_compare(Context(project))


def test_ids_that_are_no_target_are_refused(project, draw):
    one = draw(1, shape=(20, 40, 40))
    twos = {"backsplit": {"lesion": np.full((20, 40, 40), 2)}}
    predict(project / ARMS["backsplit"], "case_001", replace(one, predictions=twos), "backsplit")
    with pytest.raises(InputError, match=r"case_001 by backsplit has the id 2; .* 1 target"):
        run_compare(Context(project))


def test_no_case_in_common_is_refused_with_what_there_is(project):
    for case in range(1, 8):
        job = ARMS["baseline"] if case < 3 else ARMS["backsplit"]
        (project / job / "predictions" / f"case_{case:03}.nii.gz").unlink()
    with pytest.raises(InputError, match=r"predicted: baseline 5, backsplit 2"):
        run_compare(Context(project))


def test_one_case_has_no_statistics(tables_only, project):
    (said,) = run_compare(Context(project, cases=["case_001"]))["verdict"]
    assert said.startswith("No statistics: there is one case")


# ---------------------------------------------------------------- folders of another program


@pytest.fixture
def foreign(project):
    """The new arm's masks alone, as nnU-Net writes them, with its own files beside them."""
    folder = project / "predictions" / "foreign"
    (project / ARMS["backsplit"] / "predictions").rename(folder.parent.mkdir() or folder)
    (folder / "predictions.json").unlink()
    write_json(folder / "plans.json", {})
    return {**ARMS, "backsplit": "predictions/foreign"}


def test_a_plain_folder_of_masks_is_an_arm_of_which_nothing_is_known(tables_only, project, foreign):
    known = {f"case_{k:03}": {"seen": "verified"} for k in range(1, 8)}
    record(project / ARMS["baseline"], known, configuration="3d_fullres")
    result = run_compare(Context(project, arms=foreign))
    summary = summary_of(project, result)
    assert result["cases"] == 7
    assert set(summary["cases"].values()) == {"unknown"}
    assert result["verdict"][0].startswith("No verdict: it is not known")
    assert summary["folders"] == {"baseline": ["jobs/1"], "backsplit": ["predictions/foreign"]}
    assert summary["notes"] == []


def test_its_cases_can_be_declared_unseen(tables_only, project, foreign):
    result = run_compare(Context(project, arms=foreign, declared_unseen=["backsplit"]))
    assert set(summary_of(project, result)["cases"].values()) == {"declared"}
    assert not result["verdict"][0].startswith("No verdict")


def test_a_declaration_does_not_undo_what_is_recorded(tables_only, project):
    states = {f"case_{k:03}": {"seen": "seen", "role": "training"} for k in range(1, 8)}
    record(project / ARMS["backsplit"], states)
    result = run_compare(Context(project, declared_unseen=["backsplit"]))
    assert result["verdict"] == ["No verdict: a model had seen every case."]


def test_a_case_that_lacks_in_a_plain_folder_is_left_out(tables_only, project, foreign):
    (project / foreign["backsplit"] / "case_002.nii.gz").unlink()
    assert run_compare(Context(project, arms=foreign))["cases"] == 6


@pytest.mark.parametrize(
    "wrong", [{"baseline": "other"}, {"controls": ["other"]}, {"arms": {"baseline": "jobs/1"}}]
)
def test_arms_that_cannot_be_compared_are_refused_before_a_case_is_read(
    project, monkeypatch, wrong
):
    monkeypatch.setattr(CaseReader, "read", lambda *_: pytest.fail("a case was read"))
    with pytest.raises(InputError, match="arm"):
        run_compare(Context(project, **wrong))


def test_an_empty_folder_is_no_arm(project):
    (project / "empty").mkdir()
    with pytest.raises(InputError, match="no finished predictions"):
        run_compare(Context(project, arms={**ARMS, "backsplit": "empty"}))


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
    summary = summary_of(project, result)
    assert set(summary["cases"].values()) == {"verified"}
    report = (project / result["report"]).read_text()
    assert "Cross-validation: 7 of 7 cases" in report
    assert "with kidney" in report


def test_pooled_folds_measure_what_one_job_would(tables_only, project, folds, draw):
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
    summary = summary_of(project, result)
    seen = [case for case, state in summary["cases"].items() if state == "seen"]
    assert seen == ["case_001", "case_002"]
    assert "Cross-validation: 6 of 7" in (project / result["report"]).read_text()


def test_a_case_in_two_folds_is_refused(project, folds):
    twice = {**folds, "backsplit": [*folds["backsplit"], folds["backsplit"][0]]}
    with pytest.raises(InputError, match="case_001 was predicted twice for the arm backsplit"):
        run_compare(Context(project, arms=twice))
