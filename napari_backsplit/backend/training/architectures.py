"""The network of a run, as plans say it: the planned one, a residual encoder, or one of MONAI.

A run keeps the spacing, the preprocessing and the batch size of its plan set; only the network and,
where that needs it, the patch become others. Needs no torch but to plan a residual encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from math import prod
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.combinations import MONAI
from napari_backsplit.backend.training.recipes import MONAI_COMMAND
from napari_backsplit.backend.training.spec import Architecture, PlanSpec, RunSpec

_MODULE = "napari_backsplit.backend.training.monai_networks"
_PLANNERS = "napari_backsplit.backend.training.residual_plans"
CLASSES: Mapping[str, str] = {
    "segresnet": f"{_MODULE}.MonaiSegResNet",
    "swinunetr": f"{_MODULE}.MonaiSwinUNETR",
}
"""What plans.json names the adapters of MONAI's networks."""

WIDTH = {"segresnet": "init_filters", "swinunetr": "feature_size"}
"""Argument of a MONAI network that is the number of its first features."""

STEPS = {"segresnet": 8, "swinunetr": 32}
"""A MONAI network takes patches whose every side is a multiple of this."""

LONGEST = {"segresnet": 8, "swinunetr": 64}
"""The longest side of a patch is at least this: SwinUNETR's norms need two voxels at its end."""

RESIDUAL = ("resenc-m", "resenc-l")
"""Architectures that nnU-Net's own planner chooses, which imports torch."""

DEFAULT_WIDTH: Mapping[Architecture, int] = {
    "resenc-m": 32,
    "resenc-l": 32,
    "segresnet": 32,
    "swinunetr": 48,
}

PARAMETERS: Mapping[Architecture, float] = {
    "resenc-m": 102e6,
    "resenc-l": 102e6,
    "segresnet": 18.8e6,
    "swinunetr": 62.2e6,
}
"""About how many parameters an architecture has at its default width, with six stages."""


def with_architecture(
    plans: Mapping[str, Any], name: str, spec: RunSpec, chosen: PlanSpec | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return the plans of a run: its network, patch and batch in place of the plan set's.

    Parameters
    ----------
    plans : mapping
        nnU-Net's plans of the plan set; left as they are.
    name : str
        Its configuration.
    spec : RunSpec
    chosen : PlanSpec, optional
        What a person chose of the plan set: a patch or features of one's own are kept, and a
        residual encoder is planned for that patch.

    Returns
    -------
    dict
        Plans with this configuration.
    list of str
        A sentence for whatever became another than planned, to be told.

    Raises
    ------
    InputError
        The network does not take these images or this patch, or MONAI is missing.
    """
    configuration = dict(plans["configurations"][name])
    require_architecture(spec, name)
    planned = [int(size) for size in configuration["patch_size"]]
    if spec.architecture in MONAI:
        configuration |= _monai(spec, planned)
    elif spec.architecture in RESIDUAL:
        configuration |= _residual(configuration, spec, chosen or PlanSpec())
    notes = _notes(spec, planned, configuration["patch_size"])
    if spec.patch_size is not None:
        configuration["patch_size"], notes = list(spec.patch_size), []
    if spec.batch_size is not None:
        configuration["batch_size"] = spec.batch_size
    require_patch(configuration)
    require_installed(configuration)
    if spec.deep_supervision and not has_levels(configuration):
        raise InputError(
            f"{monai_name(configuration)} has no coarser outputs for deep supervision.",
            "Leave deep_supervision out.",
        )
    return {**plans, "configurations": {name: configuration}}, notes


def require_architecture(spec: RunSpec, plan_configuration: str) -> None:
    """Refuse a network that cannot be trained with a plan set.

    Parameters
    ----------
    spec : RunSpec
    plan_configuration : str
        2d, 3d_fullres or 3d_lowres.

    Raises
    ------
    InputError
        A network for volumes is to learn from slices, MONAI is missing, or the patch that a person
        gave does not fit.
    """
    name = spec.architecture
    if name in MONAI and plan_configuration.startswith("2d"):
        raise InputError(
            f"{name} is for volumes; the plan set {spec.plan_set!r} is {plan_configuration}.",
            "Choose a plan set of 3d_fullres, or another architecture.",
        )
    if name in MONAI:
        _require_monai(name)
        if spec.patch_size is not None:
            require_patch({**_monai(spec, spec.patch_size), "patch_size": spec.patch_size})


def require_installed(configuration: Mapping[str, Any]) -> None:
    """Refuse a network whose package is missing here.

    Raises
    ------
    InputError
        With the command that installs it.
    """
    name = monai_name(configuration)
    if name:
        _require_monai(name)


def _require_monai(name: str) -> None:
    if find_spec("monai") is None:
        raise InputError(
            f"{name} needs the package monai, which is not installed.",
            f"Install it with: {MONAI_COMMAND}",
        )


# ---------------------------------------------------------------------- what plans say


def monai_name(configuration: Mapping[str, Any]) -> str:
    """Return which network of MONAI a configuration of plans has; "" for none of them."""
    named = configuration.get("architecture", {}).get("network_class_name")
    return next((name for name, path in CLASSES.items() if path == named), "")


def has_levels(configuration: Mapping[str, Any]) -> bool:
    """Whether the network has coarser outputs, which deep supervision trains."""
    return not monai_name(configuration)


def features(configuration: Mapping[str, Any]) -> list[int]:
    """Return the features of each stage, or of the first alone; [32] where plans do not say it."""
    arguments = configuration.get("architecture", {}).get("arch_kwargs", {})
    said = arguments.get(WIDTH.get(monai_name(configuration), "features_per_stage"), 32)
    return [int(width) for width in (said if isinstance(said, Sequence) else [said])]


def patch_steps(configuration: Mapping[str, Any]) -> tuple[int, ...]:
    """Return what the sides of a patch are multiples of, in the network's order of axes."""
    axes = len(configuration["patch_size"])
    name = monai_name(configuration)
    if name:
        return (STEPS[name],) * axes
    steps = configuration["architecture"]["arch_kwargs"]["strides"]
    rows = [step if isinstance(step, Sequence) else [step] for step in steps]
    rows = [list(row) * axes if len(row) == 1 else list(row) for row in rows]
    return tuple(prod(column) for column in zip(*rows, strict=True))


def require_patch(configuration: Mapping[str, Any]) -> None:
    """Refuse a patch that the network cannot take.

    Raises
    ------
    InputError
        It has another number of axes, is no multiple of the strides, or too small.
    """
    patch, steps = list(configuration["patch_size"]), patch_steps(configuration)
    least = LONGEST.get(monai_name(configuration), 0)
    if _fits(patch, steps, least):
        return
    longest = f", one of them at least {least}" if least > steps[0] else ""
    near = ""
    if len(patch) == len(steps):
        near = f", for example {_text(nearest_patch(patch, steps, least))}"
    raise InputError(
        f"Patch size {patch} does not fit the network.",
        f"Use {len(steps)} multiples of {_steps_text(steps)}{longest}{near}.",
    )


def _fits(patch: Sequence[int], steps: Sequence[int], least: int) -> bool:
    if len(patch) != len(steps) or max(patch) < least:
        return False
    return not any(size % step for size, step in zip(patch, steps, strict=True))


def nearest_patch(patch: Sequence[int], steps: Sequence[int], least: int = 0) -> list[int]:
    """Return the patch that is nearest among those that a network takes; the larger of two.

    Parameters
    ----------
    patch, steps : sequence of int
        Of one length.
    least : int
        Of the longest side.
    """
    sizes = [
        max(step, (size + step // 2) // step * step)
        for size, step in zip(patch, steps, strict=True)
    ]
    if max(sizes) < least:
        sizes[list(patch).index(max(patch))] = least
    return sizes


def needs(configuration: Mapping[str, Any]) -> str:
    """Return what a model needs beside nnU-Net, in a sentence; "" for nothing."""
    if not monai_name(configuration):
        return ""
    return (
        "It needs the packages napari-backsplit and MONAI "
        f"({MONAI_COMMAND}): nnU-Net alone cannot build its network."
    )


def about_parameters(spec: RunSpec) -> float:
    """Return about how many parameters another architecture than the planned has; 0: unknown."""
    if spec.architecture == "planned":
        return 0.0
    usual = DEFAULT_WIDTH[spec.architecture]
    return PARAMETERS[spec.architecture] * ((spec.width or usual) / usual) ** 2


def about_checkpoint_bytes(spec: RunSpec) -> int:
    """Return about the size of a checkpoint of another architecture; 0 for the planned one."""
    kept = 2 if spec.optimiser == "sgd" else 3  # the weights, and the optimiser's moments of each
    return int(4 * kept * about_parameters(spec))


# ---------------------------------------------------------------------- another network


def _monai(spec: RunSpec, planned: Sequence[int]) -> dict[str, Any]:
    name = spec.architecture
    steps = (STEPS[name],) * len(planned)
    return {
        "patch_size": nearest_patch(planned, steps, LONGEST[name]),
        "architecture": {
            "network_class_name": CLASSES[name],
            "arch_kwargs": {WIDTH[name]: spec.width or DEFAULT_WIDTH[name]},
            "_kw_requires_import": [],
        },
    }


def _residual(configuration: Mapping[str, Any], spec: RunSpec, chosen: PlanSpec) -> dict[str, Any]:
    planner = import_module(_PLANNERS)  # by its name: it needs nnU-Net, and most callers do not
    own = chosen.patch_size is not None or chosen.features is not None
    found: dict[str, Any] = (
        planner.for_patch(configuration)
        if own
        else planner.planned(configuration, spec.architecture, chosen.gpu_memory_gb)
    )
    arguments = found["architecture"]["arch_kwargs"]
    width = spec.width or DEFAULT_WIDTH[spec.architecture]
    arguments["features_per_stage"] = [
        max(1, features * width // DEFAULT_WIDTH[spec.architecture])
        for features in arguments["features_per_stage"]
    ]
    return found


def _notes(spec: RunSpec, planned: Sequence[int], patch: Sequence[int]) -> list[str]:
    if list(planned) == list(patch):
        return []
    said = f"The patch is {_text(patch)} voxels instead of the planned {_text(planned)}: "
    return [said + _reason(spec.architecture)]


def _reason(name: Architecture) -> str:
    if name not in MONAI:
        return f"nnU-Net's planner of {name} chose it for this network."
    longest = f", one of them at least {LONGEST[name]}" if LONGEST[name] > STEPS[name] else ""
    return f"{name} takes multiples of {STEPS[name]}{longest}."


def _text(patch: Sequence[int]) -> str:
    return " x ".join(map(str, patch))


def _steps_text(steps: Sequence[int]) -> str:
    return str(steps[0]) if len(set(steps)) == 1 else str(list(steps))
