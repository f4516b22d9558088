from __future__ import annotations

import shutil
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from napari_backsplit.backend import links
from napari_backsplit.backend.cluster_consent import give_consent
from napari_backsplit.backend.errors import BackSplitError, InputError, JobError, ProjectError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.improvement import Improvement, begin, propose, sentence
from napari_backsplit.backend.jobs import Job, State, list_jobs
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.spec import FINETUNE, PlanSpec, RunSpec
from tests.backend.improvement_support import (
    FOLDS,
    LEARNT,
    TEST,
    add_cases,
    hold_queue,
    make_own,
    make_project,
    succeeded,
    write_foreign,
)


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A binary nnU-Net model from elsewhere, in a folder that says whose it is."""
    return write_foreign(tmp_path_factory.mktemp("Dr_X_Y") / "nnUNetTrainer__tiny__3d_fullres")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, foreign: Path) -> Path:
    folder = make_project(tmp_path_factory.mktemp("made") / "project")
    make_own(folder, foreign)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    """A project with a plan set and one binary training, which a test may change."""
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were queued; none is started."""
    return hold_queue(monkeypatch)


def links_of(jobs: list[Job]) -> dict[str, Job]:
    """Return the links of a chain by title."""
    return {job.spec.title: job for job in jobs}


TUNED, SAME = "fine-tune with kidney", "the same extra binary training"
PREDICTED = ("predict with the baseline", "predict with the control", "predict with the new model")


# ---------------------------------------------------------------- what is proposed


def test_a_model_of_the_project_is_fine_tuned_as_it_was_trained(project: Path) -> None:
    proposed = propose(project, "1", {"epochs": 50, "control": False})
    run = proposed.run
    assert (run.arm, run.plan_set, run.fold, run.supports) == ("backsplit", "own", 0, ("kidney",))
    assert {name: getattr(run, name) for name in LEARNT} == LEARNT
    assert (run.epochs, run.target_dice_share) == (50, FINETUNE["target_dice_share"])
    assert (proposed.plan, proposed.control, proposed.name) == (
        None,
        False,
        "binary model of job 1",
    )
    assert proposed.notes[0].startswith("Supports: kidney.")


def test_a_foreign_model_gets_a_plan_set_and_stays_as_it_is(project: Path, foreign: Path) -> None:
    before = {file: file.read_bytes() for file in foreign.rglob("*") if file.is_file()}
    proposed = propose(project, str(foreign))
    assert proposed.plan == PlanSpec(name="baseline-1", baseline="baselines/baseline-1", folds=5)
    assert proposed.run.plan_set == "baseline-1"
    assert proposed.name == foreign.name, "no folder above it: its name may be a person's"
    assert {file: file.read_bytes() for file in foreign.rglob("*") if file.is_file()} == before
    assert propose(project, str(foreign)) == proposed


def test_fewer_patients_than_folds_make_fewer_folds(tmp_path: Path, foreign: Path) -> None:
    folder = make_project(tmp_path / "few", cases=5)
    proposed = propose(folder, str(foreign))
    assert proposed.plan is not None
    assert proposed.plan.folds == 3
    begin(folder, proposed)


def test_new_cases_make_a_new_plan_set_with_the_same_plans(
    project: Path, queue: list[Job], tmp_path: Path
) -> None:
    with Project.open(project) as opened:
        add_cases(opened, tmp_path / "more", 1)
    proposed = propose(project, "1")
    model = "jobs/0001-train/model"
    assert proposed.plan == PlanSpec(name="own-2", baseline=model, folds=FOLDS)
    assert "were added or removed since plan set own" in proposed.notes[0]
    begin(project, proposed)
    assert [job.spec.task for job in queue[:2]] == ["plan", "train"]


def test_what_the_person_sets_wins(project: Path) -> None:
    with Project.open(project, read_only=True) as opened:
        proposed = propose(opened, "1", {"supports": ("liver",), "initial_lr": 1e-4})
    assert proposed.run.supports == ("liver",)
    assert proposed.run.initial_lr == 1e-4
    assert proposed.notes == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs.*greater than or equal to 1"),
        ({"no_such": 1}, "no_such"),
        ({"warmup_epochs": 250}, "leave nothing of 250 epochs"),
    ],
)
def test_a_value_that_its_field_does_not_take_is_named(
    project: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        propose(project, "1", changes)


def test_a_project_without_an_accepted_support_says_what_to_do(
    tmp_path: Path, foreign: Path
) -> None:
    folder = make_project(tmp_path / "raw", accepted=False)
    with pytest.raises(InputError, match="was accepted in the review") as error:
        propose(folder, str(foreign))
    assert "--masks unreviewed" in error.value.remedy


# ---------------------------------------------------------------- what is queued


def test_the_chain_ends_in_a_comparison_with_baseline_and_control(
    project: Path, queue: list[Job]
) -> None:
    with Project.open(project) as opened:
        give_consent(opened, "tls://there:1")
    name = begin(project, propose(project, "1", {"where": "tls://there:1", "device": "cuda:1"}))
    found = links_of(queue)
    assert [*found] == [TUNED, SAME, *PREDICTED, "compare"]
    assert name == found[TUNED].id
    assert {job.spec.chain for job in queue[1:]} == {name}
    assert {job.spec.where for job in queue} == {"tls://there:1"}
    devices = [job.spec.device for job in queue]
    assert devices == ["cuda:1"] * 5 + ["cpu"]
    tuned, control = (RunSpec.model_validate(found[t].spec.params["run"]) for t in (TUNED, SAME))
    assert control == tuned.model_copy(update={"arm": "binary"})
    models = [found[title].spec.params["model"] for title in PREDICTED]
    assert models == [f"jobs/{name}/model" for name in ("0001-train", "0003-train", "0002-train")]
    assert [found[title].spec.needs for title in PREDICTED] == [
        (),
        ("0003-train",),
        ("0002-train",),
    ]
    compare = found["compare"].spec
    assert compare.params["arms"] == {
        "baseline": "jobs/0004-predict",
        "control": "jobs/0005-predict",
        "new model": "jobs/0006-predict",
    }
    assert (compare.params["baseline"], compare.params["controls"]) == ("baseline", ["control"])
    assert set(compare.needs) == {"0004-predict", "0005-predict", "0006-predict"}


def test_the_held_out_cases_with_a_reference_are_predicted_and_kept(
    project: Path, queue: list[Job]
) -> None:
    with Project.open(project) as opened:
        with_reference, without = opened.test_cases()
        opened.remove_mask(without, "lesion")
    begin(project, propose(project, "1", {"declare_unseen": True}))
    for title in PREDICTED:
        params = links_of(queue)[title].spec.params
        assert params["cases"] == params["declared_unseen"] == [with_reference]
        assert params["folds"] == [0]
    with Project.open(project, read_only=True) as opened:
        assert opened.schema.frozen_test


def test_a_foreign_model_is_planned_first(project: Path, foreign: Path, queue: list[Job]) -> None:
    name = begin(project, propose(project, str(foreign)))
    plan, tuned, control, *_ = queue
    assert (name, plan.spec.task) == (plan.id, "plan")
    assert tuned.spec.needs == control.spec.needs == (plan.id,)
    said = " ".join(str(job.spec.model_dump()) for job in queue)
    assert str(foreign) not in said
    assert "Dr_X_Y" not in said


@pytest.mark.parametrize(
    "budget",
    [{"hours": 2.0}, {"until": datetime(2090, 1, 1, 18, tzinfo=UTC)}, {"patience": 9}],
    ids=["h", "until", "patience"],
)
def test_the_control_of_a_run_whose_end_is_open_takes_the_same_epochs(
    project: Path, queue: list[Job], budget: dict[str, Any]
) -> None:
    begin(project, propose(project, "1", budget))
    tuned, control = (links_of(queue)[title] for title in (TUNED, SAME))
    run = RunSpec.model_validate(control.spec.params["run"])
    assert (run.hours, run.until, run.patience) == (None, None, None)
    assert run.same_epochs_as == f"jobs/{tuned.id}/model"
    assert control.spec.needs == (tuned.id,)


def test_without_a_control_none_is_trained(project: Path, queue: list[Job]) -> None:
    begin(project, propose(project, "1", {"control": False}))
    assert [*links_of(queue)] == [TUNED, PREDICTED[0], PREDICTED[2], "compare"]
    assert queue[-1].spec.params["controls"] == []


def test_what_the_baseline_predicted_before_is_not_predicted_again(
    project: Path, queue: list[Job]
) -> None:
    begin(project, propose(project, "1"))
    earlier = succeeded(links_of(queue)[PREDICTED[0]], {})
    queue.clear()
    begin(project, propose(project, "1", {"epochs": 7}))
    assert PREDICTED[0] not in links_of(queue)
    assert earlier.id in queue[-1].spec.needs
    assert queue[-1].spec.params["arms"]["baseline"] == f"jobs/{earlier.id}"


# ---------------------------------------------------------------- a second press


def test_a_second_press_is_refused_by_the_number_of_the_first(
    project: Path, queue: list[Job]
) -> None:
    proposed = propose(project, "1")
    name = begin(project, proposed)
    with pytest.raises(JobError, match=name):
        begin(project, proposed)
    succeeded(queue[0], {})
    with pytest.raises(JobError, match=name):
        begin(project, proposed)
    begin(project, propose(project, "1", {"epochs": 7}))


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_what_broke_off_may_be_begun_again(project: Path, queue: list[Job], state: State) -> None:
    from napari_backsplit.backend.jobs.folder import JobFolder
    from napari_backsplit.backend.jobs.spec import Record

    proposed = propose(project, "1")
    begin(project, proposed)
    JobFolder(queue[1].folder).write_record(Record(state=state))
    begin(project, proposed)


def test_two_buttons_pressed_at_once_queue_one_chain(project: Path, queue: list[Job]) -> None:
    proposed = propose(project, "1")
    barrier, said = threading.Barrier(2), []

    def press() -> None:
        barrier.wait(10)
        try:
            said.append(begin(project, proposed))
        except BackSplitError as error:
            said.append(error)

    threads = [threading.Thread(target=press) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(type(each).__name__ for each in said) == ["JobError", "str"], said
    assert len(queue) == 6


def test_a_chain_that_cannot_be_queued_whole_is_taken_back(
    project: Path, queue: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue = links.enqueue

    def full(*given: Any, **how: Any) -> Job:
        if len(queue) == 3:
            raise ProjectError("The disk is full.")
        return enqueue(*given, **how)

    with monkeypatch.context() as patch:
        patch.setattr(links, "enqueue", full)
        with pytest.raises(ProjectError, match="disk is full"):
            begin(project, propose(project, "1"))
    assert {job.status().state for job in queue} == {State.CANCELLED}
    begin(project, propose(project, "1"))


# ---------------------------------------------------------------- bad input


def _refused(project: Path, proposed: Improvement, words: str) -> BackSplitError:
    """Begin what has to be refused before a job is made or the test set is kept."""
    jobs = len(list_jobs(project))
    with pytest.raises(BackSplitError, match=words) as error:
        begin(project, proposed)
    assert len(list_jobs(project)) == jobs
    with Project.open(project, read_only=True) as opened:
        assert not opened.schema.frozen_test
    return error.value


def test_without_a_test_set_there_is_nothing_to_measure_on(tmp_path: Path, foreign: Path) -> None:
    folder = make_project(tmp_path / "all", test=0)
    error = _refused(folder, propose(folder, str(foreign)), "No case is held out")
    assert "cross-validation" in error.remedy


def test_a_test_set_without_a_reference_measures_nothing(project: Path) -> None:
    with Project.open(project) as opened:
        for case in opened.test_cases():
            opened.remove_mask(case, "lesion")
    _refused(project, propose(project, "1"), f"None of the {TEST} held-out cases has a reference")


def test_one_case_is_too_few(tmp_path: Path, foreign: Path) -> None:
    folder = make_project(tmp_path / "one", cases=2, test=1)
    _refused(folder, propose(folder, str(foreign)), r"1 training case\(s\)")


def test_five_folds_of_three_cases_are_refused(tmp_path: Path, foreign: Path) -> None:
    folder = make_project(tmp_path / "three", cases=5)
    proposed = propose(folder, str(foreign))
    assert proposed.plan is not None
    five = proposed.plan.model_copy(update={"folds": 5})
    proposed = propose(folder, str(foreign), {"plan": five})
    _refused(folder, proposed, "3 patients with a reference cannot be split into 5 folds")


def test_a_support_that_only_the_held_out_fold_has_is_refused(project: Path) -> None:
    proposed = propose(project, "1", {"supports": ("liver",)})
    splits = read_json(project / "nnunet" / "plan_sets" / "own.json")["splits"]
    with Project.open(project) as opened:
        for case in splits[0]["train"]:
            opened.remove_mask(case, "liver")
    _refused(project, proposed, "liver: none of")


def test_a_fold_that_the_baseline_does_not_have_is_refused(project: Path) -> None:
    _refused(project, propose(project, "1", {"fold": 1}), "Fold 1 is not in")
    _refused(project, propose(project, "1", {"fold": FOLDS}), f"no fold {FOLDS}")


def test_a_plan_set_that_is_not_there_is_refused(project: Path) -> None:
    _refused(project, propose(project, "1", {"plan_set": "other"}), "no plan set 'other'")


def test_a_plan_set_that_broke_off_is_made_first(project: Path, queue: list[Job]) -> None:
    file = project / "nnunet" / "plan_sets" / "own.json"
    write_json(file, read_json(file) | {"ready": False})
    proposed = propose(project, "1")
    assert proposed.plan == PlanSpec(folds=FOLDS)
    begin(project, proposed)
    assert queue[0].spec.task == "plan"


def test_another_window_that_writes_is_named_until_the_test_set_is_kept(project: Path) -> None:
    proposed = propose(project, "1")
    with Project.open(project) as writer:
        error = _refused(project, proposed, "open for writing in process")
        assert "Begin it in the window that writes" in error.remedy
        writer.freeze_test()
        begin(project, proposed)


def test_the_window_that_writes_may_begin(project: Path, queue: list[Job]) -> None:
    with Project.open(project) as writer:
        begin(writer, propose(writer, "1"))
        assert writer.schema.frozen_test
    assert len(queue) == 6


# ---------------------------------------------------------------- in words


def test_one_sentence_says_all(project: Path, foreign: Path) -> None:
    takes = SimpleNamespace(text="about 3 h 10 min on NVIDIA A, 6.2 GB of 11 GB; 1 GB of 18 GB")
    said = sentence(propose(project, "1", {"supports": ("liver", "kidney")}), takes)  # type: ignore[arg-type]
    assert said == (
        "Fine-tune binary model of job 1 with liver and kidney, 250 epochs, about 3 h 10 min on "
        "NVIDIA A, 6.2 GB of 11 GB; 1 GB of 18 GB."
    )
    named = sentence(propose(project, str(foreign), {"hours": 8}))
    assert named == f"Fine-tune {foreign.name} with kidney, 8 h."
