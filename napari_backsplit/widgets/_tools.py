"""Clicking and drawing in the viewer: the tools, their keys, and the prompts that come of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from qtpy.QtCore import QObject, Signal

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.widgets._case_layers import CaseLayers
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._drawing import (
    prompt_from_box,
    prompt_from_lasso,
    prompt_from_point,
    prompt_from_scribble,
    sliced_axis,
)
from napari_backsplit.widgets._orientation import show_next_plane

Tool = Literal["point", "box", "scribble", "lasso", "paint", "erase", "fill", "polygon", "look"]
DRAWN = ("box", "scribble", "lasso")
PAINTED = ("paint", "erase", "fill", "polygon")
STILL_PIXELS = 4.0

KEYS: dict[str, tuple[str, str]] = {
    "point": ("P", "point: click inside of the structure"),
    "box": ("B", "box: drag around it in one slice"),
    "scribble": ("S", "scribble: drag along it"),
    "lasso": ("L", "lasso: drag around it; its inside counts"),
    "paint": ("D", "brush: paint by hand"),
    "erase": ("E", "eraser"),
    "fill": ("F", "fill an enclosed part of the slice"),
    "polygon": ("G", "polygon: click its corners, Enter closes it"),
    "look": ("O", "look: drag moves the image, a click sets the cross-hair"),
    "sign": ("X", "switch between + (belongs) and - (does not)"),
    "undo": ("Control-Z", "undo; while a prompt runs: cancel it"),
    "redo": ("Control-Shift-Z", "redo"),
    "accept": ("A", "accept the structure, in the review the case, and go on"),
    "next": ("N", "next case with something left to do"),
    "plane": ("Q", "next plane: axial, coronal, sagittal"),
    "finding": ("J", "review: jump to the next finding"),
    "needs_work": ("W", "review: this needs work"),
    "reject": ("R", "review: reject this"),
    "cancel": ("Escape", "cancel a prompt that takes long"),
}
"""What a key does: action -> (key, in words). They work while the canvas has the focus."""

LOOKING: dict[str, tuple[str, str]] = {
    "disagreement": ("J", "compare: next disagreement"),
    "disagreement before": ("Shift-J", "compare: disagreement before"),
    "missed": ("M", "compare: next missed lesion"),
    "missed before": ("Shift-M", "compare: missed lesion before"),
    "false": ("F", "compare: next false positive"),
    "false before": ("Shift-F", "compare: false positive before"),
    "case": ("N", "compare: next case"),
    "case before": ("Shift-N", "compare: case before"),
    "blink": ("B", "compare: let the two predictions take turns"),
    "plane": ("Q", "next plane: axial, coronal, sagittal"),
}
"""What a key does where masks are looked at, not made: in the step that compares."""


class Tools(QObject):
    """The tool in hand. It turns what the mouse does into prompts and gives them to the desk.

    Attributes
    ----------
    tool : Tool
    positive : bool
        Whether a prompt says "belongs to it"; Ctrl turns it over for one prompt.
    active : bool
        Whether keys make and judge masks; otherwise they do what `looking` says.
    looking : dict
        Action of `LOOKING` -> what it does; empty where nothing is looked at.
    pointed : Signal
        Emits the canonical voxel (z, y, x) that was clicked while nothing but looking is in hand.
    """

    changed = Signal()
    pointed = Signal(object)

    def __init__(self, viewer: ViewerModel, desk: Desk, layers: CaseLayers) -> None:
        super().__init__()
        self._viewer, self._desk, self.layers = viewer, desk, layers
        self.tool: Tool = "point"
        self.positive = self.active = True
        self._next_preview = 0.0
        self.actions: dict[str, Callable[[], object]] = {
            **{name: _choosing(self, name) for name in ("point", *DRAWN, *PAINTED, "look")},
            "sign": lambda: self.set_positive(not self.positive),
            "undo": lambda: desk.turn("undo"),
            "redo": lambda: desk.turn("redo"),
            "accept": desk.accept,
            "cancel": desk.cancel,
            "plane": lambda: show_next_plane(viewer),
        }
        self.looking: dict[str, Callable[[], object]] = {}
        viewer.mouse_drag_callbacks.append(self._drag)
        self._bind(viewer)
        layers.added.connect(self._bind)
        desk.structure_selected.connect(lambda name: self._start_over())
        desk.structure_changed.connect(lambda name, bounds: self._apply())

    def choose(self, tool: Tool) -> None:
        """Take a tool in hand."""
        self.tool = tool
        self._apply()
        self.changed.emit()

    def set_positive(self, positive: bool) -> None:
        """Say whether prompts belong to the structure."""
        self.positive = positive
        self.changed.emit()

    def close(self) -> None:
        """Give the mouse and the keys back to napari."""
        if self._drag in self._viewer.mouse_drag_callbacks:
            self._viewer.mouse_drag_callbacks.remove(self._drag)
        self._viewer.scene.camera.mouse_pan = True
        for key in _keys():
            self._viewer.bind_key(key, None, overwrite=True)

    # ------------------------------------------------------------------ keys

    def _bind(self, target: ViewerModel | Layer) -> None:
        """Bind the keys; on our layers too, whose own would come first."""
        for key in _keys():
            target.bind_key(key, lambda _, key=key: self._press(key), overwrite=True)

    def _press(self, key: str) -> None:
        known, acts = (KEYS, self.actions) if self.active else (LOOKING, self.looking)
        for action, (bound, _) in known.items():
            if bound == key and action in acts:
                acts[action]()

    # ------------------------------------------------------------------ mouse

    def _start_over(self) -> None:
        """Begin a structure with +: its first prompt says where it is."""
        self.set_positive(True)
        self._apply()

    def _apply(self) -> None:
        """Put the layer of the present structure into the mode of the tool."""
        layer = self.layers.labels.get(self._desk.structure)
        painting = self.tool in PAINTED and isinstance(layer, Labels) and layer.editable
        if isinstance(layer, Labels) and layer.editable:
            layer.mode = self.tool if painting else "pan_zoom"
        self._viewer.scene.camera.mouse_pan = not (painting or self.tool in DRAWN)

    def _drag(self, viewer: ViewerModel, event: Any) -> Iterator[None]:
        if self.tool in PAINTED or self.layers.place is None or event.button != 1:
            return
        if len(event.position) < 3:
            self._desk.told.emit("There is no volume in the view. Open the case again.")
            return
        sign, aim = self.positive != ("Control" in event.modifiers), self._aim()
        path, pixels, farthest = [event.position], np.asarray(event.pos, float), 0.0
        yield
        while event.type == "mouse_move":
            path.append(event.position)
            farthest = max(farthest, float(np.abs(np.asarray(event.pos) - pixels).max()))
            if self.tool in DRAWN:
                self._preview(path)
            yield
        self.layers.preview([], False)
        if aim != self._aim() or (self.tool not in DRAWN and farthest > STILL_PIXELS):
            return
        if self.tool == "look":
            self._point_at(path[0])
        else:
            self._give(path, sign)

    def _point_at(self, world: Any) -> None:
        place = self.layers.place
        if place is None or self._viewer.dims.ndisplay == 3:
            return
        voxel = place.to_voxel(world)
        if ((voxel >= 0) & (voxel < place.shape)).all():
            self.pointed.emit(tuple(int(i) for i in voxel))

    def _aim(self) -> tuple[Any, ...]:
        """Return what a prompt is for; what was begun for another is dropped."""
        return self._desk.annotation, self._desk.structure, self.tool

    def _preview(self, path: list[Any]) -> None:
        """Show what is drawn; not at every move, where showing it takes longer than moving."""
        begun = time.monotonic()
        if begun >= self._next_preview:
            self.layers.preview(self._outline(path), self.tool != "scribble")
            self._next_preview = time.monotonic() + 2 * (time.monotonic() - begun)

    def _outline(self, path: list[Any]) -> list[Any]:
        """Return what to show while something is drawn."""
        if self.tool != "box":
            return path
        try:
            a, b = (axis for axis in range(3) if axis != sliced_axis(self._viewer.dims))
        except InputError:
            return []
        corners = np.tile(np.asarray(path[0], float), (4, 1))
        corners[1:3, a - 3], corners[2:4, b - 3] = path[-1][a - 3], path[-1][b - 3]
        return list(corners)

    def _give(self, path: list[Any], positive: bool) -> None:
        try:
            self._desk.ask(self._prompt(path, positive))
        except BackSplitError as error:
            self._desk.failed.emit(error)

    def _prompt(self, path: list[Any], positive: bool) -> Any:
        assert self._desk.annotation is not None
        grid, dims = self._desk.annotation.grid, self._viewer.dims
        sliced_axis(dims)  # in 3D a click has no depth
        if self.tool == "point":
            return prompt_from_point(grid, path[0], positive)
        make = {
            "box": prompt_from_box,
            "scribble": prompt_from_scribble,
            "lasso": prompt_from_lasso,
        }[self.tool]
        return make(grid, path, dims, positive)


def _keys() -> list[str]:
    """Return every key that does something in some step, once."""
    return list(dict.fromkeys(key for key, _ in (*KEYS.values(), *LOOKING.values())))


def _choosing(tools: Tools, name: Any) -> Callable[[], None]:
    return lambda: tools.choose(name)
