"""What is proposed after a training failed, and that a repetition takes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.jobs import Job, submit
from napari_backsplit.backend.jobs.spec import JobStatus, State
from napari_backsplit.backend.training.remedies import (
    LEAST_STEPS,
    Planned,
    remedies,
    remedies_of,
    smaller_patch,
    strides_of,
)
from napari_backsplit.backend.training.spec import RunSpec

PLANNED = Planned((128, 128, 128), 2, (32, 32, 32))
SPEC = RunSpec(workers=4)


def _changes(cause: Any, spec: RunSpec = SPEC, planned: Planned | None = PLANNED) -> list[Any]:
    return [suggestion.changes for suggestion in remedies(cause, spec, planned)]


def test_gpu_memory_asks_for_a_smaller_batch_then_a_smaller_patch() -> None:
    assert _changes("gpu memory") == [
        {"run": {"batch_size": 1}},
        {"run": {"patch_size": [96, 128, 128]}},
    ]
    one = SPEC.model_copy(update={"batch_size": 1})
    assert _changes("gpu memory", one) == [{"run": {"patch_size": [96, 128, 128]}}]
    four = SPEC.model_copy(update={"batch_size": 5})
    assert _changes("gpu memory", four)[0] == {"run": {"batch_size": 2}}


def test_without_plans_nothing_is_guessed() -> None:
    assert _changes("gpu memory", planned=None) == []
    assert _changes("memory", planned=None) == [{"run": {"workers": 2}}]


@pytest.mark.parametrize(("workers", "fewer"), [(4, 2), (3, 1), (1, 0)])
@pytest.mark.parametrize("cause", ["memory", "workers died", "killed"])
def test_memory_and_dead_workers_ask_for_fewer_workers(
    cause: Any, workers: int, fewer: int
) -> None:
    spec = SPEC.model_copy(update={"workers": workers})
    assert _changes(cause, spec)[0] == {"run": {"workers": fewer}}


def test_without_workers_memory_asks_for_a_smaller_patch() -> None:
    none = SPEC.model_copy(update={"workers": 0})
    assert _changes("memory", none) == [{"run": {"patch_size": [96, 128, 128]}}]


def test_not_a_number_asks_for_a_tenth_of_the_learning_rate() -> None:
    (first, *_) = remedies("not a number", SPEC)
    assert first.changes == {"run": {"initial_lr": 0.001}}
    assert first.words == "Learning rate 0.001 instead of 0.01"
    rough = SPEC.model_copy(update={"precision": "bfloat16"})
    assert {"run": {"precision": "float32"}} in _changes("not a number", rough)


def test_what_a_change_cannot_help_is_resumed_or_left() -> None:
    for cause in ("disk full", "stopped"):
        assert _changes(cause) == [{}]  # type: ignore[arg-type]
    assert _changes("") == _changes("refused") == []


@given(st.data())
def test_a_smaller_patch_fits_the_network_and_shrinks_until_it_cannot(data: Any) -> None:
    axes = data.draw(st.integers(2, 3))
    strides = data.draw(
        st.lists(st.sampled_from([1, 2, 4, 8, 16, 32]), min_size=axes, max_size=axes)
    )
    patch = [max(8, step * data.draw(st.integers(1, 8))) for step in strides]
    smaller = smaller_patch(patch, strides)
    assert not any(np.mod(smaller, strides))
    assert all(8 <= new <= old for new, old in zip(smaller, patch, strict=True))
    for new, old, step in zip(smaller, patch, strides, strict=True):
        assert new == old or new >= LEAST_STEPS * step
    for _ in range(200):
        before, smaller = smaller, smaller_patch(smaller, strides)
        assert np.prod(smaller) <= np.prod(before)
        if smaller == before:
            break
    else:
        raise AssertionError("it never ends")


def test_strides_are_multiplied_over_the_stages() -> None:
    arguments = {"strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]]}
    configuration = {"patch_size": [16, 32, 32], "architecture": {"arch_kwargs": arguments}}
    assert strides_of(configuration) == (2, 4, 4)
    arguments["strides"] = [1, 2, 2]  # type: ignore[list-item]
    assert strides_of(configuration) == (4, 4, 4)


def test_a_failed_job_is_helped_by_its_own_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {"run": RunSpec().model_dump(mode="json")}
    job = submit(tmp_path, "train", params, "t", start=False)
    assert remedies_of(job) == [], "it has not failed"
    failed = JobStatus(state=State.FAILED, cause="gpu memory")
    monkeypatch.setattr(Job, "status", lambda self: failed)
    assert remedies_of(job) == [], "its plans are not written yet"
    arguments = {"strides": [[1, 1, 1], [2, 2, 2]]}
    configuration = {
        "patch_size": [16, 16, 16],
        "batch_size": 4,
        "architecture": {"arch_kwargs": arguments},
    }
    plans = {"configurations": {"3d_fullres": configuration}}
    write_json(job.folder / "model" / "plans.json", plans)
    first, second = remedies_of(job)
    assert first.changes == {"run": {"batch_size": 2}}
    assert second.changes == {"run": {"patch_size": [14, 14, 14]}}
    assert "14 x 14 x 14" in second.words
