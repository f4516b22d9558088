"""DICOM series: slices ordered and checked by their positions, not by what tags promise."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError
from scipy import ndimage

from napari_backsplit.backend import suv as suv_values
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.geometry import Array, Floats, Geometry, from_parts, orthonormal
from napari_backsplit.backend.volume import Volume, silence

#: Share of a pixel by which slices may slide within their plane over the whole series.
SLIDE_TOLERANCE = 0.25
#: Gaps between slices may differ by this share, and by this many mm (positions are rounded).
GAP_TOLERANCE, GAP_TOLERANCE_MM = 0.03, 0.02
#: Slices closer than this are at the same position.
SAME_MM = 0.005
#: Headers round direction cosines; they agree, and are orthonormal, within this.
COSINE_TOLERANCE = 1e-3

_NO_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "RTRECORD", "PR", "KO", "SR", "REG", "AU"}
_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_TAGS = [
    *_PLANE, *suv_values.TAGS, "Modality", "SeriesInstanceUID", "InstanceNumber", "Rows",
    "Columns", "SamplesPerPixel", "NumberOfFrames", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
]  # fmt: skip
_EXPORT_AGAIN = "Export the series again from its source."


@dataclass(frozen=True)
class Problem:
    """A reason why a series is no volume, and what to do; a tilt can be corrected."""

    text: str
    remedy: str = _EXPORT_AGAIN
    tilt: bool = False


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice: a file, or a frame of one, and its plane in the patient."""

    file: Path
    frame: int
    number: str
    header: Any
    shape: tuple[int, int]
    position: Floats
    rows: Floats
    spacing: Floats

    @property
    def normal(self) -> Floats:
        """Unit vector in the direction in which slices are stacked, LPS."""
        return np.asarray(orthonormal_axes(self.rows)[:, 2])


def read_series(
    folder: Path | str,
    *,
    series_uid: str | None = None,
    correct_tilt: bool = False,
    suv: bool = False,
) -> Volume:
    """Read the DICOM series in a folder.

    Parameters
    ----------
    folder : Path
        The folder that holds the slices; files that are no images are left out.
    series_uid : str, optional
        Which series to read, where the folder holds several.
    correct_tilt : bool, optional
        Shift the slices of a tilted gantry within their planes, by linear interpolation, onto an
        orthogonal grid that is large enough for all of them. The voxels are then float32.
    suv : bool, optional
        Turn PET in Bq/ml into SUVbw.

    Raises
    ------
    InputError
        There is no image, or several series, or a file cannot be decoded.
    GeometryError
        Slices are tilted, uneven, missing or duplicate, or do not fit together.
    """
    slices = _ordered(_find(Path(folder), series_uid))
    problems = _problems(slices)
    _refuse([problem for problem in problems if not (problem.tilt and correct_tilt)])
    with silence():
        volume = Volume(_voxels(slices), geometry_of(slices))
    volume = _straightened(volume, slices, problems[0].text) if problems else volume
    return _to_suv(volume, slices) if suv else volume


def read_geometry(folder: Path | str, *, series_uid: str | None = None) -> Geometry:
    """Return the grid of the DICOM series in a folder, from the headers alone.

    Raises
    ------
    InputError, GeometryError
        As `read_series` without a correction of the tilt.
    """
    return geometry_of(read_slices(folder, series_uid=series_uid))


def read_slices(folder: Path | str, *, series_uid: str | None = None) -> list[Slice]:
    """Return the slices of the DICOM series in a folder, in the order of a volume's first axis.

    Raises
    ------
    InputError, GeometryError
        As `read_series` without a correction of the tilt.
    """
    slices = _ordered(_find(Path(folder), series_uid))
    _refuse(_problems(slices))
    return slices


def check_series(folder: Path | str, *, series_uid: str | None = None) -> list[str]:
    """Return why the DICOM series in a folder is no volume, one sentence each; often none.

    Raises
    ------
    InputError
        There is no image, or several series, or a header is unreadable.
    """
    return [problem.text for problem in _problems(_ordered(_find(Path(folder), series_uid)))]


def list_series(folder: Path | str) -> dict[str, str]:
    """Return a description of each image series in a folder, by its UID; no patient data."""
    return {uid: _description(slices) for uid, slices in _by_series(Path(folder)).items()}


def suv_factor(folder: Path | str, *, series_uid: str | None = None) -> tuple[float, str]:
    """Return what to multiply PET in Bq/ml with for SUVbw, and a note that says so.

    Raises
    ------
    InputError
        A tag is missing or has a value the conversion is not defined for; it is named.
    """
    return suv_values.factor([each.header for each in _find(Path(folder), series_uid)])


def orthonormal_axes(rows: Floats) -> Floats:
    """Return 3 x 3 with columns along a row, along a column, and normal to both."""
    axes = np.column_stack([rows[0], rows[1], np.cross(rows[0], rows[1])])
    return orthonormal(axes / np.linalg.norm(axes, axis=0))


def _find(folder: Path, series_uid: str | None) -> list[Slice]:
    series = _by_series(folder)
    if series_uid is not None and series_uid not in series:
        raise InputError(f"The folder has no series {series_uid}.", _offer(series))
    if series_uid is None and len(series) > 1:
        raise InputError(f"The folder holds {len(series)} DICOM series.", _offer(series))
    return series[series_uid] if series_uid is not None else next(iter(series.values()))


def _offer(series: dict[str, list[Slice]]) -> str:
    listed = "; ".join(f"{uid}: {_description(slices)}" for uid, slices in series.items())
    return f"Choose one by its UID: {listed}."


def _description(slices: Sequence[Slice]) -> str:
    rows, columns = slices[0].shape
    modality = slices[0].header.get("Modality", "unknown modality")
    return f"{modality}, {len(slices)} slices of {columns} x {rows}"


def _by_series(folder: Path) -> dict[str, list[Slice]]:
    if not folder.is_dir():
        raise InputError("The DICOM folder does not exist.", "Check the path.")
    series: dict[str, list[Slice]] = {}
    for file, header in _image_headers(folder):
        uid = str(header.get("SeriesInstanceUID", ""))
        series.setdefault(uid, []).extend(_parsed(file, header))
    if not series:
        raise InputError(
            "The folder holds no DICOM image.", "Give the folder that directly holds the slices."
        )
    return series


def _image_headers(folder: Path) -> Iterator[tuple[Path, Any]]:
    for file in sorted(folder.iterdir()):
        header = _header(file) if file.is_file() and not file.name.startswith(".") else None
        if header is None or header.get("Modality") in _NO_IMAGES:
            continue
        if "Rows" in header:
            yield file, header
        elif "Image Storage" in _class(header):
            raise InputError(f"{file.name} is cut short within its header.", _EXPORT_AGAIN)


def _class(header: Any) -> str:
    """Return the name of the kind of object; an image where the file does not tell."""
    uid = header.file_meta.get("MediaStorageSOPClassUID")
    return str(uid.name) if uid else "Image Storage"


def _header(file: Path) -> Any:
    """Return the header elements needed; None where the file is no DICOM."""
    try:
        with warnings.catch_warnings(action="ignore"):
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
    except InvalidDicomError:
        if file.suffix.lower() not in (".dcm", ".ima") and (file.suffix or file.stat().st_size):
            return None  # a text beside the slices; but an empty IM0001 was one of them
        raise InputError(f"{file.name} is no readable DICOM file.", _EXPORT_AGAIN) from None
    except Exception:  # pydicom raises many kinds for damaged headers, and quotes their values
        raise InputError(f"{file.name} has a damaged DICOM header.", _EXPORT_AGAIN) from None


def _parsed(file: Path, header: Any) -> list[Slice]:
    try:
        with warnings.catch_warnings(action="ignore"):
            return _slices(file, header)
    except (AttributeError, TypeError, ValueError):  # of a value that is no number, or empty
        raise InputError(f"{file.name} has a damaged DICOM header.", _EXPORT_AGAIN) from None


def _slices(file: Path, header: Any) -> list[Slice]:
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise InputError(f"{file.name} is a colour image.", "Give a series of grey values.")
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if int(header.get("NumberOfFrames") or 1) == 1 and not frames:
        return [_slice(file, header, 0, [header])]
    if not frames:
        raise GeometryError(
            f"{file.name} holds {header.NumberOfFrames} frames without positions.",
            "Convert it to NIfTI with a tool that knows its maker's format.",
        )
    _check_rescale(file, frames)
    shared = list(header.get("SharedFunctionalGroupsSequence") or [])
    return [_slice(file, header, n, [frame, *shared]) for n, frame in enumerate(frames)]


def _check_rescale(file: Path, frames: Sequence[Any]) -> None:
    """Refuse frames scaled differently: the decoder applies one scale to the whole file."""
    groups = (frame.get("PixelValueTransformationSequence") or [{}] for frame in frames)
    scales = {(str(g[0].get("RescaleSlope")), str(g[0].get("RescaleIntercept"))) for g in groups}
    if len(scales) > 1:
        raise InputError(
            f"{file.name} scales its frames differently, which is not supported.",
            "Convert it to NIfTI with dcm2niix first.",
        )


def _slice(file: Path, header: Any, frame: int, groups: Sequence[Any]) -> Slice:
    number = str(header.get("InstanceNumber") or file.name)
    number = number if groups[0] is header else f"{number}, frame {frame + 1}"
    position, rows, spacing = (_plane_value(groups, name, number) for name in _PLANE)
    if position.size != 3 or rows.size != 6 or spacing.size != 2 or not (spacing > 0).all():
        raise GeometryError(f"Slice {number} has the pixel spacing {spacing} mm.", _EXPORT_AGAIN)
    shape = (int(header.Rows), int(header.Columns))
    return Slice(file, frame, number, header, shape, position, rows.reshape(2, 3), spacing)


def _plane_value(groups: Sequence[Any], name: str, number: str) -> Floats:
    sequences = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
    for group in groups:
        for dataset in (group, *(item for key in sequences for item in group.get(key) or [])):
            value = dataset.get(name)
            if value is not None and value != "" and np.isfinite(np.asarray(value, float)).all():
                return np.asarray(value, float).ravel()
    raise GeometryError(f"Slice {number} has no {name}.", _EXPORT_AGAIN)


def _ordered(slices: Sequence[Slice]) -> list[Slice]:
    normal = slices[0].normal
    return sorted(slices, key=lambda each: (float(each.position @ normal), each.number))


def _distances(slices: Sequence[Slice]) -> Floats:
    return np.array([each.position @ slices[0].normal for each in slices])


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        text = " ".join(problem.text for problem in problems)
        raise GeometryError(f"The DICOM series is no volume. {text}", problems[0].remedy)


def _problems(slices: Sequence[Slice]) -> list[Problem]:
    """Return every problem of slices ordered along their normal."""
    planes = list(_plane_problems(slices))
    if planes:
        return planes
    distances = _distances(slices)
    if np.ptp(distances) < SAME_MM:
        return [Problem("All slices lie at one position.", "Give a series of several slices.")]
    return [*_same_problems(slices, distances), *_gap_problems(slices), *_tilt_problems(slices)]


def _plane_problems(slices: Sequence[Slice]) -> Iterator[Problem]:
    first = slices[0]
    if np.abs(first.rows @ first.rows.T - np.eye(2)).max() > COSINE_TOLERANCE:
        yield Problem(
            f"Its rows and columns {_text(first.rows)} are not perpendicular unit vectors."
        )
    for each in slices:
        if np.abs(each.rows - first.rows).max() > COSINE_TOLERANCE:
            yield Problem(
                f"Slices {first.number} and {each.number} are not parallel: {_text(first.rows)} "
                f"and {_text(each.rows)}.",
                "Give a folder with one stack of parallel slices, without localizers.",
            )
            return
        if each.shape != first.shape or np.abs(each.spacing - first.spacing).max() > 1e-3:
            yield Problem(
                f"Slices {first.number} and {each.number} differ in size: {first.shape} pixels of "
                f"{_text(first.spacing)} mm and {each.shape} pixels of {_text(each.spacing)} mm."
            )
            return


def _same_problems(slices: Sequence[Slice], distances: Floats) -> Iterator[Problem]:
    same = np.diff(distances) < SAME_MM
    runs = np.diff(np.flatnonzero(np.concatenate([[True], ~same, [True]])))
    if runs.min() == runs.max() > 1:
        shape = (*slices[0].shape[::-1], len(runs), int(runs[0]))
        yield Problem(
            f"It has shape {shape} (x, y, z, ...): {runs[0]} slices at every position.",
            "Split it into one series for each time point, echo or weighting.",
        )
    elif same.any():
        pairs = [
            f"{a.number} and {b.number}"
            for (a, b), s in zip(pairwise(slices), same, strict=True)
            if s
        ]
        yield Problem(f"{len(pairs)} slice(s) repeat a position: {', '.join(pairs[:5])}.")


def _gap_problems(slices: Sequence[Slice]) -> Iterator[Problem]:
    unique = [slices[0]]
    for each in slices:
        if float((each.position - unique[-1].position) @ slices[0].normal) >= SAME_MM:
            unique.append(each)
    gaps = np.diff(_distances(unique))
    step = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    tolerance = GAP_TOLERANCE * step + GAP_TOLERANCE_MM
    missing = np.rint(gaps / step) - 1
    whole = np.abs(gaps - (missing + 1) * step) <= tolerance * (missing + 1)
    for n in np.flatnonzero(whole & (missing > 0)):
        yield Problem(
            f"{int(missing[n])} slice(s) are missing between slices {unique[n].number} and "
            f"{unique[n + 1].number}: they are {gaps[n]:.4g} mm apart, others {step:.4g} mm."
        )
    if not whole.all() or (missing < 0).any():
        yield Problem(
            f"Its slices are uneven: neighbours are {gaps.min():.4g} to {gaps.max():.4g} mm apart.",
            "Export the series again, or resample it onto an even grid.",
        )


def _slides_mm(slices: Sequence[Slice]) -> Floats:
    """Return by how much each slice slides along rows and columns against the first, in mm."""
    offsets = np.array([each.position - slices[0].position for each in slices])
    return np.asarray(offsets @ orthonormal_axes(slices[0].rows)[:, :2])


def _tilt_problems(slices: Sequence[Slice]) -> Iterator[Problem]:
    slides = np.linalg.norm(_slides_mm(slices), axis=1)
    farthest = int(slides.argmax())
    if slides[farthest] > SLIDE_TOLERANCE * slices[0].spacing.min():
        depth = float(np.ptp(_distances(slices)[[0, farthest]]))
        degrees = np.degrees(np.arctan2(slides[farthest], depth))
        yield Problem(
            f"The slices slide within their plane by up to {slides[farthest]:.4g} mm, as with a "
            f"gantry tilt of {degrees:.2f} degrees.",
            "Ask for the correction of the tilt (--correct-tilt).",
            tilt=True,
        )


def geometry_of(slices: Sequence[Slice]) -> Geometry:
    """Return the grid of slices that make a volume."""
    first, distances = slices[0], _distances(slices)
    step = (distances[-1] - distances[0]) / (len(slices) - 1)
    shape = (len(slices), *first.shape)
    return from_parts(shape, (step, *first.spacing), first.position, orthonormal_axes(first.rows))


def _voxels(slices: Sequence[Slice]) -> Array:
    files: dict[Path, Array] = {}
    for each in slices:
        if each.file not in files:
            files[each.file] = _decoded(each)
    array = np.stack([files[each.file][each.frame] for each in slices])
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _decoded(each: Slice) -> Array:
    """Return the frames of a file, (frames, y, x), with its own slope and intercept applied."""
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(each.file), imageIO="GDCMImageIO"))
    except RuntimeError as error:
        syntax = each.header.file_meta.get("TransferSyntaxUID")
        raise InputError(
            f"{each.file.name} cannot be decoded: it is damaged, cut short, or its compression "
            f"({getattr(syntax, 'name', 'unknown')}) is not known here.",
            "Export the series again, without compression.",
        ) from error
    return np.asarray(array).reshape(-1, *each.shape)


def _straightened(volume: Volume, slices: Sequence[Slice], why: str) -> Volume:
    """Shift each slice within its plane onto the orthogonal grid of the first, enlarged."""
    shifts = np.round(_slides_mm(slices)[:, ::-1] / slices[0].spacing, 6)
    lowest, highest = np.floor(shifts.min(axis=0)), np.ceil(shifts.max(axis=0))
    size = np.array(slices[0].shape) + (highest - lowest).astype(int)
    fill = float(volume.array.min())
    array = np.full((len(slices), *size), fill, np.float32)
    for target, source, shift in zip(array, volume.array, shifts - lowest, strict=True):
        target[: source.shape[0], : source.shape[1]] = source
        target[...] = ndimage.shift(target, shift, order=1, mode="constant", cval=fill)
    origin = volume.geometry.to_lps((0, *lowest))
    geometry = replace(volume.geometry, shape=array.shape, origin_mm=tuple(origin.tolist()))
    note = f"{why} Each was shifted back by linear interpolation; the grid grew to {array.shape}."
    return Volume(array, geometry, (*volume.notes, note))


def _to_suv(volume: Volume, slices: Sequence[Slice]) -> Volume:
    factor, note = suv_values.factor([each.header for each in slices])
    array = (volume.array * np.float32(factor)).astype(np.float32)
    return Volume(array, volume.geometry, (*volume.notes, note))


def _text(values: Floats) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values.ravel()) + ")"
