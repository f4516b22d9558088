"""Files that are never half written: atomic replacement, hashes, links."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from napari_backsplit.backend.errors import InputError, ProjectError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that replaces it when the block succeeds.

    The temporary name keeps all suffixes of `path`, so that writers which choose their
    format by suffix work. On an error the temporary file is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what cannot be written.

    Raises
    ------
    ProjectError
        The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ProjectError(
            f"{what} cannot be written: {error.strerror or type(error).__name__}.",
            "Check the rights on the folder and the space on the disk.",
        ) from error


def remove_torn(folder: Path) -> None:
    """Remove what killed writers left below `folder`; call it only where none is at work."""
    for torn in folder.rglob(".tmp-*"):
        torn.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace the file `path` with `text` (UTF-8), atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Replace the file `path` with `value` as readable JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    InputError
        The file is missing, unreadable or torn.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist.", "Check the path.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not readable JSON: {error}.", "Restore the file.") from error


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Add a JSON object as the last line of a file; it is on the disk when this returns.

    A last line that a crash cut short is dropped first. Where the line cannot be written the file
    is as it was, and an OSError is raised.
    """
    line = (json.dumps(value, ensure_ascii=False) + "\n").encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+", buffering=0) as file:
        end = _end_of_lines(file)
        file.truncate(end)
        try:
            if file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _end_of_lines(file: Any) -> int:
    """Return the size of a file without a torn last line."""
    size = int(file.seek(0, os.SEEK_END))
    if size == 0:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    return int(file.read().rfind(b"\n") + 1)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the JSON objects of a file, one a line, none where there is no file.

    A torn last line is dropped.

    Raises
    ------
    InputError
        A line before the last is no object.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, line in enumerate(lines[:-1], start=1):
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("no object")
        except ValueError as error:
            raise InputError(
                f"Line {number} of {path.name} is no entry: {error}.", "Restore the file."
            ) from error
        yield value


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, destination: Path) -> Literal["link", "copy"]:
    """Give the file `source` a second name; copy it where hard links do not work.

    Raises
    ------
    FileExistsError
        `destination` exists: nothing is ever overwritten.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    source = source.resolve()
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError:
        if destination.exists():
            raise FileExistsError(destination) from None
        with atomic_path(destination) as temporary:
            shutil.copyfile(source, temporary)
        return "copy"
    return "link"
