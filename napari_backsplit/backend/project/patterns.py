"""File names -> case, patient, channel, structure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from napari_backsplit.backend.errors import InputError

Pattern = str | re.Pattern[str]

_LOOSE = {"case": "[^/]+", "patient": "[^/]+?", "channel": "[^/]+?", "structure": "[^/]+?"}


@dataclass(frozen=True)
class Match:
    """A file or folder whose name fits.

    Attributes
    ----------
    fields
        What stands at the places of the pattern: case, and patient, channel, structure.
    """

    path: Path
    fields: Mapping[str, str]

    @property
    def case(self) -> str:
        """The case's name, unique also where every patient has a case of the same name."""
        patient = self.fields.get("patient")
        return f"{patient}/{self.fields['case']}" if patient else self.fields["case"]


def find(
    folder: Path, pattern: Pattern, known: Mapping[str, Iterable[str]], skip: Path
) -> list[Match]:
    """Find what fits a pattern below a folder, in the order of the names.

    Parameters
    ----------
    pattern
        Relative to the folder, such as ``"{case}_{channel}.nii.gz"`` or
        ``"{patient}/{case}/{structure}.nii.gz"``; ``*`` stands for anything in a name and
        ``**/`` for any folders. A pattern that ends with ``/`` finds folders (DICOM series).
        A place named twice must hold the same text twice. Or a regular expression with these
        names as groups.
    known
        Values to try first at a place, so that ``a_b_T1`` is the case ``a_b``.
    skip
        A folder to leave out: the project's own.

    Raises
    ------
    InputError
        The folder does not exist, or the pattern has no place for the case.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder.", "Check the path.")
    expressions = _expressions(pattern, known)
    folders = str(getattr(pattern, "pattern", pattern)).endswith("/")
    matches = (_match(path, folder, expressions, folders) for path in _paths(folder, folders, skip))
    return [match for match in matches if match]


def _paths(folder: Path, folders: bool, skip: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        inside = path.resolve().is_relative_to(skip)
        if not hidden and not inside and (path.is_dir() if folders else path.is_file()):
            yield path


def _match(
    path: Path, folder: Path, expressions: list[re.Pattern[str]], folders: bool
) -> Match | None:
    text = _composed(path.relative_to(folder).as_posix() + ("/" if folders else ""))
    for expression in expressions:
        if found := expression.fullmatch(text):
            return Match(path, {k: v for k, v in found.groupdict().items() if v is not None})
    return None


def _expressions(pattern: Pattern, known: Mapping[str, Iterable[str]]) -> list[re.Pattern[str]]:
    """Compile a pattern: once with the known values, once open to others."""
    if isinstance(pattern, str):
        strict = {key: "|".join(map(re.escape, values)) for key, values in known.items()}
        pattern = _composed(pattern)
        expressions = [_compiled(pattern, {**_LOOSE, **strict}), _compiled(pattern, _LOOSE)]
    else:
        expressions = [pattern]
    if "case" not in expressions[0].groupindex:
        raise InputError(
            f"The pattern {pattern!r} has no place for the case.", "Write {case} where it stands."
        )
    return expressions


def _composed(text: str) -> str:
    """Write an umlaut as one character: some file systems write it as two."""
    return unicodedata.normalize("NFC", text)


def _compiled(pattern: str, places: Mapping[str, str]) -> re.Pattern[str]:
    parts = re.split(r"(\{\w*\}|\*\*/|\*)", pattern)
    seen: set[str] = set()
    return re.compile("".join(_part(part, places, seen) for part in parts), re.IGNORECASE)


def _part(part: str, places: Mapping[str, str], seen: set[str]) -> str:
    if part in ("*", "**/"):
        return "[^/]*" if part == "*" else "(?:.*/)?"
    if not re.fullmatch(r"\{\w*\}", part):
        return re.escape(part)
    name = part[1:-1]
    if name not in places:
        raise InputError(f"{part} is no place in a pattern.", f"Use one of {', '.join(places)}.")
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    return f"(?P<{name}>{places[name]})"
