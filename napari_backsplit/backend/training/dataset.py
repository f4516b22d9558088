"""From the project to plain nnU-Net v2 datasets: one per arm, images by path, never copied."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json, write_json, write_text
from napari_backsplit.backend.fusion.fuse import PartialCodes
from napari_backsplit.backend.fusion.raw_dataset import channel_names
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.arms import (
    ArmScheme,
    arm_label_map,
    missing_sets,
    source_digest,
)
from napari_backsplit.backend.training.soft_labels import soft_sources, with_soft_masks
from napari_backsplit.backend.volume import Volume, write_volume

PARTIAL_README = """\
This dataset is partially labelled: in some cases a support structure is missing, and voxels that
are background *or* a missing support hold a set code instead of a class:

{codes}

Stock nnU-Net cannot train on set codes: they are not in dataset.json's labels. Train with
`backsplit train`, whose loss takes a set as the sum of its members, or complete the masks.
"""


def training_cases(project: Project) -> list[str]:
    """Return the cases to train on: not reserved for testing, with a reference for each target.

    Raises
    ------
    InputError
        There are fewer than two.
    """
    targets = [target.name for target in project.schema.targets]
    cases = [
        case
        for case in project.training_cases()
        if all(project.mask_path(case, target) for target in targets)
    ]
    if len(cases) < 2:
        raise InputError(
            f"The project has {len(cases)} training case(s) with a reference mask.",
            "Import at least two; an all-zero mask says that a case has no lesion.",
        )
    return cases


def write_raw(
    project: Project, scheme: ArmScheme, cases: Sequence[str], folder: Path,
    check: Callable[[int, int], None] = lambda done, total: None, *, soft: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write an arm as a raw nnU-Net dataset, as its masks are now; nothing where it is done.

    Parameters
    ----------
    project : Project
    scheme : ArmScheme
    cases : sequence of str
    folder : Path
        nnunet/raw/DatasetNNN_<name>: dataset.json with explicit paths to the images (relative
        to the folder), labelsTr/, sources.json with a hash of each case's masks.
    check : callable
        Called with (done, total) after each case.
    soft : bool
        The arm learns shares of voxels: its hash has the soft masks, and dataset.json where the
        shares of each case come from.

    Returns
    -------
    dict
        The content of dataset.json.
    """
    codes = missing_sets(project, scheme, cases)
    dataset = dataset_json(project, scheme, codes, cases, folder)
    if soft:
        dataset["backsplit"]["soft"] = soft_sources(project, scheme, cases)
    made_from = sources(project, scheme, cases, soft=soft)
    sources_file = folder / "sources.json"
    if sources_file.exists() and read_json(sources_file) == made_from:
        return dataset
    for done, case in enumerate(cases, 1):
        label_map = arm_label_map(project, scheme, case, codes)
        label = folder / dataset["dataset"][case]["label"]
        write_volume(Volume(label_map, project.geometry(case)), label)
        check(done, len(cases))
    write_json(folder / "dataset.json", dataset)
    readme = folder / "README.md"
    if codes.missing_sets:
        write_text(readme, PARTIAL_README.format(codes=_describe(codes)))
    else:
        readme.unlink(missing_ok=True)
    write_json(sources_file, made_from)
    return dataset


def sources(
    project: Project, scheme: ArmScheme, cases: Sequence[str], *, soft: bool = False
) -> dict[str, str]:
    """Return a hash of all that each case's label map is made from, with `soft` its shares too."""
    codes = missing_sets(project, scheme, cases)
    digests = {case: source_digest(project, scheme, case, codes) for case in cases}
    return with_soft_masks(project, scheme, digests) if soft else digests


def dataset_json(
    project: Project, scheme: ArmScheme, codes: PartialCodes, cases: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Return nnU-Net's dataset.json of an arm, with our own facts under the key "backsplit"."""
    ending = "".join(project.image_paths(cases[0])[0].suffixes)
    return {
        "channel_names": channel_names(project.schema),
        "labels": scheme.classes.ids,
        "numTraining": len(cases),
        "file_ending": ending,
        "overwrite_image_reader_writer": "SimpleITKIO",
        "dataset": {
            case: {
                "images": [_relative(path, folder) for path in project.image_paths(case)],
                "label": f"labelsTr/{case}{ending}",
            }
            for case in cases
        },
        "backsplit": {
            "arm": scheme.arm,
            "name": scheme.name,
            "targets": list(scheme.targets),
            "supports": list(scheme.supports),
            "label_sets": [sorted(members) for members in codes.label_sets],
        },
    }


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _describe(codes: PartialCodes) -> str:
    return "\n".join(
        f"- {code}: background or {', '.join(missing)}"
        for code, missing in zip(codes.codes, codes.missing_sets, strict=True)
    )
