from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.cross_validation import cross_validate
from napari_backsplit.backend.errors import BackSplitError, InputError, JobError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.improvement import begin, propose
from napari_backsplit.backend.jobs import Job, list_jobs
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import StudyArm
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from tests.backend.improvement_support import (
    FOLDS,
    hold_queue,
    make_own,
    make_project,
    write_foreign,
)

RUN = RunSpec(epochs=2, supports=("kidney",))
ARMS = [StudyArm(arm, RUN.model_copy(update={"arm": arm})) for arm in ("binary", "backsplit")]
TUNED = [ARMS[0], StudyArm("tuned", RUN, start="binary")]


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary nnU-Net model of three folds from elsewhere."""
    folder = tmp_path_factory.mktemp("foreign") / "nnUNetTrainer__tiny__3d_fullres"
    return write_foreign(folder, folds=(0, 1, 2))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, foreign: Path) -> Path:
    folder = make_project(tmp_path_factory.mktemp("made") / "project")
    make_own(folder, foreign)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A project with a plan set of three folds and a binary training, which a test may change."""
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were queued; none is started."""
    return hold_queue(monkeypatch)


def splits(project: Path) -> list[dict[str, list[str]]]:
    found: list[dict[str, list[str]]] = read_json(project / "nnunet/plan_sets/own.json")["splits"]
    return found


def of_task(jobs: list[Job], task: str) -> list[Job]:
    return [job for job in jobs if job.spec.task == task]


def test_each_case_is_predicted_once_by_each_arm_with_the_fold_that_held_it_out(
    project: Path, queue: list[Job]
) -> None:
    name = cross_validate(project, ARMS, None, range(FOLDS), devices=("cuda:0", "cuda:1"))
    runs = {
        job.id: RunSpec.model_validate(job.spec.params["run"]) for job in of_task(queue, "train")
    }
    assert [(run.arm, run.fold, run.device) for run in runs.values()] == [
        (arm, fold, f"cuda:{fold % 2}") for fold in range(FOLDS) for arm in ("binary", "backsplit")
    ]
    for job in of_task(queue, "predict"):
        (trained,) = job.spec.needs
        run, params = runs[trained], job.spec.params
        assert params["model"] == f"jobs/{trained}/model"
        assert params["cases"] == splits(project)[int(run.fold)]["val"]
        assert (params["checkpoint"], params["folds"]) == ("checkpoint_final.pth", [run.fold])
        assert params["device"] == job.spec.device == run.device
    arms = queue[-1].spec.params["arms"]
    pooled = {arm: [f.removeprefix("jobs/") for f in folders] for arm, folders in arms.items()}
    assert [*pooled] == ["binary", "backsplit"]
    predicted = {job.id: job.spec.params["cases"] for job in of_task(queue, "predict")}
    with Project.open(project, read_only=True) as opened:
        for jobs in pooled.values():
            assert sorted(c for job in jobs for c in predicted[job]) == sorted(
                opened.training_cases()
            )
    assert set(queue[-1].spec.needs) == set(predicted)
    assert {job.spec.chain for job in queue[1:]} == {name}


def test_a_plan_set_is_made_first_and_its_folds_are_kept(tmp_path: Path, queue: list[Job]) -> None:
    folder = make_project(tmp_path / "new")
    cross_validate(folder, ARMS, PlanSpec(folds=2), (0, 1))
    plan, *rest = queue
    assert plan.spec.params["plan"]["folds"] == 2
    assert all(job.spec.needs == (plan.id,) for job in of_task(rest, "train"))
    with Project.open(folder, read_only=True) as opened:
        assert opened.schema.frozen_test
        kept = [split["val"] for split in opened.splits(2)]
    assert [job.spec.params["cases"] for job in of_task(rest, "predict")[::2]] == kept


def test_an_arm_may_start_from_another_of_the_same_fold(project: Path, queue: list[Job]) -> None:
    cross_validate(project, TUNED, None, (0, 2))
    for binary, tuned in zip(*[iter(of_task(queue, "train"))] * 2, strict=True):
        run = RunSpec.model_validate(tuned.spec.params["run"])
        assert run.baseline == f"jobs/{binary.id}/model"
        assert tuned.spec.needs == (binary.id,)


def _refused(project: Path, words: str, *given: Any, **how: Any) -> BackSplitError:
    jobs = len(list_jobs(project))
    with pytest.raises(BackSplitError, match=words) as error:
        cross_validate(project, *given, **how)
    assert len(list_jobs(project)) == jobs
    with Project.open(project, read_only=True) as opened:
        assert not opened.schema.frozen_test
    return error.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patience": 3}, "with patience the cases that a fold is measured on have a say"),
        ({"same_epochs_as": "jobs/0001-train/model"}, "with same_epochs_as"),
    ],
)
def test_what_lets_a_fold_guide_its_own_training_is_refused(
    project: Path, changes: dict[str, Any], words: str
) -> None:
    guided = [ARMS[0], StudyArm("guided", RUN.model_copy(update=changes))]
    _refused(project, words, guided, None, (0, 1))


def test_a_baseline_that_was_taught_the_fold_is_refused(project: Path) -> None:
    """Fold 0's own baseline may serve fold 0, whose cases it held out."""
    started = RUN.model_copy(update={"baseline": "jobs/0001-train/model"})
    arms = [ARMS[0], StudyArm("tuned", started)]
    error = _refused(project, "Fold 1 of the baseline has seen case_", arms, None, (0, 1))
    assert "once for each fold" in error.remedy
    cross_validate(project, arms, None, (0,))


@pytest.mark.parametrize(
    "run", [{"patience": 3}, {"same_epochs_as": "jobs/x/model"}], ids=["patience", "same epochs"]
)
def test_a_baseline_whose_end_the_fold_decided_is_refused(
    tmp_path: Path, foreign: Path, run: dict[str, Any]
) -> None:
    folder = make_project(tmp_path / "guided")
    make_own(folder, foreign, **run)
    started = RUN.model_copy(update={"baseline": "jobs/0001-train/model"})
    _refused(folder, "Fold 0 of the baseline has seen", [StudyArm("tuned", started)], None, (0,))


def test_a_foreign_model_needs_a_word(project: Path, foreign: Path, queue: list[Job]) -> None:
    proposed = propose(project, str(foreign), {"folds": (0, 1)})
    assert [note.partition(":")[0] for note in proposed.notes] == ["Supports"]
    alone = propose(project, str(foreign))
    assert alone.notes[0].startswith("The model has 3 folds: fold 0 is fine-tuned")
    with pytest.raises(InputError, match="It is not known whether fold 0"):
        begin(project, proposed)
    begin(project, propose(project, str(foreign), {"folds": (0, 1), "declare_unseen": True}))
    assert [*queue[-1].spec.params["arms"]] == ["baseline", "control", "new model"]
    baseline = [j for j in of_task(queue, "predict") if j.spec.title.endswith("baseline")]
    assert [job.spec.params["folds"] for job in baseline] == [[0], [1]]
    assert all(job.spec.params["declared_unseen"] for job in baseline)
    assert queue[-1].spec.params["controls"] == ["control"]


def test_a_model_of_the_project_is_trained_again_for_each_fold(
    project: Path, queue: list[Job]
) -> None:
    begin(project, propose(project, "1", {"folds": (1, 2)}))
    trainings = [RunSpec.model_validate(j.spec.params["run"]) for j in of_task(queue, "train")]
    assert [(run.arm, run.fold, run.epochs) for run in trainings] == [
        (arm, fold, epochs)
        for fold in (1, 2)
        for arm, epochs in (("binary", 5), ("binary", 250), ("backsplit", 250))
    ]
    first, *others = of_task(queue, "train")[:3]
    assert trainings[0].baseline is None
    assert {run.baseline for run in trainings[1:3]} == {f"jobs/{first.id}/model"}
    assert all(job.spec.needs == (first.id,) for job in others)


def test_a_model_trained_by_the_clock_is_trained_again_for_the_epochs_it_came_to(
    tmp_path: Path, foreign: Path, queue: list[Job]
) -> None:
    folder = make_project(tmp_path / "clock")
    job = make_own(folder, foreign, until="2020-01-01T18:00:00Z")
    file = job.folder / "model" / "dataset.json"
    dataset = read_json(file)
    dataset["backsplit"]["trained"] = {"epochs": 3, "seconds": 60, "ended": "3 epochs fitted."}
    write_json(file, dataset)
    begin(folder, propose(folder, "1", {"folds": (0, 1)}))
    again = RunSpec.model_validate(of_task(queue, "train")[0].spec.params["run"])
    assert (again.by_the_clock, again.epochs, again.baseline) == (False, 3, None)


def test_a_model_whose_end_validation_cases_decided_is_not_trained_again(
    tmp_path: Path, foreign: Path
) -> None:
    folder = make_project(tmp_path / "guided")
    make_own(folder, foreign, patience=3)
    with pytest.raises(InputError, match="Validation cases had a say") as error:
        begin(folder, propose(folder, "1", {"folds": (0, 1)}))
    assert "measure on a test set" in error.value.remedy


def test_hours_are_no_length_of_a_cross_validation_with_a_control(project: Path) -> None:
    with pytest.raises(InputError, match="number of epochs"):
        begin(project, propose(project, "1", {"folds": (0, 1), "hours": 1}))


def test_folds_that_are_not_there_are_refused(project: Path) -> None:
    _refused(project, f"no fold {FOLDS}", ARMS, None, (0, FOLDS))
    _refused(project, "folds that differ", ARMS, None, (0, 0))
    _refused(project, "folds that differ", ARMS, None, ())
    _refused(project, "have one name", [ARMS[0], ARMS[0]], None, (0, 1))


def test_five_folds_of_three_cases_are_refused(tmp_path: Path) -> None:
    folder = make_project(tmp_path / "three", cases=3, test=0)
    _refused(folder, "3 patients .* cannot be split into 5", ARMS, PlanSpec(), range(5))


def test_a_support_of_one_case_is_missing_in_the_fold_that_holds_it_out(project: Path) -> None:
    with Project.open(project) as opened:
        for case in opened.training_cases()[1:]:
            opened.remove_mask(case, "kidney")
    _refused(project, "kidney: none of", ARMS, None, range(FOLDS))


def test_a_second_press_is_refused(project: Path) -> None:
    cross_validate(project, ARMS, None, (0, 1))
    with pytest.raises(JobError, match="queued or runs already"):
        cross_validate(project, ARMS, None, (0, 1))


def test_a_plan_set_of_other_cases_is_refused(project: Path) -> None:
    file = project / "nnunet" / "plan_sets" / "own.json"
    made = read_json(file)
    write_json(file, made | {"cases": made["cases"][1:]})
    _refused(project, "were added or removed since plan set 'own'", ARMS, None, (0, 1))
