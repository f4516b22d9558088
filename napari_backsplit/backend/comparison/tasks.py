"""The comparison as a job: predictions of a project's cases against its references."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_backsplit.backend.comparison.arms import Arm, ArmFolder
from napari_backsplit.backend.comparison.case_reader import CaseReader
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
from napari_backsplit.backend.prediction.roles import HELD_OUT
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
    arms = _arms(params, context.path)
    with Project.open(context.project_folder, read_only=True) as project:
        _check_targets(project, arms)
        reader = CaseReader(project, arms)
        cases = choose_cases(project, arms, params.get("cases"))
        title = params.get("title") or "Comparison"
        comparison = replace(
            _measured(context, reader, cases, settings), title=title, folders=_folders(params)
        )
        context.report(Phase(name="report"))
        report = write_report(
            comparison,
            context.project_folder / "comparisons" / context.folder.name,
            lambda case: reader.read(case, for_figure=True),
            ReportInfo(
                title=title,
                arms=params.get("about"),
                notes=tuple(_notes(project, arms, cases)),
                sources=sources_of(
                    project,
                    {
                        name: [context.path(folder) for folder in each]
                        for name, each in _folders(params).items()
                    },
                    cases,
                ),
            ),
        )
    return _result(context, comparison, report, cases)


def _arms(params: Mapping[str, Any], path: Callable[[str], Path]) -> tuple[Arm, ...]:
    declared = set(params.get("declared_unseen") or ())
    return tuple(
        Arm.open(name, [path(folder) for folder in folders], name in declared)
        for name, folders in _folders(params).items()
    )


def _folders(params: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {
        name: (folders,) if isinstance(folders, str) else tuple(folders)
        for name, folders in params["arms"].items()
    }


def _check_targets(project: Project, arms: Sequence[Arm]) -> None:
    """Refuse predictions of other targets, or of the same in another order: their ids differ."""
    names = project.schema.target_names
    for arm in arms:
        if other := arm.targets - {names}:
            raise InputError(
                f"The predictions of {arm.name} are of {', '.join(other.pop())} (ids in this "
                f"order), the project's targets are {', '.join(names)}.",
                "Predict with it again, as the project is now.",
            )


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


def choose_cases(project: Project, arms: Sequence[Arm], wanted: Sequence[str] | None) -> list[str]:
    """Return the labelled cases that every arm predicted, or check those wanted.

    Raises
    ------
    InputError
        A wanted case lacks a reference or a prediction, or no case is left.
    """
    others = set(arms[0].cases).intersection(*(arm.cases for arm in arms[1:]))
    common = [case for case in arms[0].cases if case in others]
    able = [case for case in common if _labelled(project, case)]
    lacking = sorted(set(wanted or ()) - set(able))
    if lacking:
        raise InputError(
            f"{', '.join(lacking)} cannot be compared: a reference or a prediction is missing, "
            "or was rejected in the review.",
            "Predict the case with every arm, or leave it out.",
        )
    chosen = [case for case in able if wanted is None or case in wanted]
    if not chosen:
        predicted = ", ".join(f"{arm.name} {len(arm.cases)}" for arm in arms)
        raise InputError(
            f"No case has a reference and a prediction of every arm (predicted: {predicted}).",
            "Predict the same cases with each.",
        )
    return chosen


def _labelled(project: Project, case: str) -> bool:
    targets = project.schema.target_names
    there = case in project.case_ids() and all(project.mask_path(case, t) for t in targets)
    return there and not project.rejected(case)


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


def _notes(project: Project, arms: Sequence[Arm], cases: Sequence[str]) -> Iterator[str]:
    predicted = {case for arm in arms for case in arm.recorded}
    if left_out := len(predicted - set(cases)):
        yield (
            f"{left_out} predicted case{'s' if left_out > 1 else ''} left out: without a "
            "reference, rejected in the review, not predicted by every arm, or not chosen."
        )
    if len(set.union(*(arm.configurations for arm in arms))) > 1:
        yield "The arms use different configurations: more than the label map differs."
    roles = {case: {arm.recorded[case].get("role") for arm in arms} for case in cases}
    held_out = [case for case, each in roles.items() if HELD_OUT in each <= {HELD_OUT, "unseen"}]
    if held_out:
        yield (
            f"Cross-validation: {len(held_out)} of {len(cases)} cases were predicted by networks "
            "of the fold that held them out, with the last checkpoint, which does not depend on "
            "them. Plans, and supports that were chosen for the whole project, may."
        )


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
