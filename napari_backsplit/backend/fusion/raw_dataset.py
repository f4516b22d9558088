"""What the fusion gives to others: label maps, and a raw dataset that stock nnU-Net v2 takes.

A folder appears under its name when it is whole; nothing is ever overwritten.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from napari_backsplit.backend.errors import InputError, ProjectError
from napari_backsplit.backend.files import link_or_copy, write_json, write_text, writing
from napari_backsplit.backend.fusion.cases import Admit, FusedCase, fuse_case, project_scheme
from napari_backsplit.backend.fusion.fuse import LabelMap, LabelScheme
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.project.schema import Schema
from napari_backsplit.backend.volume import Volume, write_volume

FORMAT_VERSION = 1
IGNORE = "ignore"
NORMALISED_BY_NAME = ("ct", "nonorm", "zscore", "rescale_to_0_1", "rgb_to_0_1")
"""Channel names by which nnU-Net chooses a normalisation; any other name means z-score."""

_NAME = re.compile(r"[0-9]{3}_[A-Za-z0-9_-]+")

Progress = Callable[[int, int], None]

_README = """\
# {name}

A raw dataset of nnU-Net v2, written by napari-backsplit. Research use only. Not a medical device.

- `imagesTr`, `labelsTr`: the {train} training cases: not reserved for the test, with every channel
  and a reference mask that nobody rejected.
- `imagesTs`: the {test} cases that are reserved for the test, images alone; nothing can be trained
  on their labels by mistake. `backsplit fuse FOLDER` writes those.
- Left out: {left_out}.

## Labels

{labels}

The first of them wins where two overlap; targets always win.
{recipes}{ignore}"""

_IGNORED = """
## The label "ignore"

In {count} training case(s) not every support has a mask:

{cases}

What is no known structure there is background *or* a support that is missing, and holds the label
{label}, "ignore": nnU-Net learns nothing from these voxels. What they do tell, that there is no
lesion, is lost with it; `backsplit train` uses it.
"""


# --- label maps ---------------------------------------------------------------------------------


def write_label_maps(
    project: ProjectReader,
    folder: Path,
    admit: Admit = "unreviewed",
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Write the label map of every case on its image's grid, and labels.json beside them.

    Parameters
    ----------
    project : ProjectReader
    folder : Path
        New or empty: <case>.nii.gz and labels.json.
    admit : Admit
        Which masks of supports enter.
    progress : callable
        Told the cases done and their number after each; it may raise to stop.

    Returns
    -------
    dict
        "labels" (name -> id), "colours", "recipes", "masks" and, for each of the "cases",
        "voxels", "missing" and "overlaps"; labels.json holds the same.

    Raises
    ------
    InputError
        The folder is not empty.
    """
    cases = project.case_ids()
    with _whole_folder(folder) as place:
        told = {}
        for done, case in enumerate(cases, start=1):
            fused = fuse_case(project, case, admit=admit)
            fused.write(place / f"{case}.nii.gz")
            told[case] = _told(fused)
            progress(done, len(cases))
        result = {**_described(project.schema, project_scheme(project), admit), "cases": told}
        write_json(place / "labels.json", result)
    return result


def _described(schema: Schema, scheme: LabelScheme, admit: Admit) -> dict[str, Any]:
    structures = (*schema.targets, *schema.fused_supports)
    return {
        "format_version": FORMAT_VERSION,
        "labels": scheme.ids,
        "targets": list(scheme.targets),
        "colours": {structure.name: structure.colour for structure in structures},
        "recipes": [recipe.words for recipe in schema.recipes],
        "masks": admit,
    }


def _told(case: FusedCase) -> dict[str, Any]:
    fused = case.fused
    return {
        "voxels": fused.voxels,
        "missing": list(fused.missing),
        "overlaps": {f"{a}, {b}": n for (a, b), n in fused.overlaps.items()},
    }


# --- a raw dataset ------------------------------------------------------------------------------


def write_dataset(
    project: ProjectReader,
    folder: Path,
    name: str,
    admit: Admit = "accepted",
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Write <folder>/Dataset<name>, a raw dataset that stock nnU-Net v2 takes.

    Images are hard links where those work. In a case where a support is missing, what is no known
    structure holds nnU-Net's "ignore" label.

    Parameters
    ----------
    project : ProjectReader
    folder : Path
        Such as nnU-Net's nnUNet_raw.
    name : str
        Three digits and a name: "042_Cysts".
    admit : Admit
        Which masks of supports enter.
    progress : callable
        Told the cases done and their number after each; it may raise to stop.

    Returns
    -------
    dict
        "dataset", "labels", "train" and "test" (cases), "left_out" (case -> why) and "missing"
        (case -> supports).

    Raises
    ------
    InputError
        The name is none, the folder holds a dataset of the same number, or there is no training
        case.
    """
    _check_name(folder, name)
    train, test = project.training_cases(), _with_images(project, project.test_cases())
    if not train:
        raise InputError(
            "There is no case to train on.",
            "Import reference masks; an all-zero mask says that a case has no lesion.",
        )
    with _whole_folder(folder / f"Dataset{name}") as place:
        for part in ("imagesTr", "labelsTr", "imagesTs"):
            (place / part).mkdir()
        missing = _write_training(project, place, train, admit, progress)
        for case in test:
            _link_images(project, case, place / "imagesTs")
        labels = _labels(project_scheme(project), any(missing.values()))
        result = {
            "dataset": f"Dataset{name}",
            "labels": labels,
            "masks": admit,
            "train": list(train),
            "test": list(test),
            "left_out": _left_out(project, (*train, *test)),
            "missing": {case: list(names) for case, names in missing.items() if names},
        }
        write_json(place / "dataset.json", _dataset_json(project.schema, labels, len(train)))
        write_text(place / "README.md", _readme(project.schema, result))
    return result


def _check_name(folder: Path, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name of a dataset.", "Write three digits and a name: 042_Cysts."
        )
    number = name[:3]
    taken = sorted(folder.glob(f"Dataset{number}_*"))
    if taken:
        raise InputError(
            f"There is a dataset of the number {number} already: {taken[0].name}.",
            "Choose another number.",
        )


def _with_images(project: ProjectReader, cases: Sequence[str]) -> tuple[str, ...]:
    return tuple(case for case in cases if not project.case(case).missing_channels)


def _left_out(project: ProjectReader, used: Sequence[str]) -> dict[str, str]:
    unused = [case for case in project.case_ids() if case not in used]
    return {case: ", ".join(project.problems(case)) for case in unused}


def _write_training(
    project: ProjectReader, place: Path, cases: Sequence[str], admit: Admit, progress: Progress
) -> dict[str, tuple[str, ...]]:
    """Write images and labels; return what is missing in each case."""
    missing = {}
    ending = project.schema.file_ending
    for done, case in enumerate(cases, start=1):
        _link_images(project, case, place / "imagesTr")
        made = fuse_case(project, case, admit=admit)
        label_map = made.fused.label_map
        if made.fused.missing:
            label_map = ignoring_background(label_map, project_scheme(project).count)
        write_volume(Volume(label_map, made.geometry), place / "labelsTr" / f"{case}{ending}")
        missing[case] = made.fused.missing
        progress(done, len(cases))
    return missing


def ignoring_background(label_map: LabelMap, ignore: int) -> LabelMap:
    """Return a label map (z, y, x) whose background holds the id `ignore`."""
    dtype = np.result_type(label_map.dtype, np.min_scalar_type(ignore))
    return np.where(label_map == 0, dtype.type(ignore), label_map)


def _link_images(project: ProjectReader, case: str, folder: Path) -> None:
    for number, path in enumerate(project.image_paths(case)):
        if not path.exists():
            raise ProjectError(f"An image of {case} is gone.", "Restore it, or reject the case.")
        link_or_copy(path, folder / f"{case}_{number:04d}{project.schema.file_ending}")


def _labels(scheme: LabelScheme, ignoring: bool) -> dict[str, int]:
    """Return nnU-Net's labels; "ignore" must have the highest id.

    Raises
    ------
    InputError
        A structure has that name.
    """
    if IGNORE in scheme.names:
        raise InputError(
            f"A structure is called {IGNORE!r}, which nnU-Net takes for its own label.",
            "Rename it: backsplit supports merge NAME ignore.",
        )
    return {**scheme.ids, IGNORE: scheme.count} if ignoring else scheme.ids


def _dataset_json(schema: Schema, labels: Mapping[str, int], cases: int) -> dict[str, Any]:
    return {
        "channel_names": channel_names(schema),
        "labels": dict(labels),
        "numTraining": cases,
        "file_ending": schema.file_ending,
        "overwrite_image_reader_writer": "SimpleITKIO",
    }


def channel_names(schema: Schema) -> dict[str, str]:
    """Return nnU-Net's channel names, from which it chooses how a channel is normalised."""
    return {
        str(number): channel.modality
        if channel.modality.lower() in NORMALISED_BY_NAME
        else channel.name
        for number, channel in enumerate(schema.channels)
    }


def _readme(schema: Schema, result: Mapping[str, Any]) -> str:
    recipes = "".join(f"- {recipe.words}\n" for recipe in schema.recipes)
    missing: Mapping[str, Sequence[str]] = result["missing"]
    ignored = _IGNORED.format(
        count=len(missing),
        cases="\n".join(f"- {case}: {', '.join(names)}" for case, names in missing.items()),
        label=result["labels"].get(IGNORE),
    )
    left_out = [f"{case} ({why})" for case, why in result["left_out"].items()]
    return _README.format(
        name=result["dataset"],
        train=len(result["train"]),
        test=len(result["test"]),
        left_out="; ".join(left_out) or "no case",
        labels="\n".join(f"- {label}: {name}" for name, label in result["labels"].items()),
        recipes=f"\nThe supports are made of masks by these recipes:\n\n{recipes}" * bool(recipes),
        ignore=ignored if missing else "",
    )


# --- folders ------------------------------------------------------------------------------------


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder` that takes its name when the block succeeds.

    Raises
    ------
    InputError
        There is something under that name, and it is no empty folder.
    ProjectError
        It cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty.", "Choose a new folder.")
    folder = folder.absolute()  # "." has no name
    made = folder.with_name(f".tmp-{secrets.token_hex(6)}-{folder.name}")
    try:
        with writing(folder.name):
            made.mkdir(parents=True)
            yield made
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)
