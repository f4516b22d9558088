from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, write_volume

SHAPE = (4, 5, 6)
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def grid(shape: tuple[int, int, int] = SHAPE, origin: float = 0.0) -> Geometry:
    return Geometry(shape, (3.0, 1.5, 1.0), (origin, -20.0, 5.0), AXES)


_seeds = count()


class Maker:
    """Writes small files; every image is different, unless a seed is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def image(self, name: str, *, seed: int | None = None, **grid_options: Any) -> Path:
        geometry = grid(**grid_options)
        random = np.random.default_rng(next(_seeds) if seed is None else seed)
        array = random.normal(size=geometry.shape).astype(np.float32)
        return self.write(name, array, geometry)

    def mask(self, name: str, ids: tuple[int, ...] = (1,), **grid_options: Any) -> Path:
        volume = labelled(ids, **grid_options)
        return self.write(name, volume.array, volume.geometry)

    def write(self, name: str, array: Any, geometry: Geometry | None = None) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(Volume(array, geometry or grid(array.shape)), path)
        return path


def labelled(ids: tuple[int, ...] = (1,), **grid_options: Any) -> Volume:
    """Give the first voxels the ids, one each; () is a mask without any voxel."""
    geometry = grid(**grid_options)
    array = np.zeros(geometry.shape, np.uint8)
    array.flat[: len(ids)] = ids
    return Volume(array, geometry)


@pytest.fixture
def make(tmp_path: Path) -> Maker:
    return Maker(tmp_path / "source")


@pytest.fixture
def labels() -> Callable[..., Volume]:
    return labelled


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    """A project with one channel, one target and three supports."""
    supports = ("liver", "kidney", "spleen")
    with Project.create(tmp_path / "project", "demo", ["CT"], ["lesion"], supports) as project:
        yield project


@pytest.fixture
def two_channels(tmp_path: Path) -> Iterator[Project]:
    channels = ("FLAIR", "T1")
    with Project.create(tmp_path / "two", "demo", channels, ["lesion"], ["brain"]) as project:
        yield project


@pytest.fixture
def filled(project: Project, make: Maker) -> Project:
    """Nine cases of six patients; the cases of the last two patients are free of lesions."""
    for number, patient in enumerate("aabbccdef"):
        image = make.image(f"{number}.nii.gz")
        case = project.add_case({"CT": image}, name=f"n{number}", patient=patient).id
        mask = labelled(() if patient in "ef" else (1,))
        project.set_mask(case, "lesion", mask, {})
    return project
