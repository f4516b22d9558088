"""Checkpoints that a kill or a full disk cannot tear. Worker only."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from napari_backsplit.backend.files import atomic_path

if TYPE_CHECKING:
    from napari_backsplit.backend.training.trainer import BackSplitTrainer


def state_of(trainer: BackSplitTrainer) -> dict[str, Any]:
    """Return what a checkpoint holds, under nnU-Net's own names.

    trainer_name is nnUNetTrainer: where the architecture is nnU-Net's own, stock nnU-Net loads the
    file without this package.
    """
    network = getattr(trainer.network, "_orig_mod", trainer.network)
    scaler = trainer.grad_scaler
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": scaler.state_dict() if scaler is not None else None,
        "logging": trainer.logger.get_checkpoint(),
        "_best_ema": trainer._best_ema,
        "current_epoch": trainer.current_epoch + 1,
        "init_args": {**trainer.my_init_kwargs, "device": str(trainer.device)},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": trainer.inference_allowed_mirroring_axes,
        "backsplit": {
            "run": trainer.run.spec.model_dump(mode="json"),
            "course": trainer.course.state(),
        },
    }


def restore(trainer: BackSplitTrainer, checkpoint: dict[str, Any]) -> None:
    """Bring a trainer to the state of a checkpoint of its run."""
    network = getattr(trainer.network, "_orig_mod", trainer.network)
    network.load_state_dict(checkpoint["network_weights"])
    trainer.optimizer.load_state_dict(checkpoint["optimizer_state"])
    if trainer.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
        trainer.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
    trainer.logger.load_checkpoint(checkpoint["logging"])
    trainer.current_epoch = checkpoint["current_epoch"]
    trainer._best_ema = checkpoint["_best_ema"]
    trainer.course.restore(checkpoint["backsplit"].get("course", {}))


def write_checkpoint(path: Path, checkpoint: dict[str, Any]) -> None:
    """Replace a checkpoint atomically, after a look at the free space.

    Raises
    ------
    OSError
        ENOSPC: the disk has no room for it; earlier checkpoints are as they were.
    """
    _require_space(path.parent, _size(checkpoint))
    with atomic_path(path) as temporary:
        torch.save(checkpoint, temporary)


def _size(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values())
    return 0


def _require_space(folder: Path, size: int) -> None:
    needed = int(size * 1.1) + 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"A checkpoint needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free",
        )
