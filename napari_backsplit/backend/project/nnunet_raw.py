"""Import of an nnU-Net raw dataset: dataset.json, imagesTr, labelsTr, imagesTs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.project.importing import ImportReport, Progress, apply_plan
from napari_backsplit.backend.project.private import read_private
from napari_backsplit.backend.project.reader import ProjectReader
from napari_backsplit.backend.project.scanning import (
    FoundCase,
    ImportPlan,
    Problem,
    first_file,
)
from napari_backsplit.backend.project.schema import neutral_name
from napari_backsplit.backend.project.sources import LabelFile, MaskSource
from napari_backsplit.backend.project.store import Project


class DatasetStructures(NamedTuple):
    """What `Project.create` needs to hold a dataset: names of channels, targets, supports."""

    channels: tuple[str, ...]
    targets: tuple[str, ...]
    supports: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A dataset.json.

    Attributes
    ----------
    channels
        Names in nnU-Net's order.
    labels
        Name -> id, without the background.
    listed
        The explicit "dataset" key: case -> its entry; None where files are found by name.
    """

    folder: Path
    channels: tuple[str, ...]
    labels: Mapping[str, int]
    ending: str
    listed: Mapping[str, Any] | None


def read_dataset(folder: Path) -> Dataset:
    """Read a dataset.json.

    Raises
    ------
    InputError
        It is missing or torn, lacks a key, or its labels are regions.
    """
    folder = Path(folder)
    data = read_json(folder / "dataset.json")
    try:
        channels = data.get("channel_names") or data["modality"]
        numbered = sorted((int(number), str(name)) for number, name in channels.items())
        labels = _labels(data["labels"])
        ending = str(data.get("file_ending", ".nii.gz"))
        listed = data.get("dataset")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"dataset.json is not nnU-Net's: {type(error).__name__} {error}.",
            "It needs channel_names, labels and file_ending.",
        ) from error
    return Dataset(folder, tuple(name for _, name in numbered), labels, ending, listed)


def dataset_structures(
    folder: Path, targets: Sequence[str] = (), supports: Sequence[str] | None = None
) -> DatasetStructures:
    """Return the names of a project that holds a dataset.

    Parameters
    ----------
    targets : sequence of str
        Labels that are targets; the one with id 1 if none is named.
    supports : sequence of str, optional
        Labels that are supports; all others if None. The rest becomes background.

    Raises
    ------
    InputError
        The dataset has no such label.
    """
    dataset = read_dataset(folder)
    chosen = tuple(targets) or (min(dataset.labels, key=dataset.labels.__getitem__),)
    if supports is None:
        supports = [name for name in dataset.labels if name not in chosen and name != "ignore"]
    _refuse_unknown([*chosen, *supports], dataset)
    names = tuple(map(neutral_name, chosen)), tuple(map(neutral_name, supports))
    return DatasetStructures(dataset.channels, *names)


def scan_nnunet_raw(
    project: ProjectReader,
    folder: Path,
    roles: Mapping[str, str] | None = None,
    *,
    channels: Mapping[str, str] | None = None,
) -> ImportPlan:
    """Find the cases of a raw dataset; those of imagesTs are reserved for the test.

    Parameters
    ----------
    roles : mapping, optional
        Label -> structure of the project, "" to make it background. A label that is not
        named goes to the structure of the same name; the one with id 1, if there is none of
        its name, to the first target, if no other label is that.
    channels : mapping, optional
        The dataset's channel -> the project's, where they have other names.

    Raises
    ------
    InputError
        dataset.json cannot be used, or a label or channel has no place in the project.
    """
    dataset = read_dataset(Path(folder))
    ids = _ids(dataset, project, roles or {})
    names = _channels(dataset, project, channels or {})
    if dataset.listed is None:
        found, problems = _by_name(dataset, names, ids)
    else:
        found, problems = _listed(dataset, names, ids)
    private = read_private(project.folder)
    for case in [case for case in found if private.case_id(case.name) in project.schema.cases]:
        found.remove(case)
        known = f"The case is in the project already, as {private.case_id(case.name)}."
        problems.append(Problem(first_file(case), known))
    return ImportPlan(tuple(found), tuple(problems))


def import_nnunet_raw(
    project: Project,
    folder: Path,
    roles: Mapping[str, str] | None = None,
    *,
    channels: Mapping[str, str] | None = None,
    replace: bool = False,
    resample: bool = False,
    accepted: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Scan a raw dataset and apply the plan; see `scan_nnunet_raw` and `apply_plan`."""
    plan = scan_nnunet_raw(project, folder, roles, channels=channels)
    return apply_plan(
        project, plan, replace=replace, resample=resample, accepted=accepted, progress=progress
    )


def _labels(labels: Mapping[str, Any]) -> dict[str, int]:
    """Read labels in nnU-Net's order, name -> id, or in the Decathlon's, id -> name."""
    if all(str(key).isdigit() for key in labels):
        labels = {str(name): int(number) for number, name in labels.items()}
    regions = [name for name, value in labels.items() if isinstance(value, list)]
    if regions:
        raise InputError(
            f"The labels {', '.join(regions)} are regions of several ids.",
            "Import the plain labels: write one id for each name.",
        )
    return {name: int(value) for name, value in labels.items() if int(value) != 0}


def _refuse_unknown(names: Iterable[str], dataset: Dataset) -> None:
    unknown = [name for name in names if name not in dataset.labels]
    if unknown:
        raise InputError(
            f"The dataset has no label {', '.join(unknown)}.",
            f"Its labels are {', '.join(dataset.labels)}.",
        )


def _ids(dataset: Dataset, project: ProjectReader, roles: Mapping[str, str]) -> dict[int, str]:
    _refuse_unknown(roles, dataset)
    known = [structure.name for structure in project.schema.structures]
    plain = {name: neutral_name(name) for name in dataset.labels if name != "ignore"}
    names = {**plain, **roles}
    ids = {dataset.labels[name]: structure for name, structure in names.items()}
    target = project.schema.target_names[0]
    free = target not in names.values() and not any(dataset.labels[name] == 1 for name in roles)
    if free and ids.get(1, target) not in known:
        ids[1] = target
    homeless = [f"{value} ({name!r})" for value, name in ids.items() if name and name not in known]
    if homeless:
        raise InputError(
            f"The project has no structure for the labels {', '.join(homeless)}.",
            f"Add supports, or say which of {', '.join(known)} they are.",
        )
    return ids


def _channels(
    dataset: Dataset, project: ProjectReader, channels: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the project's channel for each of the dataset's, in the dataset's order."""
    known = {name.lower(): name for name in project.schema.channel_names}
    names = [known.get(channels.get(name, name).lower(), "") for name in dataset.channels]
    if "" in names:
        raise InputError(
            f"The dataset has the channels {', '.join(dataset.channels)}, "
            f"the project {', '.join(project.schema.channel_names)}.",
            "Say which channel of the project each one is.",
        )
    return tuple(names)


def _by_name(
    dataset: Dataset, channels: Sequence[str], ids: Mapping[int, str]
) -> tuple[list[FoundCase], list[Problem]]:
    found: list[FoundCase] = []
    problems: list[Problem] = []
    for part in ("Tr", "Ts"):
        images = _images(dataset, part, channels, problems)
        labels = {
            file.name.removesuffix(dataset.ending): file
            for file in _files(dataset.folder / f"labels{part}")
            if file.name.endswith(dataset.ending)
        }
        for name, files in images.items():
            label = labels.pop(name, None)
            if label is None and part == "Tr":
                problems.append(Problem(next(iter(files.values())), _NO_LABEL, "warning"))
            found.append(FoundCase(name, files, _masks(label, ids), test=part == "Ts"))
        problems += [Problem(file, "There is no image for it.") for file in labels.values()]
    return found, problems


_NO_LABEL = "The case has no label map: it can be used for prediction only."


def _images(
    dataset: Dataset, part: str, channels: Sequence[str], problems: list[Problem]
) -> dict[str, dict[str, Path]]:
    images: dict[str, dict[str, Path]] = {}
    for file in _files(dataset.folder / f"images{part}"):
        match = re.fullmatch(rf"(.+)_(\d{{4}}){re.escape(dataset.ending)}", file.name)
        if match is None or int(match[2]) >= len(channels):
            ending = f"_0000{dataset.ending} to _{len(channels) - 1:04d}{dataset.ending}"
            problems.append(Problem(file, f"Its name ends with none of {ending}."))
        else:
            images.setdefault(match[1], {})[channels[int(match[2])]] = file
    return images


def _listed(
    dataset: Dataset, channels: Sequence[str], ids: Mapping[int, str]
) -> tuple[list[FoundCase], list[Problem]]:
    """Read the explicit list of cases; its paths are absolute or relative to the dataset."""
    found: list[FoundCase] = []
    problems: list[Problem] = []
    for name, entry in (dataset.listed or {}).items():
        try:
            files = [dataset.folder / path for path in entry["images"]]
            label = dataset.folder / entry["label"] if entry.get("label") else None
            images = dict(zip(channels, files, strict=False))
        except (AttributeError, KeyError, TypeError) as error:
            message = f"The entry of a case in dataset.json lacks {error}."
            problems.append(Problem(dataset.folder / "dataset.json", message))
            continue
        if not files or len(files) > len(channels):
            message = f"A case has {len(files)} images; the dataset has {len(channels)} channels."
            problems.append(Problem(dataset.folder / "dataset.json", message))
            continue
        found.append(FoundCase(name, images, _masks(label, ids)))
    return found, problems


def _masks(label: Path | None, ids: Mapping[int, str]) -> tuple[MaskSource, ...]:
    return (LabelFile(label, ids),) if label else ()


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
