"""A small project and an engine that answers at once, for tests of the structures room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.engines import About, Answer, EngineCancelled, Request
from napari_backsplit.backend.structures.prompts import slices
from napari_backsplit.backend.volume import Volume, write_volume

SHAPE = (9, 10, 11)
ABOUT = About("cubes", "model of cubes", "CC0-1.0")
RAS = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))


class Cubes:
    """A point adds a cube of radius 1 around it, or removes it; a box is filled."""

    kinds = ("point", "box", "scribble", "lasso")

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.before_answer: Callable[[], None] = lambda: None

    def start(self, tell: Callable[[str], None]) -> About:
        return ABOUT

    def segment(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        self.requests.append(request)
        self.before_answer()
        if cancelled():
            raise EngineCancelled
        prompt = request.prompts[-1]
        sides = zip(prompt.bounds(), request.mask.shape, strict=True)
        grow = 1 if prompt.kind == "point" else 0
        z, y, x = ((max(0, a - grow), min(n, b + grow)) for (a, b), n in sides)
        crop = request.mask[slices((z, y, x))]
        return Answer((z, y, x), np.full(crop.shape, prompt.positive))

    def close(self) -> None:
        pass


def make_project(folder: Path, cases: int = 1, shape: tuple[int, int, int] = SHAPE) -> Project:
    """Make a project whose images are stored in RAS, so that files and canonical arrays differ."""
    project = Project.create(folder / "project", "test", ["CT"], ["lesion"], ["kidney", "liver"])
    rng = np.random.default_rng(0)
    for number in range(cases):
        file = folder / f"image_{number}.nii.gz"
        geometry = Geometry(shape, (3.0, 2.0, 1.0), (5.0, 6.0, 7.0), RAS)
        write_volume(Volume(rng.normal(size=shape).astype(np.float32), geometry), file)
        project.add_case({"CT": file}, name=f"case {number}")
    return project
