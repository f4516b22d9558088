from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from pydantic import ValidationError

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.optimisers import make_optimiser
from napari_backsplit.backend.training.schedule import (
    joined_supports,
    lr_factor,
    require_all_to_join,
    support_weight,
)
from napari_backsplit.backend.training.spec import RunSpec


@given(
    epochs=st.integers(1, 1000),
    lr=st.floats(1e-6, 1.0),
    where=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=50, deadline=None)
def test_by_default_it_is_nnunets_decay(epochs: int, lr: float, where: float) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    theirs = PolyLRScheduler(optimizer, lr, epochs)
    spec = RunSpec(epochs=epochs, initial_lr=lr)

    for epoch in (0, int(where * epochs), epochs - 1):
        theirs.step(epoch)
        assert lr * lr_factor(spec, epoch) == optimizer.param_groups[0]["lr"]


@given(
    epochs=st.integers(2, 1000),
    lr=st.floats(1e-6, 1.0),
    end=st.floats(0, 1),
)
@settings(max_examples=20, deadline=None)
def test_the_cosine_is_torchs(epochs: int, lr: float, end: float) -> None:
    spec = RunSpec(schedule="cosine", epochs=epochs, initial_lr=lr, final_lr=end * lr)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, end * lr)
    for epoch in range(min(epochs, 50)):
        ours = lr * lr_factor(spec, epoch)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15)
        optimizer.step()
        theirs.step()


def test_swinunetr_learns_as_the_paper_says() -> None:
    spec = RunSpec(recipe=("swinunetr",))
    network = torch.nn.Linear(2, 2)
    optimizer = make_optimiser(network, spec)
    (group,) = optimizer.param_groups
    assert isinstance(optimizer, torch.optim.AdamW)
    assert (group["lr"], group["eps"], group["weight_decay"]) == (8e-4, 1e-5, 0.01)
    assert spec.initial_lr * lr_factor(spec, spec.epochs) == pytest.approx(1e-6)


def test_segresnet_learns_as_the_paper_says() -> None:
    spec = RunSpec(recipe=("segresnet",))
    optimizer = make_optimiser(torch.nn.Linear(2, 2), spec)
    (group,) = optimizer.param_groups
    assert type(optimizer) is torch.optim.Adam
    assert (group["lr"], group["eps"], group["weight_decay"]) == (1e-4, 1e-5, 1e-5)
    assert lr_factor(spec, 500) == 0.5**0.9


@given(
    schedule=st.sampled_from(["poly", "cosine"]),
    warmup=st.integers(0, 20),
    after=st.integers(2, 200),
)
@settings(max_examples=50, deadline=None)
def test_the_rate_rises_to_the_whole_and_then_falls(schedule: str, warmup: int, after: int) -> None:
    spec = RunSpec(schedule=schedule, warmup_epochs=warmup, epochs=warmup + after)  # type: ignore[arg-type]
    factors = [lr_factor(spec, epoch) for epoch in range(spec.epochs)]

    assert factors[warmup] == 1
    assert all(a < b for a, b in itertools.pairwise(factors[: warmup + 1]))
    assert all(a > b for a, b in itertools.pairwise(factors[warmup:]))
    assert factors[0] > 0
    assert 0 < factors[-1] < 1.6 / after**0.9


def test_the_rate_by_hand() -> None:
    spec = RunSpec(epochs=6, warmup_epochs=2, schedule="cosine")
    expected = [1 / 3, 2 / 3, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]
    assert [lr_factor(spec, epoch) for epoch in range(6)] == pytest.approx(expected)

    constant = RunSpec(epochs=4, warmup_epochs=1, schedule="constant")
    assert [lr_factor(constant, epoch) for epoch in range(4)] == [0.5, 1, 1, 1]


@pytest.mark.parametrize("name", ["warmup_epochs", "freeze_encoder_epochs", "curriculum_epochs"])
def test_a_phase_that_leaves_nothing_is_refused(name: str) -> None:
    for epochs in (3, 4):
        words = name.replace("_", " ")
        with pytest.raises(ValidationError, match=f"{epochs} {words} leave nothing of 3 epochs"):
            RunSpec.model_validate({"epochs": 3, name: epochs})
    assert getattr(RunSpec.model_validate({"epochs": 3, name: 2}), name) == 2
    assert getattr(RunSpec.model_validate({"epochs": 1, name: 0}), name) == 0


def test_supports_join_by_hand() -> None:
    spec = RunSpec(epochs=8, curriculum_epochs=2)
    assert [joined_supports(spec, epoch, 3) for epoch in range(8)] == [1, 1, 2, 2, 3, 3, 3, 3]
    assert [joined_supports(spec, epoch, 0) for epoch in (0, 7)] == [0, 0], "a binary arm"
    assert joined_supports(RunSpec(epochs=8), 0, 3) == 3


def test_a_curriculum_that_ends_too_early_is_refused() -> None:
    spec = RunSpec(epochs=5, curriculum_epochs=2)
    require_all_to_join(spec, 3)
    with pytest.raises(InputError, match="only 3 of 4 join within 5 epochs"):
        require_all_to_join(spec, 4)
    require_all_to_join(RunSpec(epochs=1), 4)


def test_support_weight_by_hand() -> None:
    spec = RunSpec(epochs=5, final_support_weight=0.2)
    weights = [support_weight(spec, epoch) for epoch in range(5)]
    assert weights == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])
    assert support_weight(RunSpec(epochs=1, final_support_weight=0.2), 0) == 1


@given(final=st.floats(0, 1), epochs=st.integers(2, 1000), where=st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_the_support_weight_stays_within_its_ends(final: float, epochs: int, where: float) -> None:
    assume(final == 0 or final > 1e-9)
    spec = RunSpec(epochs=epochs, final_support_weight=final)
    weight = support_weight(spec, round(where * (epochs - 1)))
    assert final - 1e-12 <= weight <= 1
    assert support_weight(spec, 0) == 1
    assert support_weight(spec, epochs - 1) == pytest.approx(final, abs=1e-12)
    if final == 1:
        assert weight == 1, "exactly: the binary loss is then not computed"
