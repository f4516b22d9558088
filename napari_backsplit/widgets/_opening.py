"""What reading and writing a project takes: the work that the desk gives to its `files` lane."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
import psutil
from napari.layers import Image, Labels

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.sheet import Standing, standing
from napari_backsplit.backend.structures.vocabulary import structure_named

Standings = dict[str, dict[str, Standing]]
"""Case -> structure -> how far it is."""


def survey(project: Project) -> Standings:
    """Return how far every structure of every case is, from the files."""
    names = [s.name for s in project.schema.structures]
    return {c: {n: standing(project, c, n) for n in names} for c in project.case_ids()}


def opened(project: Project) -> tuple[Project, Standings]:
    """Return a project with how far its cases are."""
    return project, survey(project)


def add_support(project: Project, name: str, annotation: Annotation | None) -> None:
    """Add a structure, and begin its mask in the case that is open: its layer will show it."""
    schema = project.schema
    support = structure_named(name, [s.colour for s in schema.structures])
    project.set_supports([*schema.supports, support])
    if annotation is not None:
        annotation.mask(name)


def reload(project: Project, annotation: Annotation | None) -> None:
    """Read a project's file again, and masks that are new in the open case."""
    project.reload()
    if annotation is not None:
        with_masks(annotation)


LATER = (
    "widgets.training",
    "backend.improvement",
    "backend.training.preflight",
    "backend.answer",
    "widgets.comparison",
    "backend.comparing",
)
"""What the third and fourth steps need."""


def warm_up() -> None:
    """Load what is asked for later: pandas and units for napari's first layers, and the review."""
    labels = np.zeros((2, 2, 2), np.uint8)
    for make in (Image, Labels):
        make(labels, units=("mm", "mm", "mm"), axis_labels=("z", "y", "x"))
    import_module("napari_backsplit.widgets.review")


def warm_up_later() -> None:
    """Load what the later steps need; no project that is opened waits for it."""
    for name in LATER:
        import_module(f"napari_backsplit.{name}")


def load_case(project: Project, case: str) -> Annotation:
    """Open a case and read all that its layers will show."""
    annotation = Annotation(project, case)
    for channel in annotation.channels():
        annotation.scene(channel)
    with_masks(annotation)
    annotation.save_all()  # what a crash left in the journal alone
    return annotation


def with_masks(annotation: Annotation) -> Annotation:
    """Read every mask that is not there yet: a structure may be newer than the annotation."""
    for structure in annotation.structures():
        annotation.mask(structure)
    return annotation


MEMORY_SHARE = 0.25
"""Share of the free memory that a case which is read ahead may take."""


class Ahead:
    """The case that is likely to be opened next, read before it is asked for."""

    def __init__(self) -> None:
        self._annotation: Annotation | None = None
        self._contents: dict[str, str] = {}

    def read(self, project: Project, case: str, load: Callable[[Project, str], Annotation]) -> None:
        """Read a case, unless it is there, or large for this machine."""
        known = self._annotation
        if known is not None and known.project is project and known.case == case:
            return
        self._annotation = None
        if _bytes_of(project, case) < MEMORY_SHARE * psutil.virtual_memory().available:
            self._annotation = load(project, case)
            self._contents = project.contents(case)

    def take(self, project: Project, case: str) -> Annotation | None:
        """Return a case that was read, once, and only if its masks are what they were."""
        known, self._annotation = self._annotation, None
        if known is None or known.project is not project or known.case != case:
            return None
        return known if project.contents(case) == self._contents else None


def _bytes_of(project: Project, case: str) -> int:
    """Return about how much an open case takes: float32 channels, masks twice a byte a voxel."""
    value = project.case(case)
    voxels = value.shape[0] * value.shape[1] * value.shape[2]
    return voxels * (4 * len(value.images) + 2 * len(project.schema.structures))
