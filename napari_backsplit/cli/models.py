"""Commands that make models: plan, train, finetune, export."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import (
    FINETUNE,
    LEARNING,
    NETWORK,
    PlanSpec,
    RunSpec,
)
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, require_project
from napari_backsplit.cli.options import Spec, make_spec, with_spec

TRAIN = "2 Train"
FIRST = ("arm", "recipe", "supports", "masks", "epochs", "hours", "until", "fold", "device",
         "workers")  # fmt: skip
"""What a person may want to say of a training; the rest need not be changed."""
TUNED: dict[str, Any] = {
    **dict.fromkeys((*LEARNING, *NETWORK), "the baseline's"),
    **FINETUNE,
    "target_dice_share": f"{FINETUNE['target_dice_share']}, where the loss is a mean over classes",
    "supports": "the organs that hold the lesions",
}
"""What the help shows as the defaults of a fine-tune."""
COMPARE = "3 Compare"

DetachOption = Annotated[bool, typer.Option("--detach", help="Queue the job and return at once.")]
FromOption = Annotated[
    str,
    typer.Option(
        "--from", help="Number of a training job, or a foreign nnU-Net model folder or zip."
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option("--from", help="Start from this training job, or foreign model folder or zip."),
]


def _run(
    project: Path,
    task: str,
    params: dict[str, Any],
    title: str,
    detach: bool,
    as_json: bool,
    after: str = "",
) -> dict[str, Any]:
    """Run a job, or start it, and show what it gave; return its result."""
    from napari_backsplit.cli.console import show

    done = _job(project, task, params, title, detach, quiet=as_json, after=after)
    if as_json:
        show(done, as_json)
    return {} if detach else done


def _job(
    project: Path,
    task: str,
    params: dict[str, Any],
    title: str,
    detach: bool,
    quiet: bool,
    after: str = "",
) -> dict[str, Any]:
    """Run a job, or queue it, and return its number and result; say how it goes unless `quiet`.

    One that is queued waits for the job `after`, of which it is the next link.
    """
    from napari_backsplit.backend.jobs import enqueue, submit
    from napari_backsplit.cli.console import follow_job, say

    require_project(project)
    if detach:
        job = enqueue(project, task, params, title, needs=[after] if after else [], chain=after)
    else:
        job = submit(project, task, params, title)
    tell = (lambda text: None) if quiet else say
    if detach:
        tell(f"Queued {job.id}: {title}.")
        return {"job": job.id}
    tell(f"{job.id}: {title}")
    result = follow_job(job, quiet=quiet).result or {}
    tell(_outcome(job.id, result))
    return {"job": job.id, **result}


def _outcome(job: str, result: dict[str, Any]) -> str:
    """Say where a job's model or predictions are."""
    places = [f"{what}: {result[what]}" for what in ("model", "predictions") if what in result]
    return ", ".join([f"{job} is done", *places]) + "."


def _begin_training(folder: Path, spec: RunSpec, plan: PlanSpec | None = None) -> None:
    """Refuse an impossible run before it becomes a job, and keep the test set from now on."""
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.training.readiness import require_ready
    from napari_backsplit.backend.training.trackers import require_tracker

    require_project(folder)
    require_tracker(spec.tracker)
    with Project.open(folder, fall_back=True) as project:
        require_ready(project, spec, plan)
        if not project.read_only:
            project.freeze_test()


@app.command(rich_help_panel=TRAIN)
@with_spec(PlanSpec, skip=("baseline",))
def plan(
    *,
    project: ProjectOption = Path(),
    adopt: Annotated[
        str | None, typer.Option(help="Take the plans of this nnU-Net model folder or zip.")
    ] = None,
    detach: DetachOption = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Choose spacing, patch and network with nnU-Net, and preprocess the images once.

    All arms of a plan set share its images; only their labels differ.
    """
    from napari_backsplit.backend.training.baseline import model_path
    from napari_backsplit.cli.console import say

    require_project(project)
    baseline = model_path(project, adopt) if adopt else None
    given = {"name": baseline.rpartition("/")[2]} if baseline else {}
    spec = make_spec(PlanSpec, {**given, **options, "baseline": baseline})
    params = {"plan": spec.model_dump(mode="json")}
    result = _run(project, "plan", params, f"plan {spec.name}", detach, as_json)
    if result and not as_json:
        spacing = " x ".join(f"{mm:.2f}" for mm in result["spacing_mm"])
        patch = " x ".join(map(str, result["patch_size"]))
        say(
            f"Plan set {spec.name}: {result['cases']} cases, spacing {spacing} mm, patch {patch}, "
            f"batch {result['batch_size']}, features {result['features']}."
        )
        if not result["test_cases"]:
            say("No test set is reserved: `backsplit reserve` keeps cases to compare models on.")


@app.command(rich_help_panel=TRAIN)
@with_spec(RunSpec, skip=("baseline",), first=FIRST)
def train(
    *,
    project: ProjectOption = Path(),
    start: StartOption = None,
    detach: DetachOption = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Train one arm: binary, backsplit, or a control; with --recipe by a method of the papers.

    backsplit train --arm binary --recipe segresnet,inverse-weighting

    Plans that a recipe needs (2d, 3d-lowres) are made first where they are not there.
    """
    from napari_backsplit.backend.training.baseline import find_baseline
    from napari_backsplit.backend.training.recipe_plans import plan_to_make

    if start is not None:
        options = {**find_baseline(project, start), **options}
    spec = make_spec(RunSpec, options)
    plan = plan_to_make(project, spec)
    _begin_training(project, spec, plan)
    planned = "" if plan is None else _plan_first(project, plan, detach, as_json)
    title = f"train {spec.arm} {' '.join(spec.supports)}".strip()
    params = {"run": spec.model_dump(mode="json")}
    _run(project, "train", params, title, detach, as_json, planned)


def _plan_first(project: Path, plan: PlanSpec, detach: bool, as_json: bool) -> str:
    """Make the plans that a recipe needs, and return the number of the job."""
    from napari_backsplit.cli.console import say_aside

    say_aside(f"The recipe {plan.name} needs plans of its own: plan set {plan.name} is made first.")
    params = {"plan": plan.model_dump(mode="json")}
    done = _job(project, "plan", params, f"plan {plan.name}", detach, quiet=as_json)
    return str(done.get("job", ""))


def changes_of(spec: type[Spec], options: dict[str, Any]) -> dict[str, Any]:
    """Return what was said on the command line, each value checked by its field."""
    said = make_spec(spec, options)
    return {name: getattr(said, name) for name in options}


def tuning_changes(options: dict[str, Any]) -> dict[str, Any]:
    """Return what was said of a fine-tune on the command line, each value checked by its field."""
    from napari_backsplit.backend.training.recipe_defaults import tuning_values

    said = make_spec(RunSpec, tuning_values(options, {}))
    return {name: getattr(said, name) for name in options}


@app.command(rich_help_panel=TRAIN)
@with_spec(RunSpec, skip=("baseline", "arm"), first=FIRST, **TUNED)
def finetune(
    *,
    start: FromOption,
    project: ProjectOption = Path(),
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Leave out the same extra binary training.")
    ] = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Fine-tune a binary model with supports, and its control: the same extra binary training.

    A foreign model needs a plan set with its plans first: backsplit plan --adopt MODEL.
    """
    from napari_backsplit.backend.improvement import propose
    from napari_backsplit.backend.improvement_chain import control_of, training
    from napari_backsplit.backend.training.budget import trained_iterations, warnings
    from napari_backsplit.cli.console import say_aside, show

    improvement = propose(project, start, tuning_changes(options))
    spec = improvement.run
    for note in improvement.notes:
        say_aside(note)
    if improvement.plan is not None:
        adopt = f"backsplit plan --adopt {spec.baseline} --name {improvement.plan.name}"
        raise InputError("There is no plan set for this model and these cases.", f"Run: {adopt}")
    for warning in warnings(spec, trained_iterations(project / str(spec.baseline))):
        say_aside(warning, "yellow")
    if detach and not no_control and (spec.by_the_clock or spec.patience):
        raise InputError(
            "The control takes as many epochs as the fine-tune came to: it cannot begin with it.",
            "Leave out --detach, or use: backsplit improve",
        )
    _begin_training(project, spec)
    titles = {"backsplit": "fine-tune with supports", "binary": "the same extra binary epochs"}
    done: dict[str, dict[str, Any]] = {}
    for arm in ("backsplit",) if no_control else ("backsplit", "binary"):
        tuned = done.get("backsplit", {}).get("job", "")
        run = control_of(spec, tuned)[0] if arm == "binary" else spec
        done[arm] = _job(project, "train", training(run), titles[arm], detach, quiet=as_json)
    if as_json:
        show(done, as_json)


@app.command(rich_help_panel=COMPARE)
def export(
    model: Annotated[str, typer.Argument(help="Number of a training job.")],
    destination: Annotated[Path, typer.Argument(help="New folder, or a file ending in .zip.")],
    project: ProjectOption = Path(),
    checkpoint: Annotated[str, typer.Option(help="Checkpoint file.")] = "checkpoint_final.pth",
    as_json: JsonOption = False,
) -> None:
    """Export a run as a plain nnU-Net model that stock nnU-Net predicts with."""
    from napari_backsplit.backend.training.baseline import model_path
    from napari_backsplit.cli.console import say

    if destination.exists():
        raise InputError(f"{destination} exists.", "Choose a new name; nothing is overwritten.")
    params = {
        "model": model_path(project, model),
        "zip": destination.suffix == ".zip",
        "checkpoint": checkpoint,
    }
    result = _run(project, "export", params, "export", False, as_json)
    written = project / result["export"]
    (shutil.copyfile if written.is_file() else shutil.copytree)(written, destination)
    if not as_json:
        say(f"Wrote {destination}.")
