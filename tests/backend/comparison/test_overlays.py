"""What is laid over a case: which files, on which grid, in which orientation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_backsplit.backend.comparison.agreement import part_of
from napari_backsplit.backend.comparison.overlays import (
    Overlay,
    load,
    load_probability,
    overlay_of,
)
from napari_backsplit.backend.errors import GeometryError
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.structures.drawing import make_project

CASE = "case_001"
FOLDERS = {"old": (Path("old"),), "ours": (Path("ours"),)}


def marked(geometry: Geometry, *voxels: tuple[int, int, int]) -> Volume:
    """Return a mask, as stored, of some voxels."""
    mask = np.zeros(geometry.shape, np.uint8)
    for voxel in voxels:
        mask[voxel] = 1
    return Volume(mask, geometry)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A case stored in RAS, whose lesion and two predictions share a voxel."""
    project = make_project(tmp_path)
    geometry = project.geometry(CASE)
    project.set_mask(CASE, "lesion", marked(geometry, (1, 2, 3), (1, 2, 4)), {"engine": "test"})
    write(project, "old", marked(geometry, (1, 2, 3), (0, 0, 0)))
    write(project, "ours", marked(geometry, (1, 2, 3), (1, 2, 4)))
    return project


def write(project: Project, arm: str, volume: Volume, end: str = "") -> Path:
    folder = project.folder / arm / "predictions"
    folder.mkdir(parents=True, exist_ok=True)
    write_volume(volume, folder / f"{CASE}{end}.nii.gz")
    return folder / f"{CASE}{end}.nii.gz"


def overlay(project: Project) -> Overlay:
    return overlay_of(project, FOLDERS, CASE, "lesion", "old", "ours")


def test_masks_are_laid_over_the_canonical_image(project: Project) -> None:
    loaded = load(overlay(project))
    geometry = project.geometry(CASE)
    for who, voxels in (
        ("reference", [(1, 2, 3), (1, 2, 4)]),
        ("baseline", [(1, 2, 3), (0, 0, 0)]),
        ("new", [(1, 2, 3), (1, 2, 4)]),
    ):
        want = marked(geometry, *voxels).canonical().array
        assert np.array_equal(part_of(loaded.agreement, who), want != 0), who
    assert not np.array_equal(marked(geometry, (0, 0, 0)).array, want)
    assert loaded.arms == ("old", "ours")


def test_a_prediction_that_is_missing_marks_nothing(project: Project) -> None:
    (project.folder / "ours" / "predictions" / f"{CASE}.nii.gz").unlink()
    found = overlay(project)
    assert found.missing == ("ours",)
    loaded = load(found)
    assert loaded.arms == ("old",)
    assert not part_of(loaded.agreement, "new").any()
    assert part_of(loaded.agreement, "baseline").sum() == 2
    assert not loaded.refused


def test_a_prediction_on_another_grid_is_refused_and_the_rest_shown(project: Project) -> None:
    geometry = project.geometry(CASE)
    moved = replace(geometry, spacing_mm=tuple(2 * mm for mm in geometry.spacing_mm))
    write(project, "ours", marked(moved, (1, 2, 3)))
    loaded = load(overlay(project))
    assert loaded.arms == ("old",)
    assert [type(error) for error in loaded.refused] == [GeometryError]
    assert "ours" in str(loaded.refused[0])
    assert part_of(loaded.agreement, "baseline").sum() == 2


def test_a_case_without_a_reference_says_no_voxel_is_right(project: Project) -> None:
    loaded = load(replace(overlay(project), reference=None))
    assert not loaded.has_reference
    assert set(np.unique(loaded.agreement)) <= {0, 4, 5, 6}


def test_a_probability_is_given_in_per_cent_and_only_where_there_is_a_map(
    project: Project,
) -> None:
    assert load_probability(overlay(project), "ours") is None
    geometry = project.geometry(CASE)
    share = np.zeros(geometry.shape, np.float32)
    share[0, 0, 0], share[1, 2, 3], share[1, 2, 4] = np.nan, 0.254, 1.5
    write(project, "ours", Volume(share, geometry), "_probability")
    per_cent = load_probability(overlay(project), "ours")
    assert per_cent is not None
    want = marked(geometry, (1, 2, 3)).canonical().array * 25
    want += marked(geometry, (1, 2, 4)).canonical().array * 100
    assert np.array_equal(per_cent, want)
