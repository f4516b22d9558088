"""A case under work: its image, the masks of its structures, and what was done to them.

It needs no screen. Arrays are canonical (z, y, x); files keep the image's own orientation. Every
step is in the journal before it counts; a mask's file follows when the structure is left, accepted
or closed. Methods may be called from any thread; `changed` is emitted in the thread that made the
change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_backsplit.backend.errors import BackSplitError, GeometryError, InputError, ProjectError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.masks import login
from napari_backsplit.backend.project.schema import Judgement
from napari_backsplit.backend.structures.engines import About, Engine, Request, Scene
from napari_backsplit.backend.structures.history import AnyPrompt, History, Step, step_of
from napari_backsplit.backend.structures.journal import EMPTY, FILE, Journal, fingerprint
from napari_backsplit.backend.structures.origin import provenance
from napari_backsplit.backend.structures.prompts import Bounds, bounds_of, check_inside, slices
from napari_backsplit.backend.structures.sheet import (
    Mask,
    Outcome,
    Sheet,
    Standing,
    load_sheet,
    outcome,
    standing,
)
from napari_backsplit.backend.volume import Volume, check_finite, read_volume, restore


class Annotation:
    """A case that is open for clicking and painting.

    Parameters
    ----------
    project : Project
        Open to write, or to read only: then every change is refused with the reason.
    case : str

    Attributes
    ----------
    changed : Signal
        Emits (structure, Bounds or None): the mask changed within the bounds; None: only its state.
    protect : bool
        Finished supports count as negatives: no prompt takes their voxels.
    keep_others : bool
        Neither a stroke nor a tool takes a voxel of another support, but of a rejected one; a
        lesion's may.
    unreadable : dict of str to BackSplitError
        Structures whose file cannot be shown, such as one on another grid, and why. They are
        empty here and locked; their files are left alone.
    """

    changed = Signal(str, object)

    def __init__(self, project: Project, case: str) -> None:
        self.project = project
        self.case = project.case(case).id
        self.geometry: Geometry = project.geometry(case)
        self.grid: Geometry = self.geometry.canonical()
        self.protect = self.keep_others = False
        self.unreadable: dict[str, BackSplitError] = {}
        self._journal = Journal(project.folder / "cases" / case / FILE, login())
        self._entries = self._journal.entries()
        self._last = max((e.get("id", 0) for e in self._entries), default=0)
        self._sheets: dict[str, Sheet] = {}
        self._scenes: dict[str, Scene] = {}
        self._unlocked: set[str] = set()
        self._lock = threading.RLock()
        self._saving = threading.RLock()

    # ------------------------------------------------------------------ what is there

    def channels(self) -> tuple[str, ...]:
        """Return the channels that the case has, in the project's order."""
        images = self.project.case(self.case).images
        return tuple(c for c in self.project.schema.channel_names if c in images)

    def scene(self, channel: str = "") -> Scene:
        """Read a channel, the first one by default; later calls give the same.

        Raises
        ------
        InputError
            The case lacks it, it cannot be read, or it is constant.
        """
        channel = channel or self.channels()[0]
        with self._lock:
            if channel not in self._scenes:
                self._scenes[channel] = self._read(channel)
            return self._scenes[channel]

    def structures(self) -> tuple[str, ...]:
        """Return the names of targets and supports, in order of priority."""
        return tuple(s.name for s in self.project.schema.structures)

    def mask(self, structure: str) -> NDArray[np.uint8]:
        """Return the mask for a window: 0 and 1, (z, y, x), canonical; shared, not a copy.

        A brush may write in it; `edit` then keeps the stroke.
        """
        return self._sheet(structure).shown

    def kept(self, structure: str) -> Mask:
        """Return the mask as the journal has it: bool, (z, y, x), canonical; shared, to read."""
        return self._sheet(structure).mask

    def voxels(self, structure: str) -> int:
        """Return the number of voxels of a mask."""
        return self._sheet(structure).voxels

    def volume_ml(self, structure: str) -> float:
        """Return the volume of a mask in millilitres."""
        return self.voxels(structure) * self.grid.voxel_ml

    def standing(self, structure: str) -> Standing:
        """Return how far a structure is."""
        return standing(self.project, self.case, structure, self.voxels(structure) > 0)

    def locked(self, structure: str) -> bool:
        """Whether a structure is finished, or a reference mask of the lesion, and not unlocked."""
        if structure in self.unreadable:
            return True
        if structure in self._unlocked:
            return False
        path = self.project.mask_path(self.case, structure)
        is_reference = structure in self.project.schema.target_names and path is not None
        return is_reference or self.standing(structure) == "accepted"

    def can_undo(self, structure: str) -> bool:
        """Whether there is a step to take back."""
        return self._sheet(structure).history.undoable is not None

    def can_redo(self, structure: str) -> bool:
        """Whether there is a step to do again."""
        return self._sheet(structure).history.redoable is not None

    def steps(self, structure: str) -> tuple[Step, ...]:
        """Return the steps that are done, the first one first."""
        return tuple(self._sheet(structure).history.active())

    # ------------------------------------------------------------------ change it

    def prompt(
        self,
        structure: str,
        prompt: AnyPrompt,
        engine: Engine,
        about: About,
        *,
        channel: str = "",
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Outcome:
        """Ask an engine, and take its answer over. It may take long.

        The answer is filed under its structure, whatever is done meanwhile: only the voxels that
        the engine changed are written.

        Raises
        ------
        InputError
            The prompt lies outside of the image.
        ProjectError
            The structure is locked, or nothing can be written.
        EngineError, EngineCancelled
            As the engine says. The mask is as it was.
        """
        check_inside(prompt, self.grid.shape)
        scene = self.scene(channel)
        with self._lock:
            self._refuse_locked(structure)
            number = self._number()
            self._journal.append(
                {
                    "op": "prompt",
                    "structure": structure,
                    "id": number,
                    "engine": about.engine,
                    "channel": channel,
                    "prompt": prompt.model_dump(),
                }
            )
            request = self._request(structure, prompt, about.engine, scene)
        answer = engine.segment(request, cancelled)
        with self._lock:
            self._refuse_locked(structure)  # it may have been accepted, or the project closed
            sheet = self._sheet(structure)
            before = sheet.voxels
            bounds, difference = sheet.difference(request, answer)
            step = step_of(self._number(), about.engine, about, difference, bounds, prompt)
            self._do(structure, step, number)
            return outcome(structure, sheet, before, bounds is not None)

    def edit(
        self, structure: str, bounds: Bounds, difference: Mask, *, painted: bool = False
    ) -> None:
        """Change a mask by hand: every True voxel of `difference` is turned over.

        Parameters
        ----------
        difference : ndarray of bool
            (z, y, x), of the bounds' size.
        painted : bool
            The window's array shows the change already.

        Raises
        ------
        ProjectError
            The structure is locked, or nothing can be written; a stroke is taken back.
        """
        with self._lock:
            sheet = self._sheet(structure)
            turned = sheet.painted(bounds, difference) if painted else difference
            refused = self._refused(structure, bounds, turned)
            if refused is not None:
                turned = turned & ~refused
                sheet.show_again(bounds, refused)
            try:
                self._refuse_locked(structure)
                if refused is None or turned.any():
                    step = step_of(self._number(), "paint", About("paint"), turned, bounds)
                    self._do(structure, step, None)
                if refused is not None:
                    self.changed.emit(structure, bounds)
            except ProjectError:
                if painted:
                    sheet.show_again(bounds, difference)
                    self.changed.emit(structure, bounds)
                raise

    def replace(self, structure: str, mask: Mask, about: About) -> None:
        """Put another mask in place of this one, as one step.

        Parameters
        ----------
        mask : ndarray of bool
            (z, y, x), canonical.
        about : About
            Where it comes from.
        """
        with self._lock:
            self._refuse_locked(structure)
            turned = mask ^ self._sheet(structure).mask
            bounds = bounds_of(turned)
            crop = None if bounds is None else turned[slices(bounds)]
            self._do(structure, step_of(self._number(), about.engine, about, crop, bounds), None)

    def transform(self, structure: str, tool: Callable[[Mask], Mask], about: About) -> bool:
        """Change a mask as a whole, as one step; False where nothing changes, which is no step.

        Parameters
        ----------
        tool : callable
            Takes the mask, bool (z, y, x), canonical, and returns another one. Nothing else
            changes the mask meanwhile.
        about : About
            Where the new one comes from.
        """
        with self._lock:
            self._refuse_locked(structure)
            before = self._sheet(structure).mask
            turned = tool(before) ^ before
            bounds = bounds_of(turned)
            if bounds is None:
                return False
            crop = turned[slices(bounds)]
            refused = self._refused(structure, bounds, crop)
            crop = crop if refused is None else crop & ~refused
            if not crop.any():
                return False
            self._do(structure, step_of(self._number(), about.engine, about, crop, bounds), None)
            return True

    def clear(self, structure: str) -> None:
        """Empty a mask, as one step."""
        self.replace(structure, np.zeros(self.grid.shape, bool), About("paint"))

    def undo(self, structure: str) -> bool:
        """Take the last step back; False where there is none."""
        return self._turn(structure, "undo")

    def redo(self, structure: str) -> bool:
        """Do the step again that was taken back last; False where there is none."""
        return self._turn(structure, "redo")

    # ------------------------------------------------------------------ keep it

    def save(self, structure: str) -> None:
        """Write a mask to its file, if it changed since; an empty one leaves no file.

        Raises
        ------
        ProjectError
            It cannot be written. The journal still has every step.
        """
        known = structure in self._sheets and structure not in self.unreadable
        if known and not self.project.read_only:
            self._write(structure)

    def save_all(self) -> None:
        """Write every mask that changed."""
        for structure in tuple(self._sheets):
            self.save(structure)

    def judge(self, structure: str, judgement: Judgement, comment: str = "") -> None:
        """Record a verdict on a mask as it is now: it is written first.

        An accepted mask is locked. An empty one that is accepted is written too: the structure is
        known not to be there.

        Raises
        ------
        ProjectError
            There is no mask to judge, its file is another one than was opened, or nothing can be
            written.
        """
        self._refuse_unreadable(structure)
        with self._saving:
            self._write(structure, keep_empty=judgement == "accepted")
            self._refuse_replaced(structure)
            self.project.judge(self.case, judgement, structure, comment=comment)
            self._journal.append({"op": "review", "structure": structure, "review": judgement})
            if judgement == "accepted":
                self._unlocked.discard(structure)
        self.changed.emit(structure, None)

    def accept(self, structure: str) -> None:
        """Finish a structure: see `judge`."""
        self.judge(structure, "accepted")

    def unlock(self, structure: str) -> None:
        """Let a finished structure, or the lesion's reference mask, be changed.

        Raises
        ------
        ProjectError
            Nothing can be written.
        """
        self._refuse_reader()
        self._refuse_unreadable(structure)
        self._journal.append({"op": "unlock", "structure": structure})
        self._unlocked.add(structure)
        self.changed.emit(structure, None)

    def lock(self, structure: str) -> None:
        """Take `unlock` back; what was changed stays."""
        self._unlocked.discard(structure)
        self.changed.emit(structure, None)

    # ------------------------------------------------------------------ inside

    def _read(self, channel: str) -> Scene:
        case = self.project.case(self.case)
        if channel not in case.images:
            has = ", ".join(self.channels())
            raise InputError(f"{self.case} lacks the channel {channel}.", f"It has {has}.")
        image = case.images[channel]
        volume = read_volume(self.project.folder / image.file)
        check_finite(volume, f"{channel} of {self.case}")
        array = np.ascontiguousarray(volume.canonical().array, np.float32)
        if array.min() == array.max():
            raise InputError(
                f"{channel} of {self.case} is {array.flat[0]:g} in every voxel.",
                "There is nothing to see in it; check the file.",
            )
        return Scene(image.sha256, array, self.grid.spacing_mm)

    def _sheet(self, structure: str) -> Sheet:
        if structure in self._sheets:  # no lock: a window asks for figures while others write
            return self._sheets[structure]
        with self._lock:
            if structure not in self._sheets:
                self._sheets[structure] = self._load(structure)
            return self._sheets[structure]

    def _load(self, structure: str) -> Sheet:
        try:
            sheet, known = load_sheet(self.project, self.case, structure, self._entries)
        except (InputError, OSError) as error:
            self.unreadable[structure] = _unreadable(structure, self.case, error)
            return Sheet(np.zeros(self.grid.shape, bool), History(), 0, EMPTY)
        if not known and not self.project.read_only:
            history = sheet.history
            entry = {"mask": history.start, "origin": history.origin}
            self._journal.append({"op": "start", "structure": structure, **entry})
        return sheet

    def _refuse_reader(self) -> None:
        if self.project.read_only:
            notice = f"{self.project.notice} Nothing can be changed."
            raise ProjectError(notice, "Open it to write.")

    def _refuse_unreadable(self, structure: str) -> None:
        self._sheet(structure)
        if structure in self.unreadable:
            raise self.unreadable[structure]

    def _refuse_replaced(self, structure: str) -> None:
        """Refuse to judge a file that another program put there: it is not what is seen."""
        path = self.project.mask_path(self.case, structure)
        if path is not None and sha256(path) != self._sheet(structure).file:
            raise ProjectError(
                f"The mask of {structure} for {self.case} was replaced since it was opened.",
                "Open the case again, and look at it.",
            )

    def _refuse_locked(self, structure: str) -> None:
        self._refuse_reader()
        self._refuse_unreadable(structure)
        if self.locked(structure):
            raise ProjectError(f"{structure} of {self.case} is locked.", "Unlock it first.")
        self._unlocked.add(structure)  # a lesion that is being drawn stays open when it is saved

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _request(self, structure: str, prompt: AnyPrompt, tool: str, scene: Scene) -> Request:
        sheet = self._sheet(structure)
        run = sheet.history.run(tool)
        prompts = (*(step.prompt for step in run if step.prompt is not None), prompt)
        key = f"{self.case}/{structure}/{sheet.history.run_key(tool)}"
        taken = self._taken(structure) if self.protect else None
        return Request(scene, key, sheet.before(run), prompts, sheet.mask.copy(), taken)

    def _taken(self, structure: str) -> Mask | None:
        """Return the voxels of the other finished supports, None where there are none."""
        others = [s for s in self.project.schema.support_names if s != structure]
        masks = [self._sheet(s).mask for s in others if self.standing(s) == "accepted"]
        return np.logical_or.reduce(masks) if masks else None

    def _refused(self, structure: str, bounds: Bounds, turned: Mask) -> Mask | None:
        """Return which voxels of a stroke other supports have; None where they do not matter."""
        supports = self.project.schema.support_names
        if not self.keep_others or structure not in supports:
            return None
        inside = slices(bounds)
        names = [s for s in supports if s != structure and self.standing(s) != "rejected"]
        others = [self._sheet(s).mask[inside] for s in names]
        refused = turned & ~self._sheet(structure).mask[inside] & np.logical_or.reduce(others)
        return refused if refused.any() else None

    def _do(self, structure: str, step: Step, prompt_id: int | None) -> None:
        self._journal.append(step.entry(structure, prompt_id))
        self._sheet(structure).add(step)
        self.changed.emit(structure, step.bounds)

    def _turn(self, structure: str, way: Literal["undo", "redo"]) -> bool:
        with self._lock:
            sheet = self._sheet(structure)
            step = sheet.history.undoable if way == "undo" else sheet.history.redoable
            if step is None:
                return False
            self._refuse_locked(structure)
            self._journal.append({"op": way, "structure": structure, "id": step.id})
            sheet.turn(step, way)
        self.changed.emit(structure, step.bounds)
        return True

    def _write(self, structure: str, *, keep_empty: bool = False) -> None:
        """Write a mask as it is now; what is done meanwhile does not wait for the disk."""
        with self._saving:
            with self._lock:
                sheet = self._sheet(structure)
                mask, now, number = sheet.mask.copy(), fingerprint(sheet.mask), self._number()
                if self._is_written(structure, now, keep_empty):
                    return
                record = {**provenance(sheet.history), "journal": number}
                entry = {"structure": structure, "id": number, "mask": now}
                self._journal.append({"op": "saved", **entry})
            if now == EMPTY and not keep_empty:
                self.project.remove_mask(self.case, structure)
            else:
                stored = Volume(restore(mask, self.geometry), self.geometry)
                keep_old = not self._can_be_had_again(structure)
                self.project.set_mask(
                    self.case, structure, stored, record, replace=True, keep_old=keep_old
                )
            facts = self.project.facts(self.case, structure)
            sheet.saved, sheet.file = now, facts.sha256 if facts else ""
            self._journal.append({"op": "written", **entry})
        self.changed.emit(structure, None)

    def _can_be_had_again(self, structure: str) -> bool:
        """Whether the mask in the file needs no second copy: the journal can bring it back."""
        sheet = self._sheets[structure]
        ours = sheet.saved not in (EMPTY, sheet.history.start)
        return ours and self.project.is_as_written(self.case, structure)

    def _is_written(self, structure: str, now: str, keep_empty: bool) -> bool:
        there = self.project.mask_path(self.case, structure) is not None
        return now == self._sheets[structure].saved and (there or not keep_empty)


def _unreadable(structure: str, case: str, error: Exception) -> BackSplitError:
    """Say what is wrong with a mask, without the name of its file."""
    if isinstance(error, GeometryError):
        return GeometryError(
            f"The mask of {structure} for {case} lies on another grid than the image.",
            "Import it again and choose to resample it (--replace --resample).",
        )
    return ProjectError(
        f"The mask of {structure} for {case} cannot be read.", "Make it again, or restore the file."
    )
