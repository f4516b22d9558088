"""The models of a project that can be compared, and what each has predicted already. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from napari_backsplit.backend.comparison.arms import DECIDES
from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job, State, list_jobs
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.roles import ROLES, held_out, role_of, says_all
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.baseline import ADOPTED
from napari_backsplit.backend.training.spec import WITH_SUPPORTS

Kind = Literal["trained", "adopted", "predictions"]

Standing = Literal["unseen", "unknown", "seen"]
"""Whether a model saw a case in training: it did not, it is not known, it did."""

RECORD = "predictions/predictions.json"
NAMES = {"binary": "binary", "backsplit": "BackSplit"}


@dataclass(frozen=True)
class Predicted:
    """What a finished prediction job left.

    Attributes
    ----------
    folder : str
        The job's folder, relative to the project.
    model : str
        The model's folder, as the job's parameters name it.
    cases : mapping of str to str
        Case -> "seen", or how it is known that the model had not seen it; those whose mask is
        there.
    folds : tuple of str
    checkpoint : str
    probabilities : bool
    decides : mapping
        The settings of `DECIDES`.
    seconds, device : float or None, str
        What it took for all its cases, and on what.
    """

    folder: str
    model: str
    cases: Mapping[str, str]
    folds: tuple[str, ...]
    checkpoint: str
    probabilities: bool
    decides: Mapping[str, Any]
    seconds: float | None = None
    device: str = "cpu"

    @property
    def seconds_a_case(self) -> float | None:
        """How long a case took; None where that is not known."""
        return self.seconds / len(self.cases) if self.seconds and self.cases else None


@dataclass(frozen=True)
class ModelChoice:
    """A model that can be compared.

    Attributes
    ----------
    name : str
        Short, and of no other model of the project: the arm's name in a report.
    path : str
        Its folder, relative to the project; of predictions whose model is gone, their job's.
    kind : Kind
    arm : str
        "binary", "backsplit" or another scheme of labels; "" where that is not known.
    title : str
        For people, in full.
    started_from : str
        The model that it was fine-tuned from; "" for none.
    predictions : tuple of Predicted
        What it has predicted, the newest first.
    """

    name: str
    path: str
    kind: Kind
    arm: str
    title: str
    started_from: str = ""
    predictions: tuple[Predicted, ...] = ()

    @property
    def predicted(self) -> dict[str, str]:
        """Case -> folder of the newest job that predicted it, whatever its settings."""
        found = ((case, done.folder) for done in reversed(self.predictions) for case in done.cases)
        return dict(found)


def models(project_folder: Path) -> tuple[ModelChoice, ...]:
    """Return the models of a project: its trainings, the newest first, then adopted ones.

    Finished predictions whose model is gone stand last; they can still be compared.
    """
    jobs = list_jobs(project_folder)
    done = [found for job in reversed(jobs) for found in _predicted(job)]
    known = [*_trained(project_folder, jobs), *_adopted(project_folder)]
    paths = {choice.path for choice in known}
    gone = [_gone(found) for found in done if found.model not in paths]
    return tuple(_with(choice, done) for choice in known) + tuple(gone)


def suggested(choices: Sequence[ModelChoice]) -> tuple[str, ...]:
    """Return the paths that a person most likely means: the baseline, then the newest fine-tune.

    The same extra training without supports stands last where there is one: with it only can be
    told that it was the supports that helped.
    """
    paths = {choice.path for choice in choices}
    for choice in choices:
        if choice.arm in WITH_SUPPORTS and choice.started_from in paths:
            start = choice.started_from
            controls = (c.path for c in choices if c.started_from == start and c.arm == "binary")
            return (start, choice.path, *list(controls)[:1])
    plain = [choice.path for choice in choices if choice.arm not in WITH_SUPPORTS]
    others = [choice.path for choice in choices if choice.path not in plain[:1]]
    return (*plain[:1], *others[:1])


def _with(choice: ModelChoice, done: Sequence[Predicted]) -> ModelChoice:
    own = tuple(found for found in done if found.model == choice.path)
    return ModelChoice(**{**choice.__dict__, "predictions": own})


def _trained(project_folder: Path, jobs: Sequence[Job]) -> Iterator[ModelChoice]:
    for job in reversed(jobs):
        with suppress(BackSplitError, KeyError, TypeError):
            if job.spec.task != "train" or job.status().state is not State.SUCCEEDED:
                continue
            run, number = job.spec.params["run"], _number(job.id)
            path = f"jobs/{job.id}/model"
            if (project_folder / path / "plans.json").exists():
                yield ModelChoice(
                    f"{NAMES.get(run['arm'], run['arm'])} (job {number})",
                    path,
                    "trained",
                    str(run["arm"]),
                    f"{job.spec.title or run['arm']} (job {number})",
                    str(run.get("baseline") or ""),
                )


def _adopted(project_folder: Path) -> Iterator[ModelChoice]:
    for path in sorted((project_folder / ADOPTED).glob("[!.]*")):
        if (path / "plans.json").exists():
            title = f"adopted: {path.name}"
            yield ModelChoice(path.name, f"{ADOPTED}/{path.name}", "adopted", "", title)


def _gone(done: Predicted) -> ModelChoice:
    job = done.folder.partition("/")[2]
    name = f"predictions (job {_number(job)})"
    title = f"{name} of {Path(done.model).name}, which is not in the project"
    return ModelChoice(name, done.folder, "predictions", "", title, predictions=(done,))


def _number(job: str) -> int:
    return int(job.partition("-")[0])


def _predicted(job: Job) -> Iterator[Predicted]:
    """Yield what a job predicted; nothing where it is none, has not ended, or cannot be read."""
    with suppress(BackSplitError, KeyError, TypeError, AttributeError):
        if job.spec.task != "predict":
            return
        status = job.status()
        if status.state is not State.SUCCEEDED:
            return
        record, params = read_json(job.folder / RECORD), job.spec.params
        there = {file.name for file in (job.folder / "predictions").glob("*.nii.gz")}
        took = status.ended - status.started if status.ended and status.started else None
        yield Predicted(
            f"jobs/{job.id}",
            str(params["model"]),
            {
                case: _known_of(entry or {})
                for case, entry in record["cases"].items()
                if f"{case}.nii.gz" in there
            },
            tuple(map(str, record["model"]["folds"])),
            _checkpoint(record["model"]["hashes"]),
            bool(params.get("probabilities")),
            {name: params.get(name, usual) for name, usual in DECIDES.items()},
            took.total_seconds() if took else None,
            str(params.get("device") or "cpu"),
        )


def _known_of(entry: Mapping[str, Any]) -> str:
    return "seen" if entry.get("role") in ROLES else str(entry.get("seen", "unknown"))


def _checkpoint(hashes: Mapping[str, str]) -> str:
    return next((Path(name).name for name in hashes if name.endswith(".pth")), "")


def standings(project: Project, choice: ModelChoice) -> dict[str, Standing]:
    """Return case -> whether a model saw it in training, by the hashes of its images.

    Raises
    ------
    InputError, UntrustedModelError
        The model's folder is not whole, or names code to run.
    """
    if choice.kind == "predictions":
        words: dict[str, Standing] = {"verified": "unseen", "declared": "unseen", "seen": "seen"}
        done = choice.predictions[0].cases
        return {case: words.get(done.get(case, ""), "unknown") for case in project.case_ids()}
    model = ModelFolder.open(project.folder / choice.path)
    return {case: _standing(project, model, case) for case in project.case_ids()}


def _hashes(project: Project, case: str) -> set[str]:
    images = project.case(case).images.values()
    return {h for image in images for h in (image.sha256, image.source_sha256)} - {""}


def _standing(project: Project, model: ModelFolder, case: str) -> Standing:
    hashes = _hashes(project, case)
    role = role_of(model.card, hashes)
    checkpoint = next(iter(model.checkpoints.values())).name
    if role == "validation" and held_out(model.card, hashes, checkpoint):
        return "unseen" if says_all(model.card) else "unknown"
    return "unknown" if role is None else "unseen" if role == "unseen" else "seen"


@dataclass(frozen=True)
class CaseGroups:
    """Cases that models can be compared on.

    Attributes
    ----------
    test : tuple of str
        Held out, with a reference.
    unseen : tuple of str
        With a reference, and no model is known to have been trained on them or judged by them.
    labelled, unlabelled : tuple of str
        All with a reference, and all without one, whose channels are all there.
    """

    test: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    labelled: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()


def case_groups(project: Project, choices: Sequence[ModelChoice]) -> CaseGroups:
    """Sort the cases of a project for a comparison of some models."""
    able = [case for case in project.case_ids() if not project.case(case).missing_channels]
    labelled = tuple(case for case in able if not project.problems(case))
    seen: set[str] = set()
    for choice in choices:
        with suppress(BackSplitError):  # proposing says what is wrong with it
            seen |= _used(project, choice)
    test = set(project.test_cases())
    known = set(labelled)
    return CaseGroups(
        tuple(case for case in labelled if case in test),
        tuple(case for case in labelled if case not in seen),
        labelled,
        tuple(case for case in able if case not in known),
    )


def _used(project: Project, choice: ModelChoice) -> set[str]:
    """Return the cases that a model was trained on, or that judged it while it was.

    The latter may leave no trace in its last checkpoint. But who looks for cases that a model
    never met does not mean them; the folds of a cross-validation are compared by themselves.
    """
    if choice.kind == "predictions":
        return {case for case, how in standings(project, choice).items() if how == "seen"}
    card = ModelFolder.open(project.folder / choice.path).card
    return {case for case in project.case_ids() if role_of(card, _hashes(project, case)) in ROLES}
