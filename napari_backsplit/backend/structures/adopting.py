"""Taking the results of jobs into the project: predicted lesions, and segmented supports.

A mask that is there is never replaced unless that is asked for; then the old one is kept in the
case's trash, as always.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job, list_jobs
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.structures.engines import About
from napari_backsplit.backend.structures.simulation import ENDING, grown
from napari_backsplit.backend.volume import Volume, read_label_map, read_mask

PREDICTIONS = "predictions"
RECORD = "predictions.json"
MASKS = "masks"


@dataclass(frozen=True)
class Adoption:
    """What became of the masks of a job: (case, structure) of each.

    Attributes
    ----------
    adopted
        They are masks of the project now.
    left
        The project has a mask there, which stayed; these are in the job's folder alone.
    """

    adopted: tuple[tuple[str, str], ...] = ()
    left: tuple[tuple[str, str], ...] = ()


# ---------------------------------------------------------------------- lesions


def predictions_for(project: ProjectReader, case: str) -> list[tuple[str, str]]:
    """Return (id, title) of the finished jobs that predicted the lesions of a case, newest first.

    Raises
    ------
    ProjectError
        There is no such case.
    """
    name = f"{project.case(case).id}{ENDING}"
    folder = project.folder / "jobs"
    return [
        (job, title)
        for job, title in prediction_jobs(project)
        if (folder / job / PREDICTIONS / name).exists()
    ]


def prediction_jobs(project: ProjectReader) -> list[tuple[str, str]]:
    """Return (id, title) of the finished jobs that predicted lesions, newest first."""
    jobs = [job for job in list_jobs(project.folder) if job.spec.task == "predict"]
    return [
        (job.id, job.spec.title)
        for job in reversed(jobs)
        if (job.folder / PREDICTIONS / RECORD).exists()
    ]


def predicted(project: ProjectReader, job: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the cases that a job has predicted, and the targets that it has predicted there.

    Raises
    ------
    InputError
        It has none: it is another kind of job, or it is not finished.
    """
    record = _record(project, job)
    folder = project.folder / "jobs" / job / PREDICTIONS
    cases = [case for case in record["cases"] if (folder / f"{case}{ENDING}").exists()]
    return tuple(cases), tuple(record["targets"])


def adopt_prediction(
    project: Project, case: str, job: str, target: str = "", *, replace: bool = False
) -> Path:
    """Make a prediction the reference mask of a lesion, not reviewed yet.

    Parameters
    ----------
    job : str
        Id of a predict job.
    target : str
        Which of the project's targets; by default the only one.
    replace : bool
        Replace a reference mask; the old one is kept.

    Returns
    -------
    Path
        The mask in the project.

    Raises
    ------
    InputError
        The job has no prediction of that case or target, or the target must be named.
    ProjectError
        The case has a reference mask and `replace` is False, or nothing can be written.
    """
    volume, name, record = _prediction(project, case, job, target)
    origin = _origin(record, job, case)
    return project.set_mask(case, name, volume, origin, replace=replace)


def predicted_mask(
    project: ProjectReader, case: str, job: str, target: str = ""
) -> tuple[NDArray[np.bool_], About]:
    """Read a prediction for a window: bool, (z, y, x), canonical; and where it comes from.

    Raises
    ------
    InputError
        The job has no prediction of that case or target, or the target must be named.
    GeometryError
        It is not on the grid of the image.
    """
    volume, _, record = _prediction(project, case, job, target)
    if difference := project.geometry(case).difference(volume.geometry):
        raise GeometryError(
            f"The prediction of {case} in {job} is not on the grid of the image. {difference}",
            "Predict again.",
        )
    about = About("prediction", f"{record['model']['path']} ({job})")
    return volume.canonical().array, about


def _prediction(
    project: ProjectReader, case: str, job: str, target: str
) -> tuple[Volume, str, dict[str, Any]]:
    """Read the mask of one target; return its name and the job's record too."""
    record = _record(project, job)
    file = project.folder / "jobs" / job / PREDICTIONS / f"{project.case(case).id}{ENDING}"
    if not file.exists():
        raise InputError(f"{job} has no prediction of {case}.", "Choose another job, or predict.")
    index = _index(record["targets"], target, job)
    labels = read_label_map(file)
    mask = labels.with_array(np.asarray(labels.array == index + 1))
    return mask, record["targets"][index], record


def adopt_predictions(
    project: Project, job: str, cases: Sequence[str] | None = None, *, replace: bool = False
) -> Adoption:
    """Make the predictions of a job reference masks, for all its cases and targets.

    Parameters
    ----------
    cases : sequence of str, optional
        By default all that it has.

    Raises
    ------
    InputError, ProjectError
        As for `adopt_prediction`; a mask that is there is left, and no error.
    """
    known, targets = predicted(project, job)
    pairs = [(case, target) for case in cases or known for target in targets]
    left = [pair for pair in pairs if _has_mask(project, *pair) and not replace]
    adopted = [pair for pair in pairs if pair not in left]
    for case, target in adopted:
        adopt_prediction(project, case, job, target, replace=replace)
    return Adoption(tuple(adopted), tuple(left))


def _record(project: ProjectReader, job: str) -> dict[str, Any]:
    file = project.folder / "jobs" / job / PREDICTIONS / RECORD
    if not file.exists():
        raise InputError(f"{job} has no finished predictions.", "Choose a finished predict job.")
    record: dict[str, Any] = read_json(file)
    return record


def _index(targets: Sequence[str], target: str, job: str) -> int:
    """Return the place of a target in a record; its id in the masks is one more."""
    if not target and len(targets) == 1:
        return 0
    if target not in targets:
        what = f"no prediction of {target}" if target else "predictions of several targets"
        raise InputError(f"{job} has {what}.", f"Name one of {', '.join(targets)}.")
    return targets.index(target)


def _origin(record: dict[str, Any], job: str, case: str) -> dict[str, Any]:
    model = record["model"]
    return {
        "engine": "prediction",
        "model": model["path"],
        "notes": [f"Adopted from the prediction {job}; it was made by a model, not by a person."],
        "job": job,
        "model_hashes": model.get("hashes"),
        "seen": record["cases"].get(case),
    }


# ---------------------------------------------------------------------- supports


def segmented(project: ProjectReader, job: str) -> tuple[tuple[str, str], ...]:
    """Return (case, structure) of the finished masks of a segment job."""
    files = sorted((project.folder / "jobs" / job / MASKS).glob("*/*.json"))
    known = project.schema.cases
    return tuple((f.parent.name, f.stem) for f in files if f.parent.name in known)


def adopt_segmented(
    project: Project, job: str, cases: Sequence[str] | None = None, *, replace: bool = False
) -> Adoption:
    """Take the masks of a segment job into the project, and its structures as supports.

    Parameters
    ----------
    job : str
        Id of a segment job; one that was cancelled has the masks that it finished.
    cases : sequence of str, optional
        By default all that it has.
    replace : bool
        Replace masks; the old ones are kept.

    Raises
    ------
    InputError
        It has no mask of these cases.
    ProjectError
        Nothing can be written.
    """
    found = [pair for pair in segmented(project, job) if cases is None or pair[0] in cases]
    if not found:
        raise InputError(f"{job} has no mask to adopt.", "Choose a job that made some.")
    left = [pair for pair in found if _has_mask(project, *pair) and not replace]
    adopted = [pair for pair in found if pair not in left]
    if adopted:
        _add_supports(project, job, {structure for _, structure in adopted})
    for case, structure in adopted:
        file = project.folder / "jobs" / job / MASKS / case / f"{structure}{ENDING}"
        origin = read_json(file.with_name(f"{structure}.json"))
        project.set_mask(case, structure, read_mask(file), origin, replace=replace)
    return Adoption(tuple(adopted), tuple(left))


def _has_mask(project: ProjectReader, case: str, structure: str) -> bool:
    names = [known.name for known in project.schema.structures]
    return structure in names and project.mask_path(case, structure) is not None


def _add_supports(project: Project, job: str, names: Collection[str]) -> None:
    """Add the structures that are new, in the order in which they were asked for."""
    asked = Job(project.folder / "jobs" / job).spec.params["structures"]
    new = [name for name in asked if name in names]
    if set(new) - set(project.schema.support_names):
        project.set_supports(grown(project, new))
