"""What a person draws in a slice, as prompts of the backend.

Positions are napari's world, such as `event.position` of a mouse event: (z, y, x), or with axes of
other layers before those. The slice may be any of the three planes, transposed or not.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from napari.layers import Layer
from numpy.typing import ArrayLike

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.geometry import Floats, Geometry
from napari_backsplit.backend.structures.prompts import (
    Axis,
    Box,
    Lasso,
    Point,
    Scribble,
    check_inside,
)
from napari_backsplit.widgets._layers import Placement, placement

Line = TypeVar("Line", Scribble, Lasso)


def prompt_from_point(
    where: Layer | Geometry, position_world: ArrayLike, positive: bool = True
) -> Point:
    """Return a click at a world position, such as `event.position`, as a prompt.

    Raises
    ------
    InputError
        It lies outside of the image.
    """
    place = placement(where)
    z, y, x = place.to_voxel(position_world).tolist()
    point = Point(positive=positive, at=(z, y, x))
    check_inside(point, place.shape)
    return point


def prompt_from_box(
    where: Layer | Geometry, vertices_world: ArrayLike, dims: Any, positive: bool = True
) -> Box:
    """Return a rectangle drawn in the slice shown as a prompt.

    Parameters
    ----------
    where : Layer or Geometry
        The image.
    vertices_world : array_like
        (n, 3): two opposite corners, or all four. What lies outside of the image is cut off.
    dims : napari.components.Dims
        `viewer.dims`: tells the slice plane.

    Raises
    ------
    InputError
        It lies outside of the image altogether, or the view is 3D.
    """
    place, axis, world = _drawn(where, vertices_world, dims)
    index = place.to_voxel(world)
    low, high = index.min(0), index.max(0) + 1
    high[axis] = low[axis] + 1
    cut_low, cut_high = np.clip(low, 0, place.shape), np.clip(high, 0, place.shape)
    if (cut_low < cut_high).all():
        low, high = cut_low, cut_high
    box = Box(positive=positive, low=tuple(low.tolist()), high=tuple(high.tolist()))
    check_inside(box, place.shape)
    return box


def prompt_from_scribble(
    where: Layer | Geometry, vertices_world: ArrayLike, dims: Any, positive: bool = True
) -> Scribble:
    """Return a free line drawn in the slice shown as a prompt.

    Parameters are those of `prompt_from_box`, but with one vertex or more.

    Raises
    ------
    InputError
        A part of it lies outside of the image, nothing was drawn, or the view is 3D.
    """
    return _line(Scribble, where, vertices_world, dims, positive)


def prompt_from_lasso(
    where: Layer | Geometry, vertices_world: ArrayLike, dims: Any, positive: bool = True
) -> Lasso:
    """Return a closed line drawn in the slice shown as a prompt; as `prompt_from_scribble`."""
    return _line(Lasso, where, vertices_world, dims, positive)


def sliced_axis(dims: Any) -> Axis:
    """Return the axis of the volume, of (z, y, x), that `viewer.dims` cuts into slices.

    Raises
    ------
    InputError
        The view is 3D, or an axis of other layers is displayed.
    """
    displayed = [axis - (dims.ndim - 3) for axis in dims.displayed]
    for axis in (0, 1, 2):
        if sorted(displayed) == [other for other in (0, 1, 2) if other != axis]:
            return axis
    raise InputError(
        f"The view shows {len(displayed)} dimensions, not a slice of the volume.",
        "Switch to a slice (2D) to draw.",
    )


def _drawn(
    where: Layer | Geometry, vertices_world: ArrayLike, dims: Any
) -> tuple[Placement, Axis, Floats]:
    world = np.atleast_2d(np.asarray(vertices_world, float))
    if not world.size:
        raise InputError("Nothing was drawn.", "Draw inside of the image.")
    return placement(where), sliced_axis(dims), world


def _line(
    kind: type[Line], where: Layer | Geometry, vertices_world: ArrayLike, dims: Any, positive: bool
) -> Line:
    place, axis, world = _drawn(where, vertices_world, dims)
    voxels = place.to_voxel(world)
    vertices = voxels.astype(float) if kind is Scribble else place.to_index(world)
    path = tuple((float(a), float(b)) for a, b in np.delete(vertices, axis, axis=1))
    line = kind(positive=positive, axis=axis, index=int(voxels[0, axis]), path=path)
    check_inside(line, place.shape)
    return line
