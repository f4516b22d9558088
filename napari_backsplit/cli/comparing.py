"""The command that measures predictions against the reference."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_backsplit.backend.compare_settings import CompareSettings
from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.cli import app, models
from napari_backsplit.cli.data import JsonOption, ProjectOption, open_project
from napari_backsplit.cli.models import COMPARE, DetachOption, changes_of
from napari_backsplit.cli.options import pairs, with_spec

PREDICTING = ("device", "mirroring", "step_size", "probabilities", "rule", "declare_unseen")


class Interval(StrEnum):
    """The bootstrap intervals there are."""

    STUDENTISED = "studentised"
    EQUAL_TAILS = "studentised, equal tails"
    BCA = "BCa"
    PERCENTILE = "percentile"


@app.command(rich_help_panel=COMPARE)
@with_spec(CompareSettings, skip=PREDICTING)
def compare(
    *,
    arms: Annotated[
        list[str],
        typer.Argument(
            help="NAME=JOB of each prediction, or NAME=FOLDER of masks that another program "
            "predicted; the first is the baseline."
        ),
    ],
    project: ProjectOption = Path(),
    control: Annotated[
        list[str] | None,
        typer.Option(help="NAME that every other arm is measured against too; may be repeated."),
    ] = None,
    case: Annotated[list[str] | None, typer.Option(help="Case id; may be repeated.")] = None,
    interval: Annotated[
        Interval, typer.Option(help="How the bootstrap's interval is made.")
    ] = Interval.STUDENTISED,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.")] = 0,
    declare_unseen: Annotated[
        bool,
        typer.Option(
            "--declare-unseen",
            help="You declare that no training of the FOLDERs' models saw these cases.",
        ),
    ] = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Measure predictions against the reference, arm against baseline, and write a report.

    backsplit compare binary=5 BackSplit=6 longer=7 --control longer
    """
    from napari_backsplit.backend.comparison.chosen import require_comparable
    from napari_backsplit.backend.files import read_json
    from napari_backsplit.cli.console import say, show_summary

    named = _named(arms)
    unknown = sorted(set(control or ()) - set(named))
    if unknown:
        raise InputError(f"--control {unknown[0]} is no arm.", f"Name one of {', '.join(named)}.")
    settings = changes_of(CompareSettings, options)
    ended = _have_ended(project, named, detach)
    folders = {name: _folder(project, name, place, declare_unseen) for name, place in named.items()}
    params = {
        "arms": folders,
        "baseline": next(iter(folders)),
        "controls": control or [],
        "cases": case,
        "interval": interval.value,
        "seed": seed,
        **{name: list(v) if isinstance(v, tuple) else v for name, v in settings.items()},
    }
    if ended:
        with open_project(project, read_only=True) as opened:
            require_comparable(opened, params)
    result = models._run(project, "compare", params, "compare", detach, as_json)
    if result and not as_json:
        show_summary(read_json((project / result["report"]).parent / "summary.json"))
        say(f"Report: {project / result['report']}")


def _named(arms: list[str]) -> dict[str, str]:
    """Return name -> what predicted it; no name is given twice."""
    named = pairs(arms)
    names = [arm.partition("=")[0].strip() for arm in arms]
    twice = [name for name in named if names.count(name) > 1]
    if twice:
        raise InputError(f"{twice[0]!r} is named twice.", "Give each arm a name of its own.")
    if len(named) < 2:
        raise InputError("A comparison needs two arms.", "Write: compare binary=5 finetune=6")
    return named


def _have_ended(project: Path, named: dict[str, str], detach: bool) -> bool:
    """Whether all predictions have ended well; jobs that were queued first may still end so.

    Raises
    ------
    JobError
        A prediction failed, or has not ended and nothing would wait for it.
    """
    from napari_backsplit.backend.jobs import State
    from napari_backsplit.cli.jobs import find_job

    found = (find_job(project, place, "predict") for place in named.values() if _is_job(place))
    states = {job.id: job.status().state for job in found}
    waiting = (State.PENDING, State.RUNNING, State.PAUSED)
    for job, state in states.items():
        if state not in (State.SUCCEEDED, *waiting):
            raise JobError(
                f"The predictions of job {job} did not end well: {state}.",
                f"See why with: backsplit jobs log {job}; then predict again.",
            )
        if state in waiting and not detach:
            raise JobError(f"Job {job} has not ended: {state}.", "Wait for it, or add --detach.")
    return all(state is State.SUCCEEDED for state in states.values())


def _is_job(place: str) -> bool:
    named = re.fullmatch(r"\d+-\w+", place) is not None and not Path(place).is_dir()
    return place.isdecimal() or named


def _folder(project: Path, name: str, place: str, declare_unseen: bool) -> str:
    """Return the predictions of an arm, relative to the project: a job's, or masks taken in."""
    from napari_backsplit.backend.prediction.foreign_masks import take_masks
    from napari_backsplit.cli.jobs import find_job

    if _is_job(place):
        return f"jobs/{find_job(project, place, 'predict').id}"
    folder = Path(place)
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder.name}.",
            "Give the number of a prediction job, or a folder of masks.",
        )
    with open_project(project, read_only=True) as opened:
        return take_masks(opened, name, folder, declare_unseen)
