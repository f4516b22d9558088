"""Layers of napari and values of the backend: the only conversion between them.

The backend's arrays are canonical: (z, y, x) toward superior, posterior and left. napari draws an
axis downward, and to the right, as its index grows. So a layer of ours shows the canonical array
flipped along z, as a view of the same memory: anterior and head are then up, and the patient's
right is on the screen's left. Its world is in mm: (inferior, posterior, left) of the patient, along
the axes of the grid where that is oblique. Volumes on parallel grids lie where they belong.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import ArrayLike, NDArray

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.geometry import Array, Floats, Geometry, from_affine
from napari_backsplit.backend.structures.prompts import Bounds
from napari_backsplit.backend.volume import Volume, check_finite

LayerData = tuple[Any, dict[str, Any], str]
Triple = tuple[float, float, float]

KEY = "backsplit"
"""Where a layer's metadata holds what is ours."""

SOFT_TISSUE_HU = (-160.0, 240.0)
AIR_HU, BONE_HU, LOWEST_HU = -500.0, 100.0, -5000.0
PERCENTILES = (1.0, 99.5)
SAMPLES = 100_000

TRANSPARENT = (0.0, 0.0, 0.0, 0.0)


# --- the flip along z ---------------------------------------------------------------------------


def shown(array: Array) -> Array:
    """Return a canonical (z, y, x) array as a layer shows it: a view of the same memory."""
    return array[::-1]


def stored(array: Array) -> Array:
    """Return the (z, y, x) array of a layer of ours as the canonical one: a view."""
    return array[::-1]


def flip_index(index_zyx: ArrayLike, shape: tuple[int, int, int]) -> Floats:
    """Turn indices or vertices (..., 3) of a layer into canonical ones, or back."""
    index = np.array(index_zyx, float)
    index[..., 0] = shape[0] - 1 - index[..., 0]
    return index


def flip_bounds(bounds: Bounds, shape: tuple[int, int, int]) -> Bounds:
    """Turn half-open bounds in a layer into canonical ones, or back."""
    (low, high), y, x = bounds
    return (shape[0] - high, shape[0] - low), y, x


# --- where the voxels of a layer lie ------------------------------------------------------------


@dataclass(frozen=True)
class Placement:
    """Where the voxels of a layer lie in napari's world, and in the canonical array.

    Attributes
    ----------
    shape : tuple of int
        Voxels along (z, y, x).
    scale, translate : tuple of float
        World mm of one step along each axis of the layer, and of its voxel (0, 0, 0).
    flipped : tuple of bool
        The axes of the layer that run against the canonical ones.
    """

    shape: tuple[int, int, int]
    scale: Triple
    translate: Triple
    flipped: tuple[bool, bool, bool] = (True, False, False)

    def to_index(self, world: ArrayLike) -> Floats:
        """Return the canonical index (z, y, x), with fractions, of world positions (..., 3)."""
        return self._flip(self._layer_index(world))

    def to_voxel(self, world: ArrayLike) -> NDArray[np.int64]:
        """Return the canonical index of the voxels, and slices, that napari shows there."""
        return self._flip(np.rint(self._layer_index(world))).astype(np.int64)

    def to_world(self, index_zyx: ArrayLike) -> Floats:
        """Return the world position of canonical indices (..., 3)."""
        return self._flip(np.asarray(index_zyx, float)) * self.scale + self.translate

    def _layer_index(self, world: ArrayLike) -> Floats:
        return np.asarray((np.asarray(world, float)[..., -3:] - self.translate) / self.scale)

    def _flip(self, index: Floats) -> Floats:
        return np.asarray(np.where(self.flipped, np.subtract(self.shape, 1) - index, index))


def placement(where: Layer | Geometry) -> Placement:
    """Return where the voxels of a layer lie, or those of a layer of ours with that geometry.

    Raises
    ------
    InputError
        The layer is not 3D, or it is rotated or sheared.
    """
    if isinstance(where, Geometry):
        return _placement_of_geometry(where.canonical())
    _check_axes(where)
    matrix, translate = _world_of(where)
    scale = np.diag(matrix)
    flipped = (True, False, False) if geometry_of(where) else tuple(bool(s < 0) for s in scale)
    return Placement(tuple(_level(where).shape), _triple(scale), _triple(translate), flipped)  # type: ignore[arg-type]


def world_of(stored: Geometry, place: Placement, voxel: ArrayLike) -> Floats:
    """Return where a voxel (z, y, x) of an image as stored lies in the viewer: (z, y, x), mm."""
    index = stored.canonical().to_index(stored.to_lps(voxel))
    return place.to_world(np.rint(index))


def geometry_of(layer: Layer) -> Geometry | None:
    """Return the canonical grid that a layer of ours carries; None for any other layer."""
    about = layer.metadata.get(KEY)
    geometry = about.get("geometry") if isinstance(about, dict) else None
    return geometry if isinstance(geometry, Geometry) else None


def _placement_of_geometry(geometry: Geometry) -> Placement:
    first = geometry.to_lps((geometry.shape[0] - 1, 0, 0)) @ np.asarray(geometry.direction)
    x, y, z = (float(mm) for mm in first)
    return Placement(geometry.shape, geometry.spacing_mm, (-z, y, x))


def _world_of(layer: Layer) -> tuple[Floats, Floats]:
    """Return the matrix and the offset from a layer's index to world mm."""
    offset = np.asarray(layer.data_to_world((0, 0, 0)), float)
    steps = [np.asarray(layer.data_to_world(axis), float) - offset for axis in np.eye(3)]
    matrix = np.stack(steps, axis=1)
    if np.abs(matrix - np.diag(np.diag(matrix))).max() > 1e-4 * np.abs(matrix).max():
        raise InputError(
            f"The layer is rotated or sheared: its affine is {np.round(matrix, 3).tolist()}.",
            "Open the image through BackSplit's reader, which keeps oblique grids.",
        )
    return matrix, offset


# --- from the backend to napari -----------------------------------------------------------------


def image_layer(volume: Volume, name: str, modality: str = "", **about: Any) -> LayerData:
    """Return a volume as an image layer: gray, in the display convention, with a window.

    Parameters
    ----------
    volume : Volume
        In any orientation; the layer shows a view of its array.
    name : str
    modality : str, optional
        "CT" sets the soft tissue window, another one that of the percentiles; without one, what
        is as low as air and as high as bone is taken for CT.
    **about
        More to remember in the metadata, such as the path.
    """
    volume = volume.canonical()
    black, white, lowest, highest = _window_and_range(volume.array, modality)
    known = {"modality": modality, "notes": volume.notes, "range": (lowest, highest), **about}
    place = {
        "colormap": "gray",
        "contrast_limits": (black, white),
        **_placed(volume.geometry, name, known),
    }
    return shown(volume.array), place, "image"


def labels_layer(
    mask: NDArray[np.uint8] | NDArray[np.bool_],
    geometry: Geometry,
    name: str,
    colour: Any,
    **about: Any,
) -> LayerData:
    """Return a mask as a labels layer with the one label 1, in one colour.

    Parameters
    ----------
    mask : ndarray of uint8 or bool
        (z, y, x), canonical. The layer shares its memory: painting in napari changes it, and a
        change of it is shown after `refresh_bounds`.
    geometry : Geometry
        Canonical, of the same shape.
    colour : str or tuple of float
        Any that napari knows.
    """
    colormap = DirectLabelColormap(color_dict={None: TRANSPARENT, 0: TRANSPARENT, 1: colour})
    array, place, kind = label_map_layer(mask.view(np.uint8), geometry, name, **about)
    return array, {**place, "colormap": colormap}, kind


def label_map_layer(ids: Array, geometry: Geometry, name: str, **about: Any) -> LayerData:
    """Return a canonical (z, y, x) array of ids as a labels layer of the same memory."""
    return shown(ids), {"opacity": 0.5, **_placed(geometry, name, about)}, "labels"


def refresh_bounds(layer: Labels, bounds: Bounds) -> None:
    """Show what changed in the mask of a labels layer within canonical bounds.

    Nothing is read where the layer is hidden: napari reads it when it is shown again.
    """
    if any(low >= high for low, high in bounds):
        return
    layer.refresh(thumbnail=False, highlight=False, extent=False)


def lock(layer: Layer) -> None:
    """Keep a layer from being changed: napari lets it be changed again with each new array."""
    layer.editable = False
    layer.events.editable.connect(_lock_again)


def _lock_again(event: Any) -> None:
    if event.source.editable:
        event.source.editable = False


def widen_range(layer: Layer) -> None:
    """Let the contrast slider of an image layer of ours reach beyond its first window.

    napari takes the limits that a layer comes with for the whole range of the slider.
    """
    about = layer.metadata.get(KEY)
    if isinstance(layer, Image) and isinstance(about, dict) and "range" in about:
        (low, high), (black, white) = about["range"], layer.contrast_limits
        layer.contrast_limits_range = (min(low, black), max(high, white))


def window(array: Array, modality: str = "") -> tuple[float, float]:
    """Return the grey values to show as black and white, from some of the voxels."""
    return _window_and_range(array, modality)[:2]


def _window_and_range(array: Array, modality: str) -> tuple[float, float, float, float]:
    sample = _sample(array)
    if not len(sample):
        return 0.0, 1.0, 0.0, 1.0
    low, high = float(sample.min()), float(sample.max())
    if _is_hounsfield(low, high, modality):
        return *SOFT_TISSUE_HU, low, high
    black, white = (float(value) for value in np.percentile(sample, PERCENTILES))
    black, white = (black, white) if black < white else (low, high)
    return (black, white, low, high) if black < white else (low, low + 1, low, low + 1)


def _is_hounsfield(low: float, high: float, modality: str) -> bool:
    if modality:
        return modality == "CT" and low < 0  # without a rescale, CT is stored from 0 on
    return LOWEST_HU < low <= AIR_HU and high >= BONE_HU


def _sample(array: Array) -> Array:
    step = max(1, ceil((array.size / SAMPLES) ** (1 / 3)))
    sample = np.asarray(array[::step, ::step, ::step]).ravel().astype(float)
    return np.asarray(sample[np.isfinite(sample)])


def _placed(geometry: Geometry, name: str, about: dict[str, Any]) -> dict[str, Any]:
    place = _placement_of_geometry(geometry)
    return {
        "name": name,
        "scale": place.scale,
        "translate": place.translate,
        "units": ("mm", "mm", "mm"),
        "axis_labels": ("z", "y", "x"),
        "metadata": {KEY: {"geometry": geometry, **about}},
    }


# --- from napari to the backend -----------------------------------------------------------------


def volume_of_layer(layer: Layer) -> Volume:
    """Return the image in any image layer: canonical, float32, finite.

    A layer of ours keeps its grid. Any other is taken as axis-aligned, its axes (z, y, x) toward
    superior, posterior and left by the signs of its scale, which the notes say. Large, dask and
    float64 arrays are computed and copied here: seconds, so not on the thread of the window.

    Raises
    ------
    InputError
        It is no image, not 3D, RGB, rotated or sheared; all voxels are the same; or a
        voxel is NaN, infinite or too large for float32.
    """
    _check_grey(layer)
    place = placement(layer)
    array = np.asarray(_level(layer))[_reversal(place.flipped)]
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    volume = _on_own_grid(layer, array) or _on_assumed_grid(place, array)
    check_finite(volume, "The layer")
    _check_varied(array)
    return volume


def _on_own_grid(layer: Layer, array: Array) -> Volume | None:
    geometry = geometry_of(layer)
    if geometry is None:
        return None
    notes = layer.metadata[KEY].get("notes", ())
    try:
        return Volume(array, geometry, tuple(notes))
    except GeometryError as error:
        raise InputError(error.problem, "Open the image again: the layer was changed.") from None


def _on_assumed_grid(place: Placement, array: Array) -> Volume:
    spacing = _triple(np.abs(place.scale))
    affine = np.diag([*spacing[::-1], 1.0])
    affine[:3, 3] = place.to_world((0, 0, 0))[::-1]
    shown_mm = " x ".join(f"{step:g}" for step in spacing)
    note = (
        f"The layer does not say how the patient lies: its axes (z, y, x), of {shown_mm} mm a "
        "voxel, are assumed to point toward superior, posterior and left."
    )
    return Volume(array, from_affine(place.shape, affine), (note,))


def _check_grey(layer: Layer) -> None:
    if not isinstance(layer, Image):
        raise InputError(
            f"The layer is a {type(layer).__name__} layer, not an image.", "Choose an image layer."
        )
    if layer.rgb:
        raise InputError("The layer is a colour (RGB) image.", "Choose a layer of grey values.")
    _check_axes(layer)


def _check_axes(layer: Layer) -> None:
    if layer.ndim != 3:
        shape = getattr(_level(layer), "shape", None)
        raise InputError(
            f"The layer has {layer.ndim} axes, of shape {shape}, not the three of a volume.",
            "Give one volume: one channel and one time point, as a layer of its own.",
        )


def _check_varied(array: Array) -> None:
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise InputError(f"All voxels of the layer are {low:g}.", "Choose another image.")


def _level(layer: Layer) -> Any:
    """Return a layer's array; of several levels, the finest."""
    return layer.data[0] if getattr(layer, "multiscale", False) else layer.data


def _reversal(flipped: tuple[bool, ...]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if flip else None) for flip in flipped)


def _triple(values: ArrayLike) -> Triple:
    z, y, x = (float(value) for value in np.asarray(values, float))
    return z, y, x
