"""A foreign baseline's plans, as a plan set takes them over."""

from __future__ import annotations

from typing import Any, get_args

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.prediction.compatibility import compatibility
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.dataset import training_cases
from napari_backsplit.backend.training.spec import PLANS_NAME, Configuration, PlanSpec


def adopt(project: Project, spec: PlanSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a baseline's plans, cut to its one configuration, and its fingerprint.

    Raises
    ------
    InputError
        The baseline is of another configuration, its channels do not fit the project's, or the
        spec asks for what a baseline's plans decide.
    """
    model = ModelFolder.open(project.folder / str(spec.baseline))
    _refuse_own_plans(spec)
    unfit = compatibility(
        model,
        channels=[channel.modality for channel in project.schema.channels],
        spacing_mm=project.geometry(training_cases(project)[0]).spacing_mm,
    )
    if unfit and not spec.accept_unfit:
        raise InputError(
            f"The baseline does not fit the project: {' '.join(unfit)}",
            "If you are sure that it does, plan with --accept-unfit.",
        )
    configuration = _configuration(model, spec)
    plans = dict(model.plans) | {"configurations": {spec.configuration: configuration}}
    plans["plans_name"] = PLANS_NAME
    stored = model.path / "dataset_fingerprint.json"
    figures = {
        "foreground_intensity_properties_per_channel": plans[
            "foreground_intensity_properties_per_channel"
        ]
    }
    return plans, read_json(stored) if stored.exists() else figures


def _refuse_own_plans(spec: PlanSpec) -> None:
    """Refuse what would be ignored: with a baseline, its plans decide."""
    plans = ("preset", "gpu_memory_gb", "features", "patch_size", "batch_size", "batch_dice",
             "spacing_mm", "intensities")  # fmt: skip
    asked = [name for name in plans if getattr(spec, name) != PlanSpec.model_fields[name].default]
    if asked:
        raise InputError(
            f"A baseline's plans decide {', '.join(asked).replace('_', ' ')}.",
            "Leave it out; a run may have a batch or patch size of its own.",
        )


def _configuration(model: ModelFolder, spec: PlanSpec) -> dict[str, Any]:
    """Return the baseline's configuration, with what it inherits written out.

    One with a name of its own (3d_fullres_bs40) takes the name of the spec's.
    """
    settings = model.settings
    known = get_args(Configuration)
    flat = len(settings["patch_size"]) == 2
    wanted = model.configuration if model.configuration in known else "2d" if flat else "3d"
    if settings.get("previous_stage"):
        raise InputError(
            f"{model.configuration} is the second stage of a cascade.",
            "Adopt the model of its first stage, or one of 3d_fullres.",
        )
    if not spec.configuration.startswith(wanted):
        wanted = wanted if wanted in known else "3d_fullres"
        raise InputError(
            f"The baseline is {model.configuration}, not {spec.configuration}.",
            f"Plan with --configuration {wanted}.",
        )
    dropped = ("inherits_from", "next_stage")
    return {key: value for key, value in settings.items() if key not in dropped}
