"""What nnU-Net and torch read once, at import, set for a process that is a job's own."""

from __future__ import annotations

import os

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import RunSpec


def set_environment(spec: RunSpec) -> None:
    """Set workers, threads and device of a run, before nnU-Net is imported.

    Raises
    ------
    InputError
        This machine has no such device.
    """
    os.environ["nnUNet_n_proc_DA"] = str(spec.workers)
    os.environ["nnUNet_compile"] = str(spec.compile)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # the numbers of nvidia-smi
    device, _, index = spec.device.partition(":")
    if device == "cuda" and index:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpu(int(index))
    import torch

    torch.set_num_threads(spec.threads)
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available[device]:
        usable = ", ".join(name for name, there in available.items() if there)
        raise InputError(f"This machine has no device {spec.device!r}.", f"Choose from: {usable}.")


def visible_gpu(index: int) -> str:
    """Return the GPU that cuda:<index> means among those the environment leaves; "" for none."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return str(index)
    return dict(enumerate(named.replace(" ", "").split(","))).get(index, "")
