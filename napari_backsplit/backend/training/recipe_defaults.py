"""The defaults of a run as recipes change them, where it is made and where it is made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.combinations import BY_CLASS, MONAI
from napari_backsplit.backend.training.recipes import (
    Recipe,
    chosen_recipes,
    recipe_names,
    run_settings,
)
from napari_backsplit.backend.training.spec import FINETUNE, RunSpec

SEE = "See: backsplit recipes"
SHARE = "target_dice_share"


def with_recipes(
    defaults: Mapping[str, Any], names: Sequence[str], loss: str | None = None
) -> dict[str, Any]:
    """Return the defaults of a run as some recipes change them.

    A share of the Dice term that the defaults give the targets is left out where the loss is no
    mean over classes, as that of a fine-tune.

    Parameters
    ----------
    defaults : mapping
        Fields of RunSpec.
    names : sequence of str
        Recipes.
    loss : str, optional
        The loss that a person chose beside them.

    Raises
    ------
    ValueError
        As for `recipes.run_settings`.
    """
    settings = run_settings(names)
    changed = {**defaults, **settings}
    minimised = loss or changed.get("loss", RunSpec.model_fields["loss"].default)
    if minimised not in BY_CLASS and SHARE not in settings:
        changed.pop(SHARE, None)
    return changed


def tuning_values(said: Mapping[str, Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a fine-tune: its defaults, its baseline's, its recipes', what is said.

    Parameters
    ----------
    said : mapping
        Fields of RunSpec, or the text of some, that a person set.
    start : mapping
        Fields that the baseline gives: its plan set, its network, how it learnt.

    Raises
    ------
    InputError
        The recipes do not combine, or one of them does not go with a fine-tune.
    """
    with spoken():
        names = recipe_names(said.get("recipe", ()))
        require_no_arm(names, "a fine-tune trains with its supports, and its control without")
        _require_network(names, start)
        settings = with_recipes({**FINETUNE, **start}, names, said.get("loss"))
    return {**settings, **{k: start[k] for k in ("plan_set",) if k in start}, **said}


def _require_network(names: Sequence[str], start: Mapping[str, Any]) -> None:
    """Refuse recipes of another network or of other plans than the baseline's."""
    if "baseline" not in start:
        return
    own = start.get("architecture", "planned")
    for recipe in chosen_recipes(names):
        if recipe.run.get("architecture", own) != own:
            raise ValueError(
                f"a fine-tune keeps its baseline's network ({own}), which the recipe {recipe.name} "
                "would replace: train from scratch with it"
            )
        if recipe.plan and start["plan_set"] != recipe.name:
            raise ValueError(
                f"a fine-tune keeps its baseline's plans, and the recipe {recipe.name} needs plans "
                "of its own: train from scratch with it"
            )


def what_it_sets(*recipes: Recipe) -> str:
    """Say in a line what recipes set, their plans first; "" for nothing."""
    settings = {name: value for recipe in recipes for name, value in recipe.plan.items()}
    settings |= {name: value for recipe in recipes for name, value in recipe.run.items()}
    return ", ".join(
        f"{setting_words(name)} {setting_value(value)}" for name, value in settings.items()
    )


def setting_words(name: str) -> str:
    """Return the name of a setting in words: "initial learning rate"."""
    return " ".join("learning rate" if word == "lr" else word for word in name.split("_"))


def setting_value(value: Any) -> str:
    """Return the value of a setting in words: "on", "0.01", "64 64 32"; "as usual" for none."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    if value is None:
        return "as usual"
    return f"{value:g}" if isinstance(value, float) else str(value)


def require_no_arm(names: Sequence[str], reason: str) -> None:
    """Refuse recipes that choose the arm where something else does.

    Raises
    ------
    ValueError
        With the reason.
    """
    for recipe in chosen_recipes(names):
        if "arm" in recipe.run:
            raise ValueError(f"the recipe {recipe.name} chooses the arm: {reason}")


def require_installed(run: RunSpec) -> None:
    """Refuse a run whose network, or one of whose recipes, needs a package that is not there.

    Raises
    ------
    InputError
        With the command that installs it.
    """
    network = (run.architecture,) if run.architecture in MONAI else ()
    for recipe in chosen_recipes(list(dict.fromkeys((*run.recipe, *network)))):
        if recipe.unavailable:
            problem, _, remedy = recipe.unavailable.partition(". ")
            raise InputError(f"{recipe.name} cannot be trained here: {problem}.", remedy)


def exchanged(run: RunSpec, names: Sequence[str]) -> dict[str, Any]:
    """Return the fields of a run that takes other recipes; what was set beside the old ones stays.

    Raises
    ------
    ValueError
        The recipes do not combine, or need another plan set or network than the run's.
    """
    plain = {name: field.default for name, field in RunSpec.model_fields.items()}
    before = {**plain, **run_settings(run.recipe)}
    said = {name: value for name, value in run if value != before[name]}
    said |= {"plan_set": run.plan_set}
    if run.baseline is not None:
        _require_network(names, dict(run))
        if said.get(SHARE) == FINETUNE[SHARE]:  # nobody said it
            plain |= {SHARE: said.pop(SHARE)}
    _require_plans(names, run.plan_set)
    changed = with_recipes(plain, names, said.get("loss"))
    return {**plain, SHARE: None, **changed, **said, "recipe": tuple(names)}


def _require_plans(names: Sequence[str], plan_set: str) -> None:
    for recipe in chosen_recipes(names):
        if recipe.plan and plan_set != recipe.name:
            raise ValueError(
                f"the recipe {recipe.name} needs plans of its own, not the plan set {plan_set}: "
                f"backsplit train --recipe {recipe.name}"
            )


@contextmanager
def spoken() -> Iterator[None]:
    """Turn what recipes refuse into a sentence for a person.

    Raises
    ------
    InputError
    """
    try:
        yield
    except ValueError as error:
        problem = str(error).rstrip(".")
        raise InputError(f"{problem[0].upper()}{problem[1:]}.", SEE) from None
