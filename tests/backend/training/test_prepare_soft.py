"""Soft labels on the network's grid: linear, never rounded, and in step with nnU-Net's labels."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from scipy import ndimage

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.arms import ArmScheme, arm_scheme
from napari_backsplit.backend.training.nnunet import Preprocessing, read_properties
from napari_backsplit.backend.training.prepare import PlanSet, open_plan_set, prepare_arm
from napari_backsplit.backend.training.soft_labels import as_read, stored
from napari_backsplit.backend.training.trainer import BackSplitTrainer
from napari_backsplit.backend.volume import Volume, write_volume

GRIDS = {  # image spacing and shape, spacing of the network, axes of the network
    "the same grid": ((2.0, 1.0, 1.0), (9, 20, 22), (2.0, 1.0, 1.0), (0, 1, 2)),
    "finer": ((2.0, 1.5, 1.5), (9, 14, 12), (1.1, 0.9, 0.8), (0, 1, 2)),
    "half, where ties are": ((1.0, 1.0, 1.0), (16, 20, 24), (2.0, 2.0, 2.0), (0, 1, 2)),
    "twice": ((2.0, 2.0, 2.0), (8, 9, 10), (1.0, 1.0, 1.0), (0, 1, 2)),
    "a third": ((1.0, 1.0, 1.0), (15, 18, 21), (3.0, 3.0, 3.0), (0, 1, 2)),
    "separate z": ((5.0, 0.8, 0.8), (8, 24, 20), (5.0, 1.3, 1.1), (0, 1, 2)),
    "separate z, resampled": ((6.0, 1.0, 1.0), (8, 24, 20), (4.0, 2.0, 2.0), (0, 1, 2)),
    "thick to isotropic": ((6.0, 1.0, 1.0), (6, 20, 18), (1.5, 1.5, 1.5), (0, 1, 2)),
    "turned axes": ((1.0, 1.0, 5.0), (18, 20, 7), (5.0, 2.0, 2.0), (2, 0, 1)),
    "slices": ((3.0, 1.0, 1.0), (7, 20, 22), (2.0, 2.0), (0, 1, 2)),
}


def _preprocessing(spacing: tuple[float, ...], transpose: tuple[int, ...]) -> Preprocessing:
    """Resampling as nnU-Net plans it, for a grid."""
    seg = {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "spacing": list(spacing),
        "patch_size": [16] * len(spacing),
        "architecture": {},
        "use_mask_for_norm": [False],
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": seg,
    }
    plans = {
        "configurations": {"c": configuration},
        "transpose_forward": list(transpose),
        "transpose_backward": np.argsort(transpose).tolist(),
    }
    dataset = {"labels": {"background": 0, "lesion": 1}, "backsplit": {"targets": ["lesion"]}}
    return Preprocessing(plans, "c", dataset)


def _properties(
    shape: tuple[int, ...], spacing: tuple[float, ...], transpose: tuple[int, ...], margin: int = 0
) -> dict[str, Any]:
    turned = [shape[axis] for axis in transpose]
    return {"spacing": spacing, "bbox_used_for_cropping": [[margin, n - margin] for n in turned]}


def _random_mask(shape: tuple[int, ...], seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, seed % 3 * 0.7)
    return smooth > np.quantile(smooth, 0.6)


@pytest.mark.parametrize("name", GRIDS)
@given(seed=st.integers(0, 2**16))
@settings(max_examples=6, deadline=None)
def test_a_hard_mask_above_half_is_nnunets_own_label(name: str, seed: int) -> None:
    spacing, shape, wanted, transpose = GRIDS[name]
    preprocessing = _preprocessing(wanted, transpose)
    properties = _properties(shape, spacing, transpose, margin=seed % 2)
    mask = _random_mask(shape, seed)

    share = preprocessing._share(mask.astype(np.float32), properties)
    label = preprocessing.resample(mask, properties)[0]

    assert share.dtype == np.float16
    np.testing.assert_array_equal(share > 0.5, label == 1)
    np.testing.assert_array_equal(share >= 0.5, label == 1)


@pytest.mark.parametrize("name", ["half, where ties are", "separate z, resampled", "turned axes"])
def test_shares_are_linear_and_within_5e4_of_it(name: str) -> None:
    """Against an interpolation written out, in float64."""
    spacing, shape, wanted, transpose = GRIDS[name]
    preprocessing, properties = (
        _preprocessing(wanted, transpose),
        _properties(shape, spacing, transpose),
    )
    soft = np.random.default_rng(1).random(shape).astype(np.float32)
    share = preprocessing._share(soft, properties)

    turned = soft.transpose(transpose).astype(np.float64)
    steps = [spacing[axis] for axis in transpose]
    separate = 0 if max(steps) / min(steps) > 3 else None  # nnU-Net's threshold
    places = [
        (np.arange(m) + 0.5) * n / m - 0.5 for n, m in zip(turned.shape, share.shape, strict=True)
    ]
    if separate is not None:
        places[0] = np.floor(places[0] + 0.5)
    expected = ndimage.map_coordinates(
        turned, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest"
    )
    assert np.abs(share - expected).max() < 5e-4
    assert ((share > 0.01) & (share < 0.99)).any()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50))
def test_stored_shares_stay_near_and_on_their_side_of_one_half(values: list[float]) -> None:
    shares = np.array([*values, 0.5, np.nextafter(np.float32(0.5), 1), 0.49999], np.float32)
    kept = stored(shares)
    assert np.abs(kept.astype(np.float64) - shares).max() < 5e-4
    np.testing.assert_array_equal(kept > 0.5, shares > 0.5)
    np.testing.assert_array_equal(kept >= 0.5, shares >= 0.5)


# --- a project's arms -----------------------------------------------------------------------------


def _quiet(what: str, done: int, total: int) -> None:
    pass


def _array(plan_set: PlanSet, arm: str, case: str, kind: str) -> Any:
    return blosc2.open(str(plan_set.arrays(arm) / f"{case}_{kind}.b2nd"), mode="r")[:]


def _feathered(project: Project, case: str) -> np.ndarray:
    blurred = ndimage.gaussian_filter(project.mask(case, "lesion").astype(np.float32), 1.0)
    return np.clip(blurred, 0, 1)


@pytest.fixture(scope="module")
def project(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The small project with a soft mask in one case."""
    folder = tmp_path_factory.mktemp("soft") / "project"
    shutil.copytree(planned, folder)
    with Project.open(folder) as opened:
        shares = _feathered(opened, "case_001")
        opened.set_soft_mask("case_001", "lesion", shares, {"soft": "float mask"})
        yield opened


def _complete(project: Project, plan_set: PlanSet) -> ArmScheme:
    """An arm of the supports that every case has."""
    return arm_scheme(project, "backsplit", ("kidney", "bowel"), plan_set.cases, "unreviewed")


@pytest.fixture(scope="module")
def arm(project: Project) -> tuple[PlanSet, str]:
    plan_set = open_plan_set(project, "own")
    return prepare_arm(project, plan_set, _complete(project, plan_set), _quiet, soft=True)


def test_an_arm_with_shares_has_a_name_and_a_card_of_its_own(
    project: Project, arm: tuple[PlanSet, str]
) -> None:
    plan_set, name = arm
    scheme = _complete(project, plan_set)
    assert name == f"{scheme.name}-soft"
    card = read_json(plan_set.preprocessed(name) / "dataset.json")["backsplit"]["soft"]
    assert card["case_001"] == {"lesion": "float mask"}
    assert {case: card[case] for case in plan_set.cases if case != "case_001"} == {
        case: {"lesion": "resampled"} for case in plan_set.cases if case != "case_001"
    }
    plan_set, hard = prepare_arm(project, plan_set, scheme, _quiet)
    assert hard == scheme.name
    assert "soft" not in read_json(plan_set.preprocessed(hard) / "dataset.json")["backsplit"]
    assert not list(plan_set.arrays(hard).glob("*_soft.b2nd"))
    for case in plan_set.cases:
        codes = _array(plan_set, name, case, "seg")
        np.testing.assert_array_equal(codes, _array(plan_set, hard, case, "seg"))


def test_shares_lie_on_the_grid_of_the_codes(arm: tuple[PlanSet, str]) -> None:
    plan_set, name = arm
    for case in plan_set.cases:
        codes, shares = (_array(plan_set, name, case, kind) for kind in ("seg", "soft"))
        assert shares.shape == (3, *codes.shape[1:])
        assert shares.dtype == np.float16
        assert shares.min() >= 0
        assert shares.astype(float).sum(axis=0).max() < 1 + 3 * 5e-4
    assert not list(plan_set.preprocessed(name).glob(".soft-*"))


def test_without_a_soft_mask_the_target_above_half_is_the_hard_one(
    arm: tuple[PlanSet, str],
) -> None:
    plan_set, name = arm
    for case in sorted(set(plan_set.cases) - {"case_001"}):
        codes, shares = (_array(plan_set, name, case, kind) for kind in ("seg", "soft"))
        np.testing.assert_array_equal(shares[0] > 0.5, codes[0] == 1)
        for channel, code in ((1, 2), (2, 3)):  # where three classes meet, none may have half
            more = (shares[channel] > 0.5) & (codes[0] != code)
            assert more.mean() < 1e-3


def test_a_soft_mask_takes_first_and_supports_have_what_it_leaves(
    project: Project, arm: tuple[PlanSet, str]
) -> None:
    plan_set, name = arm
    binary = plan_set.arrays("binary") / "case_001"
    soft = _array(plan_set, name, "case_001", "soft")
    shares = _feathered(project, "case_001")
    (plan,) = plan_set.plans()["configurations"]
    dataset = read_json(plan_set.preprocessed("binary") / "dataset.json")
    preprocessing = Preprocessing(plan_set.plans(), plan, dataset)
    np.testing.assert_array_equal(soft[0], preprocessing._share(shares, read_properties(binary)))
    assert ((soft[0] > 0.05) & (soft[0] < 0.95)).sum() > 50
    kidney = project.mask("case_001", "kidney")
    expected = preprocessing._share(
        np.where(kidney, 1 - shares, 0).astype(np.float32), read_properties(binary)
    )
    np.testing.assert_allclose(soft[1].astype(float), expected.astype(float), atol=5e-4)
    hard = project.mask("case_001", "lesion")
    assert (kidney & (shares > 0.05) & (shares < 0.95)).any(), "or nothing was shared"
    assert hard.any()


def test_an_edited_soft_mask_makes_a_dataset_of_its_own(planned: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(planned, tmp_path / "project")
    with Project.open(folder) as project:
        plan_set = open_plan_set(project, "own")
        scheme = arm_scheme(project, "binary", (), plan_set.cases)
        plan_set, first = prepare_arm(project, plan_set, scheme, _quiet, soft=True)
        before = _array(plan_set, first, "case_002", "soft")
        assert prepare_arm(project, plan_set, scheme, _quiet, soft=True)[1] == first
        shares = _feathered(project, "case_002")
        project.set_soft_mask("case_002", "lesion", shares, {"soft": "mean of 2 raters"})
        plan_set, second = prepare_arm(project, plan_set, scheme, _quiet, soft=True)
        assert prepare_arm(project, plan_set, scheme, _quiet)[1] == "binary"
    assert (first, second) == ("binary-soft", "binary-v2-soft")
    np.testing.assert_array_equal(_array(plan_set, first, "case_002", "soft"), before)
    assert not np.array_equal(_array(plan_set, second, "case_002", "soft"), before)
    card = read_json(plan_set.preprocessed(second) / "dataset.json")["backsplit"]["soft"]
    assert card["case_002"] == {"lesion": "mean of 2 raters"}


def test_a_preparation_that_was_killed_is_finished(
    project: Project, arm: tuple[PlanSet, str]
) -> None:
    plan_set, name = arm
    file = plan_set.arrays(name) / "case_003_soft.b2nd"
    before = _array(plan_set, name, "case_003", "soft")
    file.unlink()
    record = plan_set.preprocessed(name) / "labels.json"
    content = read_json(record)
    content.pop("case_003")
    write_json(record, content)
    prepare_arm(project, plan_set, _complete(project, plan_set), _quiet, soft=True)
    np.testing.assert_array_equal(_array(plan_set, name, "case_003", "soft"), before)


def test_label_sets_are_refused_with_the_supports_that_are_missing(project: Project) -> None:
    plan_set = open_plan_set(project, "own")
    scheme = arm_scheme(project, "backsplit", ("liver",), plan_set.cases, "unreviewed")
    with pytest.raises(InputError, match=r"lack liver.*label sets"):
        prepare_arm(project, plan_set, scheme, _quiet, soft=True)
    told = arm_scheme(
        project, "backsplit", ("liver",), plan_set.cases, "unreviewed", missing="background"
    )
    plan_set, name = prepare_arm(project, plan_set, told, _quiet, soft=True)
    assert _array(plan_set, name, "case_002", "soft")[1].max() == 0
    assert _array(plan_set, name, "case_001", "soft")[1].max() == 1


def test_an_empty_class_has_no_share(project: Project) -> None:
    plan_set = open_plan_set(project, "own")
    scheme = arm_scheme(project, "virtual", (), plan_set.cases)
    plan_set, name = prepare_arm(project, plan_set, scheme, _quiet, soft=True)
    shares = _array(plan_set, name, "case_002", "soft")
    assert shares.shape[0] == 2
    assert shares[1].max() == 0
    assert shares[0].max() == 1


def test_a_reader_that_turns_the_axes_turns_the_shares_as_it_turns_the_labels(
    tmp_path: Path,
) -> None:
    axes = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
    grid = Geometry((4, 5, 6), (3.0, 1.5, 1.0), (7.0, -20.0, 5.0), axes)
    mask = _random_mask((4, 5, 6), 5)
    write_volume(Volume(mask, grid), tmp_path / "label.nii.gz")
    reader = NibabelIOWithReorient()
    label = reader.read_seg(str(tmp_path / "label.nii.gz"))[0][0]
    (share,) = as_read(iter([mask.astype(np.float32)]), grid, reader, tmp_path)
    np.testing.assert_array_equal(share, label)
    assert share.shape != mask.shape or not np.array_equal(share, mask)


def test_a_training_on_all_cases_takes_no_array_of_shares_for_a_case(
    arm: tuple[PlanSet, str],
) -> None:
    plan_set, name = arm
    trainer = object.__new__(BackSplitTrainer)
    trainer.fold, trainer.dataset_class = "all", nnUNetDatasetBlosc2
    trainer.preprocessed_dataset_folder = str(plan_set.arrays(name))
    training, held_out = trainer.do_split()
    assert sorted(training) == sorted(held_out) == sorted(plan_set.cases)
