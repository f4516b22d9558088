import json
from dataclasses import FrozenInstanceError
from time import process_time

import cc3d
import numpy as np
import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.phantom import (
    NOTE,
    STRUCTURES,
    PhantomSpec,
    draw,
    sample_cases,
    sample_project,
    write_sample,
)
from napari_backsplit.backend.volume import read_label_map, read_mask, read_volume

WITH_LESION = PhantomSpec(lesion_free=0.0)
COARSE = PhantomSpec(shape=(20, 30, 30))


@pytest.fixture(scope="module")
def phantoms():
    return [draw(seed, WITH_LESION) for seed in range(6)]


def centroid(mask):
    return np.argwhere(mask).mean(0)


def test_the_same_seed_gives_the_same_voxels():
    one, other = draw(3), draw(3)
    assert np.array_equal(one.image.array, other.image.array)
    assert all(np.array_equal(one.masks[name], other.masks[name]) for name in one.masks)
    assert one.lesions == other.lesions
    assert not np.array_equal(one.image.array, draw(4).image.array)


def test_a_phantom_says_that_it_is_synthetic(phantoms):
    assert phantoms[0].image.notes == (NOTE,)
    assert NOTE.startswith("SYNTHETIC")


def test_image_is_a_coarse_ct_in_lps(phantoms):
    image = phantoms[0].image
    assert image.array.dtype == np.int16
    assert image.array.shape == (40, 60, 60)
    assert image.spacing_mm == pytest.approx((4.8, 4.8, 4.8))
    assert np.allclose(image.direction, np.eye(3))
    assert np.allclose(image.geometry.to_lps((19.5, 29.5, 29.5)), 0)


def test_organs_are_where_they_belong(phantoms):
    for phantom in phantoms:
        z, y, x = range(3)
        at = {name: centroid(mask) for name, mask in phantom.masks.items() if mask.any()}
        assert at["liver"][x] < at["spine"][x] < at["spleen"][x]  # liver on the patient's right
        assert at["aorta"][x] > at["vena_cava"][x]
        assert at["gallbladder"][x] < at["spine"][x] < at["stomach"][x]
        assert at["bowel"][y] < at["kidney"][y] < at["csf"][y]  # posterior is +y
        assert at["bowel"][z] < at["liver"][z]  # superior is +z
        left, right = (
            centroid(phantom.masks["kidney"] & side)
            for side in (np.arange(60) >= 30, np.arange(60) < 30)
        )
        assert right[z] < left[z]


def test_structures_do_not_overlap_and_fill_the_body(phantoms):
    for phantom in phantoms:
        owners = sum(phantom.masks[name].astype(int) for name in STRUCTURES[1:])
        assert set(np.unique(owners)) == {0, 1}
        assert (phantom.image.array[owners == 0] < -800).mean() > 0.9
        assert all(phantom.masks[name].any() for name in STRUCTURES[1:])


def test_kidney_includes_the_lesions_and_nothing_else_does(phantoms):
    for phantom in phantoms:
        lesion = phantom.masks["lesion"]
        assert not (lesion & ~phantom.masks["kidney"]).any()
        assert not any((lesion & phantom.masks[n]).any() for n in STRUCTURES[1:] if n != "kidney")


def test_each_lesion_is_one_component_around_its_centre(phantoms):
    for phantom in phantoms:
        lesion = phantom.masks["lesion"]
        assert cc3d.connected_components(lesion, connectivity=26).max() == len(phantom.lesions)
        assert 1 <= len(phantom.lesions) <= 4
        for cyst in phantom.lesions:
            assert lesion[tuple(np.rint(cyst.center_vox).astype(int))]
            assert all(8 < radius <= 18.2 for radius in cyst.radii_mm)


def test_look_alikes_have_the_intensity_of_lesions_and_kidney_that_of_an_organ(phantoms):
    values = {
        name: np.concatenate([p.image.array[p.masks[name]] for p in phantoms])
        for name in ("lesion", "gallbladder", "csf", "liver", "kidney")
    }
    medians = {name: float(np.median(hu)) for name, hu in values.items()}
    assert -5 < medians["lesion"] < 30
    assert abs(medians["gallbladder"] - medians["lesion"]) < 25
    assert medians["csf"] < 60
    assert medians["liver"] > 65
    assert medians["kidney"] > medians["liver"]


def test_look_alikes_lie_outside_the_kidney():
    spec = PhantomSpec(lesion_free=1.0, liver_cysts=6, splenic_cysts=3)
    phantom = draw(11, spec)
    assert len(phantom.look_alikes) >= 4
    assert not phantom.masks["lesion"].any()
    assert phantom.lesions == ()
    centers = [tuple(np.rint(cyst.center_vox).astype(int)) for cyst in phantom.look_alikes]
    assert all((phantom.masks["liver"] | phantom.masks["spleen"])[at] for at in centers)
    assert np.median([phantom.image.array[at] for at in centers]) < 30


def test_about_a_third_of_the_draws_have_no_lesion():
    free = sum(not draw(seed, COARSE).lesions for seed in range(60))
    assert 10 <= free <= 30


def test_a_larger_shape_is_a_finer_phantom_of_the_same_size():
    coarse, fine = draw(5, WITH_LESION), draw(5, PhantomSpec((80, 120, 120), lesion_free=0.0))
    assert fine.image.spacing_mm == pytest.approx((2.4, 2.4, 2.4))
    for name in ("liver", "kidney", "spine", "fat"):
        volumes = [p.masks[name].sum() * p.image.geometry.voxel_ml for p in (coarse, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.15)


def test_union_joins_masks(phantoms):
    masks = phantoms[0].masks
    joined = phantoms[0].union(("bowel", "gallbladder"))
    assert joined.sum() == masks["bowel"].sum() + masks["gallbladder"].sum()


def test_a_case_takes_less_than_half_a_second():
    draw(0)
    times = []
    for seed in range(3):
        start = process_time()
        draw(seed)
        times.append(process_time() - start)
    assert min(times) < 0.5


def test_spec_is_frozen_and_refuses_a_tiny_shape():
    with pytest.raises(FrozenInstanceError):
        COARSE.noise_hu = 3  # type: ignore[misc]
    with pytest.raises(InputError, match=r"\(4, 30, 30\)"):
        PhantomSpec(shape=(4, 30, 30))


@pytest.mark.parametrize(("train", "test"), [(16, 24), (2, 2), (3, 0), (1, 1)])
def test_each_part_of_a_sample_has_both_kinds(train, test):
    cases = sample_cases(7, train, test)
    assert [case.test for case in cases] == [False] * train + [True] * test
    for part in (cases[:train], cases[train:]):
        free = [case.spec.lesion_free == 1 for case in part]
        assert sum(free) == (round(len(part) / 3) or int(len(part) > 1))
    assert len({case.seed for case in cases}) == train + test


@pytest.mark.parametrize(
    ("share", "free"), [(0, [0, 0]), (0.01, [1, 1]), (0.5, [3, 2]), (1, [6, 4])]
)
def test_the_share_of_lesion_free_cases(share, free):
    cases = sample_cases(7, 6, 4, PhantomSpec(lesion_free=share))
    parts = (cases[:6], cases[6:])
    assert [sum(case.spec.lesion_free == 1 for case in part) for part in parts] == free


def test_a_lesion_case_of_a_sample_has_a_lesion():
    for case in sample_cases(7, 6, 0, COARSE):
        assert bool(case.draw().lesions) == (case.spec.lesion_free == 0)


def test_a_written_sample_reads_back(tmp_path):
    cases = write_sample(tmp_path, 1, train=2, test=1, spec=COARSE)
    assert "SYNTHETIC" in (tmp_path / "README.md").read_text(encoding="utf-8")
    description = json.loads((tmp_path / "sample.json").read_text(encoding="utf-8"))
    assert description["note"] == NOTE
    assert description["train"] == ["synthetic_001", "synthetic_002"]
    assert description["test"] == ["synthetic_003"]
    phantom = cases[2].draw()
    image = read_volume(tmp_path / "images/synthetic_003.nii.gz")
    assert np.array_equal(image.array, phantom.image.array)
    assert image.geometry.difference(phantom.image.geometry) is None
    labels = read_label_map(tmp_path / "labels/synthetic_003.nii.gz").array
    kidney = read_mask(tmp_path / "masks/kidney/synthetic_003.nii.gz").array
    lesion = labels == description["labels"]["lesion"]
    assert np.array_equal(kidney, lesion | (labels == description["labels"]["kidney"]))
    assert len(description["lesions"]["synthetic_003"]) == len(phantom.lesions)


def test_a_sample_project_is_ready_to_train(tmp_path):
    with sample_project(tmp_path / "sample", 1, train=3, test=2, spec=COARSE) as project:
        assert len(project.training_cases()) == 3
        assert len(project.test_cases()) == 2
        assert project.schema.target_names == ("lesion",)
        assert project.schema.support_names == ("kidney", "liver", "bowel")
        assert [project.has_lesion(case) for case in project.test_cases()].count(False) == 1
        for case in project.case_ids():
            masks = project.masks(case)
            assert not (masks["lesion"] & ~masks["kidney"]).any()
            assert "SYNTHETIC" in project.provenance(case, "bowel").notes[0]
        assert project.verify_images() == ()
    assert "SYNTHETIC" in (tmp_path / "sample/README.md").read_text(encoding="utf-8")
    assert not list((tmp_path / "sample").glob(".synthetic*"))
