"""Which supports to teach: where the lesions lie, where a model is wrong, what it would learn.

Follows BackSplit, App. B: the organ that holds the lesions, its neighbours, those where the
baseline sees lesions that are none. Which of them helps most the paper leaves open; what is
measured here describes the cases at hand and promises no gain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, median

import numpy as np

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion import places
from napari_backsplit.backend.fusion.advice import ESTIMATE, FEWER, Advice, SupportAdvice
from napari_backsplit.backend.fusion.advice_inputs import ClassMaps, Predicted
from napari_backsplit.backend.fusion.case_facts import CaseFacts, Placed, facts_of
from napari_backsplit.backend.fusion.cases import Admit
from napari_backsplit.backend.fusion.gap_estimate import AROUND_MM
from napari_backsplit.backend.fusion.places import (
    FEW,
    FREQUENT,
    choose_supports,
    enough_cases,
    holder,
)
from napari_backsplit.backend.fusion.review import State
from napari_backsplit.backend.project import ProjectReader

SEVERAL = 2
"""False positives that a support must hold to be proposed for them: one may be chance."""


def advise(
    project: ProjectReader,
    cases: Sequence[str] | None = None,
    baseline: Mapping[str, Predicted] | None = None,
    run: Mapping[str, ClassMaps] | None = None,
    admit: Admit = "unreviewed",
    most: int = FEW,
) -> Advice:
    """Look at where the lesions lie and where a baseline is wrong, and propose supports.

    Without predictions the proposal is that of `choose_supports`; with them, supports that hold
    `FREQUENT` of the false positives join it. A support without a voxel is never proposed. Masks
    are read one at a time, those of supports only where there is something to place.

    Parameters
    ----------
    project : ProjectReader
    cases : sequence of str, optional
        By default training cases: `places.ENOUGH_CASES` of them at most, those with predictions
        first.
    baseline : mapping of str to Predicted, optional
        Case -> what a model predicts; see `advice_inputs.read_baseline`.
    run : mapping of str to ClassMaps, optional
        Case -> class probabilities of a run with supports; see `advice_inputs.read_run`.
    admit : Admit
        Which masks of supports count.
    most : int
        Supports that are proposed at most.

    Raises
    ------
    InputError
        There is no case, no support, or no mask of one that may enter; or predictions are of none
        of the cases.
    GeometryError
        A prediction is not on the grid of its image.
    """
    told = {"predictions": baseline, "class probabilities": run}
    given = [maps for maps in told.values() if maps is not None]
    cases = _some(project.training_cases(), given) if cases is None else tuple(cases)
    _require(project, cases, told)
    facts = [
        facts_of(project, case, admit, (baseline or {}).get(case), (run or {}).get(case))
        for case in cases
    ]
    found = _found(project, facts)
    _require_masks(found, admit)
    proposed = _proposed([each for each in found if each.usable], most)
    order = {name: number for number, name in enumerate(proposed)}
    return Advice(
        cases,
        tuple(case for case in cases if case in (baseline or {})),
        sum(len(each.lesions) for each in facts),
        sum(len(each.wrong) for each in facts),
        tuple(sorted(found, key=lambda each: order.get(each.support, len(order)))),
        proposed,
        tuple(_notes(facts, found, proposed)),
    )


def _some(cases: Sequence[str], given: Iterable[Mapping[str, object]]) -> tuple[str, ...]:
    """Return enough of the cases, those that something was given for before the others."""
    first = [case for case in cases if any(case in maps for maps in given)]
    rest = [case for case in cases if case not in first]
    chosen = {*(*enough_cases(first), *enough_cases(rest))[: places.ENOUGH_CASES]}
    return tuple(case for case in cases if case in chosen)


def _require(
    project: ProjectReader, cases: Sequence[str], told: Mapping[str, Mapping[str, object] | None]
) -> None:
    if not cases:
        raise InputError(
            "There is no case to look at.",
            "Import images and masks of the target; cases that the review rejected do not count.",
        )
    if not project.schema.fused_supports:
        raise InputError("The project has no support.", "Import or click a support first.")
    for what, maps in told.items():
        if maps is not None and not any(case in maps for case in cases):
            raise InputError(
                f"None of the {len(cases)} cases that are looked at has {what}.",
                "Predict training cases, by preference those the model has not seen "
                "(backsplit predict MODEL --case ID), or look at all cases.",
            )


def _require_masks(found: Sequence[SupportAdvice], admit: Admit) -> None:
    if any(each.usable for each in found):
        return
    masks = sum(count for each in found for state, count in each.review.items() if state != "none")
    if masks and admit == "accepted":
        raise InputError(
            f"None of the {masks} masks of supports was accepted in the review.",
            "Accept masks (backsplit verdict accepted), or let unreviewed ones enter "
            "(--masks unreviewed).",
        )
    raise InputError(
        "No case that is looked at has a mask of a support that may enter.",
        "Import or click a support first.",
    )


# --- one support over all cases -----------------------------------------------------------------


def _found(project: ProjectReader, facts: Sequence[CaseFacts]) -> list[SupportAdvice]:
    """Return what was found of each support, the one that holds most lesions first."""
    names = [support.name for support in project.schema.fused_supports]
    found = [_summed(name, facts) for name in names]
    return sorted(found, key=_rank)


def _rank(found: SupportAdvice) -> tuple[float, ...]:
    return -found.holds, -found.touches, -found.false_positives


def _summed(name: str, facts: Sequence[CaseFacts]) -> SupportAdvice:
    lesions = [lesion for each in facts for lesion in each.lesions]
    wrong = [part for each in facts for part in each.wrong]
    standing = Counter(each.standing[name] for each in facts)
    far = [part.distance_mm[name] for part in lesions if name in part.distance_mm]
    far = [mm for mm in far if np.isfinite(mm)]
    review: Counter[State] = sum((each.review[name] for each in facts), Counter())
    return SupportAdvice(
        support=name,
        lesions=len(lesions),
        held=_held(name, lesions),
        touched=sum(part.share(name) > 0 for part in lesions),
        inside=_inside(name, lesions),
        distance_mm=median(far) if far else None,
        wrong=len(wrong),
        false_positives=_held(name, wrong),
        false_volume=_inside(name, wrong),
        gap=_mean(each.gap[name] for each in facts if name in each.gap),
        gap_estimate=_mean(e.estimate[name] for e in _estimated(facts) if name in e.estimate),
        present=standing["present"],
        absent=standing["absent"],
        missing=standing["missing"] + standing["part"],
        review=dict(review),
        usable=standing["present"] + standing["part"] > 0,
    )


def _estimated(facts: Sequence[CaseFacts]) -> list[CaseFacts]:
    """Return the cases whose estimates are told: those with a prediction, where there are any."""
    return [each for each in facts if each.predicted] or list(facts)


def _held(name: str, parts: Iterable[Placed]) -> int:
    return sum(holder(part.covers) == name for part in parts)


def _inside(name: str, parts: Sequence[Placed]) -> float | None:
    """Return the share of the parts' volume that a support's mask has."""
    total = sum(part.ml for part in parts)
    own = sum(part.ml * part.covers[name].inside for part in parts if name in part.covers)
    return own / total if total else None


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return fmean(known) if known else None


# --- the proposal -------------------------------------------------------------------------------


def _proposed(usable: Sequence[SupportAdvice], most: int) -> tuple[str, ...]:
    """Return what the lesions tell, then what the false positives tell (App. B, 1 to 3)."""
    near = choose_supports(usable, most)
    often = [
        each
        for each in sorted(usable, key=lambda each: -each.false_positives)
        if each.false_positives >= max(SEVERAL, FREQUENT * each.wrong)
    ]
    errs = [each.support for each in often]
    if errs and not any(each.touched for each in usable):
        near = ()  # the first ones: the lesions have told nothing
    return tuple(dict.fromkeys((*near, *errs)))[:most]


def _notes(
    facts: Sequence[CaseFacts], found: Sequence[SupportAdvice], proposed: Sequence[str]
) -> Iterable[str]:
    if not any(each.lesions for each in facts):
        yield f"None of the {len(facts)} cases has a lesion: where they lie is not known."
    if measured := sum(bool(each.gap) for each in facts):
        yield f"The run's information gap is a mean over {measured} of {len(facts)} cases."
    if any(each.estimate for each in facts):
        yield f"{ESTIMATE} {_weights(facts)}"
    if any(each.false_positives for each in found) and len(proposed) > 1:
        yield FEWER


def _weights(facts: Sequence[CaseFacts]) -> str:
    told = [each.weighted for each in _estimated(facts) if each.estimate]
    around = f"within {AROUND_MM:.0f} mm of lesions and predicted ones"
    if not any(told):
        return f"Every voxel {around} weighs 1: no model says how unsure it is."
    some = "" if all(told) else f" in {sum(told)} of {len(told)} cases, otherwise 1"
    return f"A voxel {around} weighs eta (1 - eta) of the baseline{some}."
