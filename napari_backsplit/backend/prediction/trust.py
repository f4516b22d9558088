"""What a model folder may name: everything nnU-Net would look up by name and call.

nnU-Net turns strings of plans.json and dataset.json into classes and functions
(`pydoc.locate`, or any attribute of any module of a folder) and calls them. So a plans file is
as good as a program, and each such string passes an allow-list here before nnU-Net or
nnInteractive sees the folder. This module imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.files import read_json

_UNETS = ("PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet")
_OPERATORS = {
    "conv": ("Conv1d", "Conv2d", "Conv3d"),
    "instancenorm": ("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"),
    "batchnorm": ("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"),
    "normalization": ("GroupNorm", "LayerNorm"),
    "dropout": ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d"),
    "activation": ("LeakyReLU", "ReLU", "PReLU", "ELU", "GELU", "SiLU", "Mish", "ReLU6"),
}

NETWORKS = frozenset(
    f"dynamic_network_architectures.architectures.{module}.{name}"
    for module in ("unet", "residual_unet")
    for name in _UNETS
)
MONAI_NETWORKS: Mapping[str, tuple[str, int]] = {
    "napari_backsplit.backend.training.monai_networks.MonaiSegResNet": ("init_filters", 8),
    "napari_backsplit.backend.training.monai_networks.MonaiSwinUNETR": ("feature_size", 12),
}
"""Our adapters of MONAI's networks: the only argument that each takes, and what it is a multiple
of."""
_MOST_FEATURES = 512

OPERATORS = frozenset(
    f"torch.nn.{prefix}{name}"
    for module, names in _OPERATORS.items()
    for name in names
    for prefix in ("", f"modules.{module}.")
) | frozenset(
    f"dynamic_network_architectures.building_blocks.residual.{name}"
    for name in ("BasicBlockD", "BottleneckD")
)
_POOLS = frozenset({"conv", "max", "avg"})
PREPROCESSORS = frozenset({"DefaultPreprocessor"})
RESAMPLERS = frozenset(
    {
        "resample_data_or_seg_to_shape",
        "resample_torch_fornnunet",
        "resample_torch_simple",
        "no_resampling_hack",
    }
)
NORMALISATIONS = frozenset(
    {
        "CTNormalization",
        "ZScoreNormalization",
        "NoNormalization",
        "RescaleTo01Normalization",
        "RGBTo01Normalization",
    }
)
READERS = frozenset(
    {
        "SimpleITKIO",
        "SimpleITKIOWithReorient",
        "NibabelIO",
        "NibabelIOWithReorient",
        "NaturalImage2DIO",
        "Tiff3DIO",
    }
)
LABEL_MANAGERS = frozenset({"LabelManager"})

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+\-]{0,199}")
_FILE_ENDING = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}")
_PLANNER = re.compile(r"[A-Za-z0-9_]*Planner[A-Za-z0-9_]*")
_TRAINER = re.compile(r"_?(nnUNet|nnInteractive|Primus|BackSplit)[A-Za-z0-9_]{0,150}")
_SESSION = re.compile(r"nnInteractive[A-Za-z0-9_]{0,100}")
_REMEDY = "Only models of nnU-Net's own parts are loaded; do not use this folder."


def _refuse(what: str, value: object) -> UntrustedModelError:
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return UntrustedModelError(f"The model names {shown} as its {what}.", _REMEDY)


def _allow(what: str, value: object, allowed: Collection[str] | re.Pattern[str]) -> None:
    if not isinstance(value, str):
        raise _refuse(what, value)
    fits = allowed.fullmatch(value) if isinstance(allowed, re.Pattern) else value in allowed
    if not fits:
        raise _refuse(what, value)


def _entries(what: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _refuse(what, value)
    return value


def _list(what: str, value: object) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _refuse(what, value)
    return list(value)


_Rule = Callable[[str, Any], None]


def _one_of(allowed: Collection[str] | re.Pattern[str]) -> _Rule:
    return lambda what, value: _allow(what, value, allowed)


def _each_of(allowed: Collection[str] | re.Pattern[str]) -> _Rule:
    def check(what: str, value: Any) -> None:
        for item in [value] if isinstance(value, str) else _list(what, value):
            _allow(what, item, allowed)

    return check


def _arguments(what: str, value: Any) -> None:
    for item in _entries(what, value).values():
        if not isinstance(item, str | int | float | bool | None):
            raise _refuse(what, item)


def _architecture(what: str, value: Any) -> None:
    architecture = _entries(what, value)
    network = architecture.get("network_class_name")
    if isinstance(network, str) and network in MONAI_NETWORKS:
        _monai(architecture, *MONAI_NETWORKS[network])
        return
    _allow("network", network, NETWORKS)
    arguments = _entries("network's arguments", architecture.get("arch_kwargs"))
    imports = _list("list of imports", architecture.get("_kw_requires_import", []))
    for key in imports:
        if not isinstance(key, str) or key not in arguments:
            raise _refuse("import", key)
    for key, argument in arguments.items():
        # Some trainers look names up that the list of imports leaves out.
        allowed = OPERATORS if key in imports else OPERATORS | _POOLS
        if isinstance(argument, str) or (key in imports and argument is not None):
            _allow(f"network's {key}", argument, allowed)


def _monai(architecture: Mapping[str, Any], name: str, step: int) -> None:
    arguments = _entries("network's arguments", architecture.get("arch_kwargs"))
    if set(arguments) - {name} or architecture.get("_kw_requires_import", []) != []:
        raise _refuse("network's arguments", sorted(map(str, arguments)))
    width = arguments.get(name, step)
    whole = isinstance(width, int) and not isinstance(width, bool)
    if not whole or width % step or not 0 < width <= _MOST_FEATURES:
        raise _refuse(f"network's {name}", width)


_CONFIGURATION: dict[str, _Rule] = {
    "architecture": _architecture,
    "UNet_class_name": _one_of(_UNETS),
    "preprocessor_name": _one_of(PREPROCESSORS),
    "normalization_schemes": _each_of(NORMALISATIONS),
    "resampling_fn_data": _one_of(RESAMPLERS),
    "resampling_fn_seg": _one_of(RESAMPLERS),
    "resampling_fn_probabilities": _one_of(RESAMPLERS),
    "resampling_fn_data_kwargs": _arguments,
    "resampling_fn_seg_kwargs": _arguments,
    "resampling_fn_probabilities_kwargs": _arguments,
    "data_identifier": _one_of(_PLAIN_NAME),
    "inherits_from": _one_of(_PLAIN_NAME),
    "previous_stage": _one_of(_PLAIN_NAME),
    "next_stage": _each_of(_PLAIN_NAME),
}
_PLANS: dict[str, _Rule] = {
    "dataset_name": _one_of(_PLAIN_NAME),
    "plans_name": _one_of(_PLAIN_NAME),
    "image_reader_writer": _one_of(READERS),
    "label_manager": _one_of(LABEL_MANAGERS),
    "experiment_planner_used": _one_of(_PLANNER),
}
_OPTIONAL = frozenset({"previous_stage", "next_stage"})


def _apply(rules: Mapping[str, _Rule], entries: Mapping[str, Any]) -> None:
    for key in rules.keys() & entries.keys():
        if entries[key] is not None or key not in _OPTIONAL:
            rules[key](key.replace("_", " "), entries[key])


def check_plans(plans: Mapping[str, Any]) -> None:
    """Refuse plans that name anything but nnU-Net's own parts.

    Every configuration is checked, not only the one that will be used, because they inherit
    from one another. Keys nnU-Net does not resolve are left alone.

    Raises
    ------
    UntrustedModelError
        A name is not on the allow-list, or is not a name at all.
    """
    _apply(_PLANS, _entries("plans", plans))
    for name, entries in _entries("configurations", plans.get("configurations")).items():
        _allow("configuration", name, _PLAIN_NAME)
        _apply(_CONFIGURATION, _entries(f"configuration {name}", entries))


def check_dataset(dataset_json: Mapping[str, Any]) -> None:
    """Refuse a dataset.json that names a foreign reader, odd labels or an odd file ending.

    Raises
    ------
    UntrustedModelError
        A name is not on the allow-list, or a label is no whole number or list of them.
    """
    entries = _entries("dataset", dataset_json)
    reader = entries.get("overwrite_image_reader_writer")
    if reader not in (None, "None"):
        _allow("image reader", reader, READERS)
    if "file_ending" in entries:
        _allow("file ending", entries["file_ending"], _FILE_ENDING)
    for label in _entries("labels", entries.get("labels")).values():
        _whole_numbers("label", label)
    _whole_numbers("order of regions", entries.get("regions_class_order") or [])


def _whole_numbers(what: str, value: object) -> None:
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item < 2**16:
            raise _refuse(what, item)


def check_trainer(name: object) -> None:
    """Refuse a trainer name that does not look like one of nnU-Net's or nnInteractive's.

    Raises
    ------
    UntrustedModelError
        The name could reach something other than a trainer.
    """
    _allow("trainer", name, _TRAINER)


def check_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the JSON files of an nnU-Net or nnInteractive model folder and return two of them.

    The checkpoints are not looked into: `checkpoint.load_checkpoint` does that.

    Returns
    -------
    tuple of dict
        plans.json and dataset.json, as checked.

    Raises
    ------
    InputError
        A file is missing or no JSON.
    UntrustedModelError
        A name in them is not on the allow-list.
    """
    plans, dataset_json = (_read(folder, name) for name in ("plans.json", "dataset.json"))
    check_plans(plans)
    check_dataset(dataset_json)
    for name in ("inference_info.json", "inference_session_class.json"):
        if (folder / name).exists():
            _check_session(read_json(folder / name))
    return plans, dataset_json


def _read(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / name).is_file():
        raise InputError(
            f"{folder} has no {name}, so it is no nnU-Net model folder.",
            "Choose the folder that holds plans.json, dataset.json and the fold_ folders.",
        )
    content = read_json(folder / name)
    if not isinstance(content, dict):
        raise InputError(f"{folder / name} is no JSON object.", "Restore the file.")
    return content


def _check_session(content: object) -> None:
    if isinstance(content, str):
        _allow("inference session", content, _SESSION)
        return
    name = _entries("inference session", content).get("inference_class")
    if name is not None:
        _allow("inference session", name, _SESSION)
