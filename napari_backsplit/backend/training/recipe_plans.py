"""Plan sets that recipes need: made where they are not there, like the project's own."""

from __future__ import annotations

from pathlib import Path

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.baseline import plan_sets
from napari_backsplit.backend.training.recipes import plan_settings
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

SHARED = ("folds", "workers", "intensities", "gpu_memory_gb", "features")
"""What a recipe's plans take over from the project's own: all but the grid and the patch."""


def plan_to_make(project_folder: Path, run: RunSpec) -> PlanSpec | None:
    """Return the plan set that a run's recipes need; None where none is, or it is there.

    Parameters
    ----------
    project_folder : Path
    run : RunSpec
        With another plan set than its recipe's that one is trained with, and nothing is to be made.

    Raises
    ------
    InputError
        A plan set of the recipe's name is of another configuration.
    """
    settings = plan_settings(run.recipe)
    if run.plan_set != settings.get("name"):
        return None
    made = plan_sets(project_folder)
    if run.plan_set not in made:
        own = made.get(PlanSpec().name, {}).get("spec", {})
        shared = {name: own[name] for name in SHARED if name in own}
        return PlanSpec.model_validate(shared | settings)
    plan = PlanSpec.model_validate(made[run.plan_set]["spec"])
    if plan.configuration != settings["configuration"]:
        raise InputError(
            f"The plan set {plan.name} is of the configuration {plan.configuration}, not "
            f"{settings['configuration']} as the recipe {plan.name}.",
            "Name the one to train with: --plan-set NAME",
        )
    return None if made[run.plan_set]["ready"] else plan
