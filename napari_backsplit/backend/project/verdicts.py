"""What people said of a case and of its masks: ``cases/<case>/verdicts.jsonl``, appended only."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.files import append_line, read_lines
from napari_backsplit.backend.project.schema import Judgement, explain
from napari_backsplit.backend.project.values import Value

FILE = "verdicts.jsonl"


class Verdict(Value):
    """One verdict, on a mask or on a whole case.

    Attributes
    ----------
    structure
        "" for the case.
    masks
        What was judged: structure -> SHA-256 of its file.
    """

    structure: str = ""
    verdict: Judgement
    comment: str = ""
    who: str = ""
    when: str = ""
    masks: dict[str, str] = {}


def read_verdicts(case_folder: Path) -> tuple[Verdict, ...]:
    """Read all verdicts of a case, the first one first.

    Raises
    ------
    ProjectError
        One does not fit its format.
    """
    try:
        return tuple(Verdict.model_validate(line) for line in read_lines(case_folder / FILE))
    except ValidationError as error:
        raise ProjectError(
            f"A verdict of {case_folder.name} does not fit its format: {explain(error)}.",
            "Restore the file.",
        ) from error


def append_verdict(case_folder: Path, verdict: Verdict) -> None:
    """Add a verdict; those before it stay."""
    append_line(case_folder / FILE, verdict.model_dump())


def last_of(verdicts: Iterable[Verdict], structure: str) -> Verdict | None:
    """Return the last verdict on a structure, or with "" on the case; None without one."""
    return next((v for v in reversed(list(verdicts)) if v.structure == structure), None)
