"""Arrays of a prediction as NIfTI files on the image's own grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import atomic_path, writing

_DESCRIPTION = 79
"""Bytes of text in a NIfTI header's descrip."""


def write_array(
    array: NDArray[Any], path: Path, grid: dict[str, Any], description: str = ""
) -> None:
    """Write an array of a prediction as NIfTI on the image's own grid, atomically.

    As the write_seg of nnU-Net's readers does, but for any type.

    Parameters
    ----------
    array : ndarray, (z, y, x)
        On the grid that nnU-Net's reader sees.
    path : Path
    grid : dict
        `Prediction.grid`.
    description : str
        For the header's descrip, of which 79 bytes are kept.

    Raises
    ------
    InputError
        The image was read as a picture.
    ProjectError
        The disk is full or read-only; `path` is as it was.
    """
    own = np.ascontiguousarray(array)
    with writing(f"The file {path.name}"), atomic_path(path) as temporary:
        if "sitk_stuff" in grid:
            _write_itk(_itk_image(own, grid), temporary, description)
        elif "nibabel_stuff" in grid:
            image = _nibabel_image(own, grid["nibabel_stuff"])
            image.header["descrip"] = description[:_DESCRIPTION].encode()
            nibabel.save(image, str(temporary))
        else:
            raise InputError("The model is for 2D or TIFF images.", "Use a model for volumes.")


def _write_itk(image: sitk.Image, path: Path, description: str) -> None:
    if description:
        image.SetMetaData("ITK_FileNotes", description[:_DESCRIPTION])
    try:
        sitk.WriteImage(image, str(path), True)
    except RuntimeError as error:  # ITK says no more of a full disk than that it failed
        raise OSError("the disk is full or cannot be written to") from error


def _itk_image(array: NDArray[Any], properties: dict[str, Any]) -> sitk.Image:
    grid = properties["sitk_stuff"]
    dimension = len(grid["spacing"])
    image = sitk.GetImageFromArray(array if dimension == 3 else array[0])
    image.SetSpacing(grid["spacing"])
    image.SetOrigin(grid["origin"])
    image.SetDirection(grid["direction"])
    orientation = grid.get("original_orientation")
    return sitk.DICOMOrient(image, orientation) if orientation else image


def _nibabel_image(array: NDArray[Any], grid: dict[str, Any]) -> Any:
    transposed = array.transpose((2, 1, 0))
    if "reoriented_affine" not in grid:
        return nibabel.Nifti1Image(transposed, grid["original_affine"])
    image = nibabel.Nifti1Image(transposed, grid["reoriented_affine"])
    own = nibabel.orientations.io_orientation(grid["original_affine"])
    ras = nibabel.orientations.axcodes2ornt("RAS")
    return image.as_reoriented(nibabel.orientations.ornt_transform(ras, own))
