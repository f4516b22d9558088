"""The most memory that this process has taken so far. Worker only."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


def peak_rss() -> int:
    """Return the most memory that this process had, bytes.

    On Linux getrusage will not do: it counts the process that started this one too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    memory = psutil.Process().memory_info()
    return int(getattr(memory, "peak_wset", memory.rss))


def peak_gpu_bytes(device: str) -> int | None:
    """Return the most that torch held of a GPU, without CUDA's own part; None on a CPU."""
    kind = device.partition(":")[0]
    if kind == "cuda":
        return int(torch.cuda.max_memory_reserved())
    return int(torch.mps.driver_allocated_memory()) if kind == "mps" else None
