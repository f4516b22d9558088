"""What the headers of NIfTI, NRRD and MetaImage files say of their grid.

ITK picks one of two conflicting forms and fills missing voxels with zeros, so the header and the
length of the data are read here.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.quaternions import mat2quat

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.geometry import Floats, Geometry, from_affine, from_parts

#: qform and sform conflict where they part by more than this share of a voxel at a corner.
FORM_TOLERANCE = 0.1
#: Rotations are the same where b, c and d of their quaternions differ by no more: a header holds
#: them as float32 and leaves a = sqrt(1 - b^2 - c^2 - d^2) out, so that near half a turn, as from
#: LPS to RAS, rounding alone turns a qform by 1e-3 rad and more.
QUATERNION_TOLERANCE = 5e-7
NO_GEOMETRY = (
    "The file states no position or orientation: the axes are taken as left, posterior, superior, "
    "so left and right are not known."
)
_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_RESTORE = "Restore the file from its source."


def read_nifti_geometry(path: Path) -> tuple[Geometry, tuple[str, ...]]:
    """Return the grid of a NIfTI file and notes on it, from its header alone.

    Raises
    ------
    InputError
        The file is unreadable or no NIfTI.
    GeometryError
        It is not 3D, its qform and sform conflict, or its grid is sheared or has no size.
    """
    with _opened(path) as file:
        return _nifti_geometry(_nifti_header(file, path), path)


def read_nifti(path: Path) -> tuple[npt.NDArray[Any], Geometry, tuple[str, ...]]:
    """Return the voxels (z, y, x), scaled where the header says so, the grid and notes on it."""
    with _opened(path) as file:
        header = _nifti_header(file, path)
        geometry, notes = _nifti_geometry(header, path)
        raw = _nifti_voxels(file, header, path).reshape(geometry.shape)
    return _scaled(raw, header), geometry, notes


def read_text_header(path: Path) -> dict[str, str]:
    """Return the fields of an NRRD or MetaImage header, names in lower case, without spaces."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(65536), b""):
            name, mark, value = line.decode("utf-8", "replace").partition(_mark(path))
            if not line.strip():
                break
            if mark and not name.startswith("#"):
                fields[name.strip().lower().replace(" ", "")] = value.strip()
            if name.strip().lower() == "elementdatafile":
                fields["headersize"] = str(file.tell())
                break
    return fields


def check_text_header(path: Path) -> tuple[str, ...]:
    """Check what ITK would hide in an NRRD or MetaImage file; return notes on its grid.

    Raises
    ------
    GeometryError
        The spacing is zero or the space is not one of the patient.
    InputError
        The voxels of a MetaImage file are cut short.
    """
    fields = read_text_header(path)
    return (
        _check_nrrd(fields, path) if path.suffix.lower() == ".nrrd" else _check_meta(fields, path)
    )


def refuse_shape(path: Path, shape: tuple[int, ...]) -> GeometryError:
    """Return the error for a file that is not one 3D volume; `shape` in the order x, y, z."""
    return GeometryError(
        f"{path.name} has shape {tuple(int(n) for n in shape)} (x, y, z, ...), not one 3D volume.",
        "Split it into 3D files, one for each channel or time point.",
    )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            yield cast("IO[bytes]", file)
    except (OSError, EOFError, MemoryError, ValueError, OverflowError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path.name} is damaged or cut short: {reason}.", _RESTORE) from error


def _nifti_header(file: IO[bytes], path: Path) -> Any:
    start = file.read(4)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    kind = Nifti2Header if 540 in sizes else Nifti1Header
    block = start + file.read(kind.template_dtype.itemsize - 4)
    if len(block) < kind.template_dtype.itemsize or not sizes & {348, 540}:
        raise InputError(f"{path.name} is not a NIfTI file, or is cut short.", _RESTORE)
    return kind(block, check=False)


def _nifti_geometry(header: Any, path: Path) -> tuple[Geometry, tuple[str, ...]]:
    shape = _nifti_shape(header, path)
    _check_unit(header, path)
    pixdim = np.asarray(header["pixdim"][1:4], float)
    qform, sform = _forms(header, path, pixdim)
    if qform is None and sform is None:
        return from_parts(shape, pixdim[::-1], np.zeros(3), np.eye(3)), (NO_GEOMETRY,)
    if qform is not None and sform is not None:
        _check_conflict(shape, qform, sform, path)
    try:
        return from_affine(shape, _TO_LPS @ (qform if sform is None else sform)), ()
    except GeometryError as error:
        raise GeometryError(f"{path.name}: {error.problem}", error.remedy) from None


def _nifti_shape(header: Any, path: Path) -> tuple[int, int, int]:
    count = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1 : count + 1])
    if not 3 <= count <= 7 or min(shape[:3]) < 1 or any(n > 1 for n in shape[3:]):
        raise refuse_shape(path, shape)
    return shape[2], shape[1], shape[0]


def _check_unit(header: Any, path: Path) -> None:
    unit = int(header["xyzt_units"]) & 7
    if unit in (1, 3):
        raise GeometryError(
            f"{path.name} states its lengths in {'metres' if unit == 1 else 'micrometres'}.",
            "Save it with a header in millimetres.",
        )


def _forms(header: Any, path: Path, pixdim: Floats) -> tuple[Floats | None, Floats | None]:
    sform = header.get_sform() if header["sform_code"] > 0 else None
    if sform is None or header["qform_code"] > 0:
        _check_pixdim(pixdim, path)
    qform = _qform(header, path) if header["qform_code"] > 0 else None
    if sform is not None:
        _check_lengths(np.linalg.norm(sform[:3, :3], axis=0), pixdim, path)
    return qform, sform


def _check_pixdim(pixdim: Floats, path: Path) -> None:
    if not ((pixdim > 0) & np.isfinite(pixdim)).all():
        raise GeometryError(
            f"{path.name} has the spacing {_listed(pixdim)} mm (x, y, z).",
            "Correct its header: every spacing must be above zero.",
        )


def _qform(header: Any, path: Path) -> Floats:
    if header["pixdim"][0] not in (-1, 1):
        header["pixdim"][0] = 1
    try:
        return cast("Floats", header.get_qform())
    except ValueError:
        raise GeometryError(
            f"{path.name} has a qform that is no rotation.", "Correct its header."
        ) from None


def _check_lengths(lengths: Floats, pixdim: Floats, path: Path) -> None:
    if not ((lengths > 0) & np.isfinite(lengths)).all():
        _check_pixdim(lengths, path)
    if np.abs(lengths - pixdim).max() > 1e-3 * lengths.min():
        raise GeometryError(
            f"{path.name} contradicts itself: its sform has the spacing {_listed(lengths)} mm, "
            f"its pixdim {_listed(pixdim)} mm (x, y, z).",
            "Find out which holds and write it to both.",
        )


def _check_conflict(shape: tuple[int, int, int], qform: Floats, sform: Floats, path: Path) -> None:
    x, y, z = (np.array([0, n - 1]) for n in reversed(shape))
    corners = np.stack([*(axis.ravel() for axis in np.meshgrid(x, y, z)), np.ones(8)])
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    if _same_rotation(qform, sform):
        own = np.linalg.norm(qform[:3, :3], axis=0)
        qform = np.block([[sform[:3, :3] * (own / spacing), qform[:3, 3:]], [qform[3:]]])
    distance = np.linalg.norm(((qform - sform) @ corners)[:3], axis=0).max()
    if not distance <= FORM_TOLERANCE * spacing.min():
        raise GeometryError(
            f"{path.name} contradicts itself: its qform and its sform put the same voxel "
            f"up to {distance:.4g} mm apart.",
            "Find out which holds and write it to both.",
        )


def _same_rotation(qform: Floats, sform: Floats) -> bool:
    """Whether two forms are turned alike, as near as a quaternion in a header tells."""
    turned = [form[:3, :3] / np.linalg.norm(form[:3, :3], axis=0) for form in (qform, sform)]
    hands = [np.sign(np.linalg.det(axes)) for axes in turned]
    if hands[0] != hands[1]:
        return False
    ours, theirs = (mat2quat(axes * (1, 1, hands[0]))[1:] for axes in turned)
    return bool(
        min(np.abs(ours - theirs).max(), np.abs(ours + theirs).max()) <= QUATERNION_TOLERANCE
    )


def _nifti_voxels(file: IO[bytes], header: Any, path: Path) -> npt.NDArray[Any]:
    dtype = _voxel_dtype(header, path)
    count = math.prod(int(n) for n in header["dim"][1:4])
    file.seek(max(int(header["vox_offset"]), header.template_dtype.itemsize))
    content = file.read()  # to the end, where gzip keeps its checksum
    if len(content) < count * dtype.itemsize:
        raise InputError(
            f"{path.name} is cut short: it holds {len(content)} of {count * dtype.itemsize} bytes "
            "of voxels.",
            _RESTORE,
        )
    return np.frombuffer(content, dtype, count).astype(dtype.newbyteorder("="))


def _voxel_dtype(header: Any, path: Path) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = header.get_data_dtype()
    except (KeyError, ValueError):
        dtype = np.dtype("V1")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(
            f"{path.name} holds voxels of NIfTI type {int(header['datatype'])}.",
            "Save it with one integer or floating-point number for each voxel.",
        )
    return dtype


def _scaled(raw: npt.NDArray[Any], header: Any) -> npt.NDArray[Any]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    intercept = intercept if np.isfinite(intercept) else 0.0
    if not np.isfinite(slope) or slope == 0 or (slope, intercept) == (1, 0):
        return raw
    wide = raw.dtype.itemsize == 8 or (raw.dtype.kind in "iu" and raw.dtype.itemsize == 4)
    scaled = np.empty(raw.shape, np.float64 if wide else np.float32)
    for target, slab in zip(scaled, raw, strict=True):
        target[...] = slab.astype(np.float64) * slope + intercept
    return scaled


def _mark(path: Path) -> str:
    return ":" if path.suffix.lower() == ".nrrd" else "="


def _check_nrrd(fields: dict[str, str], path: Path) -> tuple[str, ...]:
    if fields.get("spacedimension", "3") != "3":
        raise refuse_shape(path, tuple(_count(text) for text in fields.get("sizes", "").split()))
    space = fields.get("space", "").lower()
    if "spacedirections" not in fields and "space" not in fields:
        _check_zero(fields.get("spacings", "").split(), path)
        return (NO_GEOMETRY,)
    known = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")
    if space not in (*known, "lps", "ras", "las"):
        raise GeometryError(
            f"{path.name} is in the space {space or '(none)'!r}, not one of the patient.",
            "Save it in the space left-posterior-superior.",
        )
    for vector in fields.get("spacedirections", "").replace("none", "").split(")"):
        numbers = vector.strip(" (").split(",")
        if numbers != [""] and not any(_number(text) for text in numbers):
            _check_zero(["0"], path)
    return ()


def _check_meta(fields: dict[str, str], path: Path) -> tuple[str, ...]:
    if not fields.get("elementdatafile") or "dimsize" not in fields:
        raise InputError(f"{path.name} is no MetaImage file, or is cut short.", _RESTORE)
    _check_zero(fields.get("elementspacing", "").split(), path)
    _check_meta_length(fields, path)
    matrix = any(name in fields for name in ("transformmatrix", "orientation", "rotation"))
    return () if matrix else (NO_GEOMETRY,)


def _check_meta_length(fields: dict[str, str], path: Path) -> None:
    local = fields["elementdatafile"].upper() == "LOCAL"
    data = path if local else path.parent / fields["elementdatafile"]
    expected = _meta_bytes(fields)
    if not data.is_file():
        return
    got = data.stat().st_size - (int(fields["headersize"]) if local else 0)
    if expected and got < expected:
        raise InputError(
            f"{path.name} is cut short: it holds {got} of {expected} bytes of voxels.", _RESTORE
        )


def _meta_bytes(fields: dict[str, str]) -> int:
    """Bytes of voxels that a MetaImage header announces; 0 where it does not say."""
    if fields.get("compresseddata", "").lower() == "true":
        return _count(fields.get("compresseddatasize", "0"))
    sizes = {"CHAR": 1, "SHORT": 2, "INT": 4, "LONG": 4, "LONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
    kind = fields.get("elementtype", "").upper().removeprefix("MET_").removeprefix("U")
    return sizes.get(kind, 0) * math.prod(_count(text) for text in fields["dimsize"].split())


def _check_zero(spacing: list[str], path: Path) -> None:
    if any(not abs(_number(text)) > 0 for text in spacing):
        raise GeometryError(
            f"{path.name} has the spacing {' '.join(spacing)} mm.",
            "Correct its header: every spacing must be above zero.",
        )


def _count(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _listed(values: Floats) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
