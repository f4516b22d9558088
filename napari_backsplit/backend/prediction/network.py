"""The network of a checked model: built as its trainer builds it, with the weights of each fold.

Worker-only: imports torch and nnU-Net.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nnunetv2
import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.trust import check_trainer
from napari_backsplit.backend.training.architectures import require_installed

STOCK = "nnUNetTrainer"


def available_devices() -> list[str]:
    """Return the devices of this machine: cpu always, then cuda:N and mps."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def resolve_device(name: str) -> torch.device:
    """Return the device of this name.

    Raises
    ------
    InputError
        This machine has none of that name.
    """
    available = available_devices()
    if name not in available and not (name == "cuda" and "cuda:0" in available):
        raise InputError(
            f"This machine has no device {name!r}.", f"Choose from: {', '.join(available)}."
        )
    return torch.device(name)


def stock_trainer(name: str) -> type[Any] | None:
    """Return the trainer class of nnU-Net's own package with this name, None if it has none.

    Only the one module whose source defines the class is imported; folders that the
    environment names (nnUNet_extTrainer) are never searched.
    """
    check_trainer(name)
    root = Path(nnunetv2.__path__[0])
    for file in sorted((root / "training" / "nnUNetTrainer").rglob("*.py")):
        if re.search(rf"^class {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            module = ".".join(("nnunetv2", *file.relative_to(root).with_suffix("").parts))
            found: object = getattr(importlib.import_module(module), name)
            if isinstance(found, type) and _is_trainer(found):
                return found
    return None


def _is_trainer(found: type[Any]) -> bool:
    return any(base.__name__ == STOCK for base in found.__mro__)


def build_networks(
    trainer: type[Any] | None,
    plans: Any,
    configuration: Any,
    dataset_json: dict[str, Any],
    weights: Sequence[dict[str, Any]],
    device: torch.device,
) -> list[torch.nn.Module]:
    """Return one network a fold, ready to predict.

    Parameters
    ----------
    trainer : type or None
        A trainer of nnU-Net with an architecture of its own; None: as plans.json says, which
        is what nnUNetTrainer does (its module takes seconds to import).

    Raises
    ------
    InputError
        The weights do not fit the network of plans.json, or it is one of MONAI, which is missing.
    """
    require_installed(configuration.configuration)
    build = _as_planned if trainer is None else trainer.build_network_architecture
    first: torch.nn.Module = build(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset_json),
        plans.get_label_manager(dataset_json).num_segmentation_heads,
        False,
    )
    networks = [first, *(copy.deepcopy(first) for _ in weights[1:])]
    for network, parameters in zip(networks, weights, strict=True):
        _fit(network, parameters)
    return [network.to(device).eval() for network in networks]


def _as_planned(
    plans: Any, configuration: Any, channels: int, classes: int, deep_supervision: bool
) -> torch.nn.Module:
    network: torch.nn.Module = get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        channels,
        classes,
        allow_init=False,
        deep_supervision=deep_supervision,
    )
    return network


def _fit(network: torch.nn.Module, parameters: dict[str, Any]) -> None:
    try:
        network.load_state_dict(parameters)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        raise InputError(
            f"The weights do not fit the network of plans.json: {lines[-1].strip()}",
            "Use the plans.json and dataset.json that belong to this checkpoint.",
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, of the machine or of a device, ran out."""
    said = str(error).casefold()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "can't allocate memory", "not enough memory")
    )
