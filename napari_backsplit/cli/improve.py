"""Commands that do all of it at once: improve a model, cross-validate arms."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import Arm, PlanSpec, RunSpec
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, open_project, require_project
from napari_backsplit.cli.models import FIRST, TRAIN, TUNED, DetachOption, tuning_changes
from napari_backsplit.cli.options import make_spec, with_spec

if TYPE_CHECKING:
    from napari_backsplit.backend.answer import Answer
    from napari_backsplit.backend.improvement import Improvement
    from napari_backsplit.backend.jobs import Chain

WhereOption = Annotated[
    str, typer.Option(help="Address of the Dask scheduler that runs it; by default this machine.")
]
POLL_S = 0.3


@app.command(rich_help_panel=TRAIN)
@with_spec(RunSpec, skip=("baseline", "arm"), first=FIRST, **TUNED)
def improve(
    model: Annotated[
        str, typer.Argument(help="Number of a training job, or an nnU-Net model folder or zip.")
    ],
    *,
    project: ProjectOption = Path(),
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Leave out the same extra binary training.")
    ] = False,
    declare_unseen: Annotated[
        bool, typer.Option("--declare-unseen", help="The model was not trained on the test cases.")
    ] = False,
    accept_unfit: Annotated[
        bool, typer.Option("--accept-unfit", help="The model fits although it seems not to.")
    ] = False,
    folds: Annotated[
        str, typer.Option(help="Measure in cross-validation on these folds, as 0,1,2.")
    ] = "",
    where: WhereOption = "",
    detach: DetachOption = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Fine-tune a binary model with supports, and say whether it is better than it was.

    Plan, fine-tune, the same extra binary training, three predictions of the held-out cases and
    their comparison are queued as one chain, which goes on when this window closes.
    """
    from napari_backsplit.backend.improvement import begin, propose

    require_project(project)
    changes = tuning_changes(options) | {
        "control": not no_control,
        "declare_unseen": declare_unseen,
        "folds": _numbers(folds),
        "where": where,
    }
    improvement = propose(project, model, changes)
    if accept_unfit and improvement.plan is not None:
        accepting = improvement.plan.model_copy(update={"accept_unfit": True})
        improvement = propose(project, model, {**changes, "plan": accepting})
    _look(project, improvement)
    _follow(project, begin(project, improvement), detach, as_json)


def _numbers(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() for part in parts):
        raise InputError(f"--folds {text!r} is no list of folds.", "Write them as 0,1,2.")
    return tuple(int(part) for part in parts)


def _look(project: Path, improvement: Improvement) -> None:
    """Say what will be done, and what speaks for and against it, on standard error.

    Raises
    ------
    InputError
        Something keeps it from being begun.
    """
    from napari_backsplit.backend.improvement import sentence
    from napari_backsplit.backend.training.estimate import estimate
    from napari_backsplit.backend.training.preflight import preflight, refusals
    from napari_backsplit.cli.console import say_aside

    with open_project(project, read_only=True) as opened:
        takes = estimate(opened, improvement)
        checks = preflight(opened, improvement, takes)
    for note in improvement.notes:
        say_aside(note)
    styles = {"passed": "", "warned": "yellow", "refused": "red"}
    refused = refusals(checks)
    for check in checks:
        if check.level != "passed" and check not in refused[:1]:
            text = f"{check.name}: {check.text} {check.remedy}".strip()
            say_aside(text, styles[check.level])
    say_aside(sentence(improvement, takes))
    if refused:
        raise InputError(
            f"It cannot begin: {refused[0].text}", refused[0].remedy or "See: backsplit preflight"
        )


def _follow(project: Path, name: str, detach: bool, as_json: bool) -> None:
    """Follow a chain to its answer, or say how to find it."""
    from napari_backsplit.backend.answer import answer
    from napari_backsplit.backend.jobs import chains
    from napari_backsplit.cli.console import say, show

    if detach:
        lines = [f"Queued as {name}. See how it stands with: backsplit jobs list"]
        show({"chain": name}, as_json, lines)
        return
    chain = next(chain for chain in chains(project) if chain.name == name)
    follow_chain(chain, quiet=as_json)
    found = answer(project, name)
    if found is None:
        raise InputError(f"{name} has no comparison any more.", "See: backsplit jobs list")
    if as_json:
        show(_plain(project, name, found), as_json)
        return
    say(found.text)
    say(f"Report: {found.report}")


def follow_chain(chain: Chain, *, quiet: bool = False) -> None:
    """Show a chain's progress, link by link, until all is done.

    Raises
    ------
    typer.Exit
        A link did not succeed (code 1), or the chain was left running (code 130).
    """
    import time

    from napari_backsplit.backend.jobs import State
    from napari_backsplit.cli.console import follow_job, say_aside

    said = ""
    while (status := chain.status()).state is not State.SUCCEEDED:
        job = status.current
        if job is None or status.state is State.PENDING:
            try:
                time.sleep(POLL_S)
            except KeyboardInterrupt:
                say_aside(f"{chain.name} goes on without this window: backsplit jobs list")
                raise typer.Exit(130) from None
            continue
        if job.id != said and not quiet:
            say_aside(f"Step {status.done + 1} of {status.total}: {job.spec.title}")
        said = job.id
        follow_job(job, quiet=quiet)


def _plain(project: Path, name: str, found: Answer) -> dict[str, Any]:
    return {
        "chain": name,
        "better": found.better,
        "text": found.text,
        "verdicts": found.verdicts,
        "gained": found.gained,
        "lost": found.lost,
        "cases": found.cases,
        "report": found.report.resolve().relative_to(project.resolve()).as_posix(),
    }


@app.command(rich_help_panel=TRAIN)
@with_spec(RunSpec, skip=("baseline", "arm", "fold", "patience", "same_epochs_as"), first=FIRST)
def crossvalidate(
    *,
    project: ProjectOption = Path(),
    arms: Annotated[
        str, typer.Option(help=f"Arms, the baseline first; of {', '.join(get_args(Arm))}.")
    ] = "binary,backsplit",
    folds: Annotated[str, typer.Option(help="Folds, as 0,1,2; by default all.")] = "",
    devices: Annotated[
        str, typer.Option(help="Devices that the folds go to in turn, as cuda:0,cuda:1.")
    ] = "",
    where: WhereOption = "",
    detach: DetachOption = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Train arms on each fold, measure each on the cases it was not taught, and compare them.

    A plan set that is not there yet is made first.
    """
    from napari_backsplit.backend.cross_validation import cross_validate
    from napari_backsplit.backend.study import StudyArm
    from napari_backsplit.backend.training.recipe_defaults import require_no_arm, spoken
    from napari_backsplit.backend.training.recipes import recipe_names

    require_project(project)
    names = [name.strip() for name in arms.split(",") if name.strip()]
    with spoken():
        require_no_arm(recipe_names(options.get("recipe", "")), "name it among --arms instead")
    runs = [StudyArm(name, make_spec(RunSpec, {**options, "arm": name})) for name in names]
    if len(runs) < 2:
        raise InputError("A comparison needs two arms.", "Write: --arms binary,backsplit")
    chosen = _numbers(folds)
    plan, known = _plan_of(project, runs[0].run, chosen)
    name = cross_validate(
        project,
        runs,
        plan,
        chosen or tuple(range(known)),
        devices=tuple(name.strip() for name in devices.split(",") if name.strip()),
        where=where,
    )
    _follow(project, name, detach, as_json)


def _plan_of(project: Path, run: RunSpec, folds: tuple[int, ...]) -> tuple[PlanSpec | None, int]:
    """Return the plan set to make first, if any, and how many folds there are."""
    from napari_backsplit.backend.training.baseline import plan_sets
    from napari_backsplit.backend.training.recipe_plans import plan_to_make

    made = plan_sets(project).get(run.plan_set)
    if made and made["ready"]:
        return None, len(made["splits"])
    plan = plan_to_make(project, run)
    if plan is None and made:
        plan = PlanSpec.model_validate(made["spec"])
    elif plan is None:
        count = max(folds) + 1 if folds else PlanSpec().folds
        plan = make_spec(PlanSpec, {"name": run.plan_set, "folds": max(count, 2)})
    return plan, plan.folds
