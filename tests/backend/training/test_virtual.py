"""The two readings of the virtual class: an empty channel, and a set with the background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from napari_backsplit.backend.training.arms import arm_label_map, missing_sets
from napari_backsplit.backend.training.dataset import dataset_json
from napari_backsplit.backend.training.losses import make_loss, membership_table
from napari_backsplit.backend.training.run_scheme import run_scheme
from napari_backsplit.backend.training.spec import Arm, RunSpec
from tests.backend.training.arm_support import WHOLE, make_project, row


def told(tmp_path: Path, arm: Arm) -> tuple[np.ndarray, dict[str, Any]]:
    """Return what an arm tells of a case, and its dataset.json."""
    with make_project(tmp_path / "p", [WHOLE] * 2) as project:
        cases = project.case_ids()
        scheme = run_scheme(project, RunSpec(arm=arm), cases, (cases, ()))
        codes = missing_sets(project, scheme, cases)
        label_map = arm_label_map(project, scheme, cases[0], codes)
        return label_map, dataset_json(project, scheme, codes, cases, tmp_path)


def test_the_virtual_class_is_a_channel_that_no_voxel_is_told_to_be(tmp_path: Path) -> None:
    label_map, dataset = told(tmp_path, "virtual")
    assert np.array_equal(label_map, row("lesion"))
    assert dataset["labels"] == {"background": 0, "lesion": 1, "virtual": 2}
    assert dataset["backsplit"]["label_sets"] == []


def test_in_the_virtual_set_all_background_is_background_or_virtual(tmp_path: Path) -> None:
    label_map, dataset = told(tmp_path, "virtual-set")
    assert np.array_equal(label_map, np.where(row("lesion"), 1, 3))
    assert dataset["labels"] == {"background": 0, "lesion": 1, "virtual": 2}
    assert dataset["backsplit"]["label_sets"] == [[0, 2]]


def loss_of(spec: RunSpec, logits: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
    """Return a run's loss of outputs (b, 3, ...) where the lesion (b, ...) is known."""
    sets = [[0, 2]] if spec.arm == "virtual-set" else []
    codes = torch.where(lesion, 1, 3 if sets else 0)[:, None]
    loss = make_loss(spec, membership_table(3, sets), False, 1)
    value: torch.Tensor = loss(logits, codes.float())
    return value


@pytest.fixture
def lesion() -> torch.Tensor:
    found = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    found[:, 1:3, 1:3] = True
    return found


@pytest.fixture
def logits() -> torch.Tensor:
    drawn = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    drawn[:, 2] -= 8  # almost nobody is virtual: a Dice of the class would weigh much
    return drawn.double()


@pytest.mark.parametrize("share", [None, 0.5])
def test_the_virtual_set_is_the_binary_loss_of_two_classes_merged(
    logits: torch.Tensor, lesion: torch.Tensor, share: float | None
) -> None:
    """Cross-entropy of {background, virtual} against the lesion, and the lesion's Dice alone."""
    outputs = logits.requires_grad_()
    loss = loss_of(RunSpec(arm="virtual-set", target_dice_share=share), outputs, lesion)
    (gradient,) = torch.autograd.grad(loss, outputs)
    p = logits.detach().softmax(1)[:, 1]
    space = (1, 2, 3)
    dice = (2 * (p * lesion).sum(space) + 1e-5) / (p.sum(space) + lesion.sum(space) + 1e-5)
    expected = functional.binary_cross_entropy(p, lesion.double()) - dice.mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    parts = logits.detach().softmax(1)
    merged = gradient[:, 0] / parts[:, 0] - gradient[:, 2] / parts[:, 2]
    assert float(merged.abs().max()) < 1e-5, "nothing tells the two apart"


def test_the_empty_channel_is_pushed_down_by_cross_entropy_and_dice(
    logits: torch.Tensor, lesion: torch.Tensor
) -> None:
    spec, higher = RunSpec(arm="virtual"), logits.clone()
    higher[:, 2] += 4
    assert loss_of(spec, higher, lesion) > loss_of(spec, logits, lesion)
    ce = RunSpec(arm="virtual", loss="ce")
    dice = [float(loss_of(spec, x, lesion) - loss_of(ce, x, lesion)) for x in (logits, higher)]
    assert dice[0] < dice[1], "an empty class has a Dice of its own, as in the paper"
