"""What reading and writing a project takes: the work that the desk gives to its `files` lane."""

from __future__ import annotations

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


def load_case(project: Project, case: str) -> Annotation:
    """Open a case and read all that its layers will show."""
    annotation = Annotation(project, case)
    for channel in annotation.channels():
        annotation.scene(channel)
    for structure in annotation.structures():
        annotation.mask(structure)
    annotation.save_all()  # what a crash left in the journal alone
    return annotation
