from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.training.budget import (
    LEAST_ITERATIONS,
    LEAST_SHARE,
    STOCK_ITERATIONS,
    least_iterations,
    trained_iterations,
    warnings,
)
from napari_backsplit.backend.training.spec import MANY_SUPPORTS, RunSpec
from tests.backend.prediction import tiny_model

LONG = round(10 * LEAST_ITERATIONS / LEAST_SHARE)
"""Batches of a baseline for which its own share, not the least number, decides."""


def _said(baseline: int, **spec: Any) -> list[str]:
    return list(warnings(RunSpec.model_validate({"supports": ("kidney",)} | spec), baseline))


def _model(folder: Path, **card: Any) -> int:
    return trained_iterations(tiny_model.write_model(folder / "model", **card))


def test_a_model_from_elsewhere_counts_as_nnunets_own_training(tmp_path: Path) -> None:
    assert _model(tmp_path) == STOCK_ITERATIONS


def test_an_own_model_says_how_long_it_was_trained(tmp_path: Path) -> None:
    run = RunSpec(epochs=12, iterations=34).model_dump(mode="json")
    assert _model(tmp_path, backsplit={"run": run}) == 12 * 34


def test_a_card_without_its_run_counts_as_none(tmp_path: Path) -> None:
    assert _model(tmp_path, backsplit={"targets": ["lesion"]}) == STOCK_ITERATIONS


def test_what_is_needed_is_a_share_of_the_baselines_training_or_the_least() -> None:
    assert least_iterations(1) == LEAST_ITERATIONS
    assert least_iterations(LONG) == pytest.approx(10 * LEAST_ITERATIONS, abs=1)


@pytest.mark.parametrize("baseline", [1, LONG])
def test_a_fine_tune_is_warned_of_just_below_what_is_needed(baseline: int) -> None:
    needed = least_iterations(baseline)
    assert _said(baseline, epochs=needed, iterations=1) == []
    (below,) = _said(baseline, epochs=needed - 1, iterations=1)
    assert str(needed) in below
    assert str(needed - 1) in below
    assert f"--epochs {needed} " in below


@given(st.integers(1, 10**6), st.integers(1, 10**4), st.integers(1, 10**4))
def test_the_epochs_that_a_warning_names_are_the_fewest_without_one(
    baseline: int, epochs: int, iterations: int
) -> None:
    for sentence in _said(baseline, epochs=epochs, iterations=iterations):
        named = re.search(r"--epochs (\d+) ", sentence)
        assert named, sentence
        enough = int(named[1])
        assert enough > epochs
        assert _said(baseline, epochs=enough, iterations=iterations) == []
        assert enough == 1 or _said(baseline, epochs=enough - 1, iterations=iterations)


def test_many_supports_are_warned_of_and_their_number_is_named() -> None:
    names = tuple(f"organ{index}" for index in range(MANY_SUPPORTS + 1))
    enough = {"epochs": LEAST_ITERATIONS, "iterations": 1}
    assert _said(1, supports=names[:-1], **enough) == []
    (sentence,) = _said(1, supports=names, **enough)
    assert sentence.startswith(f"{len(names)} supports")
    assert len(_said(1, supports=names, epochs=1, iterations=1)) == 2
