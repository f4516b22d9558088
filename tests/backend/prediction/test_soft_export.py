"""The export of shares against resampling every share and comparing it with a half."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.planes import share_labels
from napari_backsplit.backend.prediction.wanted import SHARE, Wanted, check_wanted

torch = pytest.importorskip("torch")

from napari_backsplit.backend.prediction import slab_export  # noqa: E402
from tests.backend.prediction.export_cases import Case, case, random_case  # noqa: E402


def _soft(made: Case, shares: np.ndarray, targets: int, activation: str = "sigmoid") -> Case:
    """Make the case that of a model of soft labels, with these shares of its classes."""
    card = {
        "targets": [f"label{k}" for k in range(1, targets + 1)],
        "run": {"labels": "soft", "activation": activation},
    }
    dataset = {**made.model.dataset_json, "backsplit": card}
    half = np.full_like(shares[:1], 0.5)
    return replace(
        made,
        logits=np.concatenate([half, shares]),
        model=replace(made.model, dataset_json=dataset),
    )


def _few_classes(made: Case) -> Case:
    """Keep at most five classes: nnU-Net resamples them all, again and again."""
    kept = made.logits[:5]
    labels = {name: k for name, k in made.model.labels.items() if int(k) < len(kept)}  # type: ignore[arg-type]
    dataset = {**made.model.dataset_json, "labels": labels}
    return replace(
        made,
        logits=kept,
        model=replace(made.model, dataset_json=dataset),
        label_manager=made.plans.get_label_manager(dataset),
    )


def _shares(seed: int) -> tuple[Case, int]:
    """A case of any grid, with noise, exact halves, blobs, or what is a last place from a half."""
    made = _few_classes(random_case(seed))
    rng = np.random.default_rng(seed)
    shape, dtype = made.logits[1:].shape, made.logits.dtype
    kind = seed % 4
    if kind == 0:
        values = rng.uniform(0, 1, shape)
    elif kind == 1:
        values = rng.integers(0, 9, shape) / 8
    elif kind == 2:
        centre = rng.uniform(0, 1, (len(shape) - 1, shape[0])) * np.array(shape[1:])[:, None]
        away = np.indices(shape[1:])[:, None] - centre[:, :, None, None, None]
        values = np.clip(1.5 - np.sqrt((away**2).sum(0)) / 3, 0, 1)
    else:
        values = 0.5 + rng.integers(-1, 2, shape) * float(np.finfo(dtype).eps) / 2
    targets = int(rng.integers(1, len(made.logits)))
    return _soft(made, values.astype(dtype), targets), targets


def _resampled(made: Case) -> np.ndarray:
    """Resample every share by nnU-Net, through a label manager that changes nothing."""
    manager = copy(made.label_manager)
    manager.inference_nonlin = lambda values: values
    every: np.ndarray = replace(made, label_manager=manager).nnunet(probabilities=True)[1]
    return every


def _expected(every: np.ndarray, targets: int) -> np.ndarray:
    """By the definition, voxel by voxel: more than a half, of several targets the largest."""
    shares = every[1 : 1 + targets]
    return np.where(shares.max(0) > 0.5, 1 + shares.argmax(0), 0)


def _names(targets: int) -> list[str]:
    return [f"label{k}" for k in range(1, targets + 1)]


def _check(seed: int) -> np.ndarray:
    made, targets = _shares(seed)
    expected = _expected(_resampled(made), targets)
    whole = made.export(*_names(targets), rule=SHARE)
    np.testing.assert_array_equal(whole.mask, expected)
    assert whole.notes[0].startswith("The model learnt soft labels")
    cuts = [layer for layer in range(1, made.logits.shape[1]) if (seed + layer) % 3 == 0]
    np.testing.assert_array_equal(made.streamed(cuts, *_names(targets)).mask, expected)
    return expected


@pytest.mark.parametrize("crowded", [0.0, 0.3, 1.0])
def test_a_target_is_where_its_resampled_share_is_above_a_half(
    crowded: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slab_export, "CROWDED", crowded)
    found = [_check(seed) for seed in range(24)]
    mixed = [0 < (mask > 0).mean() < 1 for mask in found]
    assert sum(mixed) > 8, "the cases are too empty to prove anything"


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(1000, 10**9), voxels=st.integers(1, 400))
def test_whatever_the_blocks(seed: int, voxels: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slab_export, "BLOCK_VOXELS", voxels)
        _check(seed)


def test_it_is_argmax_with_a_half_for_the_background_and_no_supports() -> None:
    """So the decision is nnU-Net's own, of other numbers; a tie is background."""
    ties = 0
    for seed in range(16):
        made, targets = _shares(seed)
        dropped = made.logits.copy()
        dropped[1 + targets :] = 0
        theirs = replace(made, logits=dropped).nnunet()
        np.testing.assert_array_equal(made.export(*_names(targets)).mask, theirs)
        every = _resampled(made)
        tied = (every[1 : 1 + targets].max(0) == 0.5) & made.inside()
        assert not theirs[tied].any()
        ties += int(tied.sum())
    assert ties > 40


def test_no_support_takes_a_voxel_from_a_target() -> None:
    shares = np.zeros((2, 2, 2, 3), np.float16)
    shares[0] = [0.6, 0.4, 0.2]
    shares[1] = [0.9, 0.9, 0.3]
    made = _soft(case(np.zeros((3, 2, 2, 3), np.float16), (2, 2, 3)), shares, 1)
    ours = made.export("label1", labels=True, probabilities=True)
    assert ours.labels is not None
    np.testing.assert_array_equal(ours.mask[0, 0], [1, 0, 0])
    np.testing.assert_array_equal(ours.labels[0, 0], [1, 2, 0])
    np.testing.assert_array_equal(ours.probabilities[0], shares[0].astype(np.float32))
    np.testing.assert_array_equal(made.export("label2").mask[0, 0], [0, 1, 0])


def test_of_several_supports_the_largest_above_a_half() -> None:
    shares = np.array([[0.5, 0.5, 0.1, 0.1], [0.6, 0.2, 0.5, 0.7], [0.7, 0.3, 0.5, 0.7]])
    half = np.full((1, 4), 0.5)
    np.testing.assert_array_equal(share_labels(np.concatenate([half, shares]), 1), [3, 0, 0, 2])
    np.testing.assert_array_equal(share_labels(np.concatenate([half, shares]), 3), [3, 0, 0, 2])
    np.testing.assert_array_equal(share_labels(np.concatenate([half, shares[:1]]), 1), [0] * 4)


def test_labels_and_shares_are_those_of_the_resampled_shares() -> None:
    for seed in range(12):
        made, targets = _shares(seed)
        names = _names(len(made.logits) - 1)
        ours = made.streamed([1] if made.logits.shape[1] > 1 else [], *names, labels=True,
                             probabilities=True)  # fmt: skip
        every = _resampled(made)
        assert ours.labels is not None
        inside = made.inside()
        labels = np.where(inside, share_labels(every, targets), 0)
        np.testing.assert_array_equal(ours.labels, labels)
        np.testing.assert_array_equal(ours.mask, labels)
        for got, theirs in zip(ours.probabilities, every[1:], strict=True):
            np.testing.assert_array_equal(got, theirs)
            assert got.dtype == np.float32


def test_a_share_that_rounds_to_beyond_one_is_one() -> None:
    shares = np.full((1, 2, 2, 2), 1.001, np.float16)
    made = _soft(case(np.zeros((2, 2, 2, 2), np.float16), (3, 2, 2)), shares, 1)
    assert made.export("label1", probabilities=True).probabilities[0].max() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"resampling": {"order": 3}},
        {
            "resampling_fn_probabilities": "resample_torch_fornnunet",
            "resampling_fn_probabilities_kwargs": {"is_seg": False},
        },
    ],
    ids=["order 3", "torch"],
)
def test_another_resampling_is_nnunets_and_the_shares_are_compared_with_a_half(
    changes: dict[str, Any],
) -> None:
    rng = np.random.default_rng(3)
    shares = rng.uniform(0, 1, (2, 6, 7, 8)).astype(np.float16)
    margins = ((1, 2), (0, 3), (2, 0))
    blank = np.zeros((3, 6, 7, 8), np.float16)
    made = _soft(case(blank, (9, 6, 13), margins=margins, **changes), shares, 1)
    ours = made.streamed([2, 3], "label1", labels=True, probabilities=True)
    every = _resampled(made)
    np.testing.assert_array_equal(ours.mask == 1, every[1] > 0.5)
    labels = np.select([every[1] > 0.5, every[2] > 0.5], [1, 2])
    np.testing.assert_array_equal(ours.labels, labels)
    np.testing.assert_array_equal(ours.probabilities[0], np.clip(every[1], 0, 1))
    assert ours.notes[0].startswith("The model learnt soft labels")
    assert "resamples by" in ours.notes[0]
    assert 0.05 < ours.mask.mean() < 0.95


def test_averages_of_a_half_are_made_exact() -> None:
    made, targets = _shares(4)
    exact = made.export(*_names(targets)).mask
    slab = made.logits.copy()
    slab[0] = np.nextafter(np.float16(0.5), np.float16(1)).astype(slab.dtype)
    from napari_backsplit.backend.prediction.export import TargetExport

    taken = TargetExport(
        slab.shape, slab.dtype, made.model, *made.theirs, Wanted(tuple(_names(targets)))
    )
    taken.feed_shares(slab, 0)
    np.testing.assert_array_equal(taken.finish().mask, exact)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"rule": "p > 0.5"}, "shares of a voxel, which are no probabilities"),
        ({"gap": True}, "no probabilities of classes"),
    ],
)
def test_what_shares_cannot_give_is_refused_with_the_reason(wanted: Any, why: str) -> None:
    made, targets = _shares(2)
    with pytest.raises(InputError, match=why):
        made.export(*_names(targets), **wanted)


def test_the_background_has_no_share() -> None:
    made, _ = _shares(2)
    with pytest.raises(InputError, match="no share of the background"):
        made.export("background")


def test_a_hard_model_knows_no_shares() -> None:
    made = random_case(2)
    with pytest.raises(InputError, match="for models of soft labels"):
        made.export("label1", rule=SHARE)


def test_a_card_that_contradicts_itself_is_refused() -> None:
    made = case(np.zeros((3, 2, 2, 2), np.float16), (2, 2, 2))
    shares = np.zeros((2, 2, 2, 2), np.float16)
    strange = _soft(made, shares, 1, "softmax")
    with pytest.raises(InputError, match="'softmax'"):
        check_wanted(strange.model, Wanted(("label1",)), shares.shape)
    late = _soft(made, shares, 1)
    late.model.dataset_json["backsplit"]["targets"] = ["label2"]
    with pytest.raises(InputError, match="come first"):
        check_wanted(late.model, Wanted(("label2",)), shares.shape)
