from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from napari_backsplit.backend.comparison.arms import Arm
from napari_backsplit.backend.comparison.intervals import Method
from napari_backsplit.backend.comparison.tasks import run_compare
from napari_backsplit.backend.errors import GeometryError, InputError, JobError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.jobs import JobContext, State, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.spec import Record, now
from napari_backsplit.backend.prediction.foreign_masks import take_masks
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, read_label_map, write_volume
from napari_backsplit.cli import app, comparing, jobs, models
from napari_backsplit.cli.comparing import Interval

runner = CliRunner()
SHAPE = (4, 5, 6)
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GRID = Geometry(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXES)
MOVED = Geometry(SHAPE, (1.0, 1.0, 1.0), (0.5, 0.0, 0.0), AXES)
MASK = (np.arange(120).reshape(SHAPE) % 7 == 0).astype(np.uint8)
NAME = "Doe^Jane"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of every job that would have been started."""
    params: list[dict[str, Any]] = []

    def job(project: Path, task: str, asked: dict[str, Any], *_: Any, **how: Any) -> dict[str, Any]:
        params.append(asked)
        return {}

    monkeypatch.setattr(models, "_job", job)
    monkeypatch.setattr(comparing, "_have_ended", lambda *_: False)
    monkeypatch.setattr(jobs, "find_job", lambda p, n, task: SimpleNamespace(id=f"000{n}-predict"))
    return params


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project of two cases and one target."""
    with Project.create(tmp_path / "project", "x", ["CT"], ["lesion"]) as made:
        for index, name in enumerate((NAME, "other")):
            file = tmp_path / f"image_{index}.nii.gz"
            write_volume(Volume(np.full(SHAPE, index, np.float32), GRID), file)
            made.add_case({"CT": file}, name=name)
        yield made


def masks(folder: Path, *names: str, mask: np.ndarray = MASK, grid: Geometry = GRID) -> Path:
    for name in names:
        write_volume(Volume(mask, grid), folder / name)
    return folder


def compare(*arguments: object) -> Result:
    return runner.invoke(app, ["compare", *map(str, arguments)])


def test_a_control_is_measured_against_too(asked: list[dict[str, Any]]) -> None:
    result = compare("binary=5", "tuned=6", "longer=7", "--control", "longer")
    assert result.exit_code == 0
    assert asked[0]["baseline"] == "binary"
    assert asked[0]["controls"] == ["longer"]
    assert asked[0]["arms"]["tuned"] == "jobs/0006-predict"


def test_a_control_that_is_no_arm_is_refused(asked: list[dict[str, Any]]) -> None:
    result = compare("binary=5", "tuned=6", "--control", "longer")
    assert isinstance(result.exception, InputError)
    assert not asked


def test_what_is_said_of_lesions_reaches_the_job(asked: list[dict[str, Any]]) -> None:
    command = ["--matching", "one-to-one", "--iou-threshold", "0.3", "--connectivity", "6"]
    command += ["--strata-ml", "0.5,5", "--tolerance-mm", "1", "--seed", "7"]
    command += ["--interval", "BCa"]
    result = compare("a=1", "b=2", *command, "--missed-hd95", "image diagonal")
    assert result.exit_code == 0, result.output
    said = {
        "matching": "one-to-one",
        "iou_threshold": 0.3,
        "connectivity": 6,
        "strata_ml": [0.5, 5.0],
        "tolerance_mm": 1.0,
        "missed_hd95": "image diagonal",
        "seed": 7,
        "interval": "BCa",
    }
    assert asked[0] | said == asked[0]


def test_every_interval_that_there_is_can_be_asked_for() -> None:
    assert {each.value for each in Interval} == set(get_args(Method))


@pytest.mark.parametrize(
    "wrong",
    [
        ("--connectivity", "7"),
        ("--matching", "any"),
        ("--strata-ml", "5,1"),
        ("--iou-threshold", 2),
    ],
)
def test_a_setting_that_there_is_not_is_refused(
    asked: list[dict[str, Any]], wrong: tuple[object, ...]
) -> None:
    result = compare("a=1", "b=2", *wrong)
    assert isinstance(result.exception, InputError)
    assert str(wrong[0]) in str(result.exception)
    assert not asked


def test_a_folder_of_masks_is_an_arm(
    asked: list[dict[str, Any]], project: Project, tmp_path: Path
) -> None:
    folder = masks(tmp_path / "other program", f"{NAME}.nii.gz", "case_002.nii.gz")
    for declared in ([], ["--declare-unseen"], ["--declare-unseen"]):
        result = compare("a=1", f"b={folder}", "-p", project.folder, *declared)
        assert result.exit_code == 0, result.output
    first, second, again = (params["arms"]["b"] for params in asked)
    assert first != second == again
    for place, seen in ((first, "unknown"), (second, "declared")):
        arm = Arm.open("b", [project.folder / place])
        assert sorted(arm.cases) == ["case_001", "case_002"]
        assert arm.folder_of("case_001").seen("case_001", []) == seen
        taken = read_label_map(arm.folder_of("case_001").mask_path("case_001"))
        assert np.array_equal(taken.array, MASK)
    assert not any(NAME in str(path) for path in (project.folder / "predictions").rglob("*"))


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        ({"grid": MOVED}, GeometryError, "not on the grid"),
        ({"mask": 2 * MASK}, InputError, "has the id 2"),
    ],
)
def test_masks_that_do_not_fit_are_refused_and_nothing_is_kept(
    asked: list[dict[str, Any]],
    project: Project,
    tmp_path: Path,
    made: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    folder = masks(tmp_path / "masks", "case_001.nii.gz", f"{NAME}.nii.gz", **made)
    (folder / "case_001.nii.gz").rename(folder / "case_002.nii.gz")
    result = compare("a=1", f"b={folder}", "-p", project.folder)
    assert isinstance(result.exception, error)
    assert words in str(result.exception)
    assert NAME not in str(result.exception)
    assert not asked
    assert not list((project.folder / "predictions").iterdir())


@pytest.mark.parametrize("names", [("who.nii.gz",), ("case_001.nii.gz", f"{NAME}.nii.gz")])
def test_files_that_are_no_case_or_one_twice_are_refused(
    asked: list[dict[str, Any]], project: Project, tmp_path: Path, names: tuple[str, ...]
) -> None:
    folder = masks(tmp_path / "masks", *names)
    result = compare("a=1", f"b={folder}", "-p", project.folder)
    assert isinstance(result.exception, InputError)
    assert not asked


def test_a_file_whose_name_is_that_of_two_cases_is_refused(
    asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The neutral id of one case is what the other was called: which is meant cannot be known."""
    with Project.create(tmp_path / "project", "x", ["CT"], ["lesion"]) as project:
        for index, name in enumerate(("case_002", "case_001", "third")):
            file = tmp_path / f"image_{index}.nii.gz"
            write_volume(Volume(np.full(SHAPE, index, np.float32), GRID), file)
            project.add_case({"CT": file}, name=name)
        folder = masks(tmp_path / "masks", "case_001.nii.gz", "case_002.nii.gz")
        result = compare("a=1", f"b={folder}", "-p", project.folder)
        assert isinstance(result.exception, InputError)
        assert "case_001 is the name of one case here" in str(result.exception)
        clear = masks(tmp_path / "clear", "third.nii.gz")
        assert compare("a=1", f"b={clear}", "-p", project.folder).exit_code == 0
    assert len(asked) == 1


def test_masks_are_taken_anew_when_the_targets_are_others(
    asked: list[dict[str, Any]], tmp_path: Path
) -> None:
    """The same ids mean something else then."""
    folder = masks(tmp_path / "masks", "case_001.nii.gz")
    places = []
    for targets in (["lesion", "cyst"], ["cyst", "lesion"]):
        with Project.create(tmp_path / targets[0], "x", ["CT"], targets) as project:
            file = tmp_path / "image.nii.gz"
            write_volume(Volume(np.zeros(SHAPE, np.float32), GRID), file)
            project.add_case({"CT": file}, name="one")
            places.append(take_masks(project, "b", folder, False))
    assert places[0] != places[1]


# ---------------------------------------------------------------- refused before it is a job


def predict(
    project: Project, *cases: str, state: State = State.SUCCEEDED, **settings: object
) -> str:
    """Leave a prediction job of some cases, and return its number."""
    job = submit(project.folder, "predict", {"model": "m"}, "predict", start=False)
    JobFolder(job.folder).write_record(Record(state=state, started=now(), ended=now()))
    if state is State.SUCCEEDED:
        masks(job.folder / "predictions", *(f"{case}.nii.gz" for case in cases))
        known = {case: {"seen": "verified", "role": "unseen"} for case in cases}
        record = {"model": {}, "settings": {"model": "m", **settings}, "cases": known}
        write_json(job.folder / "predictions" / "predictions.json", record)
    return job.id.partition("-")[0].lstrip("0")


@pytest.fixture
def labelled(project: Project) -> Project:
    """The project, its cases with references."""
    for case in project.case_ids():
        project.set_mask(case, "lesion", Volume(MASK, GRID), {"source": "file"})
    return project


@pytest.fixture
def ran(labelled: Project, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The jobs that came to be; each runs at once, in this process."""
    jobs: list[str] = []

    def run(folder: Path, task: str, asked: dict[str, Any], *_: Any, **how: Any) -> dict[str, Any]:
        job = submit(folder, task, asked, "compare", start=False)
        jobs.append(job.id)
        return {"job": job.id, **run_compare(JobContext(JobFolder(job.folder)))}

    monkeypatch.setattr(models, "_job", run)
    return jobs


BOTH = ("case_001", "case_002")


def test_what_cannot_be_compared_becomes_no_job(
    ran: list[str], labelled: Project, tmp_path: Path
) -> None:
    one, other = predict(labelled, *BOTH), predict(labelled, BOTH[0])
    failed, second = predict(labelled, state=State.FAILED), predict(labelled, BOTH[1])
    queued = predict(labelled, state=State.PENDING)
    wrong: list[tuple[list[str], type[Exception], str]] = [
        ([f"a={one}", f"b={other}", "--case", "case_999"], InputError, "no case case_999"),
        ([f"a={one}", f"b={other}", "--case", BOTH[1]], InputError, "not predicted by b"),
        ([f"a={one}", f"a={other}"], InputError, "'a' is named twice"),
        ([f"a={one}", f"b={tmp_path / 'nonexist'}"], InputError, "There is no folder nonexist"),
        ([f"a={other}", f"b={second}"], InputError, "No case has a reference and a prediction"),
        ([f"a={one}", f"b={failed}"], JobError, "did not end well"),
        ([f"a={one}", f"b={queued}"], JobError, "has not ended"),
    ]
    for arguments, kind, words in wrong:
        result = compare(*arguments, "-p", labelled.folder)
        assert isinstance(result.exception, kind), arguments
        assert words in str(result.exception)
        assert str(tmp_path) not in str(result.exception)
    assert not ran


def test_a_comparison_waits_in_the_queue_for_predictions_that_were_queued(
    ran: list[str], labelled: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, queued = predict(labelled, *BOTH), predict(labelled, state=State.PENDING)
    monkeypatch.setattr(models, "_job", lambda *given, **how: ran.append(given[1]) or {})
    assert compare(f"a={one}", f"b={queued}", "--detach", "-p", labelled.folder).exit_code == 0
    assert ran == ["compare"]


def test_what_is_read_with_the_verdict_is_printed(
    ran: list[str], labelled: Project, tmp_path: Path
) -> None:
    one = predict(labelled, *BOTH, mirroring=False)
    other = predict(labelled, *BOTH, rule="p > 0.5", mirroring=False)
    result = compare(f"a={one}", f"b={other}", "-p", labelled.folder)
    assert result.exit_code == 0, result.output
    assert "lesion where argmax (a), p > 0.5 (b)" in result.output
    assert "mirrored" not in result.output
    theirs = masks(tmp_path / "masks", "case_002.nii.gz")
    result = compare(f"a={one}", f"theirs={theirs}", "-p", labelled.folder)
    assert "1 of 2 predicted cases left out: 1 not predicted by theirs" in result.output
    assert "different settings" not in result.output
    same = predict(labelled, *BOTH, mirroring=False)
    result = compare(f"a={one}", f"b={same}", "-p", labelled.folder)
    assert "Note:" not in result.output
