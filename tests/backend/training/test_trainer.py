from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import trainer as module
from napari_backsplit.backend.training.arms import arm_scheme
from napari_backsplit.backend.training.prepare import open_plan_set, prepare_arm
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.trainer import (
    LATEST,
    BackSplitTrainer,
    Run,
    target_counts,
    trainer_for,
)
from tests.backend.training.conftest import RUN

pytestmark = pytest.mark.training


@pytest.fixture
def start(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., BackSplitTrainer]:
    """Make a trainer of an arm on the small project."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    torch.set_num_threads(1)
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(planned / "nnunet" / kind))

    def make(spec: RunSpec = RUN, folder: str = "model", **run: Any) -> BackSplitTrainer:
        with Project.open(planned, read_only=True) as project:
            plan_set = open_plan_set(project, "own")
            scheme = arm_scheme(project, spec.arm, spec.supports, plan_set.cases)
            plan_set, name = prepare_arm(project, plan_set, scheme, lambda what, done, total: None)
        dataset_json = read_json(plan_set.preprocessed(name) / "dataset.json")
        made = Run(spec, tmp_path / folder, **run)
        return trainer_for(made, plan_set.plans(name), "3d_fullres", dataset_json)

    return make


class Stopped(Exception):
    pass


def _stop_after(iterations: int) -> Callable[[], None]:
    left = [iterations]

    def check() -> None:
        if not left[0]:
            raise Stopped
        left[0] -= 1

    return check


def _weights(trainer: BackSplitTrainer) -> dict[str, torch.Tensor]:
    path = Path(trainer.output_folder) / "checkpoint_final.pth"
    return load_checkpoint(path)["network_weights"]


def test_a_resumed_run_ends_with_the_same_weights(start: Callable[..., BackSplitTrainer]) -> None:
    whole = start(folder="whole")
    whole.run_training()

    broken = start(folder="broken", check=_stop_after(9))  # in the second epoch
    with pytest.raises(Stopped):
        broken.run_training()
    again = start(folder="broken")
    again.resume(load_checkpoint(Path(again.output_folder) / LATEST))
    assert again.current_epoch == 1
    again.run_training()

    for key, value in _weights(whole).items():
        torch.testing.assert_close(_weights(again)[key], value, rtol=0, atol=0)
    assert not (Path(again.output_folder) / LATEST).exists()


def test_figures_and_progress_are_reported(start: Callable[..., BackSplitTrainer]) -> None:
    figures: list[tuple[str, int]] = []
    progress: list[tuple[int, int]] = []
    run = start(
        metric=lambda name, epoch, value: figures.append((name, epoch)),
        progress=lambda done, total, text: progress.append((done, total)),
    )
    run.run_training()

    assert [epoch for name, epoch in figures if name == "target Dice"] == [0, 1, 2]
    assert {name for name, _ in figures} == {
        "training loss", "validation loss", "target Dice", "learning rate",
    }  # fmt: skip
    assert progress[-1] == (12, 12)


def test_a_full_disk_keeps_the_last_checkpoint(
    start: Callable[..., BackSplitTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    run.run_training()
    path = Path(run.output_folder) / "checkpoint_final.pth"
    before = path.read_bytes()

    def full(checkpoint: Any, file: Any) -> None:
        Path(file).write_bytes(b"half a checkpoint")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.glob(".tmp*")] == []

    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10)
    )
    with pytest.raises(OSError, match=r"needs .* MB and 0 MB are free"):
        run.save_checkpoint(str(path))
    assert path.read_bytes() == before


def test_checkpoints_name_no_machine_and_load_without_this_package(
    start: Callable[..., BackSplitTrainer],
) -> None:
    run = start(RUN.model_copy(update={"epochs": 1}))
    run.run_training()
    folder = Path(run.output_folder)

    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] == "3d_fullres"
    assert not (folder / "debug.json").exists()
    assert read_json(folder.parent / "dataset.json")["labels"]["kidney"] == 2


def test_a_diverging_run_says_what_to_lower(start: Callable[..., BackSplitTrainer]) -> None:
    run = start(RUN.model_copy(update={"initial_lr": 1e12, "iterations": 30}))
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        run.run_training()


def test_weights_of_another_network_are_refused(start: Callable[..., BackSplitTrainer]) -> None:
    with pytest.raises(InputError, match="do not fit the planned network"):
        start().start_from({"encoder.weight": torch.zeros(3)})


def test_every_arm_draws_the_same_patches(start: Callable[..., BackSplitTrainer]) -> None:
    """Same seed, same images, same places: two arms differ in their labels alone."""
    batches = []
    for arm in ("binary", "backsplit"):
        run = start(RUN.model_copy(update={"arm": arm}), folder=arm)
        run.on_train_start()
        run.on_epoch_start()
        run.on_train_epoch_start()
        batches.append([next(run.dataloader_train) for _ in range(3)])
    for binary, backsplit in zip(*batches, strict=True):
        torch.testing.assert_close(binary["data"], backsplit["data"], rtol=0, atol=0)
        assert (binary["keys"] == backsplit["keys"]).all()
        for ours, theirs in zip(binary["target"], backsplit["target"], strict=True):
            assert torch.equal(ours == 1, theirs == 1)


def test_target_counts_by_hand() -> None:
    logits = torch.zeros(1, 3, 1, 1, 4)
    for voxel, label in enumerate((1, 1, 2, 0)):
        logits[0, label, 0, 0, voxel] = 1
    codes = torch.tensor([[[[1, 0, 1, 4]]]])  # 4: a set code

    counts = target_counts(logits, codes, [1, 2])

    np.testing.assert_array_equal(counts["tp"], [1, 0])
    np.testing.assert_array_equal(counts["fp"], [1, 1])
    np.testing.assert_array_equal(counts["fn"], [1, 0])
