"""Who is trained on, who is tested on: by patient, never by case. Pure functions."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence

from napari_backsplit.backend.errors import ProjectError


def assign_folds(
    has_lesion: Mapping[str, bool], folds: int, seed: int, kept: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Deal patients into folds of nearly equal size.

    Patients with and without lesions are spread evenly, each kind for itself.

    Parameters
    ----------
    has_lesion : mapping
        Patient id -> True if any of the patient's cases has a lesion.
    kept : mapping, optional
        Folds of patients that must not move.

    Raises
    ------
    ProjectError
        Fewer than two folds, or fewer patients than folds.
    """
    if not 2 <= folds <= len(has_lesion):
        raise ProjectError(
            f"{len(has_lesion)} patients with a reference cannot be split into {folds} folds.",
            "Choose at least 2 folds and at most as many as there are patients.",
        )
    dealt = {name: fold for name, fold in (kept or {}).items() if name in has_lesion}
    for patient in _shuffled(has_lesion, seed):
        if patient not in dealt:
            dealt[patient] = _emptiest(dealt, has_lesion, patient, folds)
    return dealt


def draw_patients(has_lesion: Mapping[str, bool], count: int, seed: int) -> set[str]:
    """Draw `count` patients, those with and without lesions in proportion.

    Raises
    ------
    ProjectError
        Not 1 <= count < number of patients.
    """
    if not 1 <= count < len(has_lesion):
        raise ProjectError(
            f"{count} of {len(has_lesion)} patients cannot be reserved for the test.",
            "Reserve at least one patient and leave at least one to train on.",
        )
    order = _shuffled(has_lesion, seed)
    kinds = [[p for p in order if has_lesion[p] is kind] for kind in (True, False)]
    share = round(count * len(kinds[0]) / len(order))
    share = min(max(share, count - len(kinds[1])), len(kinds[0]))
    return {*kinds[0][:share], *kinds[1][: count - share]}


def as_splits(
    fold_of: Mapping[str, int], cases: Sequence[tuple[str, str]], folds: int
) -> list[dict[str, list[str]]]:
    """Turn folds of patients into nnU-Net's list of {"train": case ids, "val": case ids}.

    Parameters
    ----------
    cases : sequence of (case id, patient id)
    """
    return [
        {
            "train": [case for case, patient in cases if fold_of[patient] != fold],
            "val": [case for case, patient in cases if fold_of[patient] == fold],
        }
        for fold in range(folds)
    ]


def _shuffled(has_lesion: Mapping[str, bool], seed: int) -> list[str]:
    """Shuffle the patients, those with a lesion first."""
    order = sorted(has_lesion)
    random.Random(seed).shuffle(order)
    return sorted(order, key=lambda patient: not has_lesion[patient])


def _emptiest(
    dealt: Mapping[str, int], has_lesion: Mapping[str, bool], patient: str, folds: int
) -> int:
    kind = has_lesion[patient]
    alike = Counter(fold for name, fold in dealt.items() if has_lesion[name] is kind)
    total = Counter(dealt.values())
    return min(range(folds), key=lambda fold: (alike[fold], total[fold], fold))
