"""One structure of an open case: its mask, how it came about, and what became of a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.structures.engines import Answer, Request
from napari_backsplit.backend.structures.history import History, Step, replay
from napari_backsplit.backend.structures.journal import EMPTY, Entry, fingerprint
from napari_backsplit.backend.structures.prompts import Bounds, bounds_of, slices
from napari_backsplit.backend.volume import Volume

Mask = NDArray[np.bool_]
Standing = Literal["none", "editing", "accepted", "rejected"]
FULL = 0.9
"""A mask of more than this share of the image is said to fill it."""


@dataclass
class Sheet:
    """A mask and its history.

    Attributes
    ----------
    array : ndarray of uint8
        (z, y, x), canonical: 0 and 1, so that a window can share it.
    history : History
    voxels : int
        How many are 1.
    saved : str
        Fingerprint of the mask in the file.
    """

    array: NDArray[np.uint8]
    history: History
    voxels: int
    saved: str

    @property
    def mask(self) -> Mask:
        """The same memory as bool."""
        return self.array.view(bool)

    def add(self, step: Step, *, shown: bool = False) -> None:
        """Do a new step; `shown`: the mask shows it already."""
        if shown:
            step.toggle(self.mask)
        self.voxels += step.toggle(self.mask)
        self.history.add(step)

    def turn(self, step: Step, way: Literal["undo", "redo"]) -> None:
        """Take the last step back, or do it again."""
        self.history.done += -1 if way == "undo" else 1
        self.voxels += step.toggle(self.mask)

    def before(self, steps: Iterable[Step]) -> Mask | None:
        """Return a copy of the mask without its last steps; None where that has no voxel."""
        start = self.mask.copy()
        for step in reversed(list(steps)):
            step.toggle(start)
        return start if start.any() else None

    def difference(self, request: Request, answer: Answer) -> tuple[Bounds | None, Mask | None]:
        """Return where an answer changes the mask as it is now, and what it turns over there.

        Only voxels that the engine changed are taken from it: what was painted meanwhile stays.
        """
        inside = slices(answer.bounds)
        new = answer.mask
        if request.forbidden is not None:
            new = new & ~request.forbidden[inside]
        changed = (new ^ request.mask[inside]) & (new ^ self.mask[inside])
        tight = bounds_of(changed)
        if tight is None:
            return None, None
        return _moved(tight, answer.bounds), changed[slices(tight)]


def load_sheet(
    project: ProjectReader, case: str, structure: str, entries: Iterable[Entry]
) -> tuple[Sheet, bool]:
    """Read a mask and bring it to where the journal ends; tell whether the journal knows it.

    A mask that it does not know begins a new history.
    """
    geometry = project.geometry(case)
    array = np.zeros(geometry.canonical().shape, np.uint8)
    if project.mask_path(case, structure) is not None:
        array[:] = Volume(project.mask(case, structure), geometry).canonical().array
    found = fingerprint(array.view(bool))
    told = replay(entries, structure, found)
    if told is None:
        history = History(found, _origin(project, case, structure) if found != EMPTY else {})
        return Sheet(array, history, int(np.count_nonzero(array)), found), False
    for step in told.toggles:
        step.toggle(array.view(bool))
    return Sheet(array, told.history, int(np.count_nonzero(array)), found), True


def _origin(project: ProjectReader, case: str, structure: str) -> dict[str, object]:
    record = project.provenance(case, structure)
    return {} if record is None else record.model_dump(mode="json", exclude={"prompts"})


def _moved(bounds: Bounds, origin: Bounds) -> Bounds:
    z, y, x = ((a + o, b + o) for (a, b), (o, _) in zip(bounds, origin, strict=True))
    return z, y, x


@dataclass(frozen=True)
class Outcome:
    """What a prompt did.

    Attributes
    ----------
    grown : int
        Voxels gained; negative: lost.
    warning : str
        What a person should know and try, "" where all went as it should.
    """

    grown: int
    warning: str = ""


def outcome(structure: str, sheet: Sheet, before: int, changed: bool) -> Outcome:
    """Say what a prompt did to a mask that had `before` voxels."""
    return Outcome(sheet.voxels - before, _warning(structure, sheet, changed))


def _warning(structure: str, sheet: Sheet, changed: bool) -> str:
    if sheet.voxels == 0:
        return (
            f"{structure} is empty after this prompt. Click well inside of it, or draw a box "
            "around it."
        )
    if sheet.voxels > FULL * sheet.array.size:
        return (
            f"{structure} fills the whole image. Undo, then click with - outside of it, or draw a "
            "box around it."
        )
    if not changed:
        return "This prompt changed nothing. Try a place where the mask is wrong, or paint."
    return ""


def standing(
    project: ProjectReader, case: str, structure: str, any_voxel: bool = False
) -> Standing:
    """Return how far a structure of a case is, from its files."""
    record = project.provenance(case, structure)
    if record is None:
        return "editing" if any_voxel else "none"
    return "editing" if record.review == "unreviewed" else record.review
