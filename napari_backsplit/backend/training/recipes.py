"""Recipes: each method of the papers as a few settings of a run, under a name, to combine.

    RunSpec(arm="backsplit", recipe=("segresnet", "inverse-weighting"))

A recipe changes defaults: what a person sets beside it stays. Two recipes combine unless they set
one field to different values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any, Literal

Kind = Literal["network", "loss", "labels", "control"]
MONAI_COMMAND = 'pip install "napari-backsplit[monai]"'


@dataclass(frozen=True)
class Recipe:
    """A method under a name.

    Attributes
    ----------
    name : str
    kind : str
        What it changes: the network, the loss, the labels, or a control of the paper.
    title : str
        What it is, in a line.
    source : str
        Where it is described.
    run : mapping
        Fields of RunSpec.
    plan : mapping
        Fields of PlanSpec, where it needs a plan set of its own; that has the recipe's name.
    needs : str
        Package that has to be installed; "" for none.
    """

    name: str
    kind: Kind
    title: str
    source: str
    run: Mapping[str, Any] = field(default_factory=dict)
    plan: Mapping[str, Any] = field(default_factory=dict)
    needs: str = ""

    @property
    def unavailable(self) -> str:
        """Why it cannot be used here, with the command that helps; "" where it can."""
        if not self.needs or find_spec(self.needs) is not None:
            return ""
        return f"{self.needs} is not installed. Install it with: {MONAI_COMMAND}"


_BACKSPLIT = "BackSplit, supplement"
_INVERSE = "Inverse weighting (Shirokikh et al. 2020)"
_SOFTSEG = "SoftSeg (Gros et al. 2021)"

_ALL = (
    Recipe("2d", "network", "nnU-Net's U-Net on slices", f"{_BACKSPLIT} G.4",
           plan={"configuration": "2d"}),
    Recipe("3d-lowres", "network", "nnU-Net's U-Net on a coarser grid", "nnU-Net",
           plan={"configuration": "3d_lowres"}),
    Recipe("resenc-m", "network", "Residual encoder U-Net, preset M", "BackSplit, Tab. 1",
           {"architecture": "resenc-m"}),
    Recipe("resenc-l", "network", "Residual encoder U-Net, preset L", "nnU-Net Revisited",
           {"architecture": "resenc-l"}),
    Recipe("segresnet", "network", "MONAI's SegResNet, Adam at 1e-4", "BackSplit, Tab. 1",
           {"architecture": "segresnet", "optimiser": "adam", "initial_lr": 1e-4,
            "weight_decay": 1e-5, "epsilon": 1e-5, "schedule": "poly"}, needs="monai"),
    Recipe("swinunetr", "network", "MONAI's SwinUNETR, AdamW at 8e-4", f"{_BACKSPLIT} G.5",
           {"architecture": "swinunetr", "optimiser": "adamw", "initial_lr": 8e-4,
            "weight_decay": 0.01, "epsilon": 1e-5, "schedule": "cosine", "final_lr": 1e-6},
           needs="monai"),
    Recipe("dice", "loss", "Dice alone", _INVERSE, {"loss": "dice"}),
    Recipe("ce", "loss", "Cross-entropy alone", _INVERSE, {"loss": "ce"}),
    Recipe("focal", "loss", "Focal loss, alpha 0.75", _INVERSE, {"loss": "focal"}),
    Recipe("asymmetric", "loss", "Asymmetric similarity loss, beta 1.5", _INVERSE,
           {"loss": "asymmetric"}),
    Recipe("weighted-ce", "loss", "Cross-entropy weighted by class", _INVERSE,
           {"loss": "weighted-ce"}),
    Recipe("generalised-dice", "loss", "Generalised Dice", _INVERSE, {"loss": "generalised-dice"}),
    Recipe("inverse-weighting", "loss", "Voxels weighted inversely to their lesion's volume",
           _INVERSE, {"inverse_weighting": True}),
    Recipe("target-half", "loss", "Half of the Dice term for the targets", "ADR 6",
           {"target_dice_share": 0.5}),
    Recipe("softseg", "labels", "Soft labels, normalised ReLU, adaptive wing", _SOFTSEG,
           {"labels": "soft", "activation": "normalised-relu", "loss": "adaptive-wing"}),
    Recipe("plain-partial", "labels", "A missing support is background, as in the paper",
           "BackSplit, Fig. 3", {"missing": "background"}),
    Recipe("no-deep-supervision", "control", "The finest output alone is trained",
           f"{_BACKSPLIT} G.3", {"deep_supervision": False}),
    Recipe("batch-2", "control", "Two patches in a batch", f"{_BACKSPLIT} G.1", {"batch_size": 2}),
    Recipe("batch-4", "control", "Four patches in a batch", f"{_BACKSPLIT} G.1", {"batch_size": 4}),
    Recipe("virtual", "control", "An empty class beside the targets", f"{_BACKSPLIT} I",
           {"arm": "virtual"}),
    Recipe("virtual-set", "control", "Background, or an empty class", "ADR 2",
           {"arm": "virtual-set"}),
    Recipe("permuted", "control", "The supports of another case", "", {"arm": "permuted"}),
    Recipe("blobs", "control", "Random regions as supports", "", {"arm": "blobs"}),
)  # fmt: skip

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _ALL}


def recipe_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return the names of recipes, also of those that are written as one text: "2d, focal"."""
    parts = names.split(",") if isinstance(names, str) else names
    return tuple(part.strip() for part in parts if part.strip())


def chosen_recipes(names: Sequence[str]) -> list[Recipe]:
    """Return recipes by their names.

    Raises
    ------
    ValueError
        There is none of this name, or one is named twice.
    """
    for name in names:
        if name not in RECIPES:
            raise ValueError(f"there is no recipe {name!r}, only {', '.join(RECIPES)}")
        if list(names).count(name) > 1:
            raise ValueError(f"the recipe {name} is named twice")
    return [RECIPES[name] for name in names]


def run_settings(names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of RunSpec that some recipes set together.

    Raises
    ------
    ValueError
        Two recipes set a field to different values, or there is no such recipe.
    """
    recipes = chosen_recipes(names)
    own = {recipe.name: {"plan_set": recipe.name} if recipe.plan else {} for recipe in recipes}
    return _merged([(recipe.name, {**own[recipe.name], **recipe.run}) for recipe in recipes])


def plan_settings(names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of the PlanSpec that some recipes need; none where any plan set will do.

    Raises
    ------
    ValueError
        As for `run_settings`.
    """
    recipes = [recipe for recipe in chosen_recipes(names) if recipe.plan]
    return _merged([(recipe.name, {"name": recipe.name, **recipe.plan}) for recipe in recipes])


def _merged(settings: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    by: dict[str, str] = {}
    for name, values in settings:
        for key, value in values.items():
            if merged.get(key, value) != value:
                what = key.replace("_", " ")
                raise ValueError(
                    f"the recipes {by[key]} and {name} do not combine: both set {what}"
                )
            merged[key], by[key] = value, name
    return merged
