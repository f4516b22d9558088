"""A 3D image or mask with its place in the patient; NIfTI, NRRD, MetaImage and DICOM files.

Arrays have the axes (z, y, x). World positions are LPS, in mm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import atomic_path
from napari_backsplit.backend.geometry import (
    Array,
    Geometry,
    from_parts,
    restore,
    to_canonical,
)
from napari_backsplit.backend.headers import (
    check_text_header,
    read_nifti,
    read_nifti_geometry,
    refuse_shape,
)

__all__ = [
    "Geometry",
    "Volume",
    "check_finite",
    "read_geometry",
    "read_label_map",
    "read_mask",
    "read_volume",
    "resample",
    "restore",
    "write_volume",
]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
READABLE_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha", ".mhd")
WRITABLE_SUFFIXES = (*NIFTI_SUFFIXES, ".nrrd", ".mha")


@dataclass(frozen=True, eq=False)
class Volume:
    """An array with the axes (z, y, x) on its grid in the patient.

    Parameters
    ----------
    array : ndarray
        One number or bool for each voxel, shape (z, y, x).
    geometry : Geometry
        The grid, of the same shape.
    notes : tuple of str, optional
        What was assumed or changed on the way here, one sentence each.

    Raises
    ------
    GeometryError
        The array has not the shape of the grid.
    """

    array: Array
    geometry: Geometry
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape:
            raise GeometryError(
                f"The array has shape {self.array.shape}, its grid {self.geometry.shape}.",
                "Give an array with the axes (z, y, x) on that grid.",
            )

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of voxel centres along (z, y, x), in mm."""
        return self.geometry.spacing_mm

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """LPS position (x, y, z) of voxel (0, 0, 0), in mm."""
        return self.geometry.origin_mm

    @property
    def direction(self) -> tuple[tuple[float, float, float], ...]:
        """3 x 3; column i is the LPS direction of index axis i in the order x, y, z."""
        return self.geometry.direction

    def canonical(self) -> Volume:
        """Return a view whose axes point toward left, posterior, superior.

        Axes are permuted and flipped only: an oblique volume stays oblique, and `restore` gives
        back the file's own grid bit for bit.
        """
        return Volume(
            to_canonical(self.array, self.geometry), self.geometry.canonical(), self.notes
        )

    def with_array(self, array: Array) -> Volume:
        """Return another array on the same grid."""
        return replace(self, array=array)


def read_volume(path: Path | str) -> Volume:
    """Read an image: NIfTI, NRRD, MetaImage, or the folder of a DICOM series.

    Stored integers are scaled by the slope and intercept of the file. NaN is not looked for: see
    `check_finite`.

    Raises
    ------
    InputError
        The file is missing, unreadable, cut short, or of an unknown kind.
    GeometryError
        It is not 3D, or its grid is sheared, contradictory or has no size.
    """
    path = _existing(path)
    if path.is_dir():
        from napari_backsplit.backend.dicom import read_series

        return read_series(path)
    if _suffix(path) in NIFTI_SUFFIXES:
        return Volume(*read_nifti(path))
    geometry, notes = _itk_geometry(path)
    array = sitk.GetArrayFromImage(_itk_image(path)).reshape(geometry.shape)
    return Volume(array, geometry, notes)


def read_geometry(path: Path | str) -> Geometry:
    """Read the grid of an image from its header alone.

    Raises
    ------
    InputError
        As `read_volume`; voxels cut short are not noticed in a compressed file.
    """
    path = _existing(path)
    if path.is_dir():
        from napari_backsplit.backend import dicom

        return dicom.read_geometry(path)
    if _suffix(path) in NIFTI_SUFFIXES:
        return read_nifti_geometry(path)[0]
    return _itk_geometry(path)[0]


def read_label_map(path: Path | str) -> Volume:
    """Read whole, non-negative ids, in the smallest unsigned type that holds them.

    Files of floating-point numbers are accepted where every number is whole.

    Raises
    ------
    InputError
        As `read_volume`, or a value is negative, not whole or not finite.
    """
    volume = read_volume(path)
    check_finite(volume, Path(path).name)
    array = volume.array
    if array.dtype.kind == "f":
        _refuse_first(volume, array != np.rint(array), path, "not a whole number")
    if array.dtype.kind != "u":
        _refuse_first(volume, array < 0, path, "negative")
    return volume.with_array(array.astype(np.min_scalar_type(int(array.max())), copy=False))


def read_mask(path: Path | str, geometry: Geometry | None = None) -> Volume:
    """Read a mask: True where the id is not zero.

    Parameters
    ----------
    path : Path
        A label map or mask, of whole numbers.
    geometry : Geometry, optional
        The grid the mask must lie on.

    Raises
    ------
    InputError
        As `read_label_map`.
    GeometryError
        The mask lies on another grid than `geometry`.
    """
    difference = geometry.difference(read_geometry(path)) if geometry else None
    if difference:
        raise GeometryError(
            f"{Path(path).name} is not on the grid of the image. {difference} "
            f"Image: {geometry}; mask: {read_geometry(path)}.",
            "Resample the mask onto the grid of the image.",
        )
    volume = read_label_map(path)
    return volume.with_array(volume.array != 0)


def write_volume(volume: Volume, path: Path | str) -> None:
    """Write a volume, atomically, with no metadata but its grid.

    The format follows the suffix: .nii, .nii.gz, .nrrd or .mha. bool is written as uint8.

    Raises
    ------
    InputError
        The suffix is not one of those.
    """
    path = Path(path)
    if not path.name.endswith(WRITABLE_SUFFIXES):
        raise InputError(
            f"{path.name} cannot be written: its suffix is not known.",
            f"Use one of {', '.join(WRITABLE_SUFFIXES)}.",
        )
    with atomic_path(path) as temporary, silence():
        sitk.WriteImage(_to_itk(volume), str(temporary), _suffix(path) != ".nii")


def check_finite(volume: Volume, what: str) -> None:
    """Refuse voxels that are NaN or infinite.

    Raises
    ------
    InputError
        Names `what`, their number and the index (z, y, x) of the first.
    """
    if volume.array.dtype.kind != "f" or np.isfinite(volume.array).all():
        return
    wrong = ~np.isfinite(volume.array)
    index = _first(wrong)
    raise InputError(
        f"{what} has {np.count_nonzero(wrong)} voxels that are NaN or infinite, "
        f"the first at (z, y, x) = {index}: {volume.array[index]}.",
        "Replace them with the background value in the source file.",
    )


def resample(
    volume: Volume,
    geometry: Geometry,
    order: Literal["nearest", "linear"],
    outside: float | None = None,
) -> Volume:
    """Resample onto another grid, and say so in the notes.

    Outside of the volume, masks and label maps (`nearest`) become 0, images (`linear`) their
    lowest value. `nearest` keeps the dtype; `linear` gives float32.

    Parameters
    ----------
    volume : Volume
        What to resample.
    geometry : Geometry
        The grid wanted.
    order : {"nearest", "linear"}
        "nearest" for masks and label maps, "linear" for images.
    outside : float, optional
        Another value outside of the volume.
    """
    linear = order == "linear"
    if outside is None:
        outside = float(volume.array.min()) if linear else 0.0
    method = sitk.sitkLinear if linear else sitk.sitkNearestNeighbor
    image = _to_itk(volume.with_array(volume.array.astype(np.float32)) if linear else volume)
    with silence():
        result = sitk.Resample(image, _reference(geometry), sitk.Transform(), method, outside)
    array = sitk.GetArrayFromImage(result).astype(
        np.float32 if linear else volume.array.dtype, copy=False
    )
    return Volume(array, geometry, (*volume.notes, _resample_note(volume, geometry, order)))


def _resample_note(volume: Volume, geometry: Geometry, order: str) -> str:
    inside = _inside_share(volume.geometry, geometry)
    return (
        f"Resampled ({order}) from a grid of {volume.geometry} to {geometry}; "
        f"{100 * (1 - inside):.1f} % of it lies outside of the source."
    )


def _inside_share(source: Geometry, target: Geometry) -> float:
    """Share of the voxels of `target` whose centres lie within `source`."""
    axes = np.ix_(*(np.arange(n) for n in target.shape))
    step = np.linalg.inv(source.affine) @ target.affine
    inside = np.ones(target.shape, bool)
    for world, size in enumerate(source.shape[::-1]):
        index = sum(step[world, 2 - axis] * axes[axis] for axis in range(3)) + step[world, 3]
        inside &= (index > -0.5) & (index < size - 0.5)
    return float(inside.mean())


def _existing(path: Path | str) -> Path:
    if not Path(path).exists():
        raise InputError(f"{Path(path).name} does not exist.", "Check the path.")
    return Path(path)


def _suffix(path: Path) -> str:
    """Return the known suffix of a path, lower case; refuse any other."""
    name = path.name.lower()
    for suffix in READABLE_SUFFIXES[::-1]:
        if name.endswith(suffix):
            return suffix
    hint = "Give the folder of the series. " if name.endswith((".dcm", ".ima")) else ""
    raise InputError(
        f"{path.name} has a suffix that is not known.",
        f"{hint}Use one of {', '.join(READABLE_SUFFIXES)}, or a DICOM folder.",
    )


def _itk_geometry(path: Path) -> tuple[Geometry, tuple[str, ...]]:
    notes = check_text_header(path)
    reader = _itk_reader(path)
    _itk_call(reader.ReadImageInformation, path)
    size = (*reader.GetSize(), *_components(reader))
    if len(size) < 3 or any(n > 1 for n in size[3:]):
        raise refuse_shape(path, size)
    return _from_itk(reader, path), notes


def _components(reader: Any) -> tuple[int, ...]:
    """Return the numbers for each voxel as one more axis, where there are several."""
    count = int(reader.GetNumberOfComponents())
    return (count,) if count > 1 else ()


def _from_itk(image: Any, path: Path) -> Geometry:
    count = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(count, count)[:3, :3]
    x, y, z = (int(n) for n in image.GetSize()[:3])
    try:
        return from_parts((z, y, x), image.GetSpacing()[2::-1], image.GetOrigin()[:3], direction)
    except GeometryError as error:
        raise GeometryError(f"{path.name}: {error.problem}", error.remedy) from None


def _itk_reader(path: Path) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() == ".nrrd" else "MetaImageIO")
    return reader


def _itk_image(path: Path) -> Any:
    return _itk_call(_itk_reader(path).Execute, path)


def _itk_call(function: Any, path: Path) -> Any:
    try:
        with silence():
            return function()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip().replace(str(path), path.name)
        raise InputError(
            f"{path.name} cannot be read: {reason}.", "Restore the file from its source."
        ) from error


@contextmanager
def silence() -> Iterator[None]:
    """Keep ITK's warnings, which may name files and patients, off the standard error."""
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def _to_itk(volume: Volume) -> Any:
    array = volume.array
    if array.dtype == bool:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array, array.dtype.newbyteorder("=")))
    return _placed(image, volume.geometry)


def _reference(geometry: Geometry) -> Any:
    return _placed(sitk.Image(geometry.shape[::-1], sitk.sitkUInt8), geometry)


def _placed(image: Any, geometry: Geometry) -> Any:
    image.SetSpacing(geometry.spacing_mm[::-1])
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection([cosine for row in geometry.direction for cosine in row])
    return image


def _refuse_first(volume: Volume, wrong: Array, path: Path | str, why: str) -> None:
    if wrong.any():
        index = _first(wrong)
        raise InputError(
            f"{Path(path).name} is no label map: {volume.array[index]} at (z, y, x) = {index} "
            f"is {why}.",
            "Give a file of whole ids from 0 on, not probabilities or an image.",
        )


def _first(wrong: Array) -> tuple[int, ...]:
    return tuple(int(n) for n in np.unravel_index(int(wrong.argmax()), wrong.shape))
