"""Masks that another program predicted, taken into a project so that they can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.files import sha256, write_json
from napari_backsplit.backend.project.private import read_private, unnamed
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.project.schema import neutral_name
from napari_backsplit.backend.volume import READABLE_SUFFIXES, Volume, read_label_map, write_volume

FOLDER = "predictions"


def take_masks(project: ProjectReader, arm: str, folder: Path, declared_unseen: bool) -> str:
    """Copy the masks of a folder into the project, as a prediction job would have written them.

    Parameters
    ----------
    arm : str
        What the comparison calls them.
    folder : Path
        A file a case, named as the case is here or was when it was imported; ids 1..T are the
        targets of the project in their order.
    declared_unseen : bool
        The user declares that what predicted them was not trained on these cases.

    Returns
    -------
    str
        The folder of the predictions, relative to the project; the same files give the same one
        as long as the targets are the same.

    Raises
    ------
    InputError
        No file is that of a case, two are, a name is that of two cases, or a mask has more ids
        than there are targets.
    GeometryError
        A mask is not on the grid of its image.
    """
    files = _files(project, folder)
    digests = [f"{case} {sha256(file)}" for case, file in sorted(files.items())]
    meant = [*project.schema.target_names, str(declared_unseen)]
    digest = hashlib.sha256("\n".join([*digests, *meant]).encode()).hexdigest()
    home = project.folder / FOLDER
    place = home / f"{neutral_name(arm) or 'arm'}-{digest[:8]}"
    if not place.exists():
        home.mkdir(exist_ok=True)
        with TemporaryDirectory(prefix=".begun-", dir=home) as begun:
            _fill(Path(begun) / place.name, project, files, declared_unseen).rename(place)
    return place.relative_to(project.folder).as_posix()


def _files(project: ProjectReader, folder: Path) -> dict[str, Path]:
    """Return the file of each case that has one."""
    here = {case: case for case in project.case_ids()}
    once = {known.name: case for case, known in read_private(project.folder).cases.items()}
    names = {**once, **here}
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        suffix = next((end for end in READABLE_SUFFIXES if file.name.endswith(end)), "")
        name = file.name.removesuffix(suffix)
        case = names.get(name) if suffix else None
        if case == name and once.get(name, name) != name:
            raise InputError(
                f"{case} is the name of one case here and was another's when it was imported.",
                "Name no file so: give the other names of the two, or import anew.",
            )
        if case in found:
            raise InputError(f"Two files are masks of {case}.", "Leave one of them.")
        if case is not None:
            found[case] = file
    if not found:
        raise InputError(
            f"{folder.name} holds no mask of a case of this project.",
            f"Name the files as the cases: {project.case_ids()[0]}.nii.gz, ...",
        )
    return found


def _fill(
    place: Path, project: ProjectReader, files: Mapping[str, Path], declared_unseen: bool
) -> Path:
    for case, file in files.items():
        with unnamed(file, f"The mask of {case}"):
            write_volume(_checked(read_label_map(file), project, case), place / f"{case}.nii.gz")
    known = ("declared", "unseen") if declared_unseen else ("unknown", None)
    record = {
        "model": {},
        "targets": list(project.schema.target_names),
        "settings": {},
        "cases": {case: dict(zip(("seen", "role"), known, strict=True)) for case in files},
    }
    write_json(place / "predictions.json", record)
    return place


def _checked(mask: Volume, project: ProjectReader, case: str) -> Volume:
    difference = project.geometry(case).difference(mask.geometry)
    if difference:
        raise GeometryError(
            f"The mask of {case} is not on the grid of its image. {difference}",
            "Resample it onto the image, or predict on the image itself.",
        )
    targets = len(project.schema.targets)
    if mask.array.max() > targets:
        raise InputError(
            f"The mask of {case} has the id {mask.array.max()}; the project has {targets} "
            "target(s).",
            "Leave only the targets in it, as 1, 2, ... in the project's order.",
        )
    return mask
