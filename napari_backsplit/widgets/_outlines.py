"""Outlines of masks in the slice that is shown: along the edges of voxels, as lines of napari.

A contour of a labels layer is a voxel wide, so that of two masks that nearly agree one hides the
other. Lines of few pixels on the edges of voxels do not, where they differ in width and dash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Vectors
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.agreement import (
    OUTLINE_COLOURS,
    LabelMap,
    Who,
    part_of,
)
from napari_backsplit.widgets._layers import Placement, lock

Lines = NDArray[np.float64]
"""(N, 2, 2): start and end of lines along the axes (row, column), in voxels of the slice."""

ORDER: tuple[Who, ...] = ("reference", "new", "baseline")
"""From below to above: the wide line, the solid one, the dashed one."""

LINE = "line"
"""Between the two predictions of a swipe."""

COLOURS: dict[str, str] = {**OUTLINE_COLOURS, LINE: "white"}  # type: ignore[dict-item]
WIDTH_PX = {"reference": 4.0, "new": 2.0, "baseline": 2.0, LINE: 1.5}
DASH_PX, GAP_PX = 5.0, 5.0
FINEST = 0.02
"""Change of the zoom, as a share, from which lines are drawn anew."""


def outline(mask: NDArray[np.bool_]) -> Lines:
    """Return the edges between the voxels of a slice (rows, columns) and all others."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.empty((0, 2, 2))
    corner = np.array([rows[0], columns[0]])
    inside = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    along_columns = _runs(inside[1:] != inside[:-1])
    along_rows = _runs((inside[:, 1:] != inside[:, :-1]).T)[..., ::-1]
    return np.concatenate([along_columns, along_rows]) + (corner - 0.5)


def _runs(edges: NDArray[np.bool_]) -> Lines:
    """Return lines along the rows of edges; the padding's column 0 is at -1."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).view(np.int8), axis=1)
    (row, start), (_, end) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    lines = np.empty((len(row), 2, 2))
    lines[:, :, 0] = row[:, None]
    lines[:, 0, 1], lines[:, 1, 1] = start - 1, end - 1
    return lines


def dashed(lines: Lines, dash: float, gap: float) -> Lines:
    """Cut lines into dashes; lengths in voxels."""
    if not len(lines):
        return lines
    lengths = np.abs(lines[:, 1] - lines[:, 0]).sum(1)
    counts = np.maximum(np.rint(lengths / (dash + gap)), 1).astype(int)
    owner = np.repeat(np.arange(len(lines)), counts)
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    number = np.arange(len(owner)) - first[owner]
    share = dash / (dash + gap)
    begin = (number + (1 - share) / 2) / counts[owner]
    start, way = lines[owner, 0], (lines[:, 1] - lines[:, 0])[owner]
    ends = np.stack([begin, begin + share / counts[owner]], axis=1)
    return np.asarray(start[:, None] + ends[..., None] * way[:, None])


def left_of(lines: Lines, column: float) -> Lines:
    """Return what of lines lies left of a vertical one, in voxels of the slice."""
    kept = lines[lines[..., 1].min(1) < column]
    return np.stack([kept[..., 0], np.minimum(kept[..., 1], column)], axis=-1)


def right_of(lines: Lines, column: float) -> Lines:
    """Return what of lines lies right of a vertical one, in voxels of the slice."""
    kept = lines[lines[..., 1].max(1) > column]
    return np.stack([kept[..., 0], np.maximum(kept[..., 1], column)], axis=-1)


@dataclass(frozen=True)
class Plane:
    """The slice of a volume that a viewer shows in 2D, in voxels of its layers.

    Attributes
    ----------
    axis, rows, columns : int
        The axes (of z, y, x) across the slice, down and to the right.
    at : float
        Where the slice lies on its axis; napari shows the voxels nearest to it.
    """

    place: Placement
    axis: int
    rows: int
    columns: int
    at: float

    @classmethod
    def of(cls, viewer: ViewerModel, place: Placement) -> Plane | None:
        """Return what a viewer shows; None in 3D, and beyond the volume."""
        first = viewer.dims.ndim - 3
        if viewer.dims.ndisplay != 2 or first < 0 or min(viewer.dims.displayed) < first:
            return None
        axis, rows, columns = (number - first for number in viewer.dims.order[-3:])
        at = (viewer.dims.point[first + axis] - place.translate[axis]) / place.scale[axis]
        return cls(place, axis, rows, columns, float(at)) if _within(at, place, axis) else None

    @property
    def step(self) -> float:
        """The mm of one unit of the lines, on both axes of the slice: lines are equally wide."""
        return min(self.place.scale[self.rows], self.place.scale[self.columns])

    @property
    def scale(self) -> tuple[float, ...]:
        """What a layer of lines is scaled by; across the slice, as all layers of the case."""
        scale = [self.step] * 3
        scale[self.axis] = self.place.scale[self.axis]
        return tuple(scale)

    def cut(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the slice (rows, columns) of the array of a layer: a view."""
        flat = array[(slice(None),) * self.axis + (int(np.rint(self.at)),)]
        return flat if self.rows < self.columns else flat.T

    def vectors(self, lines: Lines, longer: float = 0.0) -> NDArray[np.float64]:
        """Return lines as napari's vectors (N, 2, 3): where they start, and how they go on.

        Both ends of each are drawn longer, in the layer's units: wide lines then meet in corners.
        """
        limits = [self.place.shape[self.rows] - 1, self.place.shape[self.columns] - 1]
        # Beyond the centres of the outermost voxels, napari would widen its sliders.
        ends = np.clip(lines, 0, limits)
        sizes = [self.place.scale[self.rows], self.place.scale[self.columns]]
        ends = ends * sizes / self.step
        way = np.sign(ends[:, 1] - ends[:, 0]) * longer
        ends = ends + np.stack([-way, way], axis=1)
        vectors = np.zeros((len(lines), 2, 3))
        vectors[:, 0, self.axis] = self.at
        for number, axis in enumerate((self.rows, self.columns)):
            vectors[:, 0, axis] = ends[:, 0, number]
            vectors[:, 1, axis] = ends[:, 1, number] - ends[:, 0, number]
        return vectors


def _within(at: float, place: Placement, axis: int) -> bool:
    return bool(0 <= np.rint(at) < place.shape[axis])


class Outlines:
    """The three outlines in one viewer; each a layer of lines that holds the slice that is shown.

    Parameters
    ----------
    add : callable
        Adds a layer of ours to the viewer.
    set_shown : callable
        Shows or hides it.
    """

    def __init__(self, viewer: ViewerModel, add: Any, set_shown: Any) -> None:
        self._viewer, self._add, self._set_shown = viewer, add, set_shown
        self.layers: dict[str, Vectors] = {}
        self._drawn_at = 0.0

    def draw(
        self, shown: LabelMap, place: Placement, who: Iterable[Who], column: float | None = None
    ) -> None:
        """Draw some outlines; with a column, the baseline's left of it and the new right of it.

        Parameters
        ----------
        shown : ndarray of uint8
            (z, y, x), as a layer shows it.
        """
        plane, wanted = Plane.of(self._viewer, place), set(who)
        if plane is None:
            self.clear()
            return
        for one in ORDER:
            if one in wanted:
                self._put(one, self._lines(plane, shown, one, column), plane)
            else:
                self._clear(one)
        if column is None:
            self._clear(LINE)
        else:
            low, high = -0.5, place.shape[plane.rows] - 0.5
            self._put(LINE, np.array([[[low, column], [high, column]]]), plane)

    def clear(self) -> None:
        """Draw nothing. The layers stay as they are: napari takes long to hide and show one."""
        for name in self.layers:
            self._clear(name)

    def _clear(self, name: str) -> None:
        layer = self.layers.get(name)
        if layer is not None and len(layer.data):
            _set_data(layer, np.empty((0, 2, 3)))

    def needs_zoom(self) -> bool:
        """Whether the zoom is another one than the lines were drawn for."""
        zoom = float(self._viewer.scene.camera.zoom)
        return bool(abs(zoom - self._drawn_at) > FINEST * zoom)

    def _lines(self, plane: Plane, shown: LabelMap, one: Who, column: float | None) -> Lines:
        lines = outline(part_of(plane.cut(shown), one))
        if column is not None and one != "reference":
            lines = (left_of if one == "baseline" else right_of)(lines, column)
        if one == "baseline":
            voxel_px = self._px_of_unit(plane)
            lines = dashed(lines, DASH_PX / voxel_px, GAP_PX / voxel_px)
        return lines

    def _px_of_unit(self, plane: Plane) -> float:
        return max(float(self._viewer.scene.camera.zoom) * plane.step, 1e-6)

    def _put(self, name: str, lines: Lines, plane: Plane) -> None:
        layer = self.layers.get(name)
        if layer is None:
            layer = self.layers[name] = self._make(name, plane)
        if tuple(layer.scale) != plane.scale:
            layer.scale = plane.scale
        if tuple(layer.translate) != plane.place.translate:
            layer.translate = plane.place.translate
        width = WIDTH_PX[name] / self._px_of_unit(plane)
        if abs(layer.edge_width - width) > FINEST * width:
            layer.edge_width = width
        vectors = plane.vectors(lines, 0.0 if name == "baseline" else width / 2)
        if not np.array_equal(vectors, layer.data):  # vispy builds its shaders anew for any
            _set_data(layer, vectors)
        self._set_shown(layer, True)
        self._drawn_at = float(self._viewer.scene.camera.zoom)

    def _make(self, name: str, plane: Plane) -> Vectors:
        layer = Vectors(
            np.empty((0, 2, 3)),
            name=name,
            edge_color=COLOURS[name],
            edge_width=1.0,
            vector_style="line",
            opacity=1.0,
            scale=plane.scale,
            translate=plane.place.translate,
            units=("mm", "mm", "mm"),
            axis_labels=("z", "y", "x"),
        )
        lock(layer)
        self._add(layer)
        return layer


def _set_data(layer: Vectors, vectors: NDArray[np.float64]) -> None:
    with layer.events.data.blocker():  # the viewer need not measure all layers again
        layer.data = vectors
