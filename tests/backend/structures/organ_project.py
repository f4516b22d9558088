"""A project for tests: a block of five slices is the organ, in images of any orientation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.jobs import Job, submit
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.prompts import Point
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.volume import Geometry, Volume, write_volume
from tests.backend.structures.slice_engine import Slices

SHAPE = (8, 10, 12)
STRAIGHT = Geometry(
    SHAPE, (3.0, 1.5, 1.0), (0.0, -20.0, 5.0), ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
)
CORONAL = Geometry(  # slices along the patient's front, seen from the right
    SHAPE, (3.0, 1.5, 1.0), (4.0, 0.0, 9.0), ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
)
ORGAN = 100.0
SLICES = 5


def organ() -> NDArray[np.uint8]:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:7, 3:8, 2:9] = 1
    return mask


def write(array: NDArray[np.generic], file: Path, geometry: Geometry = STRAIGHT) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_volume(Volume(array, geometry), file)
    return file


def make_project(
    folder: Path, *masks: NDArray[np.uint8] | None, geometry: Geometry = STRAIGHT
) -> Path:
    """Make a project with a case for each mask of the kidney (None: the case has none)."""
    with Project.create(folder, "p", ["CT", "PET"], ["lesion"], ["kidney", "liver"]) as project:
        for number, mask in enumerate(masks):
            noise = np.full(SHAPE, 0.5 + number, np.float32)
            image = np.where(organ(), ORGAN, noise).astype(np.float32)
            images = {
                name: write(image + shift, folder.parent / f"{name}{number}.nii.gz", geometry)
                for name, shift in (("CT", 0), ("PET", 1))
            }
            case = project.add_case(images, name=f"original_{number}")
            if mask is not None:
                project.set_mask(case.id, "kidney", Volume(mask, geometry), {"engine": "file"})
    return folder


def clicked_by_hand(project: Path, *points: tuple[int, int, int]) -> Path:
    """Click in a case as a person does, take the last click back, and return the journal."""
    with Project.open(project) as opened:
        annotation = Annotation(opened, "case_003")
        engine = Slices(EngineSettings())
        about = engine.start(lambda text: None)
        for at in points:
            annotation.prompt("liver", Point(at=at), engine, about)
        annotation.undo("liver")
    return project / "cases" / "case_003" / "journal.jsonl"


LABELS = np.zeros(SHAPE, np.uint8)
LABELS[1:3, 2:4, 2:4] = 1  # 8 voxels
LABELS[4:7, 4:6, 4:6] = 2  # 12 voxels


def predict_job(
    folder: Path, *cases: str, targets: tuple[str, ...] = ("lesion",), title: str = "predict"
) -> Job:
    """Leave what a predict job leaves."""
    job = submit(folder, "predict", {}, title, start=False)
    for case in cases:
        write(LABELS, job.folder / "predictions" / f"{case}.nii.gz")
    record = {
        "model": {"path": "jobs/0001-train/model", "hashes": {"fold_0": "abc"}},
        "targets": list(targets),
        "cases": {case: {"seen": "verified", "role": "unseen"} for case in (*cases, "case_009")},
    }
    if cases:
        (job.folder / "predictions" / "predictions.json").write_text(json.dumps(record))
    return job
