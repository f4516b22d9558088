"""Checkpoints as data: loaded by torch's weights_only, never by pickle alone.

Worker-only: imports torch.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.prediction.model_folder import ModelFolder, check_complete
from napari_backsplit.backend.prediction.trust import check_folder, check_trainer

_REMEDY = "A checkpoint is loaded as data only; ask its maker for one without it."
_GLOBAL = re.compile(r"(?:GLOBAL|Trying to load unsupported GLOBAL) ([\w.]+)")
_STATE = ("optimizer_state", "grad_scaler_state", "logging", "_best_ema", "current_epoch")


class _Dtype:
    """Stands in for numpy.dtype while unpickling: numbers only, nothing structured."""

    def __init__(self, code: str | bytes, *flags: object) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not re.fullmatch(r"[biufc?]\d{0,2}", code):
            raise ValueError(f"numpy.dtype {code!r}")
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError(f"numpy.dtype order {order!r}")
        self.order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(f"{self.order.replace('|', '')}{self.code}")


def _scalar(dtype: _Dtype, data: bytes) -> Any:
    """Stand in for numpy's scalar: one number from its bytes."""
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise ValueError("numpy scalar of no number")
    return np.frombuffer(data, dtype.numpy(), count=1)[0]


# Both spellings: NumPy 2 moved numpy.core to numpy._core. numpy.dtypes.* appear in no pickle;
# they would only be needed to let torch build real dtypes.
_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
]


def load_checkpoint(path: Path, *, state: bool = True) -> dict[str, Any]:
    """Load an nnU-Net or nnInteractive checkpoint onto the CPU, as data.

    Parameters
    ----------
    path : Path
        A .pth file that torch.save wrote.
    state : bool
        Keep what only a continued training needs: optimiser, scaler, logging, epoch.

    Returns
    -------
    dict
        At least network_weights (name -> tensor), trainer_name, init_args["configuration"].

    Raises
    ------
    InputError
        The file is missing, half written, or no checkpoint of nnU-Net.
    UntrustedModelError
        Loading it would have to run code; the error names what it asks for.
    """
    check_complete(path)
    _check_undamaged(path)
    checkpoint = _checked(path, _load(path))
    if not state:
        return {key: value for key, value in checkpoint.items() if key not in _STATE}
    return checkpoint


def _check_undamaged(path: Path) -> None:
    """Compare the checksums in the file, which torch itself does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        damaged = str(error)
    if damaged is not None:
        raise InputError(f"{path.name} is damaged ({damaged}).", "Copy it again.")


def _load(path: Path) -> object:
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, MemoryError) as error:
        raise InputError(
            f"{path.name} cannot be read as a checkpoint: {str(error).splitlines()[0]}",
            "Copy it again, or use another fold.",
        ) from error
    except Exception as error:  # UnpicklingError, and whatever a crafted pickle provokes
        found = _GLOBAL.search(str(error))
        what = f"asks for {found[1]}" if found else "holds more than data"
        raise UntrustedModelError(f"{path.name} {what}, so it was not loaded.", _REMEDY) from error


def _checked(path: Path, checkpoint: object) -> dict[str, Any]:
    if not isinstance(checkpoint, dict) or not _is_model(checkpoint):
        raise InputError(
            f"{path.name} is no checkpoint of nnU-Net: network_weights, trainer_name or "
            "init_args is missing or not what it should be.",
            "Use checkpoint_final.pth or checkpoint_best.pth of a training.",
        )
    check_trainer(checkpoint["trainer_name"])
    return checkpoint


def _is_model(checkpoint: dict[str, Any]) -> bool:
    weights, arguments = checkpoint.get("network_weights"), checkpoint.get("init_args")
    return (
        isinstance(weights, dict)
        and len(weights) > 0
        and all(isinstance(name, str) for name in weights)
        and all(isinstance(value, torch.Tensor) for value in weights.values())
        and isinstance(arguments, dict)
        and isinstance(arguments.get("configuration"), str)
        and "trainer_name" in checkpoint
    )


def check_model(folder: Path) -> ModelFolder:
    """Check a whole model folder, every checkpoint included, before foreign code loads it.

    For nnInteractive's server, which loads without weights_only.

    Raises
    ------
    InputError
        Something is missing or half written.
    UntrustedModelError
        A name or a checkpoint is not what a model may hold.
    """
    check_folder(folder)
    for file in sorted(folder.glob("fold_*/*.pth")):
        load_checkpoint(file)
    return ModelFolder.open(folder)
