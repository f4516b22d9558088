"""The journal of a case: every prompt, edit, undo and redo, appended and flushed to the disk.

One JSON object a line, in ``cases/<case>/journal.jsonl``. A line that a crash cut short is dropped.
What an entry says about a mask is the exclusive or of before and after, so that the same entry does
and undoes a step, whichever engine or hand made it:

- ``start``   the history of a structure begins at a mask: ``mask`` is its fingerprint
- ``prompt``  a prompt was given: ``id``, ``engine``, ``channel``, ``prompt``
- ``change``  the mask changed: ``id``, ``tool``, ``prompt`` (the id answered, or null), ``about``,
  ``bounds``, ``voxels`` (exclusive or within the bounds: packed bits, zlib, base64)
- ``undo``, ``redo``  the step ``id`` was taken back, done again
- ``saved``   the mask of this fingerprint is about to be written; its provenance names the ``id``
- ``written`` it is in its file
- ``review``  a person accepted the mask; ``unlock``: took a finished one up again
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import append_line, read_lines
from napari_backsplit.backend.project.schema import today
from napari_backsplit.backend.structures.prompts import Bounds

FILE = "journal.jsonl"
EMPTY = ""
"""The fingerprint of a mask without a voxel, and of one that is not there."""

Entry = dict[str, Any]


class Journal:
    """The journal of one case, open to append.

    Parameters
    ----------
    path : Path
        Made with its folder on the first entry.
    who : str
        Written with every entry.
    """

    def __init__(self, path: Path, who: str = "") -> None:
        self.path = path
        self._who = who

    def append(self, entry: Entry) -> None:
        """Add an entry; it is on the disk when this returns.

        Raises
        ------
        ProjectError
            It cannot be written. The journal is as it was.
        """
        try:
            append_line(self.path, {"when": today(), "who": self._who, **entry})
        except OSError as error:
            raise ProjectError(
                f"The journal cannot be written: {error.strerror or type(error).__name__}. "
                "The last step was not kept.",
                "Make space on the disk, or check the rights on the project's folder.",
            ) from error

    def entries(self) -> tuple[Entry, ...]:
        """Read all whole entries."""
        return tuple(read_lines(self.path))


def pack(difference: NDArray[np.bool_]) -> str:
    """Write a difference of masks as text."""
    return base64.b64encode(zlib.compress(np.packbits(difference).tobytes(), 1)).decode("ascii")


def unpack(text: str, bounds: Bounds) -> NDArray[np.bool_]:
    """Read a difference of masks within bounds: bool, (z, y, x).

    Raises
    ------
    InputError
        The text does not fit the bounds.
    """
    shape = tuple(high - low for low, high in bounds)
    count = int(np.prod(shape))
    try:
        bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
        if len(bits) != -(-count // 8):
            raise ValueError(f"{len(bits)} bytes for {count} voxels")
    except (ValueError, zlib.error) as error:
        raise InputError(f"A step of the journal is damaged: {error}.", "Restore it.") from error
    return np.unpackbits(bits, count=count).view(bool).reshape(shape)


def fingerprint(mask: NDArray[np.bool_] | None) -> str:
    """Name the content of a canonical mask; `EMPTY` where it has no voxel."""
    if mask is None or not mask.any():
        return EMPTY
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:32]
