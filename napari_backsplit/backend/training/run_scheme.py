"""The scheme of a run: which supports it learns, and in which cases. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.cases import project_scheme
from napari_backsplit.backend.project import Project, ProjectReader
from napari_backsplit.backend.project.copies import own_supports
from napari_backsplit.backend.training.arms import ArmScheme, arm_scheme, unknown_supports
from napari_backsplit.backend.training.spec import WITH_SUPPORTS, RunSpec


def run_scheme(
    project: Project, run: RunSpec, cases: Sequence[str], fold: tuple[Sequence[str], Sequence[str]]
) -> ArmScheme:
    """Return the scheme of a run's arm, with its share of the cases and of the supports.

    Parameters
    ----------
    project : Project
    run : RunSpec
    cases : sequence of str
        The cases of the plan set.
    fold : (sequence of str, sequence of str)
        The cases that the run trains on, and those that it validates on. A share of the cases is
        drawn in each of the two.

    Raises
    ------
    InputError
        As for `supports_of` and `arm_scheme`.
    """
    supports = supports_of(project, run)

    def scheme(without: Sequence[str]) -> ArmScheme:
        return arm_scheme(project, run.arm, supports, cases, run.masks, without, run.missing)

    whole = scheme(())
    if run.support_cases == 1 or not whole.supports:
        return whole
    training, validation = fold
    others = [case for case in validation if case not in training]
    shares = [_with_supports(project, whole, part) for part in (training, others)]
    patients = {case: project.case(case).patient for part in shares for case in part}
    return scheme(left_out(run.support_cases, shares, patients, run.seed))


def supports_of(project: ProjectReader, run: RunSpec) -> tuple[str, ...]:
    """Return the supports that a run learns, in the project's order of priority.

    () for an arm without supports. Of those that the run names, in the order in which it names
    them, the first `support_count`. Where it names none: of the project's, in their order, but for
    copies of others (see `project.copies`).

    Raises
    ------
    InputError
        A support is not the project's, or more are asked for than there are.
    """
    if run.arm not in WITH_SUPPORTS:
        return ()
    known = project_scheme(project).supports
    unknown = sorted(set(run.supports) - set(known))
    if unknown:
        raise InputError(
            f"The project has no support {', '.join(unknown)}.", f"It has: {', '.join(known)}."
        )
    asked = run.supports or own_supports(known)
    if run.support_count is not None and run.support_count > len(asked):
        raise InputError(
            f"The first {run.support_count} supports are asked for, of {len(asked)} "
            f"({', '.join(asked) or 'none'}).",
            f"Take at most {len(asked)}, or add supports." if asked else "Add supports first.",
        )
    first = asked[: run.support_count]
    return tuple(name for name in known if name in first)


def _with_supports(project: Project, scheme: ArmScheme, cases: Sequence[str]) -> list[str]:
    return [
        case
        for case in cases
        if len(unknown_supports(project, scheme, case)) < len(scheme.supports)
    ]


def left_out(
    share: float, parts: Sequence[Sequence[str]], patients: Mapping[str, str], seed: int
) -> tuple[str, ...]:
    """Return the cases whose supports are left out where only a share of the cases has them.

    Parameters
    ----------
    share : float
        Of the cases with supports, above 0 and at most 1. A smaller share is among a larger one.
    parts : sequence of sequences of str
        The cases with supports to train on, and those to validate on: the share is drawn in each,
        as near as whole patients allow, at least one patient.
    patients : mapping of str to str
        Case -> patient; all cases of a patient keep their supports, or none does.
    seed : int
    """
    out: set[str] = set()
    for index, cases in enumerate(parts):
        groups = _by_patient(cases, patients)
        order = np.random.default_rng([seed, index]).permutation(sorted(groups)).tolist()
        counts = np.cumsum([len(groups[first]) for first in order])
        wanted = max(1, round(share * len(cases)))
        kept = 1 + int(np.argmin(np.abs(counts - wanted))) if order else 0
        out.update(case for first in order[kept:] for case in groups[first])
    return tuple(sorted(out))


def _by_patient(cases: Sequence[str], patients: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the cases of each patient, by the first of them."""
    found: dict[str, list[str]] = {}
    for case in sorted(cases):
        found.setdefault(patients[case], []).append(case)
    return {group[0]: group for group in found.values()}
