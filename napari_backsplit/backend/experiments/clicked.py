"""Supports made by clicks: what an engine answers to so many clicks in each support of a project.

A job segments them; they become supports of the project under names of their own
("kidney-7-clicks"), accepted without a person's look, since their faults are what is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.draws import Draw, Facts
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job
from napari_backsplit.backend.jobs.batch import Step
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.simulation import PROJECT, SegmentSpec, grown
from napari_backsplit.backend.volume import Volume, read_mask

WHO = "experiment"
TABLE = "segment.json"
MASKS = "masks"


def step_name(clicks: int) -> str:
    """Return the name of the step that segments with so many clicks."""
    return f"{clicks} clicks"


def click_steps(plan: ExperimentPlan, draw: Draw, facts: Facts) -> list[Step]:
    """Return the jobs that click the supports of a draw's training cases; none before it is made.

    Parameters
    ----------
    facts : Facts
        Supports and cases of the project.
    """
    copies = tuple(f"-{source}" for source in plan.sources)
    own = tuple(name for name in facts.supports if not name.endswith(copies))
    specs = [
        SegmentSpec(
            structures=own,
            engine=plan.engine,
            clicks=count,
            seed=draw.seed,
            reference=PROJECT,
            cases=facts.cases,
        )
        for count in (plan.clicks if own else ())
    ]
    return [Step(step_name(spec.clicks or 0), "segment", _params(spec)) for spec in specs]


def _params(spec: SegmentSpec) -> Any:
    return lambda done: spec.model_dump(mode="json")


def adopt_clicked(project: Project, job: Job) -> int:
    """Take the masks of a job into the project as supports of their own; return how many are new.

    Raises
    ------
    ProjectError
        Another window writes in the project.
    InputError
        A mask that it was made from is gone.
    """
    clicks = job.spec.params["clicks"]
    named = {name: f"{name}-{clicks}-clicks" for name in job.spec.params["structures"]}
    if set(named.values()) - set(project.schema.support_names):
        project.set_supports(grown(project, list(named.values())))
    new = [
        row
        for row in read_json(job.folder / TABLE)["rows"]
        if row["state"] in ("segmented", "absent")
        and project.mask_path(row["case"], named[row["structure"]]) is None
    ]
    for row in new:
        case, name = row["case"], named[row["structure"]]
        project.set_mask(case, name, *_made(project, job, row))
        project.judge(case, "accepted", name, who=WHO, comment=f"{clicks} clicks, not reviewed")
    return len(new)


def _made(project: Project, job: Job, row: Mapping[str, Any]) -> tuple[Volume, dict[str, Any]]:
    """Return a mask with where it comes from: the engine's, or an empty one, as the support is."""
    case, structure = row["case"], row["structure"]
    file = job.folder / MASKS / case / f"{structure}.nii.gz"
    if row["state"] == "segmented":
        return read_mask(file), read_json(file.with_suffix("").with_suffix(".json"))
    own = project.mask_path(case, structure)
    if own is None:
        raise InputError(f"{case} has no mask of {structure} any more.", "Run it again.")
    return read_mask(own), {"engine": job.spec.params["engine"], "notes": ["It is not there."]}


def click_quality(job: Job | None) -> dict[str, float]:
    """Return the mean Dice of each support that was clicked; {} before it is done."""
    file = None if job is None else job.folder / TABLE
    if file is None or not file.exists():
        return {}
    means = ((row["structure"], row["dice_mean"]) for row in read_json(file)["summary"])
    return {name: float(mean) for name, mean in means if mean is not None}
