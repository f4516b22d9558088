"""Prompts: points, boxes, scribbles and lassos, on the canonical grid of a case.

Coordinates are voxel indices (z, y, x) of the image's canonical view (axes toward left, posterior,
superior; see `Volume.canonical`), whatever way the image is stored or shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project.schema import Value, explain

Bounds = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Half-open voxel bounds along (z, y, x)."""

Shape = tuple[int, int, int]
Axis = Literal[0, 1, 2]
Vertices = tuple[tuple[float, float], ...]


class Point(Value):
    """A click on one voxel."""

    kind: Literal["point"] = "point"
    positive: bool = True
    at: tuple[int, int, int]

    def bounds(self) -> Bounds:
        """Return the voxel as bounds."""
        z, y, x = self.at
        return (z, z + 1), (y, y + 1), (x, x + 1)


class Box(Value):
    """A box drawn around (positive) or beside (negative) a structure, half-open.

    A box drawn in a slice has the size 1 along that axis.
    """

    kind: Literal["box"] = "box"
    positive: bool = True
    low: tuple[int, int, int]
    high: tuple[int, int, int]

    def bounds(self) -> Bounds:
        """Return the box as bounds."""
        (z0, y0, x0), (z1, y1, x1) = self.low, self.high
        return (z0, z1), (y0, y1), (x0, x1)


class _Drawn(Value):
    """A path in one slice; `path` holds the two other axes, in their order."""

    positive: bool = True
    axis: Axis
    index: int
    path: Vertices = Field(min_length=1)

    def bounds(self) -> Bounds:
        """Return the voxels between the path's lowest and highest vertices as bounds."""
        corners = np.asarray(self.path)
        low, high = np.rint(corners.min(0)), np.rint(corners.max(0)) + 1
        sides = [(int(a), int(b)) for a, b in zip(low, high, strict=True)]
        sides.insert(self.axis, (self.index, self.index + 1))
        return sides[0], sides[1], sides[2]

    def _line(self, path: Vertices) -> NDArray[np.bool_]:
        """Return the voxels on a path, one voxel wide, in the slice and within `bounds`."""
        from skimage.draw import line

        corners = np.rint(path).astype(int) - self._low()
        sides = self.bounds()
        plane = np.zeros([b - a for i, (a, b) in enumerate(sides) if i != self.axis], bool)
        plane[tuple(corners.T)] = True
        for a, b in pairwise(corners):
            plane[line(*a, *b)] = True
        return plane

    def _low(self) -> NDArray[np.int_]:
        return np.asarray(np.rint(np.min(self.path, axis=0)), int)


class Scribble(_Drawn):
    """A free line in one slice."""

    kind: Literal["scribble"] = "scribble"

    def mask(self) -> NDArray[np.bool_]:
        """Return the voxels on the line, one voxel wide, within `bounds`: bool, (z, y, x)."""
        return np.expand_dims(self._line(self.path), self.axis)


class Lasso(_Drawn):
    """A closed line in one slice."""

    kind: Literal["lasso"] = "lasso"

    def mask(self) -> NDArray[np.bool_]:
        """Return the voxels inside and on the line, within `bounds`: bool, (z, y, x)."""
        from skimage.draw import polygon

        plane = self._line((*self.path, self.path[0]))
        plane[polygon(*(np.asarray(self.path) - self._low()).T, plane.shape)] = True
        return np.expand_dims(plane, self.axis)


Prompt = Annotated[Point | Box | Scribble | Lasso, Field(discriminator="kind")]
KINDS = ("point", "box", "scribble", "lasso")
_PROMPT: TypeAdapter[Any] = TypeAdapter(Prompt)


def parse_prompt(data: Any) -> Point | Box | Scribble | Lasso:
    """Read a prompt as `model_dump` wrote it.

    Raises
    ------
    InputError
        It is none.
    """
    try:
        prompt: Point | Box | Scribble | Lasso = _PROMPT.validate_python(data)
    except ValidationError as error:
        raise InputError(f"This is no prompt: {explain(error)}.", "Correct the file.") from error
    return prompt


def check_inside(prompt: Point | Box | Scribble | Lasso, shape: Shape) -> None:
    """Refuse a prompt with a part outside of an image, or without any voxel.

    Raises
    ------
    InputError
        Names the prompt and the shape of the image.
    """
    for (low, high), size in zip(prompt.bounds(), shape, strict=True):
        if not 0 <= low < high <= size:
            raise InputError(
                f"The {prompt.kind} at (z, y, x) = {_shown(prompt.bounds())} lies outside of the "
                f"image of {' x '.join(map(str, shape))} voxels.",
                "Place it inside of the image.",
            )


def _shown(bounds: Bounds) -> str:
    return ", ".join(str(a) if b == a + 1 else f"{a}-{b - 1}" for a, b in bounds)


def slices(bounds: Bounds) -> tuple[slice, slice, slice]:
    """Return bounds as an index."""
    (z0, z1), (y0, y1), (x0, x1) = bounds
    return slice(z0, z1), slice(y0, y1), slice(x0, x1)


def union(bounds: Iterable[Bounds]) -> Bounds:
    """Return the smallest bounds around some bounds."""
    each = np.asarray(list(bounds))
    low, high = each[:, :, 0].min(0), each[:, :, 1].max(0)
    z, y, x = ((int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def bounds_of(mask: NDArray[Any]) -> Bounds | None:
    """Return the bounds of the nonzero voxels of a (z, y, x) array, None if there are none."""
    sides = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        hits = np.flatnonzero(mask.any(axis=others))
        if not len(hits):
            return None
        sides.append((int(hits[0]), int(hits[-1]) + 1))
    return sides[0], sides[1], sides[2]
