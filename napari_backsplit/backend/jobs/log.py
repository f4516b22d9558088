"""A job's log, of any length: a piece of it at a time, and a place in it by its words."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PIECE_BYTES = 1 << 18
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class LogPiece:
    """Whole lines of a log.

    Attributes
    ----------
    begin, end : int
        Where they are in the file, in bytes; half open.
    size : int
        Bytes of the file when it was read.
    """

    text: str = ""
    begin: int = 0
    end: int = 0
    size: int = 0


def read_piece(path: Path, end: int | None = None, most: int = PIECE_BYTES) -> LogPiece:
    """Return the lines before `end`, the file's end by default; empty where there is no file.

    Of a line that was redrawn, as progress bars do, only what stands there last is returned.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            stop = size if end is None else min(end, size)
            begin = max(0, stop - most)
            file.seek(begin)
            data = file.read(stop - begin)
    except FileNotFoundError:
        return LogPiece()
    if begin:
        cut = data.find(b"\n") + 1
        begin, data = begin + cut, data[cut:]
    lines = data.decode("utf-8", errors="replace").split("\n")
    shown = (line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return LogPiece("\n".join(shown), begin, stop, size)


def find(
    path: Path,
    words: str,
    after: int = 0,
    cancelled: Callable[[], bool] = lambda: False,
) -> int | None:
    """Return where a log has some words next, from the byte `after` on and then from its begin.

    Capital letters count as small ones. None where it has them nowhere, or nobody waits any more.
    """
    wanted = words.lower().encode()
    if not wanted:
        return None
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            for begin, stop in ((min(after, size), size), (0, min(after + len(wanted), size))):
                at = begin
                while at < stop and not cancelled():
                    file.seek(at)
                    data = file.read(min(_CHUNK_BYTES, stop - at))
                    found = data.lower().find(wanted)
                    if found >= 0:
                        return at + found
                    at += max(1, len(data) - len(wanted) + 1)
    except FileNotFoundError:
        pass
    return None


def line_end(path: Path, at: int, most: int = 1 << 16) -> int:
    """Return the end of the line at a byte."""
    with path.open("rb") as file:
        file.seek(at)
        data = file.read(most)
    cut = data.find(b"\n")
    return at + (len(data) if cut < 0 else cut + 1)
