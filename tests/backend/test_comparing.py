"""What comparing models takes: what is there, what is to be predicted, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.comparing import begin, models, propose, suggested
from napari_backsplit.backend.comparison.tasks import run_compare, settings_of
from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.headline import ONLY_PREDICTED, headline
from napari_backsplit.backend.jobs import Job, JobContext
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.model_choices import case_groups, standings
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.shown import PREDICTED, listed, open_shown, predicted_by
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.comparing_support import empty, ended, fine_tuned, predicted
from tests.backend.improvement_support import (
    GRID,
    MASKS,
    SHAPE,
    box,
    hold_queue,
    make_own,
    make_project,
    write_foreign,
)

BASELINE, OURS = "jobs/0001-train/model", "jobs/0002-train/model"
CHOSEN = {"old": BASELINE, "ours": OURS}
TEST = ("case_007", "case_008")


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_foreign(tmp_path_factory.mktemp("models") / "nnUNetTrainer__tiny__3d_fullres")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, foreign: Path) -> Path:
    """A project of eight cases, two of them held out, with a binary model and its fine-tune."""
    folder = make_project(tmp_path_factory.mktemp("made") / "project")
    make_own(folder, foreign)
    fine_tuned(folder, foreign, BASELINE)
    return folder


@pytest.fixture
def project(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "project"))


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that were queued; none is started."""
    return hold_queue(monkeypatch)


def add_unlabelled(folder: Path) -> str:
    """Add a case without a reference."""
    file = folder.parent / "new.nii.gz"
    write_volume(Volume(box(0, 2).astype("float32"), GRID), file)
    with Project.open(folder) as opened:
        return opened.add_case({"CT": file}).id


# ---------------------------------------------------------------- models and cases


def test_the_models_of_a_project_are_offered_the_newest_fine_tune_first(
    project: Path, foreign: Path
) -> None:
    fine_tuned(project, foreign, BASELINE, "binary")
    shutil.copytree(foreign, project / "baselines" / "baseline-1")
    found = models(project)
    assert [(m.name, m.kind) for m in found] == [
        ("binary (job 3)", "trained"),
        ("BackSplit (job 2)", "trained"),
        ("binary (job 1)", "trained"),
        ("baseline-1", "adopted"),
    ]
    assert suggested(found) == (BASELINE, OURS, "jobs/0003-train/model")


def test_predictions_outlive_their_model(project: Path) -> None:
    predicted(project, OURS, empty(TEST, SHAPE))
    shutil.rmtree(project / OURS)
    gone = models(project)[-1]
    assert (gone.kind, gone.path) == ("predictions", "jobs/0003-predict")
    chosen = {"old": BASELINE, "gone": gone.path}
    ours = propose(project, chosen, "old", TEST).arms[1]
    assert (ours.todo, set(ours.there)) == ((), set(TEST))
    with pytest.raises(InputError, match="lacks case_001"):
        propose(project, chosen, "old", ["case_001", *TEST])


def test_cases_are_grouped_by_what_the_models_saw(project: Path) -> None:
    new = add_unlabelled(project)
    with Project.open(project, read_only=True) as opened:
        found = case_groups(opened, models(project))
        seen = [
            case for case, how in standings(opened, models(project)[0]).items() if how == "seen"
        ]
    assert found.test == TEST
    assert found.unlabelled == (new,)
    assert set(TEST) <= set(found.unseen)
    assert seen
    assert set(found.unseen).isdisjoint(seen)


def test_a_case_that_judged_a_training_is_not_offered_as_one_not_seen(project: Path) -> None:
    """Its networks may count on it in a cross-validation; for a plain comparison it is not new."""
    with Project.open(project, read_only=True) as opened:
        model = ModelFolder.open(project / BASELINE)
        judges = set(model.card["data"]["validation"])
        found = case_groups(opened, models(project))
    assert judges
    assert set(found.unseen).isdisjoint(judges)
    assert set(TEST) <= set(found.unseen)


def test_predictions_whose_model_is_gone_still_say_what_it_was_taught(project: Path) -> None:
    job = predicted(project, OURS, empty(("case_001", *TEST), SHAPE))
    record = job.folder / "predictions" / "predictions.json"
    known = read_json(record)
    known["cases"]["case_001"] = {"seen": "verified", "role": "training"}
    write_json(record, known)
    shutil.rmtree(project / OURS)
    with Project.open(project, read_only=True) as opened:
        gone = models(project)[-1]
        assert standings(opened, gone)["case_001"] == "seen"
        assert "case_001" not in case_groups(opened, [gone]).unseen


# ---------------------------------------------------------------- what is proposed


def test_only_what_is_missing_is_predicted(project: Path) -> None:
    predicted(project, BASELINE, empty(TEST, SHAPE))
    predicted(project, OURS, empty(TEST[:1], SHAPE))
    proposal = propose(project, CHOSEN, "old", TEST)
    assert [arm.todo for arm in proposal.arms] == [(), TEST[1:]]
    assert proposal.labelled == TEST
    assert "predict 1 case with ours" in proposal.sentence.lower()
    assert proposal.seconds == pytest.approx(60, abs=2)  # as its one case took before


@pytest.mark.parametrize(
    "settings", [{"rule": "p > 0.5"}, {"step_size": 0.25}, {"mirroring": False}]
)
def test_predictions_of_other_settings_are_not_taken(
    project: Path, settings: dict[str, Any]
) -> None:
    for model in (BASELINE, OURS):
        predicted(project, model, empty(TEST, SHAPE))
    proposal = propose(project, CHOSEN, "old", TEST, settings)
    assert all(arm.todo == TEST for arm in proposal.arms)
    for arm in proposal.arms:
        predicted(project, arm.choice.path, empty(TEST, SHAPE), **settings)
    again = propose(project, CHOSEN, "old", TEST, settings)
    assert not any(arm.todo for arm in again.arms)


def test_a_mask_that_is_gone_is_predicted_anew(project: Path) -> None:
    for model in (BASELINE, OURS):
        job = predicted(project, model, empty(TEST, SHAPE))
    (job.folder / "predictions" / f"{TEST[0]}.nii.gz").unlink()
    assert propose(project, CHOSEN, "old", TEST).arms[1].todo == TEST[:1]


def test_an_ensemble_predicts_with_the_folds_that_all_have(project: Path) -> None:
    (project / OURS / "fold_0").rename(project / OURS / "fold_1")
    shutil.copytree(project / OURS / "fold_1", project / OURS / "fold_0")
    proposal = propose(project, CHOSEN, "old", TEST)
    assert [arm.params["folds"] for arm in proposal.arms] == [[0], [0]]
    assert any("fold 0 of ours" in note for note in proposal.notes)


def test_cases_that_a_model_saw_are_said_to_count_for_no_verdict(project: Path) -> None:
    with Project.open(project, read_only=True) as opened:
        states = standings(opened, models(project)[0])
    seen = [case for case, how in states.items() if how == "seen"]
    assert any("no verdict" in note for note in propose(project, CHOSEN, "old", seen).notes)
    some = propose(project, CHOSEN, "old", [*seen, *TEST]).notes
    assert any(note.startswith(f"{len(seen)} of them a model was trained on") for note in some)
    assert propose(project, CHOSEN, "old", TEST).notes == ()


def test_a_foreign_model_gives_no_verdict_unless_it_is_declared(
    project: Path, foreign: Path, queue: list[Job]
) -> None:
    shutil.copytree(foreign, project / "baselines" / "baseline-1")
    chosen = {"adopted": "baselines/baseline-1", "ours": OURS}
    unknown = propose(project, chosen, "adopted", TEST)
    assert any("not known" in note and "no verdict" in note for note in unknown.notes)
    assert propose(project, chosen, "adopted", TEST, {"declare_unseen": True}).notes == ()
    begin(project, chosen, "adopted", TEST, {"declare_unseen": True})
    assert queue[-1].spec.params["declared_unseen"] == ["adopted", "ours"]


def test_one_case_is_said_to_allow_no_statistics(project: Path) -> None:
    notes = propose(project, CHOSEN, "old", TEST[:1]).notes
    assert any("One case allows no statistics" in note for note in notes)


# ---------------------------------------------------------------- what is refused


def test_what_cannot_be_compared_is_refused(project: Path) -> None:
    with pytest.raises(InputError, match="One model alone"):
        propose(project, {"old": BASELINE}, "old", TEST)
    with pytest.raises(InputError, match="with itself"):
        propose(project, {"old": BASELINE, "same": BASELINE}, "old", TEST)
    with pytest.raises(InputError, match="No case is chosen"):
        propose(project, CHOSEN, "old", ())
    with pytest.raises(InputError, match="There is no model"):
        propose(project, {**CHOSEN, "new": "jobs/0009-train/model"}, "old", TEST)
    with pytest.raises(InputError, match="rise"):
        propose(project, CHOSEN, "old", TEST, {"strata_ml": (10, 1)})


def test_a_model_of_other_channels_is_refused(project: Path) -> None:
    dataset = read_json(project / OURS / "dataset.json")
    write_json(
        project / OURS / "dataset.json", dataset | {"channel_names": {"0": "CT", "1": "PET"}}
    )
    with pytest.raises(InputError, match="ours takes the channels CT, PET, the project has CT"):
        propose(project, CHOSEN, "old", TEST)


def test_a_model_of_other_targets_is_refused(project: Path) -> None:
    dataset = read_json(project / OURS / "dataset.json")
    dataset["labels"] = {"background": 0, "spleen": 1, "aorta": 2}
    dataset["backsplit"] = {"arm": "backsplit", "targets": ["spleen", "aorta"]}
    write_json(project / OURS / "dataset.json", dataset)
    with pytest.raises(InputError, match="ours: The model has no label for lesion"):
        propose(project, CHOSEN, "old", TEST)


# ---------------------------------------------------------------- begin


def test_the_chain_predicts_what_is_missing_and_then_measures(
    project: Path, queue: list[Job]
) -> None:
    done = predicted(project, BASELINE, empty(TEST, SHAPE))
    settings = {
        "matching": "IoU",
        "iou_threshold": 0.3,
        "connectivity": 6,
        "strata_ml": (0.5, 2),
        "tolerance_mm": 3.0,
        "missed_hd95": "image diagonal",
    }
    name = begin(project, CHOSEN, "old", TEST, settings)
    assert [job.spec.task for job in queue] == ["predict", "compare"]
    assert name == queue[0].id
    assert all(job.spec.chain in (name, "") for job in queue)
    params = queue[1].spec.params
    assert params["arms"] == {"old": [f"jobs/{done.id}"], "ours": [f"jobs/{queue[0].id}"]}
    assert queue[1].spec.needs == (queue[0].id,)
    asked = settings_of(params)
    assert asked.tolerance_mm == 3.0
    assert (asked.lesions.matching, asked.lesions.iou_threshold) == ("IoU", 0.3)
    assert (asked.lesions.connectivity, asked.lesions.strata_ml) == (6, (0.5, 2.0))
    assert asked.policy.missed_distance == "diagonal"


def test_the_same_extra_training_is_a_control(
    project: Path, foreign: Path, queue: list[Job]
) -> None:
    fine_tuned(project, foreign, BASELINE, "binary")
    begin(project, {**CHOSEN, "control": "jobs/0003-train/model"}, "old", TEST)
    assert queue[-1].spec.params["controls"] == ["control"]


def test_a_second_press_is_refused(project: Path, queue: list[Job]) -> None:
    begin(project, CHOSEN, "old", TEST)
    with pytest.raises(JobError, match="queued or runs already"):
        begin(project, CHOSEN, "old", TEST)
    begin(project, CHOSEN, "old", TEST[:1])
    count = len(queue)
    for job in queue:
        ended(job)
    for model in (BASELINE, OURS):
        predicted(project, model, empty(TEST, SHAPE))
    begin(project, CHOSEN, "old", TEST)  # everything is there: only measured
    assert [job.spec.task for job in queue[count:]] == ["compare"]
    with pytest.raises(JobError, match="queued or runs already"):
        begin(project, CHOSEN, "old", TEST)


def test_cases_without_a_reference_are_predicted_and_not_measured(
    project: Path, queue: list[Job]
) -> None:
    new = add_unlabelled(project)
    proposal = propose(project, CHOSEN, "old", [new])
    assert (proposal.labelled, proposal.unlabelled) == ((), (new,))
    begin(project, CHOSEN, "old", [new])
    assert [job.spec.task for job in queue] == ["predict", "predict"]
    for model, job in zip((BASELINE, OURS), queue, strict=True):
        predicted(project, model, empty([new], SHAPE))
        ended(job)
    assert propose(project, CHOSEN, "old", [new]).idle
    assert begin(project, CHOSEN, "old", [new]) == ""
    found = listed(project)[0]
    assert found.id == f"{PREDICTED}{queue[0].id}"
    with Project.open(project, read_only=True) as opened:
        shown = open_shown(opened, found.id)
    assert (shown.cases, shown.unlabelled, shown.report) == ((), (new,), None)
    assert shown.arms == ("binary (job 1)", "BackSplit (job 2)")
    assert [row.kind for row in shown.table] == ["no reference"]


# ---------------------------------------------------------------- what is looked at


def test_cases_with_a_reference_that_were_only_predicted_are_not_said_to_have_none(
    project: Path, foreign: Path
) -> None:
    """The adopted model is the baseline; the control, the newest, is not."""
    shutil.copytree(foreign, project / "baselines" / "baseline-1")
    ours = fine_tuned(project, foreign, "baselines/baseline-1")
    control = fine_tuned(project, foreign, "baselines/baseline-1", "binary")
    new = add_unlabelled(project)
    paths = [f"jobs/{job.id}/model" for job in (control, ours)]
    for path in ("baselines/baseline-1", *paths):
        last = predicted(project, path, empty((*TEST, new), SHAPE))
    with Project.open(project, read_only=True) as opened:
        shown = open_shown(opened, f"{PREDICTED}{last.id}")
    kinds = {row.case: row.kind for row in shown.table}
    assert kinds == {**dict.fromkeys(TEST, "not measured"), new: "no reference"}
    assert (shown.baseline, shown.new) == ("baseline-1", "BackSplit (job 3)")
    assert headline(shown, "lesion", shown.new) == ONLY_PREDICTED


def test_the_baseline_that_a_person_chose_is_the_one_looked_at(project: Path) -> None:
    for model in (BASELINE, OURS):
        predicted(project, model, empty(TEST, SHAPE))
    with Project.open(project, read_only=True) as opened:
        both = models(project)
        shown = predicted_by(opened, both, TEST, [OURS, BASELINE], "", "x", OURS)
    assert shown.baseline == "BackSplit (job 2)"


def test_results_of_one_title_are_told_apart_and_what_has_no_pair_stands_last(
    project: Path, queue: list[Job]
) -> None:
    jobs = [predicted(project, model, empty(TEST, SHAPE)) for model in (BASELINE, OURS)]
    begin(project, CHOSEN, "old", TEST)
    run_compare(JobContext(JobFolder(ended(queue[-1]).folder)))
    alone = predicted(project, OURS, empty(("case_001",), SHAPE))
    found = listed(project)
    assert (found[0].id, found[0].title) == (queue[-1].id, "ours against old")
    assert (found[-1].id, found[-1].pair) == (f"{PREDICTED}{alone.id}", False)
    assert found[-1].title == "Predicted: 1 case"
    titles = {each.id.removeprefix(PREDICTED): each for each in found[1:-1]}
    for job in jobs:
        number, when = job.id[:4].lstrip("0"), titles[job.id].when.astimezone()
        assert titles[job.id].title == f"Predicted: 2 cases, job {number}, {when:%H:%M}"


def test_what_is_read_with_a_verdict_says_of_which_pair_it_is(
    project: Path, queue: list[Job], foreign: Path
) -> None:
    fine_tuned(project, foreign, BASELINE, "binary")
    chosen = {**CHOSEN, "control": "jobs/0003-train/model"}
    for model in chosen.values():
        predicted(project, model, empty(("case_001", *TEST), SHAPE))
    begin(project, chosen, "old", TEST)
    run_compare(JobContext(JobFolder(ended(queue[-1]).folder)))
    with Project.open(project, read_only=True) as opened:
        shown = open_shown(opened, queue[-1].id)
    (nobody, (differing, left_out)), *pairs = shown.read_with("lesion", "ours")
    assert nobody == ""
    assert "epochs 5 (old), 1000 (ours, control)" in differing, "the others start from the old one"
    assert left_out == "1 of 3 predicted cases left out: 1 not chosen (case_001)."
    assert [pair for pair, _ in pairs] == ["ours against old", "ours against control"]
    assert all(sentences for _, sentences in pairs)


def test_a_finished_comparison_is_looked_at_lesion_by_lesion(
    project: Path, queue: list[Job]
) -> None:
    new = add_unlabelled(project)
    lesion, elsewhere = MASKS["lesion"].astype(bool), box(0, 2).astype(bool)
    predicted(project, BASELINE, {TEST[0]: elsewhere, TEST[1]: lesion, new: lesion})
    predicted(project, OURS, dict.fromkeys((*TEST, new), lesion))
    begin(project, CHOSEN, "old", [*TEST, new])
    job = ended(queue[-1])
    run_compare(JobContext(JobFolder(job.folder)))
    found = listed(project)[0]
    assert (found.title, found.measured) == ("ours against old", True)
    with Project.open(project, read_only=True) as opened:
        shown = open_shown(opened, found.id)
    assert (shown.arms, shown.new) == (("old", "ours"), "ours")
    assert (shown.cases, shown.unlabelled) == (TEST, (new,))
    rows = [(row.case, row.kind, row.found_by) for row in shown.table]
    assert rows == [
        (TEST[0], "reference", ("ours",)),
        (TEST[0], "false positive", ("old",)),
        (TEST[1], "reference", ("old", "ours")),
        (new, "no reference", ()),
    ]
    first = shown.table[0]
    assert first.voxel is not None
    assert lesion[first.voxel]
    assert first.dice == {"old": 0.0, "ours": 1.0}


def test_a_comparison_of_an_earlier_version_shows_its_cases(
    project: Path, queue: list[Job]
) -> None:
    for model in (BASELINE, OURS):
        predicted(project, model, dict.fromkeys(TEST, MASKS["lesion"].astype(bool)))
    begin(project, CHOSEN, "old", TEST)
    run_compare(JobContext(JobFolder(ended(queue[-1]).folder)))
    (project / "comparisons" / queue[-1].id / "lesions.csv").unlink()
    with Project.open(project, read_only=True) as opened:
        shown = open_shown(opened, queue[-1].id)
    assert [(row.case, row.kind, row.dice["ours"]) for row in shown.table] == [
        (TEST[0], "case", 1.0),
        (TEST[1], "case", 1.0),
    ]
