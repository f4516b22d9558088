"""A small project with lesions in, beside and between organs, for the advisor's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Geometry, Volume, write_volume

Mask = NDArray[np.bool_]
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SHAPE = (9, 20, 24)
SPACING_MM = (3.0, 1.5, 1.0)
WHOLE = slice(None)


def box(z: Any = WHOLE, y: Any = WHOLE, x: Any = WHOLE, shape: Sequence[int] = SHAPE) -> Mask:
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


NOTHING = box(slice(0), slice(0), slice(0))
KIDNEY = box(slice(1, 8), slice(2, 10), slice(2, 10))
LIVER = box(slice(1, 8), slice(2, 10), slice(12, 22))
IN_KIDNEY = box(slice(3, 5), slice(4, 6), slice(4, 6))
IN_LIVER = box(slice(3, 5), slice(4, 6), slice(16, 18))
OUTSIDE = box(slice(3, 5), slice(16, 18), slice(4, 6))
BOTH = {"kidney": KIDNEY, "liver": LIVER}

Make = Callable[..., Project]


def grid(shape: Sequence[int] = SHAPE) -> Geometry:
    z, y, x = shape
    return Geometry((z, y, x), SPACING_MM, (0.0, 0.0, 0.0), AXES)


def near(lesion: Mask) -> Mask:
    """Within 10 mm, voxel by voxel."""
    steps = np.argwhere(np.ones(lesion.shape))[:, None] - np.argwhere(lesion)[None]
    away = np.linalg.norm(steps * np.asarray(SPACING_MM), axis=2).min(axis=1)
    return np.asarray((away <= 10).reshape(lesion.shape))


def maker(tmp_path: Path) -> Iterator[Make]:
    """Give what makes a project whose cases have some masks; the target is called lesion."""
    projects = []

    def project(
        *cases: Mapping[str, Mask],
        supports: Sequence[str] = ("kidney", "liver"),
        targets: Sequence[str] = ("lesion",),
    ) -> Project:
        made = Project.create(tmp_path / "project", "advised", ["CT"], targets, supports)
        projects.append(made)
        for index, masks in enumerate(cases):
            shape = next(iter(masks.values())).shape
            grid = Geometry(shape, (3.0, 1.5, 1.0), (0.0, 0.0, 0.0), AXES)
            image = np.full(shape, index, np.float32)
            file = tmp_path / f"image_{index}.nii.gz"
            write_volume(Volume(image, grid), file)
            case = made.add_case({"CT": file}, patient=f"patient {index}")
            for name, mask in masks.items():
                made.set_mask(case.id, name, Volume(mask.astype(np.uint8), grid), {})
        return made

    yield project
    for made in projects:
        made.close()


@dataclass(frozen=True, eq=False)
class Seen:
    """A prediction in memory."""

    where: Mask
    eta: NDArray[np.float32] | None = None

    def mask(self) -> Mask:
        return self.where

    def probability(self) -> NDArray[np.float32] | None:
        return self.eta
