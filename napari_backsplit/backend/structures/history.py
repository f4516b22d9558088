"""The steps of one structure: what was done, what is undone, and where a run of prompts began."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.files import read_lines
from napari_backsplit.backend.structures.engines import About
from napari_backsplit.backend.structures.journal import Entry, pack, unpack
from napari_backsplit.backend.structures.prompts import (
    Bounds,
    Box,
    Lasso,
    Point,
    Scribble,
    parse_prompt,
    slices,
)

AnyPrompt = Point | Box | Scribble | Lasso


@dataclass(frozen=True)
class Step:
    """One change of a mask.

    Attributes
    ----------
    tool : str
        The engine; "paint" for a stroke or a clearing; "prediction" for an adopted one.
    prompt : Prompt, optional
        What the engine was asked.
    about : About
        Who answered.
    bounds : Bounds, optional
        Where the mask changed; None: nowhere.
    voxels : str
        Exclusive or of before and after within the bounds, as `journal.pack` writes it.
    """

    id: int
    tool: str
    prompt: AnyPrompt | None
    about: About
    bounds: Bounds | None
    voxels: str

    def toggle(self, mask: NDArray[np.bool_]) -> int:
        """Do the step, or take it back, in place; return by how many voxels the mask grew."""
        if self.bounds is None:
            return 0
        difference = unpack(self.voxels, self.bounds)
        crop = mask[slices(self.bounds)]
        grown = np.count_nonzero(difference) - 2 * np.count_nonzero(difference & crop)
        np.logical_xor(crop, difference, out=crop)
        return int(grown)

    def entry(self, structure: str, prompt_id: int | None) -> Entry:
        """Return the step as an entry of the journal."""
        about = {k: v for k, v in vars(self.about).items() if v}
        return {
            "op": "change",
            "structure": structure,
            "id": self.id,
            "tool": self.tool,
            "prompt": prompt_id,
            "about": about,
            "bounds": self.bounds,
            "voxels": self.voxels,
        }


def step_of(
    number: int,
    tool: str,
    about: About,
    difference: NDArray[np.bool_] | None,
    bounds: Bounds | None,
    prompt: AnyPrompt | None = None,
) -> Step:
    """Make a step from where a mask changed: bool, (z, y, x), of the bounds' size."""
    if difference is None or bounds is None or not difference.any():
        return Step(number, tool, prompt, about, None, "")
    return Step(number, tool, prompt, about, bounds, pack(difference))


@dataclass
class History:
    """The steps of a structure since its start, and how many of them are done.

    Attributes
    ----------
    start : str
        Fingerprint of the mask before the first step.
    origin : dict
        Where that mask came from; empty where it had no voxel.
    """

    start: str = ""
    origin: dict[str, Any] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    done: int = 0

    def add(self, step: Step) -> None:
        """Add a step; those that were undone are dropped."""
        del self.steps[self.done :]
        self.steps.append(step)
        self.done += 1

    @property
    def undoable(self) -> Step | None:
        """The step that an undo takes back."""
        return self.steps[self.done - 1] if self.done else None

    @property
    def redoable(self) -> Step | None:
        """The step that a redo does again."""
        return self.steps[self.done] if self.done < len(self.steps) else None

    def active(self) -> list[Step]:
        """Return the steps that are done."""
        return self.steps[: self.done]

    def run(self, tool: str) -> list[Step]:
        """Return the steps that one more prompt to `tool` would continue."""
        active = self.active()
        first = len(active)
        while first and active[first - 1].tool == tool and active[first - 1].prompt is not None:
            first -= 1
        return active[first:]

    def run_key(self, tool: str) -> str:
        """Name the mask that such a run starts from: the step before it, or the start."""
        before = self.done - len(self.run(tool))
        return f"{tool}@{self.steps[before - 1].id if before else self.start or 'empty'}"


@dataclass(frozen=True)
class Found:
    """The mask that is in a structure's file.

    Attributes
    ----------
    fingerprint : str
        `EMPTY` where there is no file.
    mark : int, optional
        The id of the ``saved`` entry that its provenance names; None for a mask of another origin.
    intact : bool
        The file is the one its provenance was written for.
    """

    fingerprint: str
    mark: int | None = None
    intact: bool = True


@dataclass
class Replay:
    """What a journal says of one structure.

    Attributes
    ----------
    history : History
    toggles : list of Step
        The steps to toggle to get from the mask in the file to the mask as it was last.
    """

    history: History
    toggles: list[Step]


def replay(entries: Iterable[Entry], structure: str, found: Found) -> Replay | None:
    """Rebuild the history of a structure from its journal and the mask in its file.

    Returns
    -------
    Replay or None
        None where the file is not of this journal: it was imported anew, removed or changed by
        somebody else, and its history begins anew.
    """
    history: History | None = None
    prompts: dict[int, AnyPrompt] = {}
    toggles: list[Step] | None = None
    for entry in entries:
        if entry.get("structure") != structure:
            continue
        if entry["op"] == "start":
            history, toggles = _begun(entry), None
        if history is None:
            continue
        if entry["op"] == "written" and entry["mask"] and found.mark is None:
            toggles = None  # it was in the file, and what is there now is another
        if entry["op"] in ("start", "saved"):
            toggles = [] if _is_there(entry, found) else toggles
            continue
        step = _apply(entry, history, prompts)
        if step is not None and toggles is not None:
            toggles.append(step)
    return None if history is None or toggles is None else Replay(history, toggles)


def _is_there(entry: Entry, found: Found) -> bool:
    """Whether the file holds the mask of a ``start`` or ``saved`` entry."""
    if found.mark is not None and found.intact:
        return entry.get("id") == found.mark
    return bool(entry["mask"] == found.fingerprint)


def _begun(entry: Entry) -> History:
    return History(entry["mask"], entry.get("origin", {}))


def _apply(entry: Entry, history: History, prompts: dict[int, AnyPrompt]) -> Step | None:
    """Bring a history one entry further; return the step that it toggles."""
    match entry["op"]:
        case "prompt":
            prompts[entry["id"]] = parse_prompt(entry["prompt"])
        case "change":
            step = _step(entry, prompts.get(entry["prompt"]))
            history.add(step)
            return step
        case "undo" if history.undoable is not None:
            history.done -= 1
            return history.redoable
        case "redo" if history.redoable is not None:
            history.done += 1
            return history.undoable
    return None


def _step(entry: Entry, prompt: AnyPrompt | None) -> Step:
    bounds = entry["bounds"]
    about = About(**{"engine": entry["tool"], **entry["about"]})
    return Step(entry["id"], entry["tool"], prompt, about, _bounds(bounds), entry["voxels"])


def _bounds(value: Any) -> Bounds | None:
    if value is None:
        return None
    z, y, x = ((int(low), int(high)) for low, high in value)
    return z, y, x


def read_prompts(path: Path, structure: str) -> tuple[AnyPrompt, ...]:
    """Return the prompts of a structure that a journal ends with, undone ones left out."""
    history = History()
    prompts: dict[int, AnyPrompt] = {}
    for entry in read_lines(path):
        if entry.get("structure") == structure:
            history = _begun(entry) if entry["op"] == "start" else history
            _apply(entry, history, prompts)
    return tuple(step.prompt for step in history.active() if step.prompt is not None)
