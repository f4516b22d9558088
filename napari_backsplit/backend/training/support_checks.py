"""Whether the supports of a run can be learnt from the masks that there are. Needs no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.cases import admitted
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.recipes import sources_of
from napari_backsplit.backend.training.arms import ArmScheme, missing_supports, unknown_supports
from napari_backsplit.backend.training.checks import Check, passed, refused, some, warned
from napari_backsplit.backend.training.spec import RunSpec

NAME = "support masks"
SOFT = "soft labels"

Unknown = Mapping[str, tuple[str, ...]]
"""Case -> supports that are not known in it."""

Present = Mapping[str, set[str]]
"""Case -> supports that have a voxel in it."""


def require_taught(
    project: Project, run: RunSpec, scheme: ArmScheme, cases: Sequence[str], training: Sequence[str]
) -> list[Check]:
    """Refuse a run whose labels cannot be learnt; return what a person should have read.

    Parameters
    ----------
    project : Project
    run : RunSpec
    scheme : ArmScheme
        The run's.
    cases, training : sequence of str
        The cases of the plan set, and those of them that the run trains on.

    Raises
    ------
    InputError
        A support is nowhere known, or nowhere present; or soft labels meet label sets.
    """
    checks = list(support_checks(project, run, scheme, cases, training))
    for check in checks:
        if check.level == "refused":
            raise InputError(check.text, check.remedy)
    return [check for check in checks if check.level == "warned" or check.name == SOFT]


def support_checks(
    project: Project, run: RunSpec, scheme: ArmScheme, cases: Sequence[str], training: Sequence[str]
) -> Iterator[Check]:
    """Look where the supports of a run are known and present; parameters as of `require_taught`.

    A mask is read where its voxels were never counted.
    """
    if scheme.supports and training:
        unknown = {case: unknown_supports(project, scheme, case) for case in training}
        present = {case: _present(project, scheme, case) for case in training}
        yield next(
            chain(
                _never_known(project, run, scheme, unknown),
                _never_present(scheme, unknown, present),
                _once(scheme, unknown, present),
                [_known(scheme, unknown)],
            )
        )
        yield from _all_partial(project, scheme, unknown)
    if run.labels == "soft":
        yield _soft(project, scheme, cases)


def _known(scheme: ArmScheme, unknown: Unknown) -> Check:
    counts = _counts(unknown)
    said = ", ".join(f"{name} in {len(unknown) - counts[name]}" for name in scheme.supports)
    return passed(NAME, f"Known of {len(unknown)} cases: {said}.")


def _counts(unknown: Unknown) -> Counter[str]:
    """Return in how many cases each support is not known."""
    return Counter(name for names in unknown.values() for name in names)


def _present(project: Project, scheme: ArmScheme, case: str) -> set[str]:
    """Return which supports have a voxel in what a case is told."""
    if case in scheme.without:
        return set()
    owner = scheme.donors.get(case, case)
    made = [recipe for recipe in project.schema.recipes if recipe.kind != "subtract"]
    return {
        name
        for name in scheme.supports
        if any(_has_voxels(project, scheme, owner, source) for source in sources_of(name, made))
    }


def _has_voxels(project: Project, scheme: ArmScheme, case: str, source: str) -> bool:
    facts = project.facts(case, source)
    if facts is None or not admitted(project, case, source, scheme.admit):
        return False
    if facts.voxels is not None:
        return facts.voxels > 0
    mask = project.mask(case, source)
    return mask is not None and bool(mask.any())


def _never_known(
    project: Project, run: RunSpec, scheme: ArmScheme, unknown: Unknown
) -> Iterator[Check]:
    counts = _counts(unknown)
    never = [name for name in scheme.supports if counts[name] == len(unknown)]
    if not never:
        return
    text = f"No mask of {some(never)} may enter in any of {len(unknown)} cases."
    if scheme.without:
        used = sum(case not in scheme.without for case in unknown)
        text = f"{text[:-1]}, of which the supports of {used} are used."
        remedy = "Use those of more cases (--support-cases), or leave the support out."
        yield refused(NAME, text, remedy, "review")
        return
    anyway = replace(scheme, admit="unreviewed")
    more = run.masks == "accepted" and all(
        any(name not in unknown_supports(project, anyway, case) for case in unknown)
        for name in never
    )
    remedy = "Accept some in the review, or leave the support out."
    yield refused(NAME, text, remedy, "include unreviewed" if more else "review")


def _never_present(scheme: ArmScheme, unknown: Unknown, present: Present) -> Iterator[Check]:
    counts = _counts(unknown)
    nowhere = set(scheme.supports).difference(*present.values())
    empty = [name for name in scheme.supports if name in nowhere and counts[name] < len(unknown)]
    if empty:
        known = ", ".join(f"{name} in {len(unknown) - counts[name]}" for name in empty)
        yield refused(
            NAME,
            f"The masks of {some(empty)} are empty wherever they are known ({known} of "
            f"{len(unknown)} cases to train on): there is nothing to learn it from.",
            "Look at them in the review, make them again, or leave the support out (--supports).",
            "review",
        )


def _once(scheme: ArmScheme, unknown: Unknown, present: Present) -> Iterator[Check]:
    if len(unknown) < 2:
        return
    counts = _counts(unknown)
    known = [name for name in scheme.supports if len(unknown) - counts[name] == 1]
    there = [
        name
        for name in scheme.supports
        if name not in known and sum(name in names for names in present.values()) == 1
    ]
    found = [(known, "known"), (there, "present")]
    said = [f"{some(names)}: {what} in one case only" for names, what in found if names]
    if said:
        text = f"{'; '.join(said)}, too few to be learnt."
        yield warned(NAME, text, "Add masks, or leave the support out.", "review")


def _all_partial(project: Project, scheme: ArmScheme, unknown: Unknown) -> Iterator[Check]:
    if not all(missing_supports(project, scheme, case) for case in unknown):
        return
    yield warned(
        "partial cases",
        f"Each of {len(unknown)} cases lacks a support ({_lacking(scheme, unknown)}): nothing "
        "anywhere is told to be plain background, and the Dice of a support counts its false "
        "voxels only in the cases in which it is known.",
        "Accept all supports of some cases, or leave a support out.",
        "review",
    )


def _lacking(scheme: ArmScheme, unknown: Unknown) -> str:
    counts = _counts(unknown)
    return ", ".join(f"{n} in {counts[n]}" for n in scheme.supports if counts[n])


def _soft(project: Project, scheme: ArmScheme, cases: Sequence[str]) -> Check:
    unknown = {case: names for case in cases if (names := missing_supports(project, scheme, case))}
    if unknown:
        return refused(
            SOFT,
            f"Soft labels do not combine with label sets, and of {len(cases)} cases some lack a "
            f"mask that may enter: {_lacking(scheme, unknown)}.",
            "Complete or accept the masks, leave the support out, or call it background there "
            "(--missing background), which is wrong wherever the support is.",
            "review",
        )
    there = {n: sum(project.soft_path(c, n) is not None for c in cases) for n in scheme.targets}
    said = ", ".join(f"{name} in {count}" for name, count in there.items())
    if any(there.values()):
        return passed(SOFT, f"Soft masks of {len(cases)} cases: {said}; the others are resampled.")
    text = f"No case has a soft mask of {some(scheme.targets)}: its labels are soft from resampling"
    return passed(SOFT, f"{text} and augmentation alone.")
