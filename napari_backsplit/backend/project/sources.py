"""Where masks come from: a file a structure, one file with many ids, or a declaration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_backsplit.backend.errors import GeometryError, InputError, ProjectError
from napari_backsplit.backend.files import sha256
from napari_backsplit.backend.project.private import unnamed
from napari_backsplit.backend.project.store import Project
from napari_backsplit.backend.volume import Volume, read_label_map

Others = Literal["refuse", "ignore"]


@dataclass(frozen=True)
class Options:
    """What the user allows.

    Attributes
    ----------
    replace
        Replace a mask that is there; the old one is kept.
    resample
        Bring what is on another grid to the image's, and record it.
    accepted
        A person drew or checked the masks.
    """

    replace: bool = False
    resample: bool = False
    accepted: bool = False

    def judge(self, project: Project, case: str, structure: str) -> None:
        """Accept a mask that was just written, where that was asked for."""
        if self.accepted:
            project.judge(case, "accepted", structure, comment="Accepted when it was imported.")


@dataclass(frozen=True)
class MaskFiles:
    """One structure, from one file or from the union of several (left and right)."""

    structure: str
    files: tuple[Path, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """The file to name in a report."""
        return self.files[0]

    def attach(self, project: Project, case: str, options: Options) -> tuple[str, ...]:
        """Write the mask; return the structures written."""
        _refuse_present(project, case, [self.structure], options)
        what = f"The mask of {self.structure}"
        volumes = [_read(_read_one_structure, file, what) for file in self.files]
        union = _union(volumes, what)
        digests = " ".join(sha256(file) for file in self.files)
        provenance = {**_FROM_FILE, **self.provenance, "source_sha256": digests}
        _set(project, case, self.structure, union, provenance, options, self.source)
        return (self.structure,)


def _read_one_structure(file: Path) -> Volume:
    """Read a mask; a label map with several ids is none."""
    volume = read_label_map(file)
    ids = [int(i) for i in np.unique(volume.array) if i != 0]
    if len(ids) > 1:
        raise InputError(
            f"The file has the ids {_listed(ids)}, a mask has one beside 0.",
            "Import it as a label map, and say which ids make which structure.",
        )
    return volume.with_array(volume.array != 0)


@dataclass(frozen=True)
class LabelFile:
    """Several structures, from one label map.

    Attributes
    ----------
    ids
        Id -> structure; several ids may make one structure, and "" drops an id knowingly.
    others
        What to do about ids that are not among them.
    """

    file: Path
    ids: Mapping[int, str]
    others: Others = "refuse"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def source(self) -> Path:
        """The file to name in a report."""
        return self.file

    def attach(self, project: Project, case: str, options: Options) -> tuple[str, ...]:
        """Write a mask for every structure, an empty one where no id is there."""
        ids_of = inverted(self.ids)
        _refuse_present(project, case, ids_of, options)
        volume = _read(read_label_map, self.file, "The label map")
        if self.others == "refuse":
            self._refuse_unknown(volume)
        digest = sha256(self.file)
        for structure, ids in ids_of.items():
            mask = volume.with_array(np.isin(volume.array, ids))
            provenance = {**_FROM_FILE, **self.provenance, "source_sha256": digest, "labels": ids}
            _set(project, case, structure, mask, provenance, options, self.file)
        return tuple(ids_of)

    def _refuse_unknown(self, volume: Volume) -> None:
        unknown = sorted({int(i) for i in np.unique(volume.array)} - set(self.ids) - {0})
        if unknown:
            raise InputError(
                f"The label map has the ids {_listed(unknown)}, which have no name here.",
                "Name them, or choose to ignore other ids.",
            )


@dataclass(frozen=True)
class EmptyMask:
    """A structure that the user declares not to be there: a case without any lesion."""

    structure: str
    source: Path

    def attach(self, project: Project, case: str, options: Options) -> tuple[str, ...]:
        """Write an empty mask."""
        geometry = project.geometry(case)
        empty = Volume(np.zeros(geometry.shape, bool), geometry)
        note = "No file was there; it was declared that the case is free of it."
        provenance = {"engine": "declared", "notes": (note,)}
        project.set_mask(case, self.structure, empty, provenance, replace=options.replace)
        options.judge(project, case, self.structure)
        return (self.structure,)


MaskSource = MaskFiles | LabelFile | EmptyMask

_FROM_FILE = {"engine": "file"}


def inverted(names: Mapping[Any, str]) -> dict[str, list[Any]]:
    """Turn id -> structure into structure -> ids, in order; "" is left out."""
    result: dict[str, list[Any]] = {}
    for key, structure in names.items():
        if structure:
            result.setdefault(structure, []).append(key)
    return result


def _set(
    project: Project,
    case: str,
    structure: str,
    mask: Volume,
    provenance: Mapping[str, Any],
    options: Options,
    source: Path,
) -> None:
    project.set_mask(
        case,
        structure,
        mask,
        provenance,
        replace=options.replace,
        resample=options.resample,
        source=source,
    )
    options.judge(project, case, structure)


def _read(reader: Callable[[Path], Volume], file: Path, what: str) -> Volume:
    with unnamed(file, what):
        return reader(file)


def _union(volumes: Sequence[Volume], what: str) -> Volume:
    first = volumes[0]
    for volume in volumes[1:]:
        if difference := first.geometry.difference(volume.geometry):
            raise GeometryError(
                f"{what} comes from files on different grids. {difference}",
                "Bring them to one grid.",
            )
    return first.with_array(np.logical_or.reduce([volume.array for volume in volumes]))


def _refuse_present(
    project: Project, case: str, structures: Iterable[str], options: Options
) -> None:
    """Find out before anything is written."""
    present = [name for name in structures if project.mask_path(case, name)]
    if present and not options.replace:
        raise ProjectError(
            f"{case} has a mask of {', '.join(present)} already.",
            "Choose to replace it (--replace).",
        )


def _listed(ids: Sequence[int]) -> str:
    return ", ".join(map(str, ids[:20])) + (", ..." if len(ids) > 20 else "")
