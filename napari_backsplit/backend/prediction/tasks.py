"""Prediction as a job of a project, or of a single image outside one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.files import remove_torn, write_json
from napari_backsplit.backend.jobs import JobContext, Phase
from napari_backsplit.backend.prediction.memory import MemoryTooSmall
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.outputs import Outputs, outputs_of
from napari_backsplit.backend.prediction.pipeline import Pipeline
from napari_backsplit.backend.prediction.reports import Reports
from napari_backsplit.backend.prediction.roles import seen, seen_record
from napari_backsplit.backend.prediction.targets import match_targets as match_targets
from napari_backsplit.backend.prediction.wanted import Rule, Settings, rule_of
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.private import without_path

if TYPE_CHECKING:
    from napari_backsplit.backend.prediction.predictor import Computed, Predictor
    from napari_backsplit.backend.prediction.preparation import Prepared

FOLDER = "predictions"
RECORD = "predictions.json"


def run_predict(context: JobContext) -> dict[str, Any]:
    """Predict cases of a project into <job>/predictions; finished cases are not redone.

    Parameters of the job: model (relative to the project, or absolute), folds, checkpoint,
    cases (None: the test cases), device, threads, mirroring, step_size, probabilities,
    full_label_map, gap, rule ("argmax" or "p > 0.5"; of a model of soft labels always
    "share > 0.5"), targets (project's target -> model's label), declared_unseen (cases that the
    user declares unseen).
    """
    params = context.params
    path = context.path(params["model"])
    model = ModelFolder.open(path, params.get("folds"), params.get("checkpoint"))
    with Project.open(context.project_folder, read_only=True) as project:
        outputs = outputs_of(model, project.schema.target_names, params)
        cases = params.get("cases")
        cases = list(project.test_cases()) if cases is None else list(cases)
        images = {case: project.image_paths(case) for case in cases}
        known = {
            case: seen(project, model, case, params.get("declared_unseen", ())) for case in cases
        }
    record = _record(context, model, outputs, known)
    _predict_cases(context, model, outputs, images)
    write_json(context.folder / FOLDER / RECORD, record)
    return {FOLDER: f"jobs/{context.folder.name}/{FOLDER}", "cases": cases}


def _predict_cases(
    context: JobContext, model: ModelFolder, outputs: Outputs, images: Mapping[str, list[Path]]
) -> None:
    folder = context.folder / FOLDER
    if not images:
        raise InputError("No case was chosen.", "Reserve test cases, or choose cases.")
    if folder.is_dir():
        remove_torn(folder)
    files = {case: outputs.files(folder, case) for case in images}
    todo = [case for case in images if not _finished(files[case])]
    if not todo:
        return
    from napari_backsplit.backend.prediction.predictor import Predictor

    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # as a training counts GPUs
    context.report(Phase(name="load the model"))
    reports = Reports(context, len(images), len(images) - len(todo))
    predictor = Predictor(model, Settings.of(context.params), reports.tile)
    predictor.check(outputs.wanted)
    reports.notes(predictor.notes)
    context.report(Phase(name="predict"))
    _Cases(predictor, outputs, images, files, reports).run(todo)


class _Cases:
    """The cases of a job on their way through the pipeline."""

    def __init__(
        self,
        predictor: Predictor,
        outputs: Outputs,
        images: Mapping[str, list[Path]],
        files: Mapping[str, Mapping[str, Path]],
        reports: Reports,
    ) -> None:
        self._predictor, self._outputs = predictor, outputs
        self._images, self._files, self._reports = images, files, reports
        self._pipeline = Pipeline(
            self._prepare, self._compute, self._finish, reports.finished, MemoryTooSmall
        )
        reports.between = self._pipeline.look

    def run(self, cases: Sequence[str]) -> None:
        """Predict and write them."""
        self._pipeline.run(cases)

    def _prepare(self, case: str) -> Prepared:
        files = self._images[case]
        with _named(case, files):
            return self._predictor.prepare(files, self._outputs.wanted)

    def _compute(self, case: str, prepared: Prepared) -> Computed:
        self._reports.start(case)
        with _named(case):
            return self._predictor.compute(prepared, self._outputs.wanted)

    def _finish(self, case: str, computed: Computed) -> tuple[str, ...]:
        with _named(case):
            prediction = self._predictor.finish(computed)
            self._outputs.write(prediction, self._files[case])
            return prediction.notes


@contextmanager
def _named(case: str, files: Sequence[Path] = ()) -> Iterator[None]:
    """Let an error say which case it is about, and not what its files are called."""
    try:
        yield
    except BackSplitError as error:
        problem = error.problem
        for file in files:
            problem = without_path(problem, file, "The image")
        raise type(error)(f"Case {case}: {problem}", error.remedy) from None


def _finished(files: Mapping[str, Path]) -> bool:
    return all(file.exists() for file in files.values())


def _record(
    context: JobContext, model: ModelFolder, outputs: Outputs, known: Mapping[str, Any]
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
        "settings": {key: value for key, value in context.params.items() if key != "model"}
        | {"rule": outputs.rule},
        "cases": dict(known),
    }


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
    gap: bool = False,
    rule: Rule = "argmax",
    tile: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
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
    rule : str
        When a voxel is a target; see `Wanted`.
    tile : callable, optional
        Called before each tile with (done, total); may raise to stop.
    note : callable, optional
        Called with what a person should know of how the image was predicted.

    Returns
    -------
    dict of str to Path
        "mask", and as asked "labels", "gap" and "probability of <target>" ("share of <target>" of
        a model of soft labels).

    Raises
    ------
    InputError
        One of the files to write exists, or the model or the image is refused.
    """
    from napari_backsplit.backend.prediction.predictor import Predictor

    if not output.name.endswith(".nii.gz"):
        raise InputError(f"{output.name} does not end in .nii.gz.", "Name the output so.")
    model = ModelFolder.open(model_folder, folds, checkpoint)
    names = model.targets if targets is None else tuple(targets)
    ids = {name: model.value(name) for name in names}
    rule = rule_of(model, rule)
    outputs = Outputs({name: name for name in names}, ids, probabilities, full_label_map, gap, rule)
    written = outputs.files(output.parent, output.name.removesuffix(".nii.gz"))
    for path in written.values():
        if path.exists():
            raise InputError(f"{path} exists.", "Choose a new name; nothing is overwritten.")
    predictor = Predictor(model, settings, tile)
    prediction = predictor.predict(files, outputs.wanted)
    outputs.write(prediction, written)
    if note:
        for text in (*predictor.notes, *prediction.notes):
            note(text)
    return written
