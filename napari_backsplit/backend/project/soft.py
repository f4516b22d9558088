"""Soft masks: how much of each voxel is the target, from float masks or from several raters.

A soft mask lies beside the case's hard one, which stays the reference for sampling and metrics. The
steps are those of a mask (see `masks`), but that shares are resampled linearly and never rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.project.masks import ENDING
from napari_backsplit.backend.project.schema import Grid, Schema
from napari_backsplit.backend.volume import (
    Geometry,
    Volume,
    check_finite,
    read_volume,
    resample,
)

FOLDER = "soft"
"""Where the soft masks of a case are, in its folder."""

Shares = NDArray[np.float32]

TOLERANCE = 1e-5
"""How far a share may lie outside of [0, 1]: what the scaling of a file's integers leaves."""

_REMEDY = "Give shares of a voxel, from 0 to 1: divide percentages by 100, and masks of 255 by 255."


def place_of(schema: Schema, case_folder: Path, target: str) -> Path:
    """Return where the soft mask of a target belongs.

    Raises
    ------
    ProjectError
        The project has no such target; supports have no soft masks.
    """
    if target not in schema.target_names:
        raise ProjectError(
            f"The project has no target {target!r}.",
            f"Soft masks are for targets: {', '.join(schema.target_names)}.",
        )
    return case_folder / FOLDER / f"{target}{ENDING}"


def as_shares(volume: Volume, what: str) -> Volume:
    """Return a volume as shares of voxels, float32 in [0, 1].

    Parameters
    ----------
    volume : Volume
        bool, 0 and 1, or shares; what lies outside of [0, 1] by less than 1e-5 is clipped.
    what : str
        What to call it in an error.

    Raises
    ------
    InputError
        A voxel is NaN, infinite or outside of [0, 1].
    """
    check_finite(volume, what)
    array = volume.array.astype(np.float32, copy=False)
    outside = (array < -TOLERANCE) | (array > 1 + TOLERANCE)
    if outside.any():
        place = np.unravel_index(int(outside.argmax()), outside.shape)
        index = tuple(int(n) for n in place)
        raise InputError(
            f"{what} has {np.count_nonzero(outside)} voxels outside of 0 to 1, the first at "
            f"(z, y, x) = {index}: {array[index]:g}.",
            _REMEDY,
        )
    return volume.with_array(np.clip(array, 0, 1))


def read(path: Path, geometry: Geometry | None = None, what: str = "") -> Volume:
    """Read a soft mask, or a binary one: float32 in [0, 1], (z, y, x).

    Parameters
    ----------
    path : Path
    geometry : Geometry, optional
        The grid that it must lie on.
    what : str
        What to call it in an error; by default the name of the file.

    Raises
    ------
    InputError
        It cannot be read, or is no soft mask.
    GeometryError
        It lies on another grid.
    """
    name = what or path.name
    volume = as_shares(read_volume(path), name)
    return volume if geometry is None else fit(volume, geometry, name, False)[0]


def fit(
    volume: Volume, geometry: Geometry, what: str, allowed: bool
) -> tuple[Volume, dict[str, Any] | None]:
    """Bring shares to the case's grid, linearly; say how if they were on another.

    Raises
    ------
    GeometryError
        They are on another grid and resampling is not allowed, or nothing would be left.
    """
    difference = geometry.difference(volume.geometry)
    if difference is None:
        return replace(volume, geometry=geometry), None
    if not allowed:
        raise GeometryError(
            f"{what} is not on the grid of the image. {difference} "
            f"Image: {geometry}; soft mask: {volume.geometry}.",
            "Choose to resample it (--resample), or give one on the image's grid.",
        )
    fitted = resample(volume, geometry, "linear", outside=0.0)
    if volume.array.any() and not fitted.array.any():
        raise GeometryError(
            f"{what} has no voxel left on the grid of the image: it lies outside of it.",
            "Check that it belongs to this image.",
        )
    before = Grid.of(volume.geometry).model_dump(mode="json")
    clipped = fitted.with_array(np.clip(fitted.array, 0, 1))
    return clipped, {"from": before, "method": "linear"}


def mean(volumes: Sequence[Volume]) -> Volume:
    """Return the mean of raters' shares on one grid, voxel by voxel: float32, (z, y, x).

    Their notes are joined; one that several have is said once.
    """
    total = np.zeros(volumes[0].array.shape)
    for volume in volumes:
        total += volume.array
    notes = tuple(dict.fromkeys(note for volume in volumes for note in volume.notes))
    averaged = (total / len(volumes)).astype(np.float32)
    return Volume(averaged, volumes[0].geometry, notes)


def is_hard(shares: Shares) -> bool:
    """Whether every voxel is wholly in or wholly out."""
    return bool(((shares == 0) | (shares == 1)).all())


def at_least_half(shares: Shares) -> NDArray[np.bool_]:
    """Return the voxels of which at least half is the target."""
    half: NDArray[np.bool_] = shares >= 0.5
    return half


def dice(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the Dice of two masks; 1 where both are empty."""
    both = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / both if both else 1.0
