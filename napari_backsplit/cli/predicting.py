"""The command that predicts lesions: the cases of a project, or an image outside one."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.cli import app, models
from napari_backsplit.cli.data import JsonOption, ProjectOption
from napari_backsplit.cli.models import COMPARE, DetachOption

AUTO = "auto"
_FILE = "An image outside a project"


class Rule(StrEnum):
    """When a voxel is lesion."""

    ARGMAX = "argmax"
    HALF = "p > 0.5"


@app.command(rich_help_panel=COMPARE)
def predict(
    model: Annotated[
        str, typer.Argument(help="Number of a training job, a model folder, or nnU-Net's zip.")
    ],
    project: ProjectOption = Path(),
    case: Annotated[
        list[str] | None, typer.Option(help="Case id; by default all held-out cases.")
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option(
            help="An image outside a project; repeat it for each channel, in the model's order.",
            rich_help_panel=_FILE,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The mask to write, NAME.nii.gz.", rich_help_panel=_FILE
        ),
    ] = None,
    rule: Annotated[
        Rule, typer.Option(help="Lesion: the likeliest class (as nnU-Net), or likelier than not.")
    ] = Rule.ARGMAX,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write a probability map of each target.")
    ] = False,
    full_label_map: Annotated[
        bool, typer.Option("--full-label-map", help="Also write all classes.")
    ] = False,
    gap: Annotated[
        bool, typer.Option("--gap", help="Also write the information gap; not of a binary model.")
    ] = False,
    folds: Annotated[
        str, typer.Option(help="Folds to average, such as 0,1,2; by default all there are.")
    ] = "",
    checkpoint: Annotated[str, typer.Option(help="Checkpoint file.")] = "checkpoint_final.pth",
    device: Annotated[
        str, typer.Option(help="cpu, mps, cuda, cuda:N; auto takes the fastest.")
    ] = AUTO,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; by default 1, for one image every core.")
    ] = None,
    step_size: Annotated[float, typer.Option(help="Step of the sliding window, in patches.")] = 0.5,
    mirroring: Annotated[
        bool | None, typer.Option(help="Average over mirrored images; by default as trained.")
    ] = None,
    declare_unseen: Annotated[
        bool,
        typer.Option(
            "--declare-unseen", help="You declare that the model was not trained on these cases."
        ),
    ] = False,
    detach: DetachOption = False,
    as_json: JsonOption = False,
) -> None:
    """Predict lesions with a run or with any nnU-Net model, on a project's cases or on a file.

    backsplit predict 3

    backsplit predict ../model --image ct.nii.gz -o lesion.nii.gz

    With several targets the files of the project count them 1, 2, ...; a file outside a project
    keeps the model's own numbers.
    """
    from napari_backsplit.backend.jobs.devices import cores

    settings = {
        "device": fastest() if device == AUTO else device,
        "step_size": step_size,
        "mirroring": mirroring,
    }
    options = {
        "checkpoint": checkpoint,
        "folds": [fold.strip() for fold in folds.split(",")] if folds else None,
        "rule": rule.value,
        "probabilities": probabilities,
        "full_label_map": full_label_map,
        "gap": gap,
    }
    if image or output:
        settings["threads"] = cores() if threads is None else threads
        _refuse(case=case, declare_unseen=declare_unseen, detach=detach)
        return _predict_image(model, project, image or [], output, settings, options, as_json)
    cases = case or _held_out(project)
    settings["threads"] = 1 if threads is None else threads
    said = {"declared_unseen": cases if declare_unseen else []}
    _predict_cases(model, project, {"cases": cases, **settings, **options, **said}, detach, as_json)
    return None


def _predict_cases(
    model: str, project: Path, params: dict[str, Any], detach: bool, as_json: bool
) -> None:
    from napari_backsplit.backend.prediction.asked import check_asked
    from napari_backsplit.backend.training.baseline import model_path
    from napari_backsplit.cli.console import say_aside

    params = {"model": model_path(project, model), **params}
    for note in check_asked(project, params):
        say_aside(note)
    title = f"predict {len(params['cases'])} cases"
    models._run(project, "predict", params, title, detach, as_json)


def _held_out(project: Path) -> list[str]:
    from napari_backsplit.cli.data import open_project

    with open_project(project, read_only=True) as opened:
        cases = list(opened.test_cases())
    if not cases:
        raise InputError("No case is held out.", "Reserve a test set, or name cases with --case.")
    return cases


def _predict_image(
    model: str,
    project: Path,
    images: list[Path],
    output: Path | None,
    settings: dict[str, Any],
    options: dict[str, Any],
    as_json: bool,
) -> None:
    from napari_backsplit.backend.prediction.asked import check_device
    from napari_backsplit.backend.prediction.outside import Request, predict_outside
    from napari_backsplit.backend.prediction.wanted import Settings, check_settings
    from napari_backsplit.cli.console import counted, say_aside, show

    if not images or output is None:
        lacking = "--output" if images else "--image"
        raise InputError(f"{lacking} is missing.", "Write: predict MODEL --image FILE -o FILE")
    check_settings(Settings.of(settings))
    check_device(str(settings["device"]))
    request = Request(
        _model_of(model, project), tuple(map(str, images)), str(output), settings, options
    )
    with counted("tiles", quiet=as_json) as tile:
        files = predict_outside(request, tile, say_aside)
    paths = {what: str(path) for what, path in files.items()}
    show(paths, as_json, (f"{what}: {path}" for what, path in paths.items()))


def _model_of(model: str, project: Path) -> str:
    """Return a model's path: itself, or that of a training of the project."""
    if Path(model).exists() and not model.isdecimal():
        return model
    if (project / "project.json").is_file():
        from napari_backsplit.backend.training.baseline import model_path

        return str(project / model_path(project, model))
    raise InputError(f"{model} does not exist.", "Name a model folder, or its zip.")


def _refuse(**given: object) -> None:
    for name, value in given.items():
        if value:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is for the cases of a project.", "Leave it out.")


def fastest() -> str:
    """Return the device that predicts fastest here: a GPU where torch can use one."""
    from importlib.metadata import version

    from napari_backsplit.backend.jobs.devices import devices

    return "cpu" if "+cpu" in version("torch") else devices()[0].name
