"""Images under neutral names: linked where that is safe, otherwise copied or written anew."""

from __future__ import annotations

import errno
import gzip
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import link_or_copy, sha256
from napari_backsplit.backend.project.private import unnamed
from napari_backsplit.backend.project.schema import Image
from napari_backsplit.backend.volume import Volume, check_finite, read_volume, write_volume
from napari_backsplit.backend.volume import resample as resampled

ENDINGS = (".nii.gz", ".nrrd", ".mha")
"""Endings that nnU-Net reads and that are kept; every other file is converted."""

DEFAULT_ENDING = ".nii.gz"

FROM_DICOM = "converted from a DICOM series"
"""What a case's notes say of a channel that came so."""

# Free text of a NIfTI header, (first, last) byte: db_name, aux_file, intent_name; then descrip.
_NIFTI_TEXT = {
    348: ((14, 32), (228, 252), (328, 344), (148, 228)),
    540: ((320, 344), (508, 524), (240, 320)),
}
_GZIP_NAME, _GZIP_COMMENT = 8, 16


@dataclass(frozen=True)
class Reading:
    """How images are read, where the user asks for more than the voxels as they are stored.

    Attributes
    ----------
    correct_tilt
        Resample a tilted DICOM series onto an orthogonal grid instead of refusing it.
    suv
        Channels whose DICOM series, PET in Bq/ml, become SUVbw.
    """

    correct_tilt: bool = False
    suv: tuple[str, ...] = ()


AS_STORED = Reading()


@dataclass(frozen=True, eq=False)
class Loaded:
    """An image that was read and found usable.

    Attributes
    ----------
    rewritten
        Why it cannot be linked, "" if it can.
    """

    path: Path
    volume: Volume
    sha256: str
    rewritten: str = ""


def load(path: Path, channel: str, words: Iterable[str], reading: Reading = AS_STORED) -> Loaded:
    """Read the image of a channel and see whether its file may be linked as it is.

    Parameters
    ----------
    words
        Names that must not appear in the header.

    Raises
    ------
    InputError
        It cannot be read, or has voxels that are NaN or infinite, or SUV is asked of what is no
        DICOM series; no path is in the text.
    """
    with unnamed(path, f"The image of {channel}"):
        volume = _read(path, channel, reading)
        check_finite(volume, f"The image of {channel}")
        return Loaded(path, volume, source_sha256(path, volume), _reason(path, words))


def _read(path: Path, channel: str, reading: Reading) -> Volume:
    suv = channel in reading.suv
    if path.is_dir():
        from napari_backsplit.backend.dicom import read_series

        return read_series(path, correct_tilt=reading.correct_tilt, suv=suv)
    if suv and path.exists():
        raise InputError(
            f"The image of {channel} is no DICOM series, so it cannot be turned into SUV.",
            "Give the folder of its series, or take its values as they are.",
        )
    return read_volume(path)


def on_one_grid(images: Mapping[str, Loaded], resample: bool) -> dict[str, Loaded]:
    """Bring all channels to the grid of the first.

    Raises
    ------
    GeometryError
        They differ and `resample` is False.
    """
    first = next(iter(images))
    return {
        name: _onto(image, name, images[first], first, resample) for name, image in images.items()
    }


def place(image: Loaded, destination: Path, root: Path) -> tuple[Image, str]:
    """Give the image its neutral name; return its record and a note ("" for a plain link)."""
    ending = ending_of(image.path)
    reason = image.rewritten
    if not reason and not destination.name.endswith(ending or "?"):
        reason = "converted to the project's file format"
    if reason:
        with written_whole(image.volume, destination):
            pass
    elif link_or_copy(image.path, destination) == "copy":
        reason = "copied, as hard links do not work here"
    digest = sha256(destination) if reason else image.sha256
    record = Image(
        sha256=digest,
        size=destination.stat().st_size,
        file=destination.relative_to(root).as_posix(),
        source_sha256=image.sha256,
    )
    return record, reason


@contextmanager
def written_whole(volume: Volume, path: Path) -> Iterator[Path]:
    """Write a volume beside `path`, read it back, and let it take its place after the block.

    SimpleITK does not notice when a compressed file is cut short by a full disk.

    Raises
    ------
    OSError
        The file could not be written in full; what was at `path` is still there, as it is
        when the block fails.
    """
    temporary = path.with_name(f".whole-{path.name}")
    try:
        write_volume(volume, temporary)
        if not _is_whole(volume, temporary):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _is_whole(volume: Volume, path: Path) -> bool:
    try:
        return np.array_equal(read_volume(path).array, volume.array)
    except InputError:
        return False


def ending_of(path: Path) -> str | None:
    """Return the ending of an image that can be kept, None if it must be converted."""
    name = path.name.lower()
    return next((end for end in ENDINGS if name.endswith(end) and not path.is_dir()), None)


def source_sha256(path: Path, volume: Volume) -> str:
    """Return the SHA-256 of an image's file.

    For a DICOM series, it is that of the sorted SHA-256 of its files; for a header with its
    voxels in another file, that of both.
    """
    if path.is_dir():
        digests = sorted(sha256(file) for file in path.iterdir() if file.is_file())
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    if not _is_detached(path):
        return sha256(path)
    voxels = np.ascontiguousarray(volume.array).tobytes()
    return hashlib.sha256(path.read_bytes() + voxels).hexdigest()


def has_private_text(path: Path, words: Iterable[str]) -> bool:
    """Tell whether an image's header may name somebody.

    A NIfTI may carry text in db_name, aux_file, intent_name and extensions, a gzip its first
    name, NRRD and MetaImage any key. `descrip` is searched for `words` and for a DICOM name.
    """
    name = path.name.lower()
    if name.endswith(".nii.gz"):
        return _gzip_names(path) or _nifti_names(_nifti_head(path), words)
    if name.endswith(".nrrd"):
        return _nrrd_names(_head(path))
    return name.endswith(".mha") and _mha_names(_head(path))


def _reason(path: Path, words: Iterable[str]) -> str:
    if path.is_dir():
        return FROM_DICOM
    if ending_of(path) is None:
        return "converted to the project's file format"
    return "written anew without the text in its header" if has_private_text(path, words) else ""


def _onto(image: Loaded, name: str, other: Loaded, first: str, resample: bool) -> Loaded:
    difference = other.volume.geometry.difference(image.volume.geometry)
    if difference is None:
        return image
    if not resample:
        raise GeometryError(
            f"{name} is not on the grid of {first}: {difference}",
            "Resample it when importing, or register the channels first.",
        )
    volume = resampled(image.volume, other.volume.geometry, "linear")
    return Loaded(image.path, volume, image.sha256, f"resampled to the grid of {first} (linear)")


def _gzip_names(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    return len(head) == 4 and bool(head[3] & (_GZIP_NAME | _GZIP_COMMENT))


def _nifti_head(path: Path) -> bytes:
    with gzip.open(path) as file:
        return file.read(544)


def _nifti_names(head: bytes, words: Iterable[str]) -> bool:
    size = next((s for s in _NIFTI_TEXT if _is_header(head, s)), None)
    if size is None or head[size : size + 1] not in (b"", b"\0"):
        return True
    *free, descrip = (head[first:last].strip(b"\0 ") for first, last in _NIFTI_TEXT[size])
    text = descrip.decode("latin-1").lower()
    return any(free) or "^" in text or any(word.lower() in text for word in words)


def _is_header(head: bytes, size: int) -> bool:
    return size in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))


def _head(path: Path) -> list[str]:
    """Return the lines of a text header, at most 64 KiB."""
    with path.open("rb") as file:
        text = file.read(1 << 16).split(b"\n\n")[0]
    return text.decode("latin-1").splitlines()


def _is_detached(path: Path) -> bool:
    """Tell whether a file is a MetaImage or NRRD header whose voxels are in another file."""
    if path.suffix.lower() not in (".mhd", ".mha", ".nrrd"):
        return False
    keys = ("elementdatafile", "data file", "datafile")
    named = [line for line in _head(path) if line.lower().startswith(keys)]
    return any(not line.upper().endswith("LOCAL") for line in named)


def _nrrd_names(lines: list[str]) -> bool:
    comments = (line for line in lines if line.startswith("#"))
    told = any(
        "teem.sourceforge" not in line
        and "NRRD file format" not in line
        and "nrrd file format" not in line
        for line in comments
    )
    keys = any(
        ":=" in line or line.lower().startswith(("content:", "data file:", "datafile:"))
        for line in lines
    )
    return told or keys


_MHA_KEYS = {
    "objecttype", "ndims", "binarydata", "binarydatabyteordermsb", "elementbyteordermsb",
    "compresseddata", "compresseddatasize", "compressionlevel", "transformmatrix", "orientation",
    "rotation", "offset", "origin", "position", "centerofrotation", "anatomicalorientation",
    "elementspacing", "elementsize", "dimsize", "elementtype", "elementnumberofchannels",
    "headersize",
}  # fmt: skip


def _mha_names(lines: list[str]) -> bool:
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip().lower() == "elementdatafile":
            return value.strip().upper() != "LOCAL"
        if key.strip().lower() not in _MHA_KEYS:
            return True
    return True
