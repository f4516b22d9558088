"""Zips of models, unpacked safely. Needs no torch."""

from __future__ import annotations

import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath

from napari_backsplit.backend.errors import InputError

MAX_BYTES = 20 * 1024**3
_MAX_ENTRIES = 10_000


def unpack_zip(path: Path, destination: Path, max_bytes: int = MAX_BYTES) -> Path:
    """Unpack a model zip into a new folder, and nothing outside it.

    Parameters
    ----------
    path : Path
        A zip as nnU-Net's export writes it.
    destination : Path
        A folder that does not exist yet.
    max_bytes : int
        Largest unpacked size accepted.

    Returns
    -------
    Path
        `destination`.

    Raises
    ------
    InputError
        No zip, an entry that points outside, a link, encrypted, too large, or no room.
    """
    if destination.exists():
        raise InputError(f"{destination} exists already.", "Choose a new folder.")
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked_entries(archive, max_bytes)
            _unpack(archive, entries, destination)
    except (zipfile.BadZipFile, FileNotFoundError, NotImplementedError) as error:
        raise InputError(f"{path} is no readable zip: {error}.", "Copy it again.") from error
    return destination


def _checked_entries(archive: zipfile.ZipFile, max_bytes: int) -> list[zipfile.ZipInfo]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    names = [PurePosixPath(entry.filename) for entry in entries]
    for entry, name in zip(entries, names, strict=True):
        _check_entry(entry, name)
    if len(set(names)) != len(names) or len(names) > _MAX_ENTRIES:
        raise InputError("The zip names a file twice or too many files.", "Do not use it.")
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        raise InputError(
            f"The zip would unpack to {total / 1e9:.1f} GB, more than {max_bytes / 1e9:.1f} GB.",
            "Unpack it by hand if you trust it.",
        )
    return entries


def _check_entry(entry: zipfile.ZipInfo, name: PurePosixPath) -> None:
    kind = stat.S_IFMT(entry.external_attr >> 16)
    outside = name.is_absolute() or ".." in name.parts or set("\\:\0") & set(entry.filename)
    if outside or kind not in (0, stat.S_IFREG) or entry.flag_bits & 1:
        raise InputError(
            f"The zip's entry {entry.filename!r} points outside, is a link or is encrypted.",
            "Do not use this zip.",
        )


def _unpack(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], destination: Path) -> None:
    temporary = destination.with_name(f".tmp-{destination.name}")
    temporary.mkdir(parents=True)
    try:
        needed = sum(entry.file_size for entry in entries)
        if shutil.disk_usage(temporary).free < needed:
            raise InputError(f"Unpacking needs {needed / 1e9:.1f} GB.", "Free some disk space.")
        for entry in entries:
            target = temporary / entry.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        temporary.rename(destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
