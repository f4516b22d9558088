"""A new case: its images are read, checked, brought to one grid and given neutral names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.project import images as imagery
from napari_backsplit.backend.project.private import Private, PrivateCase, without_path
from napari_backsplit.backend.project.schema import Case, Grid, Image, Schema

Images = dict[str, imagery.Loaded]


@dataclass(frozen=True)
class Request:
    """A case as the user names it.

    Attributes
    ----------
    images
        Channel name -> file or DICOM series folder.
    name, patient
        A case without a name has its first path; without a patient, it is one of its own.
    test
        Reserve it.
    resample
        Bring channels on other grids to that of the first.
    reading
        How the images are read.
    notes
        What is to be known of the images, one sentence each; kept with the case.
    """

    images: Mapping[str, Path]
    name: str = ""
    patient: str = ""
    test: bool = False
    resample: bool = False
    reading: imagery.Reading = imagery.AS_STORED
    notes: tuple[str, ...] = ()

    def completed(self, schema: Schema) -> Request:
        """Put the images in the order of the channels, and name what has no name.

        Raises
        ------
        InputError
            There is no image, or one of a channel that the project does not have.
        """
        schema.refuse_unknown_channels([*self.images, *self.reading.suv])
        if not self.images:
            raise InputError(
                "The case has no image.", f"Its channels are {', '.join(schema.channel_names)}."
            )
        images = {c: self.images[c].absolute() for c in schema.channel_names if c in self.images}
        name = self.name or str(next(iter(images.values())))
        return replace(self, images=images, name=name, patient=self.patient or name)

    @property
    def private_words(self) -> set[str]:
        """Names that the project's own files must not hold."""
        words = {self.name, self.patient}
        for path in self.images.values():
            words |= {path.name.partition(".")[0], path.parent.name}
        return {word for word in words if len(word) > 2}


@contextmanager
def added(
    folder: Path, schema: Schema, private: Private, request: Request
) -> Iterator[tuple[Schema, Private, Case]]:
    """Place a case's images and give the schema and private part with it.

    The images are taken back if the block fails.

    Raises
    ------
    InputError
        An image cannot be used.
    ProjectError
        The case, or an image of it, is in the project already.
    """
    request = request.completed(schema)
    _refuse_known(schema, private, request.name)
    loaded = _load(schema, request)
    ending = schema.file_ending or _ending(loaded.values())
    case = next_id("case", schema.cases)
    patient = private.patient_id(request.patient) or next_id("patient", _patients(schema, private))
    files = _files(folder, schema, case, loaded, ending)
    with _taken_back(files.values()):
        placed = {c: imagery.place(image, files[c], folder) for c, image in loaded.items()}
        value = _case(schema, case, patient, request, loaded, placed)
        origin = PrivateCase(
            name=request.name, images={c: str(path) for c, path in request.images.items()}
        )
        grown = private.with_case(case, origin, patient, request.patient)
        yield schema.with_case(value, ending), grown, value


def next_id(kind: str, known: Iterable[str]) -> str:
    """Return the neutral id after the last: case_001, case_002, ..."""
    numbers = [int(end) for _, _, end in (name.rpartition("_") for name in known) if end.isdigit()]
    return f"{kind}_{max(numbers, default=0) + 1:03d}"


def _load(schema: Schema, request: Request) -> Images:
    words = request.private_words
    loaded = {
        c: imagery.load(path, c, words, request.reading) for c, path in request.images.items()
    }
    _refuse_duplicates(schema, loaded)
    return imagery.on_one_grid(loaded, request.resample)


def _case(
    schema: Schema,
    case: str,
    patient: str,
    request: Request,
    loaded: Images,
    placed: Mapping[str, tuple[Image, str]],
) -> Case:
    test, note = _reserved(schema, patient, request.test)
    return Case(
        id=case,
        patient=patient,
        images={channel: image for channel, (image, _) in placed.items()},
        grid=Grid.of(next(iter(loaded.values())).volume.geometry),
        test=test,
        missing_channels=tuple(c for c in schema.channel_names if c not in placed),
        notes=(*request.notes, *_notes(loaded, placed), *note),
    )


def _reserved(schema: Schema, patient: str, asked: bool) -> tuple[bool, Sequence[str]]:
    """Keep a patient's cases together; say so where that is not what was asked."""
    others = [case.test for case in schema.cases.values() if case.patient == patient]
    if not others or others[0] == asked:
        return asked, ()
    state = "Reserved" if others[0] else "Not reserved"
    return others[0], (f"{state} for the test, as the patient's other cases.",)


def _notes(loaded: Images, placed: Mapping[str, tuple[Image, str]]) -> Iterator[str]:
    for channel, image in loaded.items():
        for note in image.volume.notes:
            yield f"{channel}: {without_path(note, image.path, 'the file')}"
        if placed[channel][1]:
            yield f"{channel} was {placed[channel][1]}."


def _files(
    folder: Path, schema: Schema, case: str, channels: Iterable[str], ending: str
) -> dict[str, Path]:
    number = schema.channel_names.index
    return {c: folder / "images" / f"{case}_{number(c):04d}{ending}" for c in channels}


@contextmanager
def _taken_back(files: Iterable[Path]) -> Iterator[None]:
    """Remove the files of a case that is not in the project: before, and after a failure."""
    paths = list(files)
    for path in paths:
        path.unlink(missing_ok=True)  # left by a process that was killed right here
    try:
        yield
    except BaseException:
        for path in paths:
            path.unlink(missing_ok=True)
        raise


def _ending(loaded: Iterable[imagery.Loaded]) -> str:
    return imagery.ending_of(next(iter(loaded)).path) or imagery.DEFAULT_ENDING


def _patients(schema: Schema, private: Private) -> list[str]:
    return [*private.patients, *(case.patient for case in schema.cases.values())]


def _refuse_known(schema: Schema, private: Private, name: str) -> None:
    case = private.case_id(name)
    if case in schema.cases:
        raise ProjectError(f"The case is in the project already, as {case}.", "Leave it out.")


def _refuse_duplicates(schema: Schema, loaded: Images) -> None:
    known = {
        digest: case.id
        for case in schema.cases.values()
        for image in case.images.values()
        for digest in (image.sha256, image.source_sha256)
    }
    for channel, image in loaded.items():
        if image.sha256 in known:
            raise ProjectError(
                f"The image of {channel} is the same file as one of {known[image.sha256]}.",
                "Leave it out.",
            )
        known[image.sha256] = "this case"
