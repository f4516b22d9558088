"""Original paths and names, kept apart from everything else and for the owner's eyes only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_backsplit.backend.errors import BackSplitError, InputError, ProjectError
from napari_backsplit.backend.files import atomic_path, read_json
from napari_backsplit.backend.project.schema import explain
from napari_backsplit.backend.project.values import Value

FILE = "private.json"


class PrivateCase(Value):
    """What a case was called, and the files it came from: channel or structure -> path."""

    name: str
    images: dict[str, str] = {}
    masks: dict[str, str] = {}


class Private(Value):
    """The content of private.json: patient id -> name, case id -> origin."""

    patients: dict[str, str] = {}
    cases: dict[str, PrivateCase] = {}

    def patient_id(self, name: str) -> str | None:
        """Return the pseudonym of a patient, None if the patient is new."""
        return next((key for key, known in self.patients.items() if known == name), None)

    def case_id(self, name: str) -> str | None:
        """Return the neutral id of a case, None if it is new."""
        return next((key for key, case in self.cases.items() if case.name == name), None)

    def with_case(self, case: str, origin: PrivateCase, patient: str, name: str) -> Private:
        """Return it with one more case."""
        patients = {**self.patients, patient: name}
        return Private(patients=patients, cases={**self.cases, case: origin})

    def with_mask(self, case: str, structure: str, source: Path) -> Private:
        """Return it with the origin of one more mask."""
        origin = self.cases.get(case, PrivateCase(name=""))
        masks = {**origin.masks, structure: str(source)}
        changed = origin.model_copy(update={"masks": masks})
        return self.model_copy(update={"cases": {**self.cases, case: changed}})


def read_private(folder: Path) -> Private:
    """Read private.json; a project that came without it has an empty one."""
    if not (folder / FILE).exists():
        return Private()
    data: Any = read_json(folder / FILE)
    try:
        return Private.model_validate(data)
    except ValidationError as error:
        raise ProjectError(
            f"{FILE} does not fit its format: {explain(error)}.", "Restore the file."
        ) from error


def write_private(folder: Path, private: Private) -> None:
    """Replace private.json, never readable by others, not even for a moment."""
    with atomic_path(folder / FILE) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_text(private.model_dump_json(indent=2) + "\n", encoding="utf-8")


@contextmanager
def unnamed(source: Path, what: str) -> Iterator[None]:
    """Take the path out of the errors of a block: they carry `what` in its place."""
    try:
        yield
    except BackSplitError as error:
        problem, remedy = (
            without_path(text, source, what) for text in (error.problem, error.remedy)
        )
        raise type(error)(problem, remedy) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{what} cannot be read: {reason}.", "Check the file.") from None


def without_path(text: str, source: Path, what: str) -> str:
    """Take the path and the name of a file out of a text.

    The bare name of a folder stays: no text has it, but it may be a word of the text ("PET", "1").
    """
    names = [str(source.resolve()), str(source)]
    for name in names if source.is_dir() else [*names, source.name]:
        text = text.replace(name, what)
    return text
