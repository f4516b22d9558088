"""Small DICOM series for tests: brightness tells the place, the patient has a name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

NAME = "Doe^Jane"
SHAPE, SPACING, STEP = (7, 8), (1.5, 1.25), 4.0
PLANES = {
    "axial": [[1.0, 0, 0], [0, 1, 0]],
    "axial, head first": [[1.0, 0, 0], [0, -1, 0]],
    "sagittal": [[0, 1.0, 0], [0, 0, -1]],
    "coronal": [[1.0, 0, 0], [0, 0, -1]],
    "oblique": [[0.8, 0.6, 0], [-0.36, 0.48, -0.8]],
}


def write_series(
    folder: Path,
    plane: str = "axial",
    count: int = 5,
    *,
    backwards: bool = False,
    tilt_mm: float = 0.0,
    **tags: Any,
) -> Path:
    """Write slices whose brightness differs everywhere, with names out of order."""
    rows = np.array(PLANES[plane])
    normal = np.cross(rows[0], rows[1])
    study = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID")}
    study |= {"FrameOfReferenceUID": generate_uid(), **tags}
    for number in range(count)[:: -1 if backwards else 1]:
        position = np.array([-5.0, 3.0, 20.0]) + number * (STEP * normal + tilt_mm * rows[1])
        pixels = np.arange(np.prod(SHAPE)).reshape(SHAPE) + 100 * number
        header = _header(position, rows, number, study)
        _save(header, folder / f"IM-{(number * 7) % 10}{number}.dcm", pixels)
    return folder


def _header(
    position: NDArray[Any], rows: NDArray[Any], number: int, tags: dict[str, Any]
) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.Modality = NAME, NAME, "CT"
    data.PatientBirthDate, data.InstanceNumber = "19700102", number + 1
    data.ImagePositionPatient = [round(float(value), 6) for value in position]
    data.ImageOrientationPatient = [round(float(value), 8) for value in np.ravel(rows)]
    data.PixelSpacing = list(SPACING)
    data.Rows, data.Columns = SHAPE
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, 0
    for name, value in tags.items():
        if value is not None:
            setattr(data, name, value)
    return data


def _save(data: FileDataset, path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.PixelData = np.asarray(pixels, np.int16).tobytes()
    data.save_as(path, enforce_file_format=True)


def write_frames(folder: Path, order: list[int], **series: Any) -> Path:
    """Write the slices of a series into one enhanced file, its frames in this order."""
    single = write_series(folder.with_name("slices"), count=len(order), **series)
    slices = sorted(map(pydicom.dcmread, single.iterdir()), key=lambda each: each.InstanceNumber)
    first = slices[0]
    data = first.copy()
    data.file_meta = first.file_meta
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    data.NumberOfFrames = len(order)
    plane, size = Dataset(), Dataset()
    plane.ImageOrientationPatient = first.ImageOrientationPatient
    size.PixelSpacing, size.SliceThickness = first.PixelSpacing, STEP
    data.SharedFunctionalGroupsSequence = [Dataset()]
    data.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [plane]
    data.PerFrameFunctionalGroupsSequence = [_frame(slices[n], size) for n in order]
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        del data[name]
    folder.mkdir(parents=True)
    data.PixelData = b"".join(slices[n].PixelData for n in order)
    data.save_as(folder / "frames.dcm", enforce_file_format=True)
    return folder


def _frame(single: FileDataset, size: Dataset) -> Dataset:
    frame, position = Dataset(), Dataset()
    position.ImagePositionPatient = single.ImagePositionPatient
    frame.PlanePositionSequence, frame.PixelMeasuresSequence = [position], [size]
    return frame
