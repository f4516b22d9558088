"""A small cohort for the tests of the review: images of noise, masks as the test draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, write_volume

SHAPE = (8, 8, 8)
EYE = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GRID = Geometry(SHAPE, (10.0, 10.0, 10.0), (0.0, 0.0, 0.0), EYE)
"""A voxel is 1 ml; its axes point toward left, back and head."""


def make_cohort(
    folder: Path,
    cases: int,
    geometry: Geometry = GRID,
    ending: str = ".nii.gz",
    channel: str = "CT",
) -> Project:
    """Return a project with a target, lesion, and the supports liver and kidney; no mask yet."""
    rng = np.random.default_rng(0)
    project = Project.create(folder / "p", "p", [channel], ["lesion"], ["liver", "kidney"])
    for index in range(cases):
        file = folder / f"DOE_JOHN_{index}{ending}"
        array = rng.integers(0, 99, geometry.shape).astype(np.int16)
        write_volume(Volume(array, geometry), file)
        project.add_case({channel: file})
    return project


def put(project: Project, case: str, structure: str, where: Any, geometry: Geometry = GRID) -> None:
    """Set a mask; `where` is what of it is True, () nothing."""
    mask = np.zeros(geometry.shape, bool)
    if where != ():
        mask[where] = True
    project.set_mask(case, structure, Volume(mask, geometry), {"engine": "test"}, replace=True)
