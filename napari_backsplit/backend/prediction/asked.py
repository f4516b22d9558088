"""What is asked of a prediction, checked before it becomes a job. Needs no torch."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import State, list_jobs
from napari_backsplit.backend.jobs.devices import devices
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.outputs import outputs_of
from napari_backsplit.backend.prediction.roles import ROLES, seen
from napari_backsplit.backend.prediction.wanted import Settings, check_settings, check_wanted
from napari_backsplit.backend.project import Project

_COMING = (State.PENDING, State.RUNNING, State.PAUSED)


def check_asked(project_folder: Path, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse what a prediction's job would refuse, and say which cases the model was made with.

    Of a model whose training has not ended, nothing is looked at but the cases and settings.

    Parameters
    ----------
    project_folder : Path
    params : mapping
        Parameters of the job, as `tasks.run_predict` takes them; "cases" is a list.

    Returns
    -------
    tuple of str
        What a person should know, a sentence each.

    Raises
    ------
    InputError, UntrustedModelError
        A setting, the device, or the model: other folds, channels or targets, or no gap.
    ProjectError
        There is no such case, or it lacks a channel.
    """
    settings = Settings.of(params)
    check_settings(settings)
    check_device(settings.device)
    with Project.open(project_folder, read_only=True) as project:
        for case in params["cases"]:
            project.image_paths(case)
        if _is_coming(project_folder, params["model"]):
            return ()
        path = project_folder / params["model"]
        model = ModelFolder.open(path, params.get("folds"), params.get("checkpoint"))
        _check_model(model, project, params)
        return _seen_notes(model, project, params)


def check_device(name: str) -> None:
    """Refuse a device that this machine, or the torch that is installed, does not have.

    Where NVIDIA's tool is absent, a GPU is left to torch to find.

    Raises
    ------
    InputError
    """
    only_cpu = "+cpu" in version("torch")
    known = ["cpu"] if only_cpu else [device.name for device in devices()]
    if name in known or (name == "cuda" and "cuda:0" in known):
        return
    if name.partition(":")[0] == "cuda" and not only_cpu and not shutil.which("nvidia-smi"):
        return
    why = " with the torch that is installed, which is for CPUs" if only_cpu else ""
    raise InputError(f"This machine has no device {name!r}{why}.", f"Choose: {', '.join(known)}.")


def _is_coming(project_folder: Path, model: str) -> bool:
    """Whether a model is that of a training that has not ended."""
    jobs = {f"jobs/{job.id}/model": job for job in list_jobs(project_folder)}
    return model in jobs and jobs[model].status().state in _COMING


def _check_model(model: ModelFolder, project: Project, params: Mapping[str, Any]) -> None:
    channels = project.schema.channel_names
    if len(channels) != len(model.channels):
        raise InputError(
            f"The model takes {len(model.channels)} channels ({', '.join(model.channels)}), the "
            f"project has {len(channels)} ({', '.join(channels)}).",
            "Choose a model trained on these channels.",
        )
    outputs = outputs_of(model, project.schema.target_names, params)
    check_wanted(model, outputs.wanted, (model.classes, 0, 0, 0))


def _seen_notes(model: ModelFolder, project: Project, params: Mapping[str, Any]) -> tuple[str, ...]:
    roles = {case: seen(project, model, case)["role"] for case in params["cases"]}
    return tuple(
        f"{_listed(cases)} {'was' if len(cases) == 1 else 'were'} seen in {role}: no evidence of "
        "how good the model is, and left out of a comparison."
        for role in ROLES
        if (cases := [case for case, known in roles.items() if known == role])
    )


def _listed(cases: list[str]) -> str:
    return ", ".join(cases) if len(cases) <= 3 else f"{len(cases)} cases ({cases[0]}, ...)"
