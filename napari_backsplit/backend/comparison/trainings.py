"""How the models of a comparison were trained: what, beside arm and supports, sets them apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.training.baseline import plan_sets
from napari_backsplit.backend.training.combinations import MONAI
from napari_backsplit.backend.training.recipe_defaults import setting_value, setting_words
from napari_backsplit.backend.training.spec import RunSpec

CARD = "backsplit"
EPOCHS, START = "epochs", "started from"

UNSAID = ("seed", "recipe")
"""Settings whose difference is none by itself: chance, and a name for settings."""

_TOLD_APART = {"arm", "supports", "support_count", "plan_set", "fold"}  # have a line of their own
_BUDGET = {"epochs", "hours", "until", "same_epochs_as"}
_START = {"baseline", "baseline_checkpoint", "label_mapping"}
_MACHINE = {"workers", "threads", "device", "compile", "checkpoint_every", "picture_every",
            "yield_to_clicks", "tracker"}  # fmt: skip
_DEFAULTS: Mapping[str, Any] = {
    name: each.default
    for name, each in RunSpec.model_fields.items()
    if name not in _TOLD_APART | _BUDGET | _START | _MACHINE
}


@dataclass(frozen=True)
class Training:
    """What is known of how a model was trained.

    Parameters
    ----------
    plan_set : str
        "" where it is not known.
    settings : mapping of str to str
        Setting in words -> value in words; empty where nothing is recorded.
    """

    plan_set: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> str:
        """The settings that are not a run's defaults, in a line; "none", or "" if not known."""
        usual = _in_words({})
        own = (f"{word} {value}" for word, value in self.settings.items() if word in usual
               and usual[word] != value)  # fmt: skip
        return ", ".join(own) or ("none" if self.settings else "")


def training_of(project: Path, model: str) -> Training:
    """Return how a model was trained, as its card and the project's plan sets say.

    Parameters
    ----------
    project : Path
    model : str
        Its folder, as predictions name it: relative to the project; "" for masks of another
        program.
    """
    card = card_of(project, model)
    run = card.get("run") or {}
    if not run:
        return Training(_plan_set(project, model, card))
    epochs = (card.get("trained") or run).get("epochs", RunSpec.model_fields["epochs"].default)
    start = PurePosixPath(run.get("baseline") or "").parts[1:2]  # of jobs/0001-train/model
    settings = {START: start[0] if start else "scratch", EPOCHS: str(epochs), **_in_words(run)}
    return Training(_plan_set(project, model, card), settings)


def card_of(project: Path, model: str) -> dict[str, Any]:
    """Return what this package wrote about a model of the project; empty for a foreign one."""
    try:
        card = read_json(project / model / "dataset.json").get(CARD) if model else None
    except (OSError, ValueError, AttributeError, BackSplitError):
        return {}
    return dict(card) if isinstance(card, dict) else {}


def _in_words(run: Mapping[str, Any]) -> dict[str, str]:
    values = {name: run.get(name, usual) for name, usual in _DEFAULTS.items()}
    if values["deep_supervision"] is None:
        values["deep_supervision"] = values["architecture"] not in MONAI
    return {setting_words(name): setting_value(value) for name, value in values.items()}


def _plan_set(project: Path, model: str, card: Mapping[str, Any]) -> str:
    """Return a model's plan set; of one from elsewhere the plan set that took over its plans."""
    own = str(card.get("plan_set") or "")
    if not model or model.startswith("jobs/"):
        return own
    made = plan_sets(project).items()
    took = (name for name, content in made if content["spec"].get("baseline") == model)
    return next(took, f"{own} of another project" if own else "")
