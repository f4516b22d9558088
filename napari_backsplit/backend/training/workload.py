"""What a training has to compute: its plans, patch, batch and classes. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import list_jobs
from napari_backsplit.backend.prediction.archive import unpack_zip
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.trust import check_plans
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.training.architectures import (
    RESIDUAL,
    monai_name,
    with_architecture,
)
from napari_backsplit.backend.training.checks import Wanted
from napari_backsplit.backend.training.run_scheme import supports_of
from napari_backsplit.backend.training.spec import PLANS_NAME, PlanSpec, RunSpec

_MEASURED = ("batch_size", "patch_size", "architecture", "batch_dice", "normalization_schemes")
_SAME = {"epochs", "initial_lr", "seed", "fold", "plan_set", "supports", "masks", "arm",
         "recipe", "support_count", "support_cases", "missing", "epsilon", "final_lr", "schedule",
         "baseline", "baseline_checkpoint", "label_mapping", "tracker"}  # fmt: skip
_IN_THE_WAY: Mapping[str, Any] = {
    "hours": None,
    "until": None,
    "same_epochs_as": None,
    "patience": None,
    "picture_every": 0,
    "tracker": "none",
    "baseline": None,
    "curriculum_epochs": 0,
    "freeze_encoder_epochs": 0,
    "warmup_epochs": 0,
}
_HARD: Mapping[str, Any] = {
    "labels": "hard",
    "activation": "softmax",
    "loss": "dice-ce",
    "round_labels": False,
}
"""What is measured in place of soft labels, which random images do not have: it is said."""


@dataclass(frozen=True)
class Workload:
    """A training as far as time and memory go.

    Attributes
    ----------
    plans : dict
        nnU-Net's plans with one configuration, network, patch and batch as the run has them; their
        names have passed the trust check. A residual encoder is planned by nnU-Net, in the
        process that measures: until then they are the plan set's.
    spec : RunSpec
        The run, without what only matters for a whole training.
    channels : int
    targets, supports : tuple of str
        The classes beside the background.
    chosen : PlanSpec
        What a person chose of the plan set.
    """

    plans: dict[str, Any]
    spec: RunSpec
    channels: int
    targets: tuple[str, ...]
    supports: tuple[str, ...]
    chosen: PlanSpec = field(default_factory=PlanSpec)

    def at_patch(self, patch: Sequence[int] | None) -> Workload:
        """Return it with the patch that a probe found; a residual encoder plans its own."""
        if not patch:
            return self
        ((name, configuration),) = self.plans["configurations"].items()
        configurations = {name: {**configuration, "patch_size": list(patch)}}
        return replace(self, plans={**self.plans, "configurations": configurations})

    @property
    def configuration(self) -> dict[str, Any]:
        """The one configuration of the plans."""
        (only,) = self.plans["configurations"].values()
        return dict(only)

    @property
    def patch(self) -> tuple[int, ...]:
        """Voxels of a patch, in the network's order of axes."""
        return tuple(int(size) for size in self.configuration["patch_size"])

    @property
    def batch(self) -> int:
        """Patches in a batch."""
        return int(self.configuration["batch_size"])

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Spacing of the network's grid, mm, in the file's order of axes."""
        values = tuple(float(mm) for mm in self.configuration["spacing"])
        order = self.plans.get("transpose_backward", range(len(values)))
        return tuple(values[axis] for axis in order) if len(order) == len(values) else values

    @property
    def classes(self) -> int:
        """Classes with the background."""
        return 1 + len(self.targets) + len(self.supports)

    def key(self, device_title: str) -> str:
        """Return a hash of all that decides its time and memory, on a device."""
        parts = {
            "plans": {key: self.configuration.get(key) for key in _MEASURED},
            "run": self.spec.model_dump(mode="json", exclude=_SAME),
            "channels": self.channels,
            "classes": self.classes,
            "device": device_title,
            "versions": [_version(name) for name in ("torch", "nnunetv2", *self._packages)],
            **({"chosen": self.chosen.model_dump(mode="json")} if self._to_be_planned else {}),
            "cores": os.cpu_count(),
        }
        text = json.dumps(parts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def _packages(self) -> tuple[str, ...]:
        return ("monai",) if monai_name(self.configuration) else ()

    @property
    def _to_be_planned(self) -> bool:
        return self.spec.architecture in RESIDUAL

    def as_json(self) -> dict[str, Any]:
        """Return it as plain JSON, for the process that measures it."""
        return {
            "plans": self.plans,
            "spec": self.spec.model_dump(mode="json"),
            "channels": self.channels,
            "targets": self.targets,
            "supports": self.supports,
            "chosen": self.chosen.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Workload:
        """Read it, and refuse plans that name anything but nnU-Net's own parts."""
        check_plans(value["plans"])
        return cls(
            plans=value["plans"],
            spec=RunSpec.model_validate(value["spec"]),
            channels=value["channels"],
            targets=tuple(value["targets"]),
            supports=tuple(value["supports"]),
            chosen=PlanSpec.model_validate(value["chosen"]),
        )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def workload(project: ProjectReader, wanted: Wanted) -> Workload | None:
    """Return what a fine-tune has to compute; None before its plans are known.

    The plans are the plan set's where it is made, else the baseline's.

    Raises
    ------
    BackSplitError
        The baseline is no model that can be used.
    """
    plans = known_plans(project.folder, wanted)
    if plans is None:
        return None
    check_plans(plans)
    run, schema = wanted.run, project.schema
    made = plan_set_of(project.folder, run.plan_set)
    extra = ("virtual",) if run.arm in ("virtual", "virtual-set") else ()
    measured = {**_IN_THE_WAY, **(_HARD if run.labels == "soft" else {})}
    return Workload(
        plans=plans_of_run(plans, run)[0],
        spec=run.model_copy(update=measured),
        channels=len(schema.channels),
        targets=schema.target_names,
        supports=supports_of(project, run) or extra,
        chosen=PlanSpec.model_validate(made.spec) if made else PlanSpec(),
    )


def plans_of_run(plans: Mapping[str, Any], run: RunSpec) -> tuple[dict[str, Any], list[str]]:
    """Return the plans as a run trains them, and what is other than planned.

    A residual encoder is planned by the process that trains it: it needs nnU-Net.

    Raises
    ------
    InputError
        The network does not go with the plans or with the patch, or its package is missing.
    """
    ((name, configuration),) = plans["configurations"].items()
    if run.architecture not in RESIDUAL:
        return with_architecture(plans, name, run)
    own = {"batch_size": run.batch_size, "patch_size": run.patch_size and list(run.patch_size)}
    changed = {key: value for key, value in own.items() if value is not None}
    return {**plans, "configurations": {name: {**configuration, **changed}}}, []


def known_plans(project_folder: Path, wanted: Wanted) -> dict[str, Any] | None:
    """Return the plans of a run, cut to one configuration; None where they are still to be made."""
    made = plan_set_of(project_folder, wanted.run.plan_set)
    if made is not None and made.plans is not None:
        return made.plans
    if not (wanted.run.baseline or wanted.model):
        return None
    with named_model(project_folder, wanted) as model:
        dropped = ("inherits_from", "next_stage", "previous_stage")
        configuration = {k: v for k, v in model.settings.items() if k not in dropped}
        return {**model.plans, "configurations": {model.configuration: configuration}}


@dataclass(frozen=True)
class MadePlanSet:
    """A plan set as its file says; `prepare` has the whole of it, and needs nnU-Net.

    Attributes
    ----------
    spec : dict
    cases : tuple of str
    splits : tuple of dict
    plans : dict or None
        None where planning has not come that far.
    ready : bool
        Planned and preprocessed to the end.
    vanished : dict or None
        Case -> lesions without a voxel on the network's grid; None before it is ready.
    """

    spec: dict[str, Any]
    cases: tuple[str, ...]
    splits: tuple[dict[str, list[str]], ...]
    plans: dict[str, Any] | None
    ready: bool
    vanished: dict[str, int] | None


def plan_set_of(project_folder: Path, name: str) -> MadePlanSet | None:
    """Read what is known of a plan set; None where there is none of this name."""
    folder = project_folder / "nnunet"
    file = folder / "plan_sets" / f"{name}.json"
    if not file.is_file():
        return None
    content = read_json(file)
    arrays = folder / "preprocessed" / content["arms"].get("binary", "none")
    plans_file, labels = arrays / f"{PLANS_NAME}.json", arrays / "labels.json"
    counted = read_json(labels) if content["ready"] and labels.exists() else None
    return MadePlanSet(
        spec=content["spec"],
        cases=tuple(content["cases"]),
        splits=tuple(content["splits"]),
        plans=read_json(plans_file) if plans_file.exists() else None,
        ready=bool(content["ready"]),
        vanished=counted and {case: int(entry["vanished"]) for case, entry in counted.items()},
    )


@contextmanager
def named_model(project_folder: Path, wanted: Wanted) -> Iterator[ModelFolder]:
    """Open the model that a fine-tune starts from, and leave nothing of it in the project.

    A zip is unpacked elsewhere for as long as it is looked at.

    Raises
    ------
    InputError, UntrustedModelError
        There is no such model, it is not whole, or it names code to run.
    """
    name = wanted.run.baseline or wanted.model
    path = model_place(project_folder, name)
    checkpoint = wanted.run.baseline_checkpoint
    if path.suffix == ".zip" and path.is_file():
        with TemporaryDirectory(prefix="backsplit-") as unpacked:
            yield _open(unpack_zip(path, Path(unpacked) / "model"), checkpoint)
    else:
        yield _open(path, checkpoint)


def _open(path: Path, checkpoint: str) -> ModelFolder:
    """Open a model with the checkpoint that the run names or, before it was adopted, any."""
    try:
        return ModelFolder.open(path, checkpoint=checkpoint)
    except InputError:
        if checkpoint != RunSpec.model_fields["baseline_checkpoint"].default:
            raise
        return ModelFolder.open(path)


def model_place(project_folder: Path, model: str) -> Path:
    """Return where a model lies: a number of a job, a path in the project, or any other.

    Raises
    ------
    InputError
        There is no such job and nothing of this name.
    """
    for job in list_jobs(project_folder):
        number = job.id.partition("-")[0]
        if model == job.id or (model.isdigit() and int(number) == int(model)):
            return _model_of(job.id, job.spec.task, job.folder)
    for path in (project_folder / model, Path(model)):
        if model and path.exists():
            return path
    raise InputError(
        f"There is no training job and no model folder {model!r}.",
        "Choose a training job of the project, an nnU-Net model folder, or its zip.",
    )


def _model_of(job: str, task: str, folder: Path) -> Path:
    if task != "train":
        raise InputError(f"Job {job} is no training.", "Choose a training job.")
    if not (folder / "model").is_dir():
        raise InputError(f"Job {job} has left no model.", "Let the training end first.")
    return folder / "model"
