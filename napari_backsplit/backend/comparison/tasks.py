"""The comparison as a job: predictions of a project's cases against its references."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_backsplit.backend.comparison.arms import Arm, ArmFolder
from napari_backsplit.backend.comparison.case_reader import CaseReader
from napari_backsplit.backend.comparison.chosen import (
    arms_of,
    check_targets,
    choose_cases,
    folders_of,
    notes_of,
)
from napari_backsplit.backend.comparison.compare import (
    CaseInput,
    check_arms,
    conclude,
    lesions_of,
    measure_case,
)
from napari_backsplit.backend.comparison.intervals import Bootstrap
from napari_backsplit.backend.comparison.lesion_table import LesionRow
from napari_backsplit.backend.comparison.lesions import LesionSettings
from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
from napari_backsplit.backend.comparison.report import ReportInfo, write_report
from napari_backsplit.backend.comparison.results import Comparison, ComparisonSettings, Row
from napari_backsplit.backend.comparison.sources import sources_of
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import JobContext, Phase, Progress
from napari_backsplit.backend.project import Project

__all__ = ["Arm", "ArmFolder", "CaseReader", "choose_cases", "run_compare", "settings_of"]

_MISSED = {"leave out": "leave out", "diagonal": "diagonal", "image diagonal": "diagonal"}


def run_compare(context: JobContext) -> dict[str, Any]:
    """Compare predictions on the project's references; write comparisons/<id>/.

    Parameters of the job: arms (name -> folder of predictions, relative to the project, or a
    list of folders that are pooled, as those of the folds are; what `arms` says of a folder),
    declared_unseen (names of arms whose models, the user declares, saw none of the cases, where
    nothing is recorded), baseline (name), controls (names), about (name -> what the arm is, in
    words), cases (None: those that all arms predicted), title, and what `settings_of` reads.

    Returns
    -------
    dict
        "report", the path of report.html in the project; "folder"; "verdict", one sentence for
        each target and pair; "cases", how many were compared.
    """
    params = context.params
    settings = settings_of(params)
    check_arms(tuple(params["arms"]), settings)
    arms = arms_of(params, context.path)
    with Project.open(context.project_folder, read_only=True) as project:
        check_targets(project, arms)
        reader = CaseReader(project, arms)
        cases = choose_cases(project, arms, params.get("cases"))
        title = params.get("title") or "Comparison"
        comparison = replace(
            _measured(context, reader, cases, settings),
            title=title,
            folders=folders_of(params),
            notes=tuple(notes_of(project, arms, cases, params.get("cases"))),
        )
        context.report(Phase(name="report"))
        report = write_report(
            comparison,
            context.project_folder / "comparisons" / context.folder.name,
            lambda case: reader.read(case, for_figure=True),
            ReportInfo(
                title=title,
                arms=params.get("about"),
                sources=sources_of(
                    project,
                    {
                        name: [context.path(folder) for folder in each]
                        for name, each in folders_of(params).items()
                    },
                    cases,
                ),
            ),
        )
    return _result(context, comparison, report, cases)


def settings_of(params: Mapping[str, Any]) -> ComparisonSettings:
    """Return the settings that a job's parameters ask for.

    Parameters of the job: tolerance_mm, missed_hd95 ("leave out" or "image diagonal"), matching,
    iou_threshold, connectivity, strata_ml, resamples, seed, interval.

    Raises
    ------
    InputError
        A value is not one that can be.
    """
    missed = params.get("missed_hd95", "leave out")
    if missed not in _MISSED:
        raise InputError(f"missed_hd95 is {missed!r}.", 'Choose "leave out" or "image diagonal".')
    tolerance_mm = float(params.get("tolerance_mm", 2.0))
    if not tolerance_mm >= 0:
        raise InputError(f"The NSD tolerance is {tolerance_mm} mm.", "Give one of 0 or more.")
    known = LesionSettings()
    return ComparisonSettings(
        baseline=params.get("baseline") or next(iter(params["arms"]), ""),
        controls=tuple(params.get("controls") or ()),
        tolerance_mm=tolerance_mm,
        bootstrap=Bootstrap(
            resamples=int(params.get("resamples", Bootstrap.resamples)),
            seed=int(params.get("seed", 0)),
            method=params.get("interval", Bootstrap.method),
        ),
        policy=EmptyMaskPolicy("diagonal" if _MISSED[missed] == "diagonal" else "leave out"),
        lesions=LesionSettings(
            matching=params.get("matching", known.matching),
            iou_threshold=float(params.get("iou_threshold", known.iou_threshold)),
            connectivity=params.get("connectivity", known.connectivity),
            strata_ml=tuple(map(float, params.get("strata_ml", known.strata_ml))),
        ),
    )


def _measured(
    context: JobContext, reader: CaseReader, cases: Sequence[str], settings: ComparisonSettings
) -> Comparison:
    """Measure the cases one at a time; the masks of none are kept."""
    rows: list[Row] = []
    lesions: list[LesionRow] = []
    for case in _told(context, cases):
        measured, listed = _measure(reader.read(case), settings)
        rows += measured
        lesions += listed
    return conclude(rows, settings, lesions)


def _measure(case: CaseInput, settings: ComparisonSettings) -> tuple[list[Row], list[LesionRow]]:
    # A function of its own, so that a case is let go before the next is read.
    return list(measure_case(case, settings)), lesions_of(case, settings)


def _told(context: JobContext, cases: Sequence[str]) -> Iterator[str]:
    """Yield the cases, saying how far it is, and stopping in between if asked to."""
    context.report(Phase(name="measure"))
    began = time.monotonic()
    for done, case in enumerate(cases):
        context.checkpoint()
        pace = (time.monotonic() - began) / done if done else None
        eta_s = None if pace is None else pace * (len(cases) - done)
        context.report(Progress(done=done, total=len(cases), text=case, eta_s=eta_s))
        yield case
    context.report(Progress(done=len(cases), total=len(cases)))


def _result(
    context: JobContext, comparison: Comparison, report: Path, cases: Sequence[str]
) -> dict[str, Any]:
    relative = report.relative_to(context.project_folder)
    return {
        "report": relative.as_posix(),
        "folder": relative.parent.as_posix(),
        "verdict": [verdict.sentence for verdict in comparison.verdicts],
        "cases": len(cases),
    }
