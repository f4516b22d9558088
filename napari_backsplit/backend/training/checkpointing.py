"""Checkpoints that a kill or a full disk cannot tear. Worker only."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from napari_backsplit.backend.files import atomic_path


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
