"""The command that measures predictions against the reference."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_backsplit.backend.compare_settings import CompareSettings
from napari_backsplit.backend.errors import InputError
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
    from napari_backsplit.backend.files import read_json
    from napari_backsplit.cli.console import say, show_summary

    named = pairs(arms)
    if len(named) < 2:
        raise InputError("A comparison needs two arms.", "Write: compare binary=5 finetune=6")
    unknown = sorted(set(control or ()) - set(named))
    if unknown:
        raise InputError(f"--control {unknown[0]} is no arm.", f"Name one of {', '.join(named)}.")
    settings = changes_of(CompareSettings, options)
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
    result = models._run(project, "compare", params, "compare", detach, as_json)
    if result and not as_json:
        show_summary(read_json((project / result["report"]).parent / "summary.json"))
        say(f"Report: {project / result['report']}")


def _folder(project: Path, name: str, place: str, declare_unseen: bool) -> str:
    """Return the predictions of an arm, relative to the project: a job's, or masks taken in."""
    from napari_backsplit.backend.prediction.foreign_masks import take_masks
    from napari_backsplit.cli.jobs import find_job

    if place.isdecimal() or not Path(place).is_dir():
        return f"jobs/{find_job(project, place, 'predict').id}"
    with open_project(project, read_only=True) as opened:
        return take_masks(opened, name, Path(place), declare_unseen)
