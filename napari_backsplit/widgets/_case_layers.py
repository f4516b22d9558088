"""The layers of the open case: its channels, a labels layer for each structure, its prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.layers import Labels, Layer, Points, Shapes
from qtpy.QtCore import QObject, QTimer, Signal

from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.history import AnyPrompt
from napari_backsplit.backend.structures.prompts import Bounds, slices
from napari_backsplit.backend.volume import Volume
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._layers import (
    LayerData,
    Placement,
    flip_bounds,
    flip_index,
    image_layer,
    labels_layer,
    placement,
    refresh_bounds,
    shown,
    widen_range,
)
from napari_backsplit.widgets._orientation import orient, show_plane
from napari_backsplit.widgets._strokes import stroke_of

POSITIVE, NEGATIVE = "#009e73", "#d55e00"  # of Okabe and Ito
PREVIEW = "#f0e442"
BUSY = "backsplit_busy"
HIDE_AFTER_MS = 300
MARK, LINE = 5, 0.6
"""Sizes of a point and of a line, in voxels."""


class CaseLayers(QObject):
    """Shows the desk's case in a viewer, and tells the desk what is painted.

    A layer that a person removes comes back when its structure is chosen again; renaming one does
    no harm. Layers that are not ours are left alone. The layers stay from case to case of a
    project: napari takes seconds to remove and add them.
    """

    added = Signal(object)
    hidden = Signal()
    """What is seen of the case before is hidden: opening the next one takes long."""

    def __init__(self, viewer: ViewerModel, desk: Desk) -> None:
        super().__init__()
        self._viewer, self._desk = viewer, desk
        self._annotation: Annotation | None = None
        self._images: dict[str, Layer] = {}
        self._labels: dict[str, Labels] = {}
        self._points: Points | None = None
        self._drawn: Shapes | None = None
        self._place: Placement | None = None
        self._ours = False
        self._case = ""  # the one that was shown last; shown again, the view stays
        self.guests: list[Layer] = []  # of other panels, which show the same case
        self.fading: list[Layer] = []  # guests that hide by themselves
        self.first_place: Callable[[str], Any] = lambda case: None
        self._only_present = self._none = False
        self._hidden: dict[Layer, bool] = {}  # whether a layer that is hidden for now was visible
        self._later = QTimer(self)
        self._later.setSingleShot(True)
        self._later.setInterval(HIDE_AFTER_MS)
        self._later.timeout.connect(self._hide)
        desk.case_changed.connect(self.show_case)
        desk.project_changed.connect(self._show_project)
        desk.structure_selected.connect(self._select)
        desk.structure_changed.connect(self._refresh)
        viewer.layers.events.removed.connect(self._removed)

    @property
    def labels(self) -> dict[str, Labels]:
        """The layer of each structure."""
        return self._labels

    @property
    def images(self) -> tuple[Layer, ...]:
        """The layers of the open case's channels."""
        return tuple(self._images.values())

    @property
    def place(self) -> Placement | None:
        """Where the voxels of the open case lie in the viewer; None without a case."""
        return self._place

    def show_case(self) -> None:
        """Show the desk's case in place of the one before."""
        self._annotation = annotation = self._desk.annotation
        if annotation is None:
            self._put_aside()
            return
        self._later.stop()
        ours = (*self._all(), *self.guests, *self.fading)
        alone = all(layer in ours for layer in self._viewer.layers)
        known, self._case = self._case == annotation.case, annotation.case
        self._place = placement(annotation.grid)
        with self._by_us():
            self._show_channels(annotation)
            self._show_structures()
            self._show_space()
            self._show_hidden()
        orient(self._viewer)
        if alone and not known:
            show_plane(self._viewer, "axial")
            self._viewer.reset_view()
        if not known:
            self._go_to_first_place(annotation.case)
        self.show_channel()

    def show_channel(self) -> None:
        """Show the channel that is clicked on; the others are hidden."""
        if self._annotation is not None:
            chosen = self._desk.channel or self._annotation.channels()[0]
            for channel, layer in self._images.items():
                set_visible(layer, channel == chosen)

    def show_only_present(self, on: bool, *, not_even_it: bool = False) -> None:
        """Show the mask of the present structure alone, or none, or all again as they were.

        As long, other layers are neither made nor brought up to date: it takes napari long.
        """
        were_none, self._none = self._none, on and not_even_it
        self._only_present = on
        if on:
            labels = self._labels.items()
            self._wanted = {n: self._hidden.get(layer, layer.visible) for n, layer in labels}
        if self._annotation is not None:
            self._show_structures()
            self._show_space()
        for name, layer in self._labels.items():
            present = name == self._desk.structure and not self._none
            self.set_shown(layer, present if on else self._wanted.get(name, True))
            layer.contour = int(on)
        for layer in (self._points, self._drawn):
            if layer is not None:
                self.set_shown(layer, not on)
        if were_none:
            self._select(self._desk.structure)

    def set_shown(self, layer: Layer, visible: bool) -> None:
        """Show or hide a layer of the case; while a case is being opened, once it is there."""
        if layer in self._hidden:
            self._hidden[layer] = visible
        else:
            set_visible(layer, visible)

    def preview(self, path: list[Any], closed: bool) -> None:
        """Show what is being drawn: world positions; none takes it away."""
        self._show_drawn(path, closed)

    def say(self, words: str) -> None:
        """Show on the canvas what is going on; no words take it away."""
        overlays = self._viewer.canvas.overlays
        if BUSY not in overlays:
            overlays[BUSY] = TextOverlay(position="top_left", font_size=11, box=True)
        if overlays[BUSY].text != words:
            overlays[BUSY].text = words
            overlays[BUSY].visible = bool(words)

    def close(self) -> None:
        """Take our layers and words out of the viewer."""
        self._viewer.canvas.overlays.pop(BUSY, None)
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._take_away()

    # ------------------------------------------------------------------ layers come and go

    def _show_project(self) -> None:
        if self._desk.project is None:
            self._take_away()
        self._show_structures()

    def _show_channels(self, annotation: Annotation) -> None:
        known, self._images = self._images, {}
        for channel in annotation.channels():
            data = _channel(annotation, channel, self._desk)
            layer = known.pop(channel, None)
            if layer in self._viewer.layers:
                _exchange(layer, data)
            else:
                layer = self._add(data)
                self._viewer.layers.move(len(self._viewer.layers) - 1, 0)
            self._images[channel] = layer
        self._remove(known.values())

    def _show_structures(self) -> None:
        annotation = self._annotation
        if annotation is None or annotation is not self._desk.annotation:
            return
        if self._only_present:
            # A new layer takes napari long: the map that the review is about comes first.
            self._desk.hop.call(lambda: self._select(self._desk.structure))
            return
        for structure in self._desk.structures():
            self._show_labels(annotation, structure.name, structure.colour)
        self._raise_prompts()

    def _show_labels(self, annotation: Annotation, name: str, colour: str) -> None:
        mask, layer = annotation.mask(name), self._labels.get(name)
        if layer is None:
            self._add_labels(name, labels_layer(mask, annotation.grid, name, colour))
        elif not np.shares_memory(layer.data, mask):
            _exchange(layer, labels_layer(mask, annotation.grid, name, colour))
            # Strokes of another case; napari has no public way to forget them.
            getattr(layer, "_reset_history", lambda: None)()

    def _add_labels(self, name: str, data: LayerData) -> None:
        layer = self._add(data)
        assert isinstance(layer, Labels)
        layer.selected_label = 1
        layer.brush_size = 6
        layer.events.paint.connect(lambda event: self._painted(name, event.value))
        layer.events.selected_label.connect(lambda event: _keep_label(layer))
        layer.events.data.connect(lambda event: self._exchanged(layer, name))
        layer.events.visible.connect(lambda event: self._uncovered(layer, name))
        self._labels[name] = layer
        if self._only_present:
            layer.contour = 1
            set_visible(layer, name == self._desk.structure and not self._none)

    def _show_space(self) -> None:
        """Put the layers of prompts where the case lies."""
        assert self._place is not None
        for layer in (self._points, self._drawn):
            if layer is not None:
                move_layer(layer, self._place.scale, self._place.translate)
        if not self._only_present and (self._points is None or self._drawn is None):
            self._remove((self._points, self._drawn))
            self._add_prompts()
        self._show_prompts()

    def _add_prompts(self) -> None:
        assert self._place is not None
        space = {
            "ndim": 3,
            "scale": self._place.scale,
            "translate": self._place.translate,
            "units": ("mm", "mm", "mm"),
            "axis_labels": ("z", "y", "x"),
        }
        points = {"name": "prompts", "symbol": "cross", **space}
        self._points = self._add((np.empty((0, 3)), points, "points"))
        self._drawn = self._add(([], {"name": "drawn", **space}, "shapes"))

    def _add(self, data: LayerData) -> Any:
        with self._by_us():
            layer = self._viewer.add_layer(Layer.create(*data))
        self.added.emit(layer)
        return layer

    def _all(self) -> list[Layer]:
        ours = [*self._images.values(), *self._labels.values(), self._points, self._drawn]
        return [layer for layer in ours if layer is not None]

    def _put_aside(self) -> None:
        """Put the layers of a case that was left out of use, until another one is shown in them.

        They are hidden where that takes longer: hiding and showing again takes napari long.
        """
        self._annotation = self._place = None
        for layer in self._all():
            layer.editable = False
        self._later.start()

    def _hide(self) -> None:
        self.hidden.emit()
        layers = [layer for layer in (*self._all(), *self.guests) if layer in self._viewer.layers]
        self._hidden = {layer: layer.visible for layer in layers}
        with self._by_us():
            for layer in layers:
                set_visible(layer, False)

    def _show_hidden(self) -> None:
        """Show again what was hidden while a case was opened."""
        hidden, self._hidden = self._hidden, {}
        for layer, visible in hidden.items():
            if layer in self._viewer.layers:
                set_visible(layer, visible)

    def _take_away(self) -> None:
        ours = self._all()
        self._images, self._labels, self._points, self._drawn = {}, {}, None, None
        self._case = ""
        self._annotation = self._place = None
        self._later.stop()
        self._hidden = {}
        self._remove(ours)

    def _remove(self, layers: Iterable[Layer | None]) -> None:
        with self._by_us():
            for layer in layers:
                if layer is not None and layer in self._viewer.layers:
                    self._viewer.layers.remove(layer)

    def _removed(self, event: Any) -> None:
        """Note that a person took a layer away; the mask behind it is safe."""
        if self._ours:
            return
        there = set(self._viewer.layers)
        for name in [n for n, layer in self._labels.items() if layer not in there]:
            del self._labels[name]
            self._desk.told.emit(f"The layer of {name} was removed; its mask is safe.")
        self._points = self._points if self._points in there else None
        self._drawn = self._drawn if self._drawn in there else None

    def _show_again(self, name: str) -> None:
        """Give a structure that is worked on its layer back."""
        structure = next((s for s in self._desk.structures() if s.name == name), None)
        if structure is None or self._annotation is None or name in self._labels:
            return
        self._show_labels(self._annotation, name, structure.colour)
        self._show_space()
        self._raise_prompts()

    def _uncovered(self, layer: Labels, name: str) -> None:
        """Bring a mask up to date that a person shows: it may be of a case before."""
        structure = next((s for s in self._desk.structures() if s.name == name), None)
        if self._annotation is not None and layer.visible and structure is not None:
            self._show_labels(self._annotation, name, structure.colour)

    def _exchanged(self, layer: Labels, name: str) -> None:
        """Show the mask again in a layer that was given another array."""
        if self._annotation is None or layer not in self._labels.values():
            return
        array = shown(self._annotation.mask(name))
        if not np.shares_memory(layer.data, array):
            layer.data = array
            self._desk.told.emit(f"The data of {name} were exchanged; its mask is shown again.")

    @contextmanager
    def _by_us(self) -> Iterator[None]:
        before, self._ours = self._ours, True
        try:
            yield
        finally:
            self._ours = before

    # ------------------------------------------------------------------ what is shown

    def _select(self, name: str) -> None:
        """Show the mask of the present structure, and let it be painted in."""
        if self._none:
            self._select_image()
            return
        self._show_again(name)
        if self._annotation is None or name not in self._labels:
            return
        structure = next(s for s in self._desk.structures() if s.name == name)
        self._show_labels(self._annotation, name, structure.colour)
        for other, layer in self._labels.items():
            layer.editable = other == name and self._desk.can_change(other)
            if self._only_present:
                set_visible(layer, other == name)
        self._viewer.layers.selection.active = self._labels[name]
        self._show_prompts()

    def _select_image(self) -> None:
        """Show the controls of the image, unless a person chose another layer that is seen."""
        selection = self._viewer.layers.selection
        if selection.active is None or not selection.active.visible:
            there = (i for i in self._images.values() if i.visible and i in self._viewer.layers)
            selection.active = next(there, None)

    def _refresh(self, name: str, bounds: Bounds | None) -> None:
        if bounds is not None and name == self._desk.structure:
            self._show_again(name)
        layer = self._labels.get(name)
        if layer is None or self._annotation is None:
            return
        if bounds is not None:
            refresh_bounds(layer, bounds)
        layer.editable = name == self._desk.structure and self._desk.can_change(name)
        if name == self._desk.structure:
            self._show_prompts()

    def _prompts(self) -> list[Any]:
        annotation, structure = self._annotation, self._desk.structure
        steps = annotation.steps(structure) if annotation is not None and structure else ()
        return [step.prompt for step in steps if step.prompt is not None]

    def _show_prompts(self) -> None:
        self._show_points()
        self._show_drawn()

    def _show_points(self) -> None:
        layer, place = self._points, self._place
        points = [p for p in self._prompts() if p.kind == "point"]
        if layer is None or place is None or not (points or len(layer.data)):
            return
        with _alone(layer):
            self._set_points(layer, points, place)

    def _set_points(self, layer: Points, points: list[Any], place: Placement) -> None:
        at = np.reshape([p.at for p in points], (-1, 3))
        layer.data = flip_index(at, place.shape)
        if points:
            layer.symbol = ["cross" if p.positive else "hbar" for p in points]
            layer.face_color = [POSITIVE if p.positive else NEGATIVE for p in points]
            layer.border_color = "white"
        layer.size = MARK
        layer.selected_data = set()

    def _show_drawn(self, path: list[Any] | None = None, closed: bool = False) -> None:
        layer, place = self._drawn, self._place
        if layer is None or place is None:
            return
        prompts = [p for p in self._prompts() if p.kind != "point"]
        shapes = [_outline(p, place) for p in prompts]
        colours = [POSITIVE if p.positive else NEGATIVE for p in prompts]
        if path and len(path) > 1:
            line = flip_index(place.to_index(path), place.shape)
            shapes.append(_closed(line) if closed else line)
            colours.append(PREVIEW)
        with _alone(layer):
            _set_lines(layer, shapes, colours)

    def _raise_prompts(self) -> None:
        layers = self._viewer.layers
        for layer in (self._drawn, self._points):
            if layer is not None and layer in layers:
                layers.move(layers.index(layer), len(layers))

    def _go_to_first_place(self, case: str) -> None:
        """Go to where a case is to be looked at first, or to its middle."""
        if self._place is None:
            return
        world = self.first_place(case)
        if world is None:
            world = self._place.to_world(np.floor_divide(self._place.shape, 2))
        self.go_to(world)

    def go_to(self, world: Any) -> None:
        """Bring all planes to a place (z, y, x), at once: napari slices all layers each time."""
        first = self._viewer.dims.ndim - 3
        self._viewer.dims.set_point(range(first, first + 3), [float(mm) for mm in world])

    # ------------------------------------------------------------------ what is painted

    def _painted(self, name: str, atoms: list[Any]) -> None:
        layer = self._labels.get(name)
        if layer is None or self._annotation is None:
            return
        stroke = stroke_of(layer.data, atoms)
        if stroke is None:
            return
        bounds = flip_bounds(stroke.bounds, self._annotation.grid.shape)
        keep = partial(self._keep, layer, name, bounds, shown(stroke.difference))
        if stroke.written:
            keep()
        else:  # of a fill, napari tells before it writes the voxels
            self._desk.hop.call(keep)

    def _keep(self, layer: Labels, name: str, bounds: Bounds, difference: Any) -> None:
        if self._annotation is not None and self._labels.get(name) is layer:
            painted = self._annotation.mask(name)[slices(bounds)]
            np.minimum(painted, 1, out=painted)
            self._desk.record(name, bounds, difference)


def _exchange(layer: Layer, data: LayerData) -> None:
    """Show something else in a layer; `data` is what it would be made of."""
    array, look, _ = data
    layer.data = array
    move_layer(layer, look["scale"], look["translate"])
    layer.name, layer.metadata = look["name"], look["metadata"]
    if "contrast_limits" in look:
        layer.contrast_limits_range = look["contrast_limits"]
        layer.contrast_limits = look["contrast_limits"]
        widen_range(layer)


def set_visible(layer: Layer, visible: bool) -> None:
    """Show or hide a layer; napari draws everything anew for it, also where nothing changes."""
    if layer.visible != visible:
        layer.visible = visible


def move_layer(layer: Layer, scale: Any, translate: Any) -> None:
    """Put a layer somewhere else, where that is somewhere else."""
    if not np.array_equal(layer.scale, scale):
        layer.scale = scale
    if not np.array_equal(layer.translate, translate):
        layer.translate = translate


def _channel(annotation: Annotation, channel: str, desk: Desk) -> LayerData:
    assert desk.project is not None
    known = {c.name: c.modality for c in desk.project.schema.channels}
    volume = Volume(annotation.scene(channel).image, annotation.grid)
    name = f"{channel} · {annotation.case}"
    return image_layer(volume, name, known.get(channel, ""), case=annotation.case)


@contextmanager
def _alone(layer: Layer) -> Iterator[None]:
    """Change what a layer shows; the viewer need not measure all layers for it, again and again."""
    with layer.events.data.blocker():
        yield


def _set_lines(layer: Shapes, shapes: list[Any], colours: list[str]) -> None:
    if layer.nshapes:
        layer.data = []
    if shapes:
        look = {"edge_color": colours, "edge_width": LINE, "face_color": "transparent"}
        # A polygon has a face, which napari fails to draw where its border crosses itself.
        layer.add(shapes, shape_type="path", **look)
        layer.selected_data = set()


def _outline(prompt: AnyPrompt, place: Placement) -> Any:
    """Return the line of a box, scribble or lasso in the layer."""
    if prompt.kind == "box":
        (z0, z1), (y0, y1), (x0, x1) = prompt.bounds()
        thin = int(np.argmin([z1 - z0, y1 - y0, x1 - x0]))
        low, high = np.array([z0, y0, x0]) - 0.5, np.array([z1, y1, x1]) - 0.5
        low[thin] = high[thin] = (low[thin] + high[thin]) / 2
        a, b = (axis for axis in range(3) if axis != thin)
        corners = np.tile(low, (4, 1))
        corners[1:3, a], corners[2:4, b] = high[a], high[b]
        return _closed(flip_index(corners, place.shape))
    assert prompt.kind in ("scribble", "lasso")
    corners = np.insert(np.asarray(prompt.path, float), prompt.axis, prompt.index, axis=1)
    corners = np.repeat(corners, 2, 0) if len(corners) == 1 else corners
    line = flip_index(corners, place.shape)
    return line if prompt.kind == "scribble" else _closed(line)


def _closed(line: Any) -> Any:
    """Return a line that ends where it begins."""
    return np.concatenate([line, line[:1]])


def _keep_label(layer: Labels) -> None:
    if layer.selected_label not in (0, 1):
        layer.selected_label = 1
