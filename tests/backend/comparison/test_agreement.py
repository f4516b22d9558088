"""The seven parts, their colours, and what is read to be laid over a case."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab

from napari_backsplit.backend.comparison.agreement import (
    CLASSES,
    CLASSES_WITHOUT_REFERENCE,
    OUTLINE_COLOURS,
    agreement,
    classes,
    members,
    part_of,
)
from napari_backsplit.backend.comparison.overlays import load, load_probability, overlay_of
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, write_volume
from tests.backend.structures.drawing import make_project

SEVERE = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
    "none": np.eye(3).tolist(),
}
"""Machado, Oliveira and Fernandes 2009, severity 1.0; for linear RGB."""

APART, FROM_GREY = 10.0, 5.0
"""Least CIEDE2000; about 2 is just noticed when two colours lie side by side."""


def test_each_voxel_is_of_the_part_that_its_three_masks_say() -> None:
    reference = np.array([1, 1, 1, 0, 0, 0, 1, 0], bool).reshape(2, 2, 2)
    baseline = np.array([1, 0, 1, 1, 0, 1, 0, 0], bool).reshape(2, 2, 2)
    new = np.array([1, 1, 0, 1, 1, 0, 0, 0], bool).reshape(2, 2, 2)

    found = agreement(reference, baseline, new)

    assert found.ravel().tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert found.dtype == np.uint8
    assert [part.number for part in CLASSES] == [1, 2, 3, 4, 5, 6, 7]


def test_without_a_reference_nothing_is_said_to_be_right_or_false() -> None:
    baseline, new = np.array([[[1, 1, 0, 0]]]), np.array([[[1, 0, 1, 0]]])

    found = agreement(None, baseline, new)

    assert found.ravel().tolist() == [4, 6, 5, 0]
    assert {part.number for part in CLASSES_WITHOUT_REFERENCE} == {4, 5, 6}
    words = " ".join(part.name + part.words for part in classes(has_reference=False)).lower()
    assert "right" not in words
    assert "false" not in words


@given(st.integers(0, 2**24 - 1))
def test_the_map_gives_all_three_masks_back(bits: int) -> None:
    flat = np.array([bits >> n & 1 for n in range(24)], bool)
    masks = flat.reshape(3, 2, 2, 2)

    found = agreement(*masks)

    for who, mask in zip(("reference", "baseline", "new"), masks, strict=True):
        assert np.array_equal(part_of(found, who), mask)
        assert np.array_equal(np.isin(found, members(who)), mask)


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(1, 1, 2\), \(1, 1, 3\)"):
        agreement(None, np.zeros((1, 1, 2)), np.zeros((1, 1, 3)))


@pytest.mark.parametrize("sight", SEVERE)
def test_the_colours_are_told_apart_by_the_colour_blind_and_on_grey(sight: str) -> None:
    seen = {part.colour: _seen(_rgb(part.colour), sight) for part in CLASSES}
    greys = [_seen(np.full(3, level), sight) for level in np.linspace(0, 1, 21)]

    for one, other in combinations(seen, 2):
        assert deltaE_ciede2000(seen[one], seen[other]) >= APART, (one, other)
    for colour, lab in seen.items():
        assert min(deltaE_ciede2000(lab, grey) for grey in greys) >= FROM_GREY, colour


@pytest.mark.parametrize("sight", SEVERE)
def test_the_outlines_are_told_apart_by_the_colour_blind(sight: str) -> None:
    seen = [_seen(_rgb(colour), sight) for colour in OUTLINE_COLOURS.values()]

    assert min(deltaE_ciede2000(*pair) for pair in combinations(seen, 2)) >= APART


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)])


def _seen(rgb: np.ndarray, sight: str) -> np.ndarray:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.asarray(SEVERE[sight]) @ linear, 0, 1)
    coded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(coded[None, None])[0, 0]


# --- overlays -------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in RAS with one case, its reference, and predictions of two models."""
    with make_project(tmp_path) as project:
        geometry = project.geometry("case_001")
        masks = {name: np.zeros(geometry.shape, np.uint8) for name in ("r", "baseline", "new")}
        masks["r"][2:5, 2:5, 2:5] = 1
        masks["baseline"][2:5, 2:5, 2:4] = 1
        masks["new"][2:5, 2:5, 3:6] = 1
        project.set_mask("case_001", "lesion", Volume(masks["r"], geometry), {"engine": "test"})
        for arm in ("baseline", "new"):
            folder = project.folder / arm / "predictions"
            folder.mkdir(parents=True)
            write_volume(Volume(masks[arm], geometry), folder / "case_001.nii.gz")
        share = masks["new"] * np.float32(0.756)
        probability = project.folder / "new" / "predictions" / "case_001_probability.nii.gz"
        write_volume(Volume(share, geometry), probability)
        return project


def overlay(project: Project, **folders: str):
    folders = folders or {"baseline": "baseline", "new": "new"}
    paths = {arm: (Path(folder),) for arm, folder in folders.items()}
    return overlay_of(project, paths, "case_001", "lesion", "baseline", "new")


def test_an_overlay_is_read_in_the_orientation_of_the_layers(project: Project) -> None:
    found = load(overlay(project))

    # Stored in RAS, x and y run against the canonical axes.
    want = agreement(
        project.mask("case_001", "lesion"), *(_stored(project, arm) for arm in ("baseline", "new"))
    )[:, ::-1, ::-1]
    assert np.array_equal(found.agreement, want)
    assert found.has_reference
    assert found.arms == ("baseline", "new")


def _stored(project: Project, arm: str) -> np.ndarray:
    from napari_backsplit.backend.volume import read_label_map

    return read_label_map(project.folder / arm / "predictions" / "case_001.nii.gz").array


def test_a_missing_prediction_leaves_the_rest(project: Project) -> None:
    value = overlay(project, new="new")

    found = load(value)

    assert value.missing == ("baseline",)
    assert found.arms == ("new",)
    assert part_of(found.agreement, "new").sum() == 27
    assert not part_of(found.agreement, "baseline").any()


def test_a_prediction_on_another_grid_is_refused_with_the_rest_shown(project: Project) -> None:
    file = project.folder / "baseline" / "predictions" / "case_001.nii.gz"
    write_volume(Volume(np.ones((3, 3, 3), np.uint8), _other_grid(project)), file)

    found = load(overlay(project))

    assert found.arms == ("new",)
    (error,) = found.refused
    assert isinstance(error, GeometryError)
    assert "baseline of case_001 is on another grid" in str(error)


def _other_grid(project: Project):
    from dataclasses import replace

    return replace(project.geometry("case_001"), shape=(3, 3, 3))


def test_a_case_without_a_reference_has_the_predictions_alone(project: Project) -> None:
    with Project.open(project.folder) as opened:
        opened.remove_mask("case_001", "lesion")
        found = load(overlay(opened))

    assert not found.has_reference
    assert set(np.unique(found.agreement)) == {0, 4, 5, 6}


def test_a_probability_is_given_in_per_cent(project: Project) -> None:
    per_cent = load_probability(overlay(project), "new")

    assert per_cent is not None
    assert per_cent.dtype == np.uint8
    assert set(np.unique(per_cent)) == {0, 76}
    assert (per_cent == 76).sum() == 27
    assert load_probability(overlay(project), "baseline") is None
