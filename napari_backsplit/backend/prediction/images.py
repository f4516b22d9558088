"""Whether the files of an image are whole, and one 3D volume each. Needs no torch.

nnU-Net's readers fill what is cut short with zeros, read NaN as 0, and take one slice for a volume
999 mm thick; so the files are looked at here first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from napari_backsplit.backend.errors import GeometryError
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.volume import (
    READABLE_SUFFIXES,
    check_finite,
    read_geometry,
    read_volume,
)

FARTHEST = 50.0
"""How many times coarser or finer than the network's an image may be; more is a wrong header."""


def grid_of(channels: Mapping[str, Path]) -> Geometry | None:
    """Return the grid that the files of an image share, from their headers alone.

    Parameters
    ----------
    channels : mapping
        Name of each channel -> its file, at least one.

    Returns
    -------
    Geometry or None
        None where a file is of a kind that only nnU-Net's readers know.

    Raises
    ------
    GeometryError
        A file is not one 3D volume, or its grid contradicts itself or that of another channel.
    InputError
        A header is unreadable.
    """
    if not _are_known(channels.values()):
        return None
    (first, grid), *others = [(name, read_geometry(file)) for name, file in channels.items()]
    for channel, other in others:
        if said := grid.difference(other):
            raise GeometryError(
                f"The channels {first} and {channel} differ in grid. {said}",
                "Resample them onto one grid.",
            )
    return grid


def check_voxels(files: Sequence[Path]) -> None:
    """Read files as they are stored: refuse what is damaged, cut short, NaN or infinite.

    Files of a kind that only nnU-Net's readers know are left to them.

    Raises
    ------
    InputError
        Names the file, and of a wrong number the place.
    """
    for file in files if _are_known(files) else ():
        check_finite(read_volume(file), file.name)


def check_spacing(own: Sequence[float], network: Sequence[float]) -> None:
    """Refuse an image whose resampling would take hours, or leave nothing of it.

    Parameters
    ----------
    own, network : sequence of float
        Spacing of the image and of the network's grid, mm, axes in the same order.

    Raises
    ------
    GeometryError
        Along an axis they differ by more than `FARTHEST` times.
    """
    for ours, theirs in zip(own, network, strict=True):
        if not 1 / FARTHEST <= ours / theirs <= FARTHEST:
            raise GeometryError(
                f"The image's spacing of {ours:.4g} mm is more than {FARTHEST:g} times "
                f"{'coarser' if ours > theirs else 'finer'} than the model's, {theirs:.4g} mm.",
                "Correct its header if it is wrong; else use a model trained on such images.",
            )


def slice_notes(shape: Sequence[int], patch: Sequence[int]) -> tuple[str, ...]:
    """Say where a 3D network sees a single slice, for it was taught volumes."""
    if len(patch) < 3 or min(shape) > 1:
        return ()
    return (
        "The image is a single slice; the model looks at volumes, so what is around it is taken "
        "for background. Do not rely on the result.",
    )


def _are_known(files: Iterable[Path]) -> bool:
    return all(file.name.lower().endswith(READABLE_SUFFIXES) for file in files)
