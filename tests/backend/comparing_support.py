"""Finished predictions of a project's models, written by hand."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.jobs import Job, State, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.spec import Record, now
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.volume import Volume, write_volume

Mask = np.ndarray


def fine_tuned(folder: Path, foreign: Path, start: str, arm: str = "backsplit") -> Job:
    """Give a project a finished fine-tune of one of its models, which saw what that saw."""
    run = RunSpec(arm=arm, baseline=start, supports=("kidney",) if arm == "backsplit" else ())
    params = {"run": run.model_dump(mode="json")}
    title = "fine-tune with kidney" if arm == "backsplit" else "the same extra binary training"
    job = ended(submit(folder, "train", params, title, start=False))
    shutil.copytree(foreign, job.folder / "model")
    dataset = read_json(job.folder / "model" / "dataset.json")
    supports = {"kidney": 2} if arm == "backsplit" else {}
    dataset["labels"] = {"background": 0, "lesion": 1, **supports}
    before = ModelFolder.open(folder / start).card
    card = {**before, "arm": arm, "run": params["run"], "supports": list(supports)}
    card["targets"] = ["lesion"]
    write_json(job.folder / "model" / "dataset.json", dataset | {"backsplit": card})
    return job


def ended(job: Job, seconds: float = 60.0) -> Job:
    """End a job as its worker would, after some seconds of work."""
    begun = now() - timedelta(seconds=seconds)
    record = Record(state=State.SUCCEEDED, started=begun, ended=now(), result={})
    JobFolder(job.folder).write_record(record)
    return job


def predicted(
    folder: Path, model: str, masks: Mapping[str, Mask], seen: str = "verified", **params: Any
) -> Job:
    """Leave a finished prediction job; the masks are of the first target, as stored."""
    opened = ModelFolder.open(folder / model)
    checkpoint = next(iter(opened.checkpoints.values())).name
    asked = {"model": model, "folds": [0], "cases": list(masks), "checkpoint": checkpoint}
    job = ended(submit(folder, "predict", {**asked, **params}, "predict", start=False))
    with Project.open(folder, read_only=True) as project:
        for case, mask in masks.items():
            volume = Volume(mask.astype(np.uint8), project.geometry(case))
            write_volume(volume, job.folder / "predictions" / f"{case}.nii.gz")
    record = {
        "model": {
            "path": model,
            "folds": list(opened.checkpoints),
            "hashes": opened.hashes(),
            "seen": {},
        },
        "targets": ["lesion"],
        "labels": {"lesion": opened.targets[0]},
        "settings": {},
        "cases": {case: {"seen": seen, "role": "unseen"} for case in masks},
    }
    write_json(job.folder / "predictions" / "predictions.json", record)
    return job


def empty(cases: Sequence[str], shape: tuple[int, int, int]) -> dict[str, Mask]:
    return {case: np.zeros(shape, bool) for case in cases}
