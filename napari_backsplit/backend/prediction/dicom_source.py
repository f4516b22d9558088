"""The DICOM series that a case came from, found again, and masks moved onto its slices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from napari_backsplit.backend.dicom import Slice, geometry_of, read_series, read_slices
from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.geometry import Array, Geometry
from napari_backsplit.backend.project.images import FROM_DICOM, source_sha256
from napari_backsplit.backend.project.private import read_private, unnamed
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.volume import Volume, read_volume

#: Voxel centres of a mask and of the slices agree within this share of a voxel.
PLACE_TOLERANCE = 0.05


@dataclass(frozen=True, eq=False)
class Source:
    """A series on the disk.

    Attributes
    ----------
    slices
        In the order of the first axis of `geometry`.
    geometry
        The grid of the slices.
    """

    slices: tuple[Slice, ...]
    geometry: Geometry

    @property
    def headers(self) -> list[pydicom.Dataset]:
        """The headers of the files, slice by slice; one where a file holds all the frames."""
        files = list(dict.fromkeys(each.file for each in self.slices))
        return [pydicom.dcmread(file, stop_before_pixels=True) for file in files]

    def in_file_order(self, array: Array) -> Array:
        """Return an array on the grid with its first axis in the order of `headers` or frames.

        Raises
        ------
        GeometryError
            The frames lie in several files.
        """
        files = {each.file for each in self.slices}
        if len(files) == len(self.slices):
            return array
        if len(files) > 1:
            raise GeometryError(
                f"The series has {len(self.slices)} frames in {len(files)} files.",
                "A DICOM SEG needs one frame a file, or all in one: convert the series first.",
            )
        return array[np.argsort([each.frame for each in self.slices])]


def came_as_dicom(project: ProjectReader, case: str) -> bool:
    """Whether an image of a case was a DICOM series, wherever that lies now; no file is read."""
    return bool(_channels(project, case))


def find_source(project: ProjectReader, case: str, folder: Path | None = None) -> Source:
    """Find the DICOM series of a case again, and make sure that it is the one.

    Parameters
    ----------
    folder : Path, optional
        Where the series is now; by default where it was when it was imported.

    Raises
    ------
    InputError
        The case came as another file, its series is not there, or it holds another image.
    GeometryError
        The slices make no volume (tilted, uneven, missing), or not that of the case.
    """
    channels = _channels(project, case)
    if not channels:
        raise InputError(
            f"{case} did not come as a DICOM series.", "Take its prediction as NIfTI instead."
        )
    place = folder or _place(project, case, channels[0])
    with unnamed(place, f"The DICOM series of {case}"):
        source = _read(place, project, case)
        _require_same(place, source, project, case, channels[0])
    return source


def onto(volume: Volume, geometry: Geometry) -> Array:
    """Return the voxels of a volume on another description of the same grid, as a view.

    Axes are permuted and flipped only: nothing is interpolated.

    Raises
    ------
    GeometryError
        The voxel centres are not the same.
    """
    found = _turn(volume.geometry, geometry)
    if found is None:
        raise GeometryError(
            f"The mask does not lie on the slices of the series. Mask: {volume.geometry}; "
            f"slices: {geometry}.",
            "Predict the image that was converted from this series.",
        )
    axes, against = found
    moved = np.transpose(volume.array.T, axes)
    return np.asarray(moved[tuple(slice(None, None, -1 if back else None) for back in against)].T)


def _turn(own: Geometry, wanted: Geometry) -> tuple[list[int], list[bool]] | None:
    """Return how index axes x, y, z of one grid become those of another; None if they do not.

    Returns
    -------
    axes : list of int
        For each axis of `wanted`, that of `own` it comes from.
    against : list of bool
        For each axis of `wanted`, whether it runs the other way.
    """
    step = np.linalg.inv(wanted.affine) @ own.affine
    turn = np.rint(step[:3, :3])
    axes = [int(axis) for axis in np.abs(turn).argmax(axis=1)]
    if sorted(axes) != [0, 1, 2] or [own.shape[::-1][a] for a in axes] != [*wanted.shape[::-1]]:
        return None
    last = np.array(own.shape[::-1], float) - 1
    against = [bool(row[axis] < 0) for row, axis in zip(turn, axes, strict=True)]
    first = np.where(against, last[axes], 0)
    corners = np.array(list(product(*((0.0, n) for n in last))))
    wrong = corners @ (step[:3, :3] - turn).T + (step[:3, 3] - first)
    return (axes, against) if np.abs(wrong).max() <= PLACE_TOLERANCE else None


def _channels(project: ProjectReader, case: str) -> list[str]:
    value = project.case(case)
    return [name for name in value.images if f"{name} was {FROM_DICOM}." in value.notes]


def _place(project: ProjectReader, case: str, channel: str) -> Path:
    known = read_private(project.folder).cases.get(case)
    path = known.images.get(channel, "") if known else ""
    if not path or not Path(path).is_dir():
        raise InputError(
            f"The DICOM series of {case} is no longer where it was when it was imported.",
            "Bring it back, or name the folder that holds it now (--series).",
        )
    return Path(path)


def _read(folder: Path, project: ProjectReader, case: str) -> Source:
    try:
        slices: Sequence[Slice] = read_slices(folder)
    except GeometryError as error:
        raise GeometryError(
            error.problem, "Only even, parallel slices without a tilt can carry a DICOM SEG."
        ) from None
    source = Source(tuple(slices), geometry_of(slices))
    grid = project.geometry(case)
    if _turn(grid, source.geometry) is None:
        raise GeometryError(
            f"The slices of the series are not those of {case}. Series: {source.geometry}; "
            f"image of the case: {grid}.",
            "Name the folder with its own, whole series (--series).",
        )
    return source


def _require_same(
    folder: Path, source: Source, project: ProjectReader, case: str, channel: str
) -> None:
    """Compare hashes, and where a file was added or renamed, the voxels themselves."""
    image = project.case(case).images[channel]
    nothing: Any = None  # a folder's hash needs no voxels
    if source_sha256(folder, nothing) == image.source_sha256:
        return
    try:
        stored = read_volume(project.folder / image.file)
        same = np.array_equal(onto(stored, source.geometry), read_series(folder).array)
    except InputError as error:
        raise ProjectError(f"{case} cannot be compared with its series: {error}") from None
    if not same:
        raise InputError(
            f"The folder holds another image than the one {case} was converted from.",
            "Name the folder with its own series (--series).",
        )
