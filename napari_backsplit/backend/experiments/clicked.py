"""Supports made by clicks: what an engine answers to so many clicks in each support of a project.

A job segments them under names of their own ("kidney-7-clicks"), clicked in the masks of kidney.
They are accepted without a person's look, since their faults are what is asked about.
"""

from __future__ import annotations

from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.draws import Draw, Facts
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job
from napari_backsplit.backend.jobs.batch import Step
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.copies import clicked, own_supports
from napari_backsplit.backend.structures.adopting import adopt_segmented, segmented
from napari_backsplit.backend.structures.simulation import PROJECT, SegmentSpec, grown
from napari_backsplit.backend.volume import read_mask

WHO = "experiment"
TABLE = "segment.json"


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
    own = own_supports(facts.supports, plan.sources)
    copies = {n: {f"{name}-{clicked(n)}": name for name in own} for n in plan.clicks}
    specs = [
        SegmentSpec(
            structures=tuple(named),
            clicked_in=named,
            engine=plan.engine,
            clicks=count,
            seed=draw.seed,
            reference=PROJECT,
            cases=facts.cases,
        )
        for count, named in copies.items()
        if named
    ]
    return [Step(step_name(spec.clicks or 0), "segment", _params(spec)) for spec in specs]


def _params(spec: SegmentSpec) -> Any:
    return lambda done: spec.model_dump(mode="json")


def adopt_clicked(project: Project, job: Job) -> None:
    """Take the masks of a job into the project, accepted; one that a person judged stays so.

    Where a support is known not to be there, so is its copy: an empty mask.

    Raises
    ------
    ProjectError
        Another window writes in the project.
    InputError
        A mask that it was made from is gone.
    """
    clicked_in, count = job.spec.params["clicked_in"], job.spec.params["clicks"]
    if set(clicked_in) - set(project.schema.support_names):
        project.set_supports(grown(project, list(clicked_in)))
    made = segmented(project, job.id)
    if made:
        adopt_segmented(project, job.id)
    rows = read_json(job.folder / TABLE)["rows"]
    absent = [(r["case"], r["structure"]) for r in rows if r["state"] == "absent"]
    for case, name in absent:
        if project.mask_path(case, name) is None:
            _set_empty(project, case, name, clicked_in[name], job)
    for case, name in (*made, *absent):
        record = project.provenance(case, name)
        if record is not None and record.review == "unreviewed":
            comment = f"{count} clicks, not reviewed"
            project.judge(case, "accepted", name, who=WHO, comment=comment)


def _set_empty(project: Project, case: str, name: str, source: str, job: Job) -> None:
    file = project.mask_path(case, source)
    if file is None:
        raise InputError(f"{case} has no mask of {source} any more.", "Run it again.")
    origin = {"engine": job.spec.params["engine"], "notes": ["It is not there."]}
    project.set_mask(case, name, read_mask(file), origin)


def click_quality(job: Job | None) -> dict[str, float]:
    """Return the mean Dice of each support that was clicked; {} before it is done."""
    file = None if job is None else job.folder / TABLE
    if job is None or file is None or not file.exists():
        return {}
    source = job.spec.params["clicked_in"]
    means = ((row["structure"], row["dice_mean"]) for row in read_json(file)["summary"])
    return {source[name]: float(mean) for name, mean in means if mean is not None}
