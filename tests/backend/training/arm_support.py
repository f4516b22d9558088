"""Small projects whose masks are rows of one slice, so that a label map is read at a glance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from napari_backsplit.backend.geometry import from_parts
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume

LPS = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
SHAPE = (2, 3, 4)
GRID = from_parts(SHAPE, (1, 1, 1), (0, 0, 0), LPS)
ROWS = {"lesion": 0, "left": 1, "right": 2}
WHOLE = tuple(ROWS)


def row(name: str) -> np.ndarray:
    """Return a mask that is one row of the second slice; the first slice is nobody's."""
    mask = np.zeros(SHAPE, bool)
    mask[1, ROWS[name]] = True
    return mask


def make_project(
    folder: Path,
    known: Sequence[Sequence[str]],
    patients: Mapping[int, str] | None = None,
    empty: Sequence[tuple[int, str]] = (),
) -> Project:
    """Make a project with a lesion and two supports, all masks accepted.

    Parameters
    ----------
    known : sequence of sequence of str
        The structures that each case has a mask of.
    patients : mapping, optional
        Number of a case -> patient; else each case is a patient of its own.
    empty : sequence of (int, str)
        Masks without a voxel.
    """
    project = Project.create(folder, "p", ["CT"], ["lesion"], ["left", "right"])
    for number, names in enumerate(known):
        image = folder.parent / f"{number}.nii.gz"
        write_volume(Volume(np.full(SHAPE, number, np.int16), GRID), image)
        patient = (patients or {}).get(number, f"patient-{number}")
        case = project.add_case({"CT": image}, patient=patient).id
        for name in names:
            mask = row(name) & ((number, name) not in empty)
            project.set_mask(case, name, Volume(mask, GRID), {})
            project.judge(case, "accepted", name)
    return project
