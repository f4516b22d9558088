"""Prediction as a job of a project, or of a single image outside one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.jobs import JobContext, Note, Phase, Progress
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.roles import (
    HELD_OUT,
    held_out,
    role_of,
    says_all,
    seen_record,
)
from napari_backsplit.backend.project import Project

if TYPE_CHECKING:
    from napari_backsplit.backend.prediction.predictor import Predictor, Settings

FOLDER = "predictions"
RECORD = "predictions.json"
_TILE_REPORT_S = 2.0


@dataclass(frozen=True)
class Outputs:
    """What to write beside the target mask.

    Attributes
    ----------
    targets : dict of str to str
        Name of the target -> the model's label for it.
    ids : dict of str to int
        Name of the target -> id in the mask.
    probabilities, full_label_map : bool
        Also write a probability map of each target; all classes of the model.
    """

    targets: dict[str, str]
    ids: dict[str, int]
    probabilities: bool = False
    full_label_map: bool = False

    def files(self, folder: Path, case: str) -> dict[str, Path]:
        """Return the files of a case: "mask", "labels", or a target's name for its map."""
        names = {"mask": f"{case}.nii.gz"}
        if self.full_label_map:
            names["labels"] = f"{case}_labels.nii.gz"
        for target in self.targets if self.probabilities else ():
            middle = f"_{target}" if len(self.targets) > 1 else ""
            names[f"probability of {target}"] = f"{case}{middle}_probability.nii.gz"
        return {what: folder / name for what, name in names.items()}


def run_predict(context: JobContext) -> dict[str, Any]:
    """Predict cases of a project into <job>/predictions; finished cases are not redone.

    Parameters of the job: model (relative to the project, or absolute), folds, checkpoint,
    cases (None: the test cases), device, threads, mirroring, step_size, probabilities,
    full_label_map, targets (project's target -> model's label), declared_unseen (cases that
    the user declares unseen).
    """
    params = context.params
    path = context.path(params["model"])
    model = ModelFolder.open(path, params.get("folds"), params.get("checkpoint"))
    with Project.open(context.project_folder, read_only=True) as project:
        names = project.schema.target_names
        outputs = Outputs(
            match_targets(model, names, params.get("targets")),
            {name: index for index, name in enumerate(names, start=1)},
            params.get("probabilities", False),
            params.get("full_label_map", False),
        )
        cases = params.get("cases")
        cases = list(project.test_cases()) if cases is None else list(cases)
        images = {case: project.image_paths(case) for case in cases}
        seen = {case: _seen(project, model, case, params) for case in cases}
    record = _record(context, model, outputs, seen)
    _predict_cases(context, model, outputs, images)
    write_json(context.folder / FOLDER / RECORD, record)
    return {FOLDER: f"jobs/{context.folder.name}/{FOLDER}", "cases": cases}


def _predict_cases(
    context: JobContext, model: ModelFolder, outputs: Outputs, images: Mapping[str, list[Path]]
) -> None:
    folder = context.folder / FOLDER
    todo = [case for case in images if not _finished(outputs.files(folder, case))]
    if not images:
        raise InputError("No case was chosen.", "Reserve test cases, or choose cases.")
    if not todo:
        return
    from napari_backsplit.backend.prediction.predictor import Predictor

    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as a training counts GPUs
    context.report(Phase(name="load the model"))
    reports = _Reports(context, len(images), len(images) - len(todo))
    predictor = Predictor(model, _settings(context.params), reports.tile)
    for note in predictor.notes:
        context.report(Note(level="info", text=note))
    context.report(Phase(name="predict"))
    for case in todo:
        reports.start(case)
        _predict(predictor, images[case], outputs, outputs.files(folder, case))
        reports.finish()


def _finished(files: Mapping[str, Path]) -> bool:
    return all(file.exists() for file in files.values())


class _Reports:
    """Turns tiles and cases into a job's events, and lets the job be stopped between tiles."""

    def __init__(self, context: JobContext, total: int, done: int) -> None:
        self.context, self.total, self.done = context, total, done
        self.case = ""
        self._began = self._said = time.monotonic()
        self._at_start = done

    def start(self, case: str) -> None:
        self.case = case
        self.context.checkpoint()
        self._say(case)

    def tile(self, done: int, total: int) -> None:
        self.context.checkpoint()
        if time.monotonic() - self._said >= _TILE_REPORT_S:
            self._say(f"{self.case}: {done} of {total} tiles")

    def finish(self) -> None:
        self.done += 1
        self._say(self.case)

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        finished = self.done - self._at_start
        pace = (self._said - self._began) / finished if finished else None
        eta_s = None if pace is None else pace * (self.total - self.done)
        self.context.report(Progress(done=self.done, total=self.total, text=text, eta_s=eta_s))


def _settings(params: Mapping[str, Any]) -> Settings:
    from napari_backsplit.backend.prediction.predictor import Settings

    known = ("device", "threads", "mirroring", "step_size")
    return Settings(**{key: params[key] for key in known if key in params})


def _predict(
    predictor: Predictor, images: Sequence[Path], outputs: Outputs, files: Mapping[str, Path]
) -> None:
    from napari_backsplit.backend.prediction.predictor import write_array

    wanted = tuple(outputs.targets.values()) if outputs.probabilities else ()
    prediction = predictor.predict(images, wanted)
    ids = {label: outputs.ids[target] for target, label in outputs.targets.items()}
    arrays: dict[str, NDArray[Any]] = {"labels": prediction.label_map}
    for target, label in outputs.targets.items():
        if outputs.probabilities:
            arrays[f"probability of {target}"] = prediction.probabilities[label]
    arrays["mask"] = keep_targets(prediction.label_map, predictor.model, ids)
    for what in sorted(files, key=lambda what: what == "mask"):
        write_array(arrays[what], files[what], prediction.grid)


def keep_targets(
    label_map: NDArray[np.integer[Any]], model: ModelFolder, ids: Mapping[str, int]
) -> NDArray[np.integer[Any]]:
    """Return a map in which only some of a model's labels are left, under given ids.

    Parameters
    ----------
    label_map : ndarray of int
        As nnU-Net gives it.
    ids : mapping
        Label of the model -> id to write. Of nested regions the smallest wins.

    Returns
    -------
    ndarray of uint8 or uint16
        0 wherever there is none of these labels.
    """
    largest = max(ids.values(), default=0)
    table = np.zeros(int(label_map.max(initial=0)) + 1, np.uint8 if largest < 256 else np.uint16)
    for name in sorted(ids, key=lambda name: -len(model.values(name))):
        for value in model.values(name):
            if value < len(table):
                table[value] = ids[name]
    kept: NDArray[np.integer[Any]] = table[label_map]
    return kept


def match_targets(
    model: ModelFolder, targets: Sequence[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return which label of a model is which target of a project.

    Names decide, whatever their case; a single target of both needs no common name.

    Raises
    ------
    InputError
        A target has no counterpart and none was given.
    """
    if given is None and len(targets) == len(model.targets) == 1:
        return {targets[0]: model.targets[0]}
    by_name = {name.casefold(): name for name in model.labels}
    matched = {target: (given or {}).get(target) or by_name.get(target) for target in targets}
    missing = [target for target, label in matched.items() if label not in model.labels]
    if missing:
        raise InputError(
            f"The model has no label for {', '.join(missing)}; it knows {', '.join(by_name)}.",
            "Say which of its labels is which target.",
        )
    return {target: str(label) for target, label in matched.items()}


def _record(
    context: JobContext, model: ModelFolder, outputs: Outputs, seen: Mapping[str, Any]
) -> dict[str, Any]:
    inside = model.path.is_relative_to(context.project_folder)
    path = model.path.relative_to(context.project_folder) if inside else Path(model.path.name)
    return {
        "model": {
            "path": path.as_posix(),
            "trainer_name": model.trainer_name,
            "configuration": model.configuration,
            "folds": list(model.checkpoints),
            "hashes": model.hashes(),
            "arm": model.card.get("arm"),
            "seen": seen_record(model.card),
        },
        "targets": list(outputs.targets),
        "labels": outputs.targets,
        "settings": {key: value for key, value in context.params.items() if key != "model"},
        "cases": dict(seen),
    }


def _seen(
    project: Project, model: ModelFolder, case: str, params: Mapping[str, Any]
) -> dict[str, str | None]:
    """Whether a model has seen a case: verified by hashes, declared by the user, or unknown."""
    images = project.case(case).images.values()
    hashes = {image.sha256 for image in images} | {image.source_sha256 for image in images}
    role = role_of(model.card, hashes - {""})
    declared = case in params.get("declared_unseen", ())
    if role == "validation" and held_out(model.card, hashes, _checkpoint(model)):
        if not says_all(model.card):  # of what it started from nothing is known
            return {"seen": "declared" if declared else "unknown", "role": HELD_OUT}
        role = HELD_OUT
    if role is not None:
        return {"seen": "verified", "role": role}
    if declared:
        return {"seen": "declared", "role": "unseen"}
    return {"seen": "unknown", "role": None}


def _checkpoint(model: ModelFolder) -> str:
    return next(iter(model.checkpoints.values())).name


def predict_files(
    model_folder: Path,
    files: Sequence[Path],
    output: Path,
    *,
    targets: Sequence[str] | None = None,
    folds: Sequence[int | str] | None = None,
    checkpoint: str | None = None,
    settings: Settings | None = None,
    probabilities: bool = False,
    full_label_map: bool = False,
    tile: Callable[[int, int], None] | None = None,
) -> dict[str, Path]:
    """Predict one image outside a project.

    Parameters
    ----------
    model_folder : Path
        A run's model, or any nnU-Net model folder.
    files : sequence of Path
        One file per channel, in the model's order.
    output : Path
        The mask to write, ending in .nii.gz; other files are named after it.
    targets : sequence of str, optional
        Labels to keep; by default the model's targets. They keep the model's ids.
    tile : callable, optional
        Called before each tile with (done, total); may raise to stop.

    Returns
    -------
    dict of str to Path
        "mask", and as asked "labels" and "probability of <target>".
    """
    from napari_backsplit.backend.prediction.predictor import Predictor

    if not output.name.endswith(".nii.gz"):
        raise InputError(f"{output.name} does not end in .nii.gz.", "Name the output so.")
    model = ModelFolder.open(model_folder, folds, checkpoint)
    names = model.targets if targets is None else tuple(targets)
    ids = {name: model.value(name) for name in names}
    outputs = Outputs({name: name for name in names}, ids, probabilities, full_label_map)
    written = outputs.files(output.parent, output.name.removesuffix(".nii.gz"))
    _predict(Predictor(model, settings, tile), files, outputs, written)
    return written
