"""The first step of an import: find cases, masks and problems by the names of files.

Nothing is changed and no image is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.project.patterns import Match, Pattern, find
from napari_backsplit.backend.project.private import read_private
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.project.sources import (
    EmptyMask,
    LabelFile,
    MaskFiles,
    MaskSource,
    Others,
    inverted,
)

NEUTRAL = re.compile(r"case_\d+")
"""What the neutral ids of cases look like."""


@dataclass(frozen=True)
class Masks:
    """One file a case for one structure.

    Attributes
    ----------
    absent_is_empty
        A case without a file is free of the structure; otherwise it is not known.
    provenance
        What is known of the masks: model, licence, ...
    """

    structure: str
    folder: Path
    pattern: Pattern
    absent_is_empty: bool = False
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelMaps:
    """One label map a case; ids -> structures as in `LabelFile`."""

    folder: Path
    pattern: Pattern
    ids: Mapping[int, str]
    others: Others = "refuse"
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StructureFiles:
    """One file a structure: a pattern such as "{case}/{structure}.nii.gz".

    Attributes
    ----------
    names
        What stands at {structure} -> structure. Several may make one structure; files with
        other names are left alone.
    """

    folder: Path
    pattern: Pattern
    names: Mapping[str, str]
    provenance: Mapping[str, Any] = field(default_factory=dict)


Masking = Masks | LabelMaps | StructureFiles


@dataclass(frozen=True)
class Problem:
    """Something to tell the user, on the screen only: `source` may name a patient.

    Attributes
    ----------
    severity
        "error": the file was not imported. "warning": it was, or there is nothing to import.
    """

    source: Path
    message: str
    severity: Literal["error", "warning"] = "error"


@dataclass(frozen=True)
class FoundCase:
    """A case as a scan found it; `existing` is its id where the project has it already."""

    name: str
    images: Mapping[str, Path]
    masks: tuple[MaskSource, ...] = ()
    patient: str = ""
    test: bool = False
    existing: str | None = None


@dataclass(frozen=True)
class ImportPlan:
    """What a scan found, for the user to look at and the apply step to do."""

    cases: tuple[FoundCase, ...]
    problems: tuple[Problem, ...] = ()


def scan_folder(
    project: ProjectReader,
    images: Path,
    pattern: Pattern,
    masks: Sequence[Masking] = (),
    *,
    channels: Mapping[str, str] | None = None,
    test: bool = False,
) -> ImportPlan:
    """Find cases and their masks by the names of files.

    Parameters
    ----------
    images, pattern
        See `patterns.find`. {channel} is a channel's name or nnU-Net number (0000); it may be
        left out where the project has one channel.
    channels : mapping, optional
        Other words at {channel} -> channel.
    test : bool
        Reserve the cases for the test.

    Raises
    ------
    InputError
        A folder does not exist, a pattern cannot be used, or a structure is not the project's.
    """
    words = _channel_words(project, channels or {})
    matches = find(Path(images), pattern, {"channel": words}, project.folder)
    found, problems = _by_case(matches, words, project)
    if not matches:
        problems.append(Problem(Path(images), _nothing_fits(Path(images), pattern)))
    private = read_private(project.folder)
    cases = []
    for name, (patient, files) in found.items():
        known = private.case_id(name)
        if known in project.schema.cases:
            problems.append(Problem(next(iter(files.values())), _known_already(known)))
        else:
            cases.append(FoundCase(name, files, (), patient, test))
    return _with_masks(project, cases, masks, problems)


def scan_masks(project: ProjectReader, masks: Sequence[Masking]) -> ImportPlan:
    """Find masks for the cases of a project; {case} is an id or the name it was imported under.

    Raises
    ------
    InputError
        A folder does not exist, a pattern cannot be used, or a structure is not the project's.
    """
    names = read_private(project.folder).cases
    cases = []
    for case in project.case_ids():
        name = names[case].name if case in names else case
        cases.append(FoundCase(name, {}, (), existing=case))
    return _with_masks(project, cases, masks, [])


def first_file(found: FoundCase, otherwise: Path = Path()) -> Path:
    """Return the file to name in a report about a case."""
    return next(iter(found.images.values()), otherwise)


def _channel_words(project: ProjectReader, channels: Mapping[str, str]) -> dict[str, str]:
    """Return every word for a channel, in lower case."""
    words = {f"{number:04d}": name for number, name in enumerate(project.schema.channel_names)}
    words |= {name.lower(): name for name in project.schema.channel_names}
    project.schema.refuse_unknown_channels(channels.values())
    return words | {word.lower(): name for word, name in channels.items()}


def _by_case(
    matches: Iterable[Match], words: Mapping[str, str], project: ProjectReader
) -> tuple[dict[str, tuple[str, dict[str, Path]]], list[Problem]]:
    """Gather case -> (patient, channel -> file), and the files that have no place."""
    found: dict[str, tuple[str, dict[str, Path]]] = {}
    problems: list[Problem] = []
    strangers: list[tuple[str, Problem]] = []
    only = project.schema.channel_names[0] if len(project.schema.channels) == 1 else None
    for match in matches:
        word = match.fields.get("channel")
        channel = only if word is None else words.get(word.lower())
        patient, files = found.get(match.case, (match.fields.get("patient", ""), {}))
        if channel is None:
            strangers.append((match.case, Problem(match.path, _no_channel(word, project))))
        elif channel in files:
            problems.append(Problem(match.path, f"The case has an image of {channel} already."))
        else:
            found[match.case] = (patient, {**files, channel: match.path})
    for case, problem in strangers:  # beside images, as a mask or a further channel
        problems.append(replace(problem, severity="warning") if case in found else problem)
    return found, problems


def _known_already(case: str | None) -> str:
    """Return what to say of a case whose name the project has."""
    return (
        f"A case of this name is in the project already, as {case}. Leave it out, or tell the two "
        "apart with {patient} in the pattern."
    )


def _no_channel(word: str | None, project: ProjectReader) -> str:
    names = ", ".join(project.schema.channel_names)
    if word is None:
        return f"The pattern does not say which of the channels {names} it is: add {{channel}}."
    return f"{word!r} is none of the channels {names}."


def _with_masks(
    project: ProjectReader,
    cases: Sequence[FoundCase],
    masks: Sequence[Masking],
    problems: list[Problem],
) -> ImportPlan:
    _require_structures(project, masks)
    sources: dict[str, list[MaskSource]] = {case.name: [] for case in cases}
    keys = _keys(cases)
    for masking in masks:
        known = {"structure": masking.names} if isinstance(masking, StructureFiles) else {}
        matches = find(Path(masking.folder), masking.pattern, known, project.folder)
        if not matches and not (isinstance(masking, Masks) and masking.absent_is_empty):
            place = Path(masking.folder)
            problems.append(Problem(place, _nothing_fits(place, masking.pattern)))
            continue
        served = {keys.get(match.case) for match in matches}
        problems += [
            Problem(match.path, "There is no case for it.", "warning")
            for match in matches
            if match.case not in keys
        ]
        for name, source in _sources(masking, matches, problems):
            if name in keys:
                sources[keys[name]].append(source)
        for case in cases:
            if case.name not in served:
                _absent(masking, case, sources[case.name], problems)
    planned = (replace(case, masks=tuple(sources[case.name])) for case in cases)
    return ImportPlan(tuple(planned), tuple(problems))


def _require_structures(project: ProjectReader, masks: Sequence[Masking]) -> None:
    known = [structure.name for structure in project.schema.structures]
    wanted = [name for masking in masks for name in _structures_of(masking)]
    unknown = [name for name in dict.fromkeys(wanted) if name not in known]
    if unknown:
        raise InputError(
            f"The project has no structure {', '.join(unknown)}.",
            f"Its structures are {', '.join(known)}.",
        )


def _structures_of(masking: Masking) -> Iterable[str]:
    if isinstance(masking, Masks):
        return (masking.structure,)
    return (masking.ids if isinstance(masking, LabelMaps) else masking.names).values()


def _absent(
    masking: Masking, case: FoundCase, sources: list[MaskSource], problems: list[Problem]
) -> None:
    """Say that a case has no file, or take it as free of the structure."""
    place = first_file(case, Path(masking.folder))
    if isinstance(masking, Masks) and masking.absent_is_empty:
        sources.append(EmptyMask(masking.structure, place))
        return
    what = f"mask of {masking.structure}" if isinstance(masking, Masks) else "mask"
    problems.append(
        Problem(place, f"No {what} fits the pattern {_shown(masking.pattern)}.", "warning")
    )


def _keys(cases: Sequence[FoundCase]) -> dict[str, str]:
    """Return every way to write a case -> its name: whole, without the patient, neutral id.

    Where original names look like neutral ids, only they count: the file case_011 of a cohort
    that has no such case must not land on the eleventh one.
    """
    tails = [case.name.rpartition("/")[2] for case in cases]
    keys = {tail: case.name for tail, case in zip(tails, cases, strict=True)}
    keys = {tail: name for tail, name in keys.items() if tails.count(tail) == 1}
    if not any(NEUTRAL.fullmatch(tail) for tail in tails):
        keys |= {case.existing: case.name for case in cases if case.existing}
    return keys | {case.name: case.name for case in cases}


def _sources(
    masking: Masking, matches: Sequence[Match], problems: list[Problem]
) -> list[tuple[str, MaskSource]]:
    """Make case -> source of the files that were found."""
    if isinstance(masking, StructureFiles):
        return _structure_sources(masking, matches, problems)
    sources: list[tuple[str, MaskSource]] = []
    for match in matches:
        if isinstance(masking, Masks):
            files = MaskFiles(masking.structure, (match.path,), masking.provenance)
            sources.append((match.case, files))
        else:
            labels = LabelFile(match.path, masking.ids, masking.others, masking.provenance)
            sources.append((match.case, labels))
    return sources


def _structure_sources(
    masking: StructureFiles, matches: Sequence[Match], problems: list[Problem]
) -> list[tuple[str, MaskSource]]:
    """Leave out a structure of which a part is missing: half a pair would be wrong."""
    files: dict[str, dict[str, Path]] = {}
    words_of = {word.lower(): word for word in masking.names}
    for match in matches:
        word = match.fields.get("structure", "").lower()
        files.setdefault(match.case, {})[words_of.get(word, word)] = match.path
    sources: list[tuple[str, MaskSource]] = []
    for case, there in files.items():
        for structure, words in inverted(masking.names).items():
            missing = [word for word in words if word not in there]
            if missing:
                place = next(iter(there.values())).parent
                message = f"There is no file for {', '.join(missing)}: {structure} is left out."
                problems.append(Problem(place, message))
            else:
                parts = tuple(there[word] for word in words)
                sources.append((case, MaskFiles(structure, parts, masking.provenance)))
    return sources


def _nothing_fits(folder: Path, pattern: Pattern) -> str:
    """Say so, and what may be the reason: never a name of a file."""
    said = f"Nothing fits the pattern {_shown(pattern)}."
    if "/" in _shown(pattern) and not any(path.is_dir() for path in folder.iterdir()):
        return f"{said} It looks in folders below this one, which has none: give the folder above."
    endings = sorted({_ending(path) for path in folder.rglob("*") if path.is_file()})
    if {".dcm", ".ima"} & set(endings) and not _shown(pattern).endswith("/'"):
        return f"{said} For DICOM series, write their folders, as in '{{case}}/'."
    return f"{said} Its files end with {', '.join(filter(None, endings)) or 'nothing'}."


def _ending(path: Path) -> str:
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def _shown(pattern: Pattern) -> str:
    return repr(pattern) if isinstance(pattern, str) else repr(pattern.pattern)
