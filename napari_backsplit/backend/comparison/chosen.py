"""What is compared: which arms on which cases, and what has to be known of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from napari_backsplit.backend.comparison.arms import Arm
from napari_backsplit.backend.comparison.trainings import UNSAID, Training, training_of
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.roles import HELD_OUT
from napari_backsplit.backend.project import ProjectReader

NAMED = 5
"""Cases that a sentence names; of the others it says how many they are."""

_GONE, _NOT_CHOSEN = "not in the project", "not chosen"
_WORDS = {"rule": "lesion where", "mirroring": "mirrored", "step_size": "step of the window"}


def folders_of(params: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return arm -> the folders of its predictions, as the parameters of a job name them."""
    return {
        name: (folders,) if isinstance(folders, str) else tuple(folders)
        for name, folders in params["arms"].items()
    }


def arms_of(params: Mapping[str, Any], path: Callable[[str], Path]) -> tuple[Arm, ...]:
    """Open the arms that the parameters of a job name.

    Raises
    ------
    InputError
        One has no finished predictions, or a case twice.
    """
    declared = set(params.get("declared_unseen") or ())
    return tuple(
        Arm.open(name, [path(folder) for folder in folders], name in declared)
        for name, folders in folders_of(params).items()
    )


def check_targets(project: ProjectReader, arms: Sequence[Arm]) -> None:
    """Refuse predictions of other targets, or of the same in another order: their ids differ.

    Raises
    ------
    InputError
        An arm has them.
    """
    names = project.schema.target_names
    for arm in arms:
        if other := arm.targets - {names}:
            raise InputError(
                f"The predictions of {arm.name} are of {', '.join(other.pop())} (ids in this "
                f"order), the project's targets are {', '.join(names)}.",
                "Predict with it again, as the project is now.",
            )


def require_comparable(project: ProjectReader, params: Mapping[str, Any]) -> None:
    """Refuse, before it becomes a job, a comparison that could only fail.

    Parameters
    ----------
    params : mapping
        Of the job; its predictions have ended.

    Raises
    ------
    InputError
        As for `arms_of`, `check_targets` and `choose_cases`.
    """
    arms = arms_of(params, lambda folder: project.folder / folder)
    check_targets(project, arms)
    choose_cases(project, arms, params.get("cases"))


def choose_cases(
    project: ProjectReader, arms: Sequence[Arm], wanted: Sequence[str] | None
) -> list[str]:
    """Return the labelled cases that every arm predicted, or check those wanted.

    Raises
    ------
    InputError
        A wanted case is not in the project, lacks a reference or a prediction, or no case is
        left.
    """
    _require_wanted(project, arms, wanted or ())
    able = [case for case in arms[0].cases if not _hindrance(project, arms, case)]
    chosen = [case for case in able if wanted is None or case in wanted]
    if not chosen:
        predicted = ", ".join(f"{arm.name} {len(arm.cases)}" for arm in arms)
        raise InputError(
            f"No case has a reference and a prediction of every arm (predicted: {predicted}).",
            "Predict the same cases with each.",
        )
    return chosen


def _require_wanted(project: ProjectReader, arms: Sequence[Arm], wanted: Iterable[str]) -> None:
    known = project.case_ids()
    if unknown := sorted(set(wanted) - set(known)):
        raise InputError(
            f"There is no case {_elided(unknown)}.",
            f"Name cases of the project: {_elided(known)}." if known else "Import cases first.",
        )
    lacking = {case: why for case in wanted if (why := _hindrance(project, arms, case))}
    if lacking:
        raise InputError(
            f"{_elided(sorted(lacking))} cannot be compared: {_counted(lacking)}.",
            "Predict the case with every arm and give it a reference, or leave it out.",
        )


def _hindrance(project: ProjectReader, arms: Sequence[Arm], case: str) -> str:
    """Return why a case cannot be compared; "" where it can."""
    if case not in project.case_ids():
        return _GONE
    if not all(project.mask_path(case, target) for target in project.schema.target_names):
        return "without a reference"
    if project.rejected(case):
        return "rejected in the review"
    lacking = [arm.name for arm in arms if case not in arm.cases]
    return f"not predicted by {', '.join(lacking)}" if lacking else ""


def _elided(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _counted(reasons: Mapping[str, str]) -> str:
    """Return each reason with its count and cases."""
    by_reason: dict[str, list[str]] = {}
    for case, why in sorted(reasons.items()):
        by_reason.setdefault(why, []).append(case)
    each = sorted(by_reason.items(), key=lambda item: -len(item[1]))
    return "; ".join(f"{len(cases)} {why} ({_elided(cases)})" for why, cases in each)


# ---------------------------------------------------------------- what has to be known


def notes_of(
    project: ProjectReader,
    arms: Sequence[Arm],
    cases: Sequence[str],
    wanted: Sequence[str] | None = None,
) -> Iterator[str]:
    """Say what is to be read with a comparison, the weightiest first."""
    yield from _settings_notes(arms)
    yield from _training_notes(project, arms)
    yield from _left_out(project, arms, cases, wanted)
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


def _left_out(
    project: ProjectReader,
    arms: Sequence[Arm],
    cases: Sequence[str],
    wanted: Sequence[str] | None,
) -> Iterator[str]:
    """Say how many predicted cases are not compared, and why."""
    predicted = {case for arm in arms for case in arm.recorded}
    out = predicted - set(cases)
    reasons = {
        case: _NOT_CHOSEN
        if wanted is not None and case not in wanted
        else _hindrance(project, arms, case)
        for case in out
    }
    if out:
        noun = "case" if len(predicted) == 1 else "cases"
        yield f"{len(out)} of {len(predicted)} predicted {noun} left out: {_counted(reasons)}."


def _settings_notes(arms: Sequence[Arm]) -> Iterator[str]:
    """Say which settings the arms were predicted with, where they are not the same."""
    differing = [text for word, of in _decisions(arms) if (text := _differing(word, of))]
    if differing:
        yield (
            "The arms were predicted with different settings, so that a difference is not that of "
            f"the models alone: {'; '.join(differing)}."
        )


def _training_notes(project: ProjectReader, arms: Sequence[Arm]) -> Iterator[str]:
    """Say what beside arm and supports differs between the models, as far as it is recorded."""
    trained = {arm.name: [training_of(project.folder, m) for m in arm.models] for arm in arms}
    plan_sets = {name: {t.plan_set for t in each if t.plan_set} for name, each in trained.items()}
    if across := _differing("", _joined(plan_sets)):
        yield f"The arms are of different plan sets, so that more than labels differs:{across}."
    words = dict.fromkeys(word for each in trained.values() for t in each for word in t.settings)
    compared = ((word, _joined(_values(trained, word))) for word in words if word not in UNSAID)
    differing = [text for word, of in compared if (text := _differing(word, of))]
    if differing:
        yield f"Beside arm and supports the models also differ in: {'; '.join(differing)}."
    unknown = [name for name, each in trained.items() if not all(t.settings for t in each)]
    if words and unknown:
        yield (
            f"How {', '.join(unknown)} {'was' if len(unknown) == 1 else 'were'} trained is not "
            "recorded: more than arm and supports may differ."
        )


def _values(trained: Mapping[str, Sequence[Training]], word: str) -> dict[str, set[str]]:
    return {
        name: {t.settings[word] for t in each if word in t.settings}
        for name, each in trained.items()
    }


def _decisions(arms: Sequence[Arm]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each setting with arm -> its value; arms of which it is not known are left out."""
    for name, word in _WORDS.items():
        values = {arm.name: {_said(value) for value in arm.decided(name)} for arm in arms}
        yield word, _joined(values)
    yield "folds", _joined({arm.name: arm.folds for arm in arms})
    yield "checkpoint", _joined({arm.name: arm.checkpoints for arm in arms})


def _joined(values: Mapping[str, set[str]]) -> dict[str, str]:
    return {arm: " and ".join(sorted(each)) for arm, each in values.items() if each}


def _differing(word: str, values: Mapping[str, str]) -> str:
    if len(set(values.values())) < 2:
        return ""
    each = dict.fromkeys(values.values())
    return f"{word} " + ", ".join(
        f"{value} ({', '.join(arm for arm, own in values.items() if own == value)})"
        for value in each
    )


def _said(value: object) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)
