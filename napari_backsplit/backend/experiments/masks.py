"""Masks of other sources than the drawn ones: made noisy on phantoms, and measured by Dice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.scoring import dice
from napari_backsplit.backend.structures.simulation import grown
from napari_backsplit.backend.volume import Volume, read_mask

Mask = NDArray[np.bool_]
SMOOTHNESS = 2.0
"""Standard deviation, in voxels, of the noise that moves a border."""


def add_noisy(
    project: Project, supports: Sequence[str], source: str, voxels: float, seed: int
) -> None:
    """Give a phantom's training cases its supports a second time, with borders that are off.

    Parameters
    ----------
    supports : sequence of str
    source : str
        The copy of kidney is named kidney-SOURCE.
    voxels : float
        Standard deviation of the borders' displacement.
    seed : int
    """
    project.set_supports(grown(project, [f"{name}-{source}" for name in supports]))
    for index, case in enumerate(project.training_cases()):
        for place, name in enumerate(supports):
            file = project.mask_path(case, name)
            if file is None:
                continue
            rng = np.random.default_rng([seed, index, place, *source.encode()])
            volume = read_mask(file)
            moved = moved_border(volume.array != 0, voxels, rng).astype(np.uint8)
            copy = Volume(moved, volume.geometry)
            notes = (f"Borders moved at random by about {voxels:g} voxels.",)
            project.set_mask(case, f"{name}-{source}", copy, {"engine": "phantom", "notes": notes})
            project.judge(case, "accepted", f"{name}-{source}", who="phantom")


def moved_border(mask: Mask, voxels: float, rng: np.random.Generator) -> Mask:
    """Return a mask (z, y, x) whose border lies elsewhere, by a smooth random distance.

    An empty mask stays empty.

    Parameters
    ----------
    voxels : float
        Standard deviation of the distance.
    """
    if not mask.any():
        return mask
    outward = ndimage.distance_transform_edt(mask) - ndimage.distance_transform_edt(~mask)
    noise = ndimage.gaussian_filter(rng.standard_normal(mask.shape), SMOOTHNESS)
    moved: Mask = outward + voxels * noise / noise.std() > 0
    return moved


# ---------------------------------------------------------------------- Dice by source


def source_quality(project: Project, source: str) -> dict[str, float]:
    """Return the mean Dice of a source's supports against the project's own, over training cases.

    A support without such a copy is left out, and a case that lacks either or has none of it.
    """
    names = project.schema.support_names
    pairs = [(name, f"{name}-{source}") for name in names if f"{name}-{source}" in names]
    means = {}
    for own, copy in pairs:
        scores = [_dice(project, case, own, copy) for case in project.training_cases()]
        defined = [score for score in scores if score is not None]
        if defined:
            means[own] = fmean(defined)
    return means


def _dice(project: Project, case: str, own: str, copy: str) -> float | None:
    files = project.mask_path(case, own), project.mask_path(case, copy)
    if files[0] is None or files[1] is None:
        return None
    reference, other = (read_mask(file).array != 0 for file in files if file is not None)
    return dice(reference, other)


def measure_sources(file: Path, folder: Path, sources: Mapping[str, str]) -> None:
    """Write the quality of a project's sources, as head of the column -> support -> Dice."""
    with Project.open(folder, read_only=True) as project:
        write_json(file, {head: source_quality(project, name) for name, head in sources.items()})


def read_quality(file: Path) -> dict[str, dict[str, float]]:
    """Return what `measure_sources` wrote; {} before."""
    return read_json(file) if file.exists() else {}
