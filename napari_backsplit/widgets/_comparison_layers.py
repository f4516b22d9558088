"""The comparison on the image: outlines, agreement, probabilities, swipe, blink, side by side."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_backsplit.backend.comparison.overlays import (
    Loaded,
    Overlay,
    load,
    load_probability,
)
from napari_backsplit.widgets._case_layers import CaseLayers
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._layers import world_of
from napari_backsplit.widgets._look import Look, Ways
from napari_backsplit.widgets._overlay import OverlayLayers
from napari_backsplit.widgets._side_by_side import SideBySide
from napari_backsplit.widgets._threads import Lane

BLINK_HZ = 1.5
ZOOM_AFTER_MS = 20
Voxel = tuple[int, int, int]


class ComparisonLayers(QObject):
    """Shows the predictions of two models over the case that is open on the desk.

    It shows nothing until `set_active(True)`. `show` and `go_to` may be called before the desk has
    opened the case: they are kept until it is there.

    Attributes
    ----------
    loaded : Loaded, optional
        What is on the canvas.
    """

    told = Signal(str)
    failed = Signal(object)
    shown = Signal(object)
    """What is on the canvas now: Loaded, or None."""
    side_by_side_closed = Signal()
    """A person closed the second view."""

    def __init__(self, viewer: ViewerModel, desk: Desk, layers: CaseLayers) -> None:
        super().__init__(desk)
        self._viewer, self._desk, self._case = viewer, desk, layers
        self.loaded: Loaded | None = None
        self._wanted: Overlay | None = None
        self._ready: Loaded | None = None  # read, and perhaps not shown yet
        self._ahead: Loaded | None = None
        self._ahead_number = 0
        self._active = False
        self._ways = Ways()
        self._probability: str | None = None
        self._goal: tuple[str, Voxel] | None = None
        self._selected: Layer | None = None
        self.overlay = OverlayLayers(viewer, self._add, layers.set_shown)
        self.second = SideBySide(viewer, layers, self)
        self._lane = Lane(desk.hop, self.failed.emit, "comparison")
        self._blink = QTimer(self)
        self._blink.setInterval(round(1000 / BLINK_HZ))
        self._blink.timeout.connect(self._turn)
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(ZOOM_AFTER_MS)
        self._late.timeout.connect(self._zoomed)
        self._connect()

    def _connect(self) -> None:
        self._desk.case_changed.connect(self._case_changed)
        self._desk.project_changed.connect(self._project_changed)
        self._case.hidden.connect(self._put_away)
        self.second.closed.connect(self._closed_by_hand)
        self._viewer.layers.events.removed.connect(self._removed)
        for event in self._moves():
            event.connect(self._moved, position="last")
        for event in self._zooms():
            event.connect(self._later, position="last")

    def _moves(self) -> list[Any]:
        events = self._viewer.dims.events
        return [events.point, events.order, events.ndisplay]

    def _zooms(self) -> list[Any]:
        camera = self._viewer.scene.camera.events
        return [camera.zoom, camera.center]

    # ------------------------------------------------------------------ on and off

    def set_active(self, on: bool) -> None:
        """Show the comparison instead of the masks, or the masks again."""
        if on == self._active:
            return
        self._active = on
        self._case.show_only_present(on, not_even_it=True)
        self._case.first_place = self._first_place if on else lambda case: None
        self._select(on)
        if on:
            self._ask()
        else:
            self._blink.stop()
            self._ready = self._ahead = None  # masks may change meanwhile
            self._leave()

    def _select(self, on: bool) -> None:
        """Select the image, as keys of another layer come before the step's; or what was before."""
        selection = self._viewer.layers.selection
        layers = self._viewer.layers
        image = next((i for i in self._case.images if i.visible and i in layers), None)
        if on:
            self._selected = selection.active
            selection.active = image or selection.active
        elif self._selected in layers:
            selection.active = self._selected

    def prepare(self) -> None:
        """Make what the second view shows: it takes long, and is asked for by a click."""
        _ = self.second.overlay

    def close(self) -> None:
        """Take the layers and the second view away; no more work is taken."""
        self._active, self._wanted = False, None
        self._blink.stop()
        self._late.stop()
        self._lane.close(drop=True)
        self._viewer.layers.events.removed.disconnect(self._removed)
        for event in self._moves():
            event.disconnect(self._moved)
        for event in self._zooms():
            event.disconnect(self._later)
        self.second.close()
        self.overlay.close()

    # ------------------------------------------------------------------ cases

    def show(self, overlay: Overlay | None) -> None:
        """Show an overlay as soon as it is read and its case is open; None takes it away."""
        if overlay is not None and overlay == self._wanted:
            self._show_what_is_ready()
            return
        self._wanted, self._ready = overlay, None
        if overlay is not None and self._ahead is not None and self._ahead.overlay == overlay:
            loaded, self._ahead = self._ahead, None
            self._has(overlay, loaded)
            return
        if overlay is None or self._is_on_canvas(overlay.case):
            self._put_away()
        self._ask()

    def _ask(self) -> None:
        """Read what is wanted."""
        overlay = self._wanted
        if overlay is not None and self._active:
            self._lane.do(
                lambda: load(overlay) if overlay is self._wanted else None,
                partial(self._has, overlay),
                partial(self._could_not, overlay),
            )

    def look_ahead(self, overlay: Overlay | None) -> None:
        """Read the overlay that is likely to be asked for next; None forgets what was read."""
        if overlay is None:
            self._ahead, self._ahead_number = None, self._ahead_number + 1
        if overlay is None or (self._ahead is not None and self._ahead.overlay == overlay):
            return
        wanted, number = self._wanted, self._ahead_number

        def work() -> Loaded | None:
            return load(overlay) if wanted is self._wanted else None

        self._lane.do(work, partial(self._has_ahead, wanted, number), lambda error: None)

    def _has_ahead(self, wanted: Overlay | None, number: int, loaded: Loaded | None) -> None:
        if loaded is not None and wanted is self._wanted and number == self._ahead_number:
            self._ahead = loaded

    def _has(self, overlay: Overlay, loaded: Loaded | None) -> None:
        if overlay is not self._wanted or loaded is None:
            return
        self._ready = loaded
        for error in loaded.refused:
            self.failed.emit(error)
        for arm in overlay.missing:
            self.told.emit(f"{arm} has no prediction of {overlay.case}: the rest is shown.")
        self._show_what_is_ready()

    def _could_not(self, overlay: Overlay, error: BaseException) -> None:
        if overlay is self._wanted:
            self.failed.emit(error)

    def _show_what_is_ready(self) -> None:
        ready, annotation = self._ready, self._desk.annotation
        if not self._active or ready is None or annotation is None:
            return
        if annotation.case != ready.overlay.case:
            return
        if self.loaded is not ready:
            self.loaded = ready
            self.overlay.show(ready, self._look(0))
            self._show_second()
            self._blink_or_not()
            self.set_probability(self._probability)
            self.shown.emit(ready)

    def _put_away(self) -> None:
        """Hide what is shown; the layers stay."""
        if self.loaded is not None:
            self.loaded = None
            self.overlay.blank()
            self.second.blank()
            self.shown.emit(None)

    def _leave(self) -> None:
        """Hide the layers too."""
        self._put_away()
        self.overlay.show(None)
        self.second.leave()

    def _is_on_canvas(self, case: str) -> bool:
        return self.loaded is not None and self.loaded.overlay.case == case

    def _case_changed(self) -> None:
        """Show the next case's overlay with its image, or none until it is read."""
        annotation = self._desk.annotation
        if annotation is None:
            return  # the case that is left stays until the next is there, as its image does
        case, goal = annotation.case, self._goal
        if goal is not None and self._active:
            self._goal = None
            if goal[0] == case:
                self.go_to(goal[1])
        if self._is_ahead(case):
            assert self._ahead is not None
            self.show(self._ahead.overlay)
        is_ready = self._ready is not None and self._ready.overlay.case == case
        if not is_ready and not self._is_on_canvas(case):
            self._put_away()
        self._show_what_is_ready()

    def _is_ahead(self, case: str) -> bool:
        """Whether a case was read ahead, as the one that was wanted last is compared."""
        ahead, before = self._ahead, self._wanted
        if ahead is None or before is None or before.case == case:
            return False
        return ahead.overlay.case == case and ahead.overlay.follows(before)

    def _project_changed(self) -> None:
        if self._desk.project is None:
            self._wanted = self._ready = self._ahead = None
            self._leave()
            self.overlay.close()

    # ------------------------------------------------------------------ what is seen

    def set_part(self, number: int, on: bool) -> None:
        """Show or hide one of the seven parts of the agreement; nothing is read or copied."""
        parts = self._ways.parts
        self._change(parts=parts | {number} if on else parts - {number})

    def set_outlines(self, on: bool) -> None:
        """Show or hide the outlines of the reference and of both predictions."""
        self._change(outlines=on)

    def set_blink(self, on: bool) -> None:
        """Show the two predictions in turn, filled and outlined, or their agreement again."""
        self._change(blinked="baseline" if on else None)
        self._blink_or_not()

    def set_swipe(self, share: float | None) -> None:
        """Show the baseline left of a line and the new model right of it; None for no line.

        `share` is of the width of the image as far as it is in view, 0 to 1.
        """
        self._change(share=share)

    def set_side_by_side(self, on: bool) -> None:
        """Show the new model in a second view beside the first, which follows it."""
        self._ways = replace(self._ways, both=on)
        self._show_second()
        self._apply()
        self.set_probability(self._probability)

    def set_probability(self, arm: str | None) -> None:
        """Show the probability map of an arm; None for none. Told where there is no map."""
        self._probability, loaded = arm, self.loaded
        if arm is None or loaded is None:
            self._has_probability(loaded, arm, None)
            return
        self._lane.do(
            lambda: load_probability(loaded.overlay, arm) if loaded is self.loaded else None,
            partial(self._has_probability, loaded, arm),
        )

    def go_to(self, voxel: Voxel, case: str = "") -> None:
        """Bring all planes to a voxel (z, y, x) of the image as stored, and it to the middle.

        Of a case that is not open yet: as soon as it is. The case is that of the overlay that is
        wanted, unless it is given.
        """
        annotation = self._desk.annotation
        case = case or (self._wanted.case if self._wanted is not None else "")
        if annotation is None or case not in ("", annotation.case):
            self._goal = (case, voxel)
            return
        self._goal = None
        world = self._world(voxel)
        if world is None:
            return
        self._case.go_to(world)
        if self._viewer.dims.ndisplay == 2:
            first = self._viewer.dims.ndim - 3
            camera, (down, right) = self._viewer.scene.camera, self._viewer.dims.displayed[-2:]
            at = float(world[down - first]), float(world[right - first])
            camera.center = (*camera.center[:-2], *at)

    def _world(self, voxel: Voxel) -> NDArray[Any] | None:
        """Return where a voxel of the open case's image as stored lies in the viewer."""
        annotation, place = self._desk.annotation, self._case.place
        if annotation is None or place is None:
            return None
        return world_of(annotation.geometry, place, voxel)

    def _first_place(self, case: str) -> NDArray[Any] | None:
        """Return where a case is to be opened, where a row of it leads there."""
        goal = self._goal
        return self._world(goal[1]) if goal is not None and goal[0] == case else None

    # ------------------------------------------------------------------ inside

    def _look(self, view: int) -> Look:
        """Return what the first or the second view shows."""
        return self._ways.look(self.loaded, view)

    def _change(self, **ways: Any) -> None:
        self._ways = replace(self._ways, **ways)
        self._apply()

    def _apply(self) -> None:
        if self.loaded is not None:
            self.overlay.set_look(self._look(0))
        if self.loaded is not None and self.second.is_open:
            self.second.overlay.set_look(self._look(1))

    def _show_second(self) -> None:
        if not self._ways.both:
            self.second.leave()
        if not self._ways.both or self.loaded is None:
            return
        self.second.open()
        self.second.show_image()
        self.second.overlay.show(self.loaded, self._look(1))

    def _closed_by_hand(self) -> None:
        self.set_side_by_side(False)
        self.side_by_side_closed.emit()

    def _has_probability(
        self, loaded: Loaded | None, arm: str | None, per_cent: NDArray[np.uint8] | None
    ) -> None:
        if loaded is not self.loaded or arm != self._probability:
            return
        beside = self.second.is_open and loaded is not None and arm == loaded.overlay.arms[1]
        self.overlay.show_probability(None if beside else per_cent, arm or "")
        if self.second.is_open:  # a map stands over the model it is of
            self.second.overlay.show_probability(per_cent if beside else None, arm or "")
        if per_cent is None and arm is not None and loaded is not None:
            self.told.emit(
                f"{arm} has no probability map of {loaded.overlay.case}: predict with it again "
                "and ask for the probabilities."
            )

    def _blink_or_not(self) -> None:
        if self._ways.blinked is not None and self.loaded is not None:
            self._blink.start()
        else:
            self._blink.stop()

    def _turn(self) -> None:
        if self._ways.blinked is not None:
            self._change(blinked="new" if self._ways.blinked == "baseline" else "baseline")

    def _moved(self, event: Any = None) -> None:
        self.overlay.follow()
        if self.second.is_open:
            self.second.overlay.follow()

    def _later(self, event: Any = None) -> None:
        if self.loaded is not None and not self._late.isActive():
            self._late.start()

    def _zoomed(self) -> None:
        self.overlay.follow_zoom()
        if self.second.is_open:
            self.second.overlay.follow_zoom()

    def _add(self, layer: Layer) -> None:
        selected = self._viewer.layers.selection.active
        self._case.fading.append(layer)
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = selected
        self._case.added.emit(layer)  # its own keys would come before the step's

    def _removed(self, event: Any) -> None:
        """Forget a layer that a person took away; it comes with the next case."""
        self.overlay.forget(event.value)
        fading = self._case.fading
        fading[:] = [layer for layer in fading if layer is not event.value]
