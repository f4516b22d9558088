"""Checks before a training that read masks: grids, ids, lesions that vanish; for some seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import cc3d
import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.fusion import integrity
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.checks import Check, Wanted, passed, refused, some, warned
from napari_backsplit.backend.training.workload import (
    MadePlanSet,
    Workload,
    plan_set_of,
    workload,
)
from napari_backsplit.backend.volume import read_geometry, read_label_map

HEADERS_S = 2.0
"""Seconds after which no further mask's header is read."""

LESIONS_S = 3.0
"""Seconds after which no further case's lesions are counted."""


def mask_checks(project: Project, wanted: Wanted, cases: Sequence[str]) -> Iterator[Check]:
    """Look at the masks of the training cases, for a few seconds at most."""
    if not cases:
        return
    seen = _look(project, wanted, cases)
    yield _lesions(project, cases, seen)
    yield _grids(project, cases, seen)
    yield from _vanishing(project, wanted, cases, seen)


@dataclass
class _Seen:
    """What was found while there was time; counts of cases that were looked at, and of lesions."""

    headers: int = 0
    read: int = 0
    lesions: int = 0
    off_grid: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    many_ids: list[str] = field(default_factory=list)
    vanished: dict[str, int] = field(default_factory=dict)


def _look(project: Project, wanted: Wanted, cases: Sequence[str]) -> _Seen:
    seen, began = _Seen(), time.monotonic()
    for case in cases:
        if time.monotonic() - began > HEADERS_S:
            break
        _look_at_headers(project, case, seen)
        seen.headers += 1
    load, began = _workload(project, wanted), time.monotonic()
    for case in _spread(cases):
        if time.monotonic() - began > LESIONS_S:
            break
        if case not in seen.off_grid and case not in seen.unreadable:
            _look_at_lesions(project, case, load, seen)
            seen.read += 1
    return seen


def _workload(project: Project, wanted: Wanted) -> Workload | None:
    with suppress(BackSplitError, KeyError, ValueError):
        return workload(project, wanted)
    return None


def _spread(cases: Sequence[str]) -> list[str]:
    """Return the cases in an order of which any beginning is spread over them all."""
    return [cases[i] for i in np.random.default_rng(0).permutation(len(cases))]


def _look_at_headers(project: Project, case: str, seen: _Seen) -> None:
    for structure in project.schema.structures:
        path = project.mask_path(case, structure.name)
        if path is None:
            continue
        try:
            if project.geometry(case).difference(read_geometry(path)):
                seen.off_grid.append(case)
        except (BackSplitError, OSError):
            seen.unreadable.append(case)


def _look_at_lesions(project: Project, case: str, load: Workload | None, seen: _Seen) -> None:
    """Read the targets of a case; count the lesions, and those that the network's grid loses."""
    for name in project.schema.target_names:
        path = project.mask_path(case, name)
        try:
            label_map = read_label_map(path).array if path else np.zeros((1, 1, 1), np.uint8)
        except (BackSplitError, OSError):
            seen.unreadable.append(case)
            return
        if integrity.check_ids(case, name, label_map):
            seen.many_ids.append(case)
        if load is not None:
            spacing, target = project.geometry(case).spacing_mm, load.spacing_mm
            count, lost = lost_lesions(label_map != 0, spacing, target)
            seen.lesions += count
            seen.vanished |= {case: seen.vanished.get(case, 0) + lost} if lost else {}


def lost_lesions(
    mask: NDArray[np.bool_], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, int]:
    """Count the 26-connected components of a mask, and those without a voxel at another spacing.

    A quick guess of what a plan will count exactly: the nearest voxel at each centre of the new
    grid is looked at.

    Parameters
    ----------
    mask : ndarray of bool
        (z, y, x).
    spacing_mm, target_mm : sequence of float
        Voxel size, mm, (z, y, x); a 2D target of two leaves the first axis alone.
    """
    where = np.argwhere(mask)
    if not len(where):
        return 0, 0
    low, high = where.min(0), where.max(0) + 1
    box = np.pad(mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], 1)
    labels, count = cc3d.connected_components(box, connectivity=26, return_N=True)
    wanted = [*spacing_mm[: 3 - len(target_mm)], *target_mm]
    index = [
        _centres(n, own, other, first) for n, own, other, first in
        zip(mask.shape, spacing_mm, wanted, low, strict=True)
    ]  # fmt: skip
    kept = [i[(i >= 0) & (i < size)] for i, size in zip(index, labels.shape, strict=True)]
    found = np.unique(labels[np.ix_(*kept)]) if all(len(i) for i in kept) else np.zeros(1)
    return int(count), int(count) - int(np.count_nonzero(found))


def _centres(size: int, own_mm: float, other_mm: float, first: int) -> NDArray[np.int64]:
    """Return the voxels of a padded box, from `first` - 1 on, that hold centres of a new grid."""
    new = max(1, round(size * own_mm / other_mm))
    centres = np.floor((np.arange(new) + 0.5) * size / new).astype(np.int64)
    return centres - first + 1


# ---------------------------------------------------------------------- what is said


def _lesions(project: Project, cases: Sequence[str], seen: _Seen) -> Check:
    marked = [case for case in cases if project.has_lesion(case)]
    targets = ", ".join(project.schema.target_names)
    if not marked:
        return refused(
            "lesions",
            f"No mask of {targets} has a voxel in any of {len(cases)} cases.",
            "Add cases with a lesion to train on.",
        )
    if seen.many_ids:
        text = f"The mask of {some(seen.many_ids)} holds several ids; all count as the target."
        return warned("lesions", text, "Check that they mean the same.")
    return passed("lesions", f"{len(marked)} of {len(cases)} cases have a lesion.")


def _grids(project: Project, cases: Sequence[str], seen: _Seen) -> Check:
    looked = _of(seen.headers, len(cases))
    if seen.unreadable:
        text = f"A mask of {some(sorted(set(seen.unreadable)))} cannot be read."
        return refused("masks", text, "Make it again, or import it again.")
    if seen.off_grid:
        text = f"A mask of {some(sorted(set(seen.off_grid)))} is not on the grid of its image."
        return refused("masks", text, "Import it again, resampled (--resample).")
    return passed("masks", f"Those of {looked} lie on the grids of their images.")


def _of(some_cases: int, all_cases: int) -> str:
    return f"{all_cases} cases" if some_cases == all_cases else f"{some_cases} of {all_cases} cases"


def _vanishing(
    project: Project, wanted: Wanted, cases: Sequence[str], seen: _Seen
) -> Iterator[Check]:
    made = plan_set_of(project.folder, wanted.run.plan_set)
    if made is not None and made.vanished is not None:
        yield _counted(made, made.vanished)
    elif seen.lesions:
        lost, looked = sum(seen.vanished.values()), _of(seen.read, len(cases))
        said = f"of {seen.lesions} lesions in {looked}"
        if lost:
            yield _lost(f"About {lost} {said}", seen.vanished)
        else:
            yield passed("small lesions", f"All {said} keep a voxel at the network's spacing.")


def _counted(made: MadePlanSet, vanished: dict[str, int]) -> Check:
    lost = {case: count for case, count in vanished.items() if count}
    if not lost:
        text = f"All lesions of {len(made.cases)} cases keep a voxel at the network's spacing."
        return passed("small lesions", text)
    return _lost(f"{sum(lost.values())} lesions", lost)


def _lost(what: str, lost: dict[str, int]) -> Check:
    shown = some([f"{case}: {count}" for case, count in sorted(lost.items())])
    return warned(
        "small lesions",
        f"{what} have no voxel left at the network's spacing ({shown}): they cannot be learnt.",
        "A model with a finer spacing would keep them.",
    )
