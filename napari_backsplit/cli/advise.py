"""The command that says which supports to teach: advise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption

if TYPE_CHECKING:
    from napari_backsplit.backend.fusion.advice import Advice, SupportAdvice
    from napari_backsplit.backend.project import Project

COLUMNS = (
    "support",
    "holds",
    "touches",
    "volume inside",
    "away mm",
    "FP held",
    "FP volume",
    "gap",
    "gap ESTIMATE",
    "missing",
)


@app.command(rich_help_panel="2 Train")
def advise(
    project: ProjectOption = Path(),
    baseline: Annotated[
        str | None,
        typer.Option(
            help="Predictions of a binary model: number of a prediction job, or a folder with "
            "<case>.nii.gz."
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            help="Class probabilities of a run with supports: number of a prediction job, or a "
            "folder with <case>.npz as nnU-Net's --save_probabilities writes it."
        ),
    ] = None,
    all_cases: Annotated[
        bool,
        typer.Option(
            "--all-cases", help="Look at every case with a reference, the reserved ones too."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say which supports to teach: where the lesions lie, and where a model is wrong.

    Without --baseline the proposal rests on the lesions alone. Figures that are estimates say so.
    """
    from napari_backsplit.backend.fusion.advice_inputs import read_baseline, read_run
    from napari_backsplit.backend.fusion.advisor import advise as look
    from napari_backsplit.cli.console import show
    from napari_backsplit.cli.data import open_project

    with open_project(project, read_only=True) as opened:
        predictions, classes = _folder(project, baseline, "predict"), _folder(project, run)
        predicted = None if predictions is None else read_baseline(opened, predictions)
        maps = None if classes is None else read_run(opened, classes)
        cases = _with_reference(opened) if all_cases else None
        advice = look(opened, cases, predicted, maps)
        notes = [*advice.notes, *_asides(opened, advice, predictions)]
    command = f"backsplit finetune --from {_model(predictions)} --supports " + ",".join(
        advice.proposed
    )
    if as_json:
        show(_as_json(advice, notes, command), as_json)
    else:
        _show(advice, notes, command)


def _folder(project: Path, given: str | None, task: str | None = None) -> Path | None:
    """Return the folder of predictions that a person means: a job's, or any.

    Raises
    ------
    JobError
        It is neither a job, or one of another task, nor a folder.
    InputError
        The job has not finished.
    """
    from napari_backsplit.cli.jobs import find_job

    if given is None:
        return None
    if not given.isdigit() and Path(given).is_dir():
        return Path(given)
    predictions: Path = find_job(project, given, task).folder / "predictions"
    if task and not (predictions / "predictions.json").is_file():
        raise InputError(
            f"The prediction job {given} has not finished.",
            "Wait for it, or resume it: backsplit jobs list",
        )
    return predictions


def _with_reference(project: Project) -> tuple[str, ...]:
    return tuple(case for case in project.case_ids() if not project.problems(case))


def _asides(project: Project, advice: Advice, predictions: Path | None) -> list[str]:
    """Say what the choice of cases means for the figures."""
    from napari_backsplit.backend.fusion.advice_inputs import seen_cases

    asides = []
    seen = set(seen_cases(predictions)) if predictions else set()
    if learnt := seen & set(advice.predicted):
        asides.append(
            f"The baseline was trained on, or chosen by, {len(learnt)} of the "
            f"{len(advice.predicted)} cases with a prediction: it may err less there than on new "
            "cases."
        )
    if reserved := set(project.test_cases()) & set(advice.cases):
        asides.append(
            f"Of the cases looked at {len(reserved)} {'is' if len(reserved) == 1 else 'are'} "
            "reserved: a comparison on them no longer tells how the choice does on new cases."
        )
    return asides


def _model(predictions: Path | None) -> str:
    """Return the number of the training job that predicted; MODEL where that is not known."""
    from napari_backsplit.backend.files import read_json

    record = predictions / "predictions.json" if predictions else None
    said = read_json(record) if record and record.is_file() else {}
    path = str((said.get("model") or {}).get("path", ""))
    number = path.removeprefix("jobs/").partition("-")[0]
    return str(int(number)) if path.startswith("jobs/") and number.isdigit() else "MODEL"


def _as_json(advice: Advice, notes: list[str], command: str) -> Mapping[str, Any]:
    from dataclasses import asdict

    supports = [{**asdict(found), "reasons": found.reasons} for found in advice.supports]
    return {**asdict(advice), "supports": supports, "notes": notes, "command": command}


def _show(advice: Advice, notes: list[str], command: str) -> None:
    from napari_backsplit.cli.console import say, table

    predicted = f", {len(advice.predicted)} with a prediction" if advice.predicted else ""
    wrong = f", {advice.wrong} false positives" if advice.predicted else ""
    say(f"{len(advice.cases)} cases{predicted}: {advice.lesions} lesions{wrong}.")
    rows = [dict(zip(COLUMNS, _row(found), strict=True)) for found in advice.supports]
    shown = [name for name in COLUMNS if any(row[name] for row in rows)]
    table(shown, ([row[name] for name in shown] for row in rows))
    for found in advice.supports:
        say(f"{found.support}: {'; '.join(found.reasons)}.")
    for note in notes:
        say(note)
    say(f"Proposed: {', '.join(advice.proposed)}.")
    say(command)


def _row(found: SupportAdvice) -> tuple[str, ...]:
    from napari_backsplit.backend.fusion.advice import percent

    def share(value: float | None) -> str:
        return "" if value is None else percent(value)

    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    return (
        found.support,
        f"{found.held}/{found.lesions}",
        f"{found.touched}/{found.lesions}",
        share(found.inside),
        number(found.distance_mm, 0),
        f"{found.false_positives}/{found.wrong}" if found.wrong else "",
        share(found.false_volume),
        number(found.gap, 3),
        number(found.gap_estimate, 3),
        f"{found.missing}/{found.cases}" if found.missing else "",
    )
