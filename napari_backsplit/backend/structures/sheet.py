"""One structure of an open case: its mask, how it came about, and what became of a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.structures.engines import Answer, Request
from napari_backsplit.backend.structures.history import Found, History, Step, replay
from napari_backsplit.backend.structures.journal import EMPTY, Entry, fingerprint, unpack
from napari_backsplit.backend.structures.prompts import Bounds, bounds_of, slices
from napari_backsplit.backend.volume import Volume

Mask = NDArray[np.bool_]
Standing = Literal["none", "editing", "accepted", "needs_work", "rejected"]
FULL = 0.9
"""A mask of more than this share of the image is said to fill it."""


@dataclass
class Sheet:
    """A mask, its history, and the array of a window that shows it.

    The mask is what the journal says. A brush writes into the shown array first; its stroke joins
    the mask when it is in the journal. So nothing is saved that could not be undone.

    Attributes
    ----------
    mask : ndarray of bool
        (z, y, x), canonical.
    history : History
    voxels : int
        How many are True.
    saved : str
        Fingerprint of the mask in the file.
    file : str
        SHA-256 of the file that was read or written last, "" where there was none.
    """

    mask: Mask
    history: History
    voxels: int
    saved: str
    file: str = ""
    _shown: NDArray[np.uint8] | None = None

    @property
    def shown(self) -> NDArray[np.uint8]:
        """The mask as 0 and 1 for a window, which may paint in it."""
        if self._shown is None:
            self._shown = self.mask.astype(np.uint8)
        return self._shown

    def add(self, step: Step) -> None:
        """Do a new step."""
        self._toggle(step)
        self.history.add(step)

    def turn(self, step: Step, way: Literal["undo", "redo"]) -> None:
        """Take the last step back, or do it again."""
        self.history.done += -1 if way == "undo" else 1
        self._toggle(step)

    def painted(self, bounds: Bounds, stroke: Mask) -> Mask:
        """Return which voxels of a stroke the mask does not have yet as they are shown."""
        inside = slices(bounds)
        return np.asarray(stroke & (self.mask[inside] != (self.shown[inside] != 0)))

    def show_again(self, bounds: Bounds, stroke: Mask) -> None:
        """Show the mask where a stroke was not kept."""
        inside = slices(bounds)
        self.shown[inside][stroke] = self.mask[inside][stroke]

    def _toggle(self, step: Step) -> None:
        self.voxels += step.toggle(self.mask)
        if self._shown is not None and step.bounds is not None:
            inside = slices(step.bounds)
            turned = unpack(step.voxels, step.bounds)
            # Where a brush was there first it showed the same: there are two values only.
            self._shown[inside][turned] = self.mask[inside][turned]

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
    mask = np.zeros(geometry.canonical().shape, bool)
    path = project.mask_path(case, structure)
    file = "" if path is None else sha256(path)
    if path is not None:
        mask[:] = Volume(project.mask(case, structure), geometry).canonical().array
    found = fingerprint(mask)
    record = project.provenance(case, structure)
    mark = None if record is None else (record.model_extra or {}).get("journal")
    told = replay(entries, structure, Found(found, mark, project.is_as_written(case, structure)))
    if told is None:
        history = History(found, _origin(project, case, structure) if found != EMPTY else {})
        return Sheet(mask, history, int(np.count_nonzero(mask)), found, file), False
    for step in told.toggles:
        step.toggle(mask)
    return Sheet(mask, told.history, int(np.count_nonzero(mask)), found, file), True


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
    if sheet.voxels > FULL * sheet.mask.size:
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
    facts = project.facts(case, structure)
    if facts is None:
        return "editing" if any_voxel else "none"
    return "editing" if facts.review == "unreviewed" else facts.review
