"""How a viewer shows the patient: letters at the edges of the canvas, and planes upright.

The letters are four text overlays of napari's own canvas (`viewer.canvas.overlays`, public since
napari 0.9), so they need no window and are in its screenshots.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from numpy.typing import NDArray

from napari_backsplit.widgets._layers import geometry_of, widen_range

Plane = Literal["axial", "coronal", "sagittal"]

PLANES: dict[Plane, tuple[int, int, int]] = {
    "axial": (0, 1, 2),
    "coronal": (1, 0, 2),
    "sagittal": (2, 0, 1),
}
"""The order of the axes that shows a plane upright."""

_ROLLED: dict[Any, Plane] = {((2, 0, 1), (1, 2, 0)): "coronal", ((1, 0, 2), (2, 1, 0)): "axial"}
"""What napari's "roll dimensions" makes of an upright plane, and the plane that is meant."""

LETTERS = ("HF", "AP", "RL")
"""Where each axis (z, y, x) of the shown volume comes from, and goes to."""

EDGES = {
    "top": "top_center",
    "bottom": "bottom_center",
    "left": "middle_left",
    "right": "middle_right",
}
ALONG = np.cos(np.radians(30))
"""In 3D, an edge has a letter while an axis of the patient points there within 30 degrees."""

FONT_SIZE = 14


class Orientation:
    """The letters R L A P H F of one viewer; they follow its planes, camera and layers.

    They are shown while the viewer holds a layer that says how the patient lies; of an oblique
    volume they name the nearest direction. As long, napari's "roll dimensions" shows all three
    planes upright ("transpose" is left alone), and the contrast slider of an image that is added
    reaches beyond its window. Made by `orient`.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._order = viewer.dims.order
        self._overlays = {
            edge: _Letter(position=position, font_size=FONT_SIZE, gridded=True, owner=self)
            for edge, position in EDGES.items()
        }
        for edge, overlay in self._overlays.items():
            viewer.canvas.overlays[_key(edge)] = overlay
        for event in self._events():
            event.connect(self.update)
        viewer.layers.events.inserted.connect(self._widen)
        self.update()

    @property
    def letters(self) -> dict[str, str]:
        """The letter at the top, bottom, left and right; empty where none is shown."""
        return {edge: o.text if o.visible else "" for edge, o in self._overlays.items()}

    def update(self, event: Any = None) -> None:
        """Show what the viewer's present state asks for."""
        before, self._order = self._order, self._viewer.dims.order
        plane = _ROLLED.get((before, self._order))
        if plane and self._has_patient() and self._viewer.dims.ndisplay == 2:
            self._viewer.dims.order = PLANES[plane]  # which comes back here
            return
        letters = letters_of(self._viewer) if self._has_patient() else {}
        for edge, overlay in self._overlays.items():
            overlay.text = letters.get(edge, "")
            overlay.visible = bool(overlay.text)

    def close(self) -> None:
        """Take the letters out of the viewer."""
        for event in self._events():
            event.disconnect(self.update)
        self._viewer.layers.events.inserted.disconnect(self._widen)
        for edge, overlay in self._overlays.items():
            overlay.visible = False
            self._viewer.canvas.overlays.pop(_key(edge), None)

    def _widen(self, event: Any) -> None:
        widen_range(event.value)

    def _has_patient(self) -> bool:
        return any(layer.ndim == 3 and geometry_of(layer) for layer in self._viewer.layers)

    def _events(self) -> list[Any]:
        dims, camera, layers = self._viewer.dims, self._viewer.scene.camera, self._viewer.layers
        return [
            dims.events.order,
            dims.events.ndisplay,
            dims.events.ndim,
            camera.events.angles,
            camera.events.orientation,
            layers.events.inserted,
            layers.events.removed,
        ]


class _Letter(TextOverlay):  # type: ignore[misc]
    """A letter; it keeps the object alive that keeps it right, as long as the viewer has it."""

    owner: Any = None


def orient(viewer: ViewerModel) -> Orientation:
    """Make a viewer show how the patient lies; return what does so already, if it does."""
    present = viewer.canvas.overlays.get(_key("top"))
    return present.owner if isinstance(present, _Letter) else Orientation(viewer)


def orient_current() -> None:
    """Make the viewer in front show how the patient lies, where there is one."""
    from napari.viewer import current_viewer

    viewer = current_viewer()
    if viewer is not None:
        orient(viewer)


def show_plane(viewer: ViewerModel, plane: Plane) -> None:
    """Show slices in a plane, upright: the patient's right on the left, anterior and head up."""
    first = viewer.dims.ndim - 3
    viewer.dims.ndisplay = 2
    viewer.dims.order = (*range(first), *(first + axis for axis in PLANES[plane]))


def plane_of(viewer: ViewerModel) -> Plane | None:
    """Return the plane that is shown, None for another view."""
    first = viewer.dims.ndim - 3
    order = tuple(axis - first for axis in viewer.dims.order[-3:])
    return next((plane for plane, axes in PLANES.items() if axes == order), None)


def show_next_plane(viewer: ViewerModel) -> None:
    """Show the plane after the present one; all planes go through the same point."""
    planes = list(PLANES)
    here = plane_of(viewer)
    show_plane(viewer, planes[(planes.index(here) + 1) % 3] if here else "axial")


def letters_of(viewer: ViewerModel) -> dict[str, str]:
    """Return the letter at each edge of the canvas where the patient's axes say one.

    An edge is missing where its direction is no axis of the patient: an axis of another layer,
    or, in 3D, one that lies askew.
    """
    found = {}
    for edge, direction in _directions(viewer).items():
        axis = int(np.abs(direction).argmax())
        if abs(direction[axis]) >= ALONG and axis >= len(direction) - 3:
            found[edge] = LETTERS[axis - len(direction) + 3][int(direction[axis] > 0)]
    return found


def _directions(viewer: ViewerModel) -> dict[str, NDArray[np.float64]]:
    """Return the unit vector, in world axes, that points to each edge."""
    dims = viewer.dims
    up, right = _in_3d(viewer.scene.camera) if dims.ndisplay == 3 else _in_2d(viewer.scene.camera)
    embedded = np.zeros((2, dims.ndim))
    embedded[:, list(dims.displayed)] = [up, right]
    up, right = embedded
    return {"top": up, "bottom": -up, "left": -right, "right": right}


def _in_2d(camera: Any) -> tuple[list[float], list[float]]:
    vertical, horizontal = camera.orientation2d
    return [-1.0 if str(vertical) == "down" else 1.0, 0.0], [
        0.0,
        1.0 if str(horizontal) == "right" else -1.0,
    ]


def _in_3d(camera: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    up = np.asarray(camera.up_direction, float)
    right = np.cross(camera.view_direction, up)
    return up, right if str(camera.handedness) == "right" else -right


def _key(edge: str) -> str:
    return f"backsplit_{edge}"
