"""Import in two steps: a scan finds cases and problems, then the plan is applied.

The scan (see `scanning`) reads names only and changes nothing. Applying it reads every file; a
case or mask that fails is reported under its source file, and never loses the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.project.images import AS_STORED, Reading
from napari_backsplit.backend.project.patterns import Pattern
from napari_backsplit.backend.project.private import without_path
from napari_backsplit.backend.project.scanning import (
    FoundCase,
    ImportPlan,
    Masking,
    Problem,
    first_file,
    scan_folder,
    scan_masks,
)
from napari_backsplit.backend.project.sources import (
    LabelFile,
    MaskFiles,
    Options,
    Others,
    inverted,
)
from napari_backsplit.backend.project.store import Project

Progress = Callable[[int, int], None]
_T = TypeVar("_T")


@dataclass(frozen=True)
class ImportReport:
    """What became of a plan.

    Attributes
    ----------
    added
        Original name -> case id, of new cases; for the screen only.
    masks
        Case id -> structures whose masks were written.
    notes
        What was converted, copied or resampled, by case id.
    problems
        Those of the plan, and more.
    """

    added: Mapping[str, str]
    masks: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that kept a file out."""
        return tuple(problem for problem in self.problems if problem.severity == "error")


def apply_plan(
    project: Project,
    plan: ImportPlan,
    *,
    replace: bool = False,
    resample: bool = False,
    accepted: bool = False,
    reading: Reading = AS_STORED,
    progress: Progress | None = None,
) -> ImportReport:
    """Import what a scan found. One failure never loses the others.

    Parameters
    ----------
    replace : bool
        Replace masks that are there; the old ones are kept.
    resample : bool
        Bring channels and masks on another grid to that of the first channel, and record it.
    accepted : bool
        The masks were drawn or checked by a person: each gets the verdict "accepted".
    reading : Reading
        How the images of new cases are read.
    progress : callable, optional
        Called with the number of cases done, and of all.

    Raises
    ------
    InputError
        `reading` names a channel that the project does not have.
    """
    project.schema.refuse_unknown_channels(reading.suv)
    add = partial(_add, project, resample=resample, reading=reading)
    log = Log(list(plan.problems))
    for done, found in enumerate(plan.cases, 1):
        case = found.existing or log.guard(first_file(found), partial(add, found))
        if case:
            log.look_at(project, found, case)
            log.attach(project, found, case, Options(replace, resample, accepted))
        if progress:
            progress(done, len(plan.cases))
    return ImportReport(log.added, log.masks, tuple(log.notes), tuple(log.problems))


def import_folder(
    project: Project,
    images: Path,
    pattern: Pattern,
    masks: Sequence[Masking] = (),
    *,
    channels: Mapping[str, str] | None = None,
    test: bool = False,
    replace: bool = False,
    resample: bool = False,
    accepted: bool = False,
    reading: Reading = AS_STORED,
    progress: Progress | None = None,
) -> ImportReport:
    """Scan a folder and apply the plan; see `scan_folder` and `apply_plan`."""
    plan = scan_folder(project, images, pattern, masks, channels=channels, test=test)
    options = {"replace": replace, "resample": resample, "accepted": accepted}
    return apply_plan(project, plan, **options, reading=reading, progress=progress)


def import_masks(
    project: Project,
    masks: Sequence[Masking],
    *,
    replace: bool = False,
    resample: bool = False,
    accepted: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import masks for cases of the project; see `scan_masks` and `apply_plan`."""
    plan = scan_masks(project, masks)
    return apply_plan(
        project, plan, replace=replace, resample=resample, accepted=accepted, progress=progress
    )


def import_multilabel(
    project: Project,
    case: str,
    file: Path,
    ids: Mapping[int, str],
    *,
    others: Others = "refuse",
    replace: bool = False,
    resample: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Import the structures of one label map; return their names.

    Parameters
    ----------
    ids : mapping
        Id -> structure; several ids may make one. A structure that is not in the file gets an
        empty mask.
    others : {"refuse", "ignore"}
        What to do about ids that are not among them.

    Raises
    ------
    InputError
        The file cannot be read, or has an id without a name.
    GeometryError
        It is on another grid and `resample` is False.
    ProjectError
        There is a mask already, and `replace` is False. Then none is written.
    """
    source = LabelFile(Path(file), ids, others, provenance or {})
    return source.attach(project, case, Options(replace, resample))


def import_structure_folder(
    project: Project,
    case: str,
    folder: Path,
    names: Mapping[str, str],
    *,
    replace: bool = False,
    resample: bool = False,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Import the structures of a folder with one file each; return their names.

    Parameters
    ----------
    names : mapping
        File name without its ending -> structure; several files may make one.

    Raises
    ------
    InputError
        A file does not exist or cannot be read. Then nothing is written for its structure.
    GeometryError, ProjectError
        As for `import_multilabel`.
    """
    options = Options(replace, resample)
    sources = []
    for structure, stems in inverted(names).items():
        files = tuple(_file_of(Path(folder), stem) for stem in stems)
        sources.append(MaskFiles(structure, files, provenance or {}))
    return tuple(name for source in sources for name in source.attach(project, case, options))


def _file_of(folder: Path, stem: str) -> Path:
    files = [file for file in sorted(folder.glob("*")) if file.name.partition(".")[0] == stem]
    if len(files) != 1:
        raise InputError(
            f"There are {len(files)} files for {stem} in the folder, not one.",
            "Check the names.",
        )
    return files[0]


_HANDLED = (BackSplitError, OSError, ValueError, RuntimeError, MemoryError)


@dataclass
class Log:
    """What becomes of a plan while it is applied."""

    problems: list[Problem]
    added: dict[str, str] = field(default_factory=dict)
    masks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def guard(self, source: Path, function: Callable[[], _T], case: str = "") -> _T | None:
        """Call a function; turn its failure into a problem of the source, said of the case."""
        try:
            return function()
        except _HANDLED as error:
            said = _said(error, source)
            self.problems.append(Problem(source, said if case in said else f"{case}: {said}"))
            return None

    def look_at(self, project: Project, found: FoundCase, case: str) -> None:
        """Keep what is to be said about a new case."""
        if found.existing:
            return
        value = project.case(case)
        self.added[found.name] = case
        self.notes += [f"{case}: {note}" for note in value.notes]
        if value.missing_channels:
            missing = ", ".join(value.missing_channels)
            message = f"{case} lacks the channel {missing}; it cannot be trained on."
            self.problems.append(Problem(first_file(found), message, "warning"))

    def attach(self, project: Project, found: FoundCase, case: str, options: Options) -> None:
        """Write the masks of a case."""
        for mask in found.masks:
            attach = partial(mask.attach, project, case, options)
            written = self.guard(mask.source, attach, case)
            if written:
                self.masks[case] = (*self.masks.get(case, ()), *written)


def _add(project: Project, found: FoundCase, *, resample: bool, reading: Reading) -> str:
    return project.add_case(
        found.images,
        name=found.name,
        patient=found.patient,
        test=found.test,
        resample=resample,
        reading=reading,
    ).id


def _said(error: BaseException, source: Path) -> str:
    text = str(error) if isinstance(error, BackSplitError) else f"{type(error).__name__}: {error}"
    return without_path(text, source, "the file")
