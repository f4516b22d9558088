"""The targets' export against nnU-Net's own function, voxel by voxel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.information import information_gap

torch = pytest.importorskip("torch")

from napari_backsplit.backend.prediction import candidates, settling, slab_export  # noqa: E402
from napari_backsplit.backend.prediction.export import TargetExport, Wanted, export  # noqa: E402
from napari_backsplit.backend.prediction.model_folder import ModelFolder  # noqa: E402
from tests.backend.prediction.export_cases import Case, case, random_case  # noqa: E402

SHORT, FULL = "Only what can become target", "All classes were resampled in full"
QUIET = settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _names(heads: Any) -> list[str]:
    return ["background" if head == 0 else f"label{head}" for head in heads]


def _numbered(labels: Any, values: Any) -> Any:
    mask = np.zeros(labels.shape, np.uint8)
    for index, value in enumerate(values):
        mask[labels == value] = index + 1
    return mask


def _cuts(layers: int, rng: np.random.Generator) -> list[int]:
    return [layer for layer in range(1, layers) if rng.random() < 0.3]


def _check(made: Case, seed: int) -> Any:
    """Compare some targets, exported as a whole and from slabs, with nnU-Net's labels."""
    rng = np.random.default_rng(seed)
    labels = made.nnunet()
    heads = rng.permutation(len(made.logits))[:4]
    expected = _numbered(labels, heads)
    whole = made.export(*_names(heads))
    np.testing.assert_array_equal(whole.mask, expected)
    assert whole.notes[0].startswith(SHORT)
    cuts = _cuts(made.logits.shape[1], rng)
    np.testing.assert_array_equal(made.streamed(cuts, *_names(heads)).mask, expected)
    return expected


@pytest.mark.parametrize("first", range(0, 200, 10))
def test_a_target_is_where_nnunet_says(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slab_export, "CROWDED", 1)  # never the way that resamples all
    found = [len(np.unique(_check(random_case(seed), seed))) for seed in range(first, first + 10)]
    assert sum(kinds > 1 for kinds in found) > 5, "the cases are too empty to prove anything"


@QUIET
@given(
    seed=st.integers(200, 10**9),
    voxels=st.integers(1, 400),
    sparse=st.floats(0, 1),
    crowded=st.sampled_from([0.0, 0.3, 1.0]),
)
def test_whatever_the_blocks(seed: int, voxels: int, sparse: float, crowded: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slab_export, "BLOCK_VOXELS", voxels)
        patch.setattr(settling, "CHUNK", voxels)
        patch.setattr(candidates, "SPARSE", sparse)
        patch.setattr(slab_export, "CROWDED", crowded)
        _check(random_case(seed), seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 4000, 100))
def test_thousands_of_cases(first: int) -> None:
    for seed in range(first, first + 100):
        _check(random_case(seed), seed)


def test_the_random_cases_are_of_all_kinds() -> None:
    """Else 200 of them would say little."""
    made = [random_case(seed) for seed in range(200)]
    shapes = [np.array(one.logits.shape[1:]) for one in made]
    outputs = [one.properties["shape_after_cropping_and_before_resampling"] for one in made]
    grown = [np.array(after) / before for before, after in zip(shapes, outputs, strict=True)]
    assert sum((g < 1).any() for g in grown) > 50
    assert sum((g > 1).any() for g in grown) > 50
    assert any((g == 1).any() for g in grown)
    thick = [max(one.configuration.spacing) > 3 * min(one.configuration.spacing) for one in made]
    coarse = [max(p["spacing"]) > 3 * min(p["spacing"]) for p in (one.properties for one in made)]
    assert sum(thick) > 20
    assert sum(coarse) > 20
    assert sum(one.plans.transpose_forward != [0, 1, 2] for one in made) > 50
    assert sum(one.properties["bbox_used_for_cropping"][0][0] > 0 for one in made) > 30
    assert {len(one.logits) for one in made} >= {2, 3}
    assert max(len(one.logits) for one in made) > 35
    assert sum(_ties(one) > 0 for one in made) > 20


def _ties(made: Case) -> int:
    """Count the outputs at which two classes come out alike and above all others."""
    resampled = made.configuration.resampling_fn_probabilities(
        made.logits,
        made.properties["shape_after_cropping_and_before_resampling"],
        [1.0, 1.0, 1.0],
        [1.0, 1.0, 1.0],
    )
    return int(((resampled == resampled.max(axis=0)).sum(axis=0) > 1).sum())


def _near_ties() -> Case:
    """Class 2 is a hair above class 1 everywhere, and rounds to the same value."""
    rng = np.random.default_rng(0)
    below = rng.choice([1.0, 3.0], (6, 6, 6)).astype(np.float16)
    above = np.nextafter(below, np.float16(9))
    return case(np.stack([below - 5, below, above]), (13, 11, 9))


def test_a_tie_after_rounding_is_the_first_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slab_export, "CROWDED", 1)
    made = _near_ties()
    expected = made.nnunet() == 1
    assert expected.any()
    np.testing.assert_array_equal(made.export("label1").mask, expected)


def test_the_margin_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "_MARGIN", 0)
    monkeypatch.setattr(slab_export, "CROWDED", 1)
    made = _near_ties()
    assert ((made.nnunet() == 1) & (made.export("label1").mask == 0)).any()


@pytest.mark.parametrize("outputs", [(5, 6, 7), (9, 6, 7)], ids=["same grid", "two axes kept"])
def test_where_nothing_is_resampled(outputs: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    made = case(rng.integers(-2, 3, (4, 5, 6, 7)).astype(np.float16), outputs)
    np.testing.assert_array_equal(made.export("label2").mask, made.nnunet() == 2)


EDGES = {
    np.float16: [0, -0.0, 6e-8, -6e-8, 6.1e-5, 65504, -65504, 65472, 1, 1.001, -1],
    np.float32: [0, -0.0, 1e-45, -1e-45, 1.2e-38, 3.4028235e38, -3.4028235e38, 1, 1 + 2**-23],
}


@QUIET
@given(
    seed=st.integers(0, 10**9),
    k=st.integers(2, 4),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    factors=st.tuples(*[st.sampled_from([1 / 7, 1 / 3, 1.0, 2.0, 3.0, 1.37])] * 3),
    thick=st.sampled_from([(1, 1, 1), (6, 1, 1), (1, 6, 1), (1, 1, 6)]),
    planned=st.booleans(),
)
@pytest.mark.parametrize("dtype", EDGES)
def test_the_edges_of_the_numbers(
    dtype: Any, seed: int, k: int, shape: Any, factors: Any, thick: Any, planned: bool
) -> None:
    """The largest, the smallest, zeros of both signs, single voxels, any axis separate."""
    rng = np.random.default_rng(seed)
    few = rng.choice(np.array(EDGES[dtype], dtype), 3)
    outputs = tuple(max(round(n * factor), 1) for n, factor in zip(shape, factors, strict=True))
    grids = {"planned" if planned else "spacing": thick}
    made = case(rng.choice(few, (k, *shape)), outputs, **grids)
    labels = made.nnunet()
    cuts = _cuts(shape[0], rng)
    heads = rng.permutation(k)
    streamed = made.streamed(cuts, *_names(heads)).mask
    np.testing.assert_array_equal(streamed, _numbered(labels, heads))
    np.testing.assert_array_equal(made.export(f"label{k - 1}").mask, labels == k - 1)


def test_two_dimensional_plans() -> None:
    """A 2D network's logits keep the image's slices."""
    rng = np.random.default_rng(2)
    made = case(rng.normal(size=(3, 5, 6, 7)).astype(np.float16), (5, 13, 9), planned=(1.0, 1.0))
    np.testing.assert_array_equal(made.export("label1").mask, made.nnunet() == 1)


def test_labels_are_nnunets() -> None:
    for seed in range(12):
        made = random_case(seed)
        ours = made.export("label1", labels=True)
        expected = made.nnunet()
        assert ours.labels is not None
        assert ours.labels.dtype == expected.dtype
        np.testing.assert_array_equal(ours.labels, expected)
        np.testing.assert_array_equal(ours.mask, expected == 1)


def test_probabilities_are_nnunets() -> None:
    for seed in range(12):
        made = random_case(seed)
        names = _names(range(len(made.logits)))
        ours = made.streamed([1], *names, probabilities=True)
        expected = made.nnunet(probabilities=True)[1]
        assert len(ours.probabilities) == len(expected)
        for got, theirs in zip(ours.probabilities, expected, strict=True):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, theirs, rtol=2e-6, atol=1e-9)


def test_more_likely_than_all_others_together() -> None:
    some = 0
    for seed in range(24):
        made = random_case(seed)
        probabilities = made.nnunet(probabilities=True)[1]
        names = _names(range(len(made.logits)))
        mask = made.export(*names, rule="p > 0.5").mask
        for head, theirs in enumerate(probabilities):
            clear = np.abs(theirs - 0.5) > 1e-6
            np.testing.assert_array_equal((mask == head + 1)[clear], (theirs > 0.5)[clear])
        some += int(((mask == 0) & (probabilities.max(axis=0) < 0.5)).any())
    assert some > 5, "the rule never differs from argmax"


def test_the_mask_is_that_of_the_probabilities() -> None:
    for seed in range(12):
        made = random_case(seed)
        both = made.export("label1", rule="p > 0.5", probabilities=True)
        np.testing.assert_array_equal(both.mask == 1, both.probabilities[0] > 0.5)


def test_the_gap_is_the_propositions() -> None:
    made = random_case(5)
    assert len(made.logits) > 2
    ours = made.export("label1", gap=True)
    probabilities = made.nnunet(probabilities=True)[1]
    np.testing.assert_allclose(ours.gap, information_gap(probabilities, 1), atol=2e-6)
    assert ours.gap is not None
    assert ours.gap.max() > 0.01


def test_no_gap_of_two_classes() -> None:
    made = case(np.zeros((2, 4, 4, 4), np.float16), (5, 5, 5))
    with pytest.raises(InputError, match="zero for every model"):
        made.export("label1", gap=True)


REGIONS = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"resampling": {"order": 3}}, "by order 3"),
        ({"resampling": {"order_z": 1}, "planned": (6.0, 1.0, 1.0)}, "slices by order 1"),
        (
            {
                "resampling_fn_probabilities": "resample_torch_fornnunet",
                "resampling_fn_probabilities_kwargs": {"is_seg": False},
            },
            "another function",
        ),
        ({"labels": REGIONS}, "overlapping regions"),
    ],
    ids=["order 3", "order z", "torch", "regions"],
)
@pytest.mark.parametrize("cuts", [[], [2, 3]], ids=["whole", "slabs"])
def test_another_way_is_nnunets_and_said(
    changes: dict[str, Any], why: str, cuts: list[int]
) -> None:
    rng = np.random.default_rng(3)
    made = case(3 * rng.normal(size=(3, 6, 7, 8)).astype(np.float16), (9, 6, 13), **changes)
    names = list(made.model.labels)[1:3]
    ours = made.streamed(cuts, *names, labels=True, probabilities=True)
    labels, probabilities = made.nnunet(), made.nnunet(probabilities=True)[1]
    np.testing.assert_array_equal(ours.labels, labels)
    values = [made.model.values(name) for name in names]
    expected = np.select([np.isin(labels, v) for v in values[::-1]], [2, 1])
    np.testing.assert_array_equal(ours.mask, expected)
    for name, got in zip(names, ours.probabilities, strict=True):
        np.testing.assert_array_equal(got, probabilities[made.model.head(name)])
    assert ours.notes[0].startswith(FULL)
    assert why in ours.notes[0]


def test_a_region_by_its_own_probability() -> None:
    rng = np.random.default_rng(4)
    made = case(rng.normal(size=(3, 6, 7, 8)).astype(np.float16), (9, 6, 13), labels=REGIONS)
    ours = made.export("core", rule="p > 0.5")
    np.testing.assert_array_equal(ours.mask, made.nnunet(probabilities=True)[1][1] > 0.5)
    with pytest.raises(InputError, match="regions"):
        made.export("core", gap=True)


def test_the_gap_of_another_way_is_zero_outside_the_crop() -> None:
    rng = np.random.default_rng(5)
    made = case(
        rng.normal(size=(3, 4, 5, 6)).astype(np.float16),
        (7, 8, 9),
        resampling={"order": 3},
        order=(2, 0, 1),
        margins=((1, 2), (0, 3), (2, 0)),
    )
    ours = made.export("label1", gap=True, rule="p > 0.5")
    probabilities = made.nnunet(probabilities=True)[1]
    np.testing.assert_array_equal(ours.mask, probabilities[1] > 0.5)
    inside = made.inside()
    assert ours.gap is not None
    assert not ours.gap[~inside].any()
    np.testing.assert_array_equal(ours.gap[inside], information_gap(probabilities, 1)[inside])


def test_float64_takes_the_other_way() -> None:
    rng = np.random.default_rng(6)
    made = case(rng.normal(size=(3, 4, 5, 6)), (7, 8, 9))
    ours = made.export("label1")
    np.testing.assert_array_equal(ours.mask, made.nnunet() == 1)
    assert "float64" in ours.notes[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_what_is_not_finite_is_refused(value: float, dtype: Any) -> None:
    logits = -np.ones((3, 4, 4, 4), dtype)
    logits[2, 3, 3, 3] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        case(logits, (5, 5, 5)).export("label1")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_what_is_not_finite_is_refused_on_another_way_too(dtype: Any) -> None:
    """nnU-Net would make it background, without a word."""
    logits = -np.ones((3, 4, 4, 4), dtype)
    logits[2, 3, 3, 3] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        case(logits, (5, 5, 5), labels=REGIONS).export("core")


def test_the_largest_half_floats_are_finite() -> None:
    logits = np.full((3, 4, 4, 4), -65504, np.float16)
    logits[1, 2] = 65504
    made = case(logits, (5, 5, 5))
    np.testing.assert_array_equal(made.export("label1").mask, made.nnunet() == 1)


def test_nothing_wanted_and_nothing_known() -> None:
    made = case(np.zeros((2, 4, 4, 4), np.float16), (5, 5, 5))
    with pytest.raises(InputError, match="No target"):
        made.export()
    with pytest.raises(InputError, match=r"no label 'kidney'.*label1"):
        made.export("kidney")


def test_slabs_come_in_order_and_in_full() -> None:
    made = case(np.zeros((2, 4, 4, 4), np.float16), (5, 5, 5))
    shape = made.logits.shape
    taken = TargetExport(shape, np.float16, made.model, *made.theirs, Wanted(("label1",)))
    with pytest.raises(ValueError, match="0 of"):
        taken.feed(made.logits[:, 1:], 1)
    taken.feed(made.logits[:, :3], 0)
    with pytest.raises(ValueError, match="3 of 4 layers"):
        taken.finish()
    with pytest.raises(ValueError, match="3 of"):
        taken.feed(made.logits[:, :2], 3)
    taken.feed(made.logits[:, 3:], 3)
    assert not taken.finish().mask.any()


PLANS = {
    "as planned": {},
    "order 3": {"resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 3}},
    "torch": {
        "resampling_fn_probabilities": "resample_torch_fornnunet",
        "resampling_fn_probabilities_kwargs": {"is_seg": False},
    },
    "thick slices": {"spacing": [5.0, 1.0, 1.0]},
}


@pytest.mark.parametrize("plan", PLANS)
def test_real_model_folders(tiny: Any, tmp_path: Path, plan: str) -> None:
    _check_folder(tiny, tmp_path, {"lesion": 1, "liver": 2}, plans_changes=PLANS[plan])


def test_a_real_folder_of_regions(tiny: Any, tmp_path: Path) -> None:
    _check_folder(tiny, tmp_path, {"lesion": [1, 2], "core": 2}, regions_class_order=[1, 2])


def _check_folder(tiny: Any, folder: Path, labels: dict[str, Any], **changes: Any) -> None:
    """Compare with nnU-Net on the output of a network that it loaded and ran itself."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    path = tiny.write_model(folder / "m", labels, **changes)
    image = tiny.write_image(folder / "case_0000.nii.gz")
    stock = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(path), None)
    preprocessor = stock.configuration_manager.preprocessor_class(verbose=False)
    theirs = stock.plans_manager, stock.configuration_manager, stock.dataset_json
    data, _, properties = preprocessor.run_case([str(image)], None, *theirs)
    logits = stock.predict_logits_from_preprocessed_data(torch.from_numpy(data))
    made = Case(
        logits.numpy(),
        ModelFolder.open(path),
        stock.plans_manager,
        stock.configuration_manager,
        stock.label_manager,
        properties,
    )
    expected = np.isin(made.nnunet(), made.model.values("lesion"))
    assert expected.any()
    ours = export(made.logits, made.model, *made.theirs, Wanted(("lesion",)))
    np.testing.assert_array_equal(ours.mask, expected)
