"""A small project with a foreign model that fits it, and what is asked of them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_backsplit.backend.jobs.devices import Device
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.checks import Check
from napari_backsplit.backend.training.preflight import preflight
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.volume import Geometry, Volume, write_volume
from tests.backend.prediction import tiny_model

CPU = Device("cpu", "a CPU, 2 cores", 8 * 10**9)
GPU = Device("cuda:0", "a GPU", 11 * 10**9)

SHAPE = (12, 20, 20)
SPACING = (2.0, 1.0, 1.0)
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GRID = Geometry(SHAPE, SPACING, (0.0, 0.0, 0.0), AXES)


@dataclass(frozen=True)
class Asked:
    """What an improvement asks for."""

    model: str
    run: RunSpec = field(default_factory=lambda: RunSpec(epochs=250, supports=("kidney",)))
    plan: PlanSpec | None = field(default_factory=lambda: PlanSpec(folds=3))
    control: bool = True
    declare_unseen: bool = False
    folds: tuple[int, ...] = ()
    where: str = ""

    def but(self, **run: Any) -> Asked:
        """Return it with changes of its run."""
        return replace(self, run=self.run.model_copy(update=run))


def box(low: int, high: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Return a mask of a cuboid."""
    mask = np.zeros(shape, np.uint8)
    mask[3:9, 4:16, low:high] = 1
    return mask


MASKS: Mapping[str, np.ndarray] = {"lesion": box(8, 11), "kidney": box(5, 14), "liver": box(0, 4)}


def make_project(
    folder: Path,
    cases: int = 6,
    test: int = 2,
    masks: Mapping[str, np.ndarray] = MASKS,
    accepted: tuple[str, ...] = ("kidney", "liver"),
    targets: tuple[str, ...] = ("lesion",),
    channels: tuple[str, ...] = ("CT",),
) -> Path:
    """Make a project of CT; the last cases are held out."""
    with Project.create(folder, "small", channels, targets, ("kidney", "liver")) as project:
        for number in range(cases):
            add_case(project, folder.parent, number, masks, accepted)
        if test:
            project.reserve_test(ids=project.case_ids()[-test:])
    return folder


def add_case(
    project: Project,
    place: Path,
    number: int,
    masks: Mapping[str, np.ndarray] = MASKS,
    accepted: tuple[str, ...] = ("kidney", "liver"),
    **more: Any,
) -> str:
    """Add a case of random voxels with some masks; return its id."""
    images = {}
    for index, channel in enumerate(project.schema.channel_names):
        voxels = np.random.default_rng([number, index]).normal(size=SHAPE).astype(np.float32)
        file = place / f"image_{number}_{channel}.nii.gz"
        write_volume(Volume(voxels, GRID), file)
        images[channel] = file
    case = project.add_case(images, **more).id
    for name, mask in masks.items():
        project.set_mask(case, name, Volume(mask, GRID), {})
        if name in accepted:
            project.judge(case, "accepted", name)
    return case


def make_model(folder: Path, labels: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Write a foreign model of CT at the project's spacing."""
    plans = {"normalization_schemes": ["CTNormalization"], "spacing": list(SPACING)}
    changes.setdefault("channel_names", {"0": "CT"})
    return tiny_model.write_model(folder, labels, plans_changes=plans, **changes)


def look(folder: Path, asked: Asked, devices: tuple[Device, ...] = (CPU,)) -> dict[str, Check]:
    """Return the lines of a preflight by name."""
    with Project.open(folder, read_only=True) as project:
        checks = preflight(project, asked, available=devices)
    assert len({check.name for check in checks}) == len(checks), "a line each"
    return {check.name: check for check in checks}


def contents(folder: Path) -> set[str]:
    """Return all that lies in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def copy(folder: Path, to: Path) -> Path:
    """Return a copy that a test may change."""
    return Path(shutil.copytree(folder, to))
