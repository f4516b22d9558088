"""`backsplit recipes`: the methods of the papers that a training can take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from napari_backsplit.backend.training.recipe_defaults import what_it_sets
from napari_backsplit.backend.training.recipes import RECIPES, Recipe
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption

KINDS = {
    "network": "Networks",
    "loss": "Losses",
    "labels": "Labels",
    "control": "Controls",
}
MORE = "Joined by commas: backsplit train --recipe segresnet,inverse-weighting (docs/recipes.md)."


@app.command(rich_help_panel="2 Train")
def recipes(as_json: JsonOption = False) -> None:
    """List the methods of the papers that a training can take: train --recipe NAME,NAME."""
    from napari_backsplit.cli.console import say, show, table

    if as_json:
        show([_plain(recipe) for recipe in RECIPES.values()], as_json)
        return
    wide = max(map(len, RECIPES))
    for kind, title in KINDS.items():
        found = [recipe for recipe in RECIPES.values() if recipe.kind == kind]
        rows = ((r.name, r.title, r.source, what_it_sets(r)) for r in found)
        table((title.ljust(wide), "what it is", "source", "what it sets"), rows)
        say("")
    for recipe in RECIPES.values():
        if recipe.unavailable:
            say(f"{recipe.name} cannot be used here: {recipe.unavailable}")
    say(MORE)


def _plain(recipe: Recipe) -> Mapping[str, Any]:
    """Return a recipe for a program."""
    return {**asdict(recipe), "unavailable": recipe.unavailable}
