"""A project of boxes with a binary model, for the tests of improvements and their answers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_backsplit.backend import links
from napari_backsplit.backend.comparison.compare import conclude
from napari_backsplit.backend.comparison.metrics import Measures
from napari_backsplit.backend.comparison.results import ComparisonSettings, Row
from napari_backsplit.backend.comparison.statistics import Bootstrap
from napari_backsplit.backend.comparison.tables import write_cases, write_summary
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.jobs import Job, State, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.spec import Record
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.volume import Geometry, Volume, write_volume
from tests.backend.prediction import tiny_model

SHAPE = (4, 10, 12)
GRID = Geometry(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
CASES, TEST, FOLDS = 8, 2, 3
LEARNT = {"optimiser": "adamw", "initial_lr": 3e-3, "weight_decay": 0.01}


def hold_queue(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Return the jobs that will be queued; none is started."""
    jobs: list[Job] = []

    def enqueue(*given: Any, **how: Any) -> Job:
        jobs.append(submit(*given, start=False, **how))
        return jobs[-1]

    monkeypatch.setattr(links, "enqueue", enqueue)
    return jobs


def box(left: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:8, left:right] = 1
    return mask


MASKS = {"lesion": box(8, 10), "liver": box(0, 4), "kidney": box(6, 12)}


def add_cases(project: Project, source: Path, count: int, accepted: bool = True) -> list[str]:
    """Add cases in whose kidney a lesion lies; return their ids."""
    source.mkdir(exist_ok=True)
    added = []
    for _ in range(count):
        number = len(project.case_ids())
        file = source / f"image_{number}.nii.gz"
        write_volume(Volume(np.full(SHAPE, number, np.float32), GRID), file)
        case = project.add_case({"CT": file}).id
        for name, mask in MASKS.items():
            project.set_mask(case, name, Volume(mask, GRID), {})
            if accepted:
                project.judge(case, "accepted", name)
        added.append(case)
    return added


def make_project(folder: Path, cases: int = CASES, test: int = TEST, accepted: bool = True) -> Path:
    """Make a project of boxes; the last cases are held out."""
    with Project.create(folder, "boxes", ["CT"], ["lesion"], ["liver", "kidney"]) as project:
        added = add_cases(project, folder.parent / f"{folder.name}-images", cases, accepted)
        if test:
            project.reserve_test(ids=added[-test:])
    return folder


def write_foreign(folder: Path, folds: tuple[int, ...] = (0,)) -> Path:
    """Write a binary nnU-Net model from elsewhere that fits the boxes."""
    tiny_model.write_model(folder, {"tumour": 1}, folds=folds, channel_names={"0": "CT"})
    plans = read_json(folder / "plans.json")
    configuration = plans["configurations"]["3d_fullres"]
    configuration |= {"normalization_schemes": ["CTNormalization"], "spacing": [1.0, 1.0, 1.0]}
    figures = ("mean", "median", "std", "min", "max", "percentile_99_5", "percentile_00_5")
    plans["foreground_intensity_properties_per_channel"] = {
        "0": dict.fromkeys(figures, 10.0) | {"percentile_00_5": -50.0, "percentile_99_5": 90.0}
    }
    write_json(folder / "plans.json", plans)
    return folder


def make_own(folder: Path, foreign: Path, **run: Any) -> Job:
    """Give a project a plan set and a finished binary training of fold 0."""
    with Project.open(folder, read_only=True) as project:
        splits = project.splits(FOLDS)
        cases = list(project.training_cases())
        hashes = {case: project.case(case).images["CT"].sha256 for case in cases}
    spec = PlanSpec(folds=FOLDS).model_dump(mode="json")
    made = {"spec": spec, "cases": cases, "splits": splits, "arms": {}, "ready": True}
    write_json(folder / "nnunet" / "plan_sets" / "own.json", made)
    trained = RunSpec(arm="binary", epochs=5, **{**LEARNT, **run}).model_dump(mode="json")
    job = succeeded(submit(folder, "train", {"run": trained}, "train binary", start=False), {})
    model = job.folder / "model"
    shutil.copytree(foreign, model)
    dataset = read_json(model / "dataset.json")
    dataset["labels"] = {"background": 0, "lesion": 1}
    data = {
        "training": {case: hashes[case] for case in splits[0]["train"]},
        "validation": {case: hashes[case] for case in splits[0]["val"]},
    }
    card = {"arm": "binary", "plan_set": "own", "run": trained, "data": data, "baseline": None}
    write_json(model / "dataset.json", dataset | {"backsplit": card})
    return job


def succeeded(job: Job, result: dict[str, Any]) -> Job:
    """End a job as its worker would."""
    JobFolder(job.folder).write_record(Record(state=State.SUCCEEDED, result=result))
    return job


def row(case: str, arm: str, dice: float, seen: str = "verified", lesions: int = 1) -> Row:
    """Return what is measured of a case; `lesions` 0 is a lesion-free one."""
    found = int(dice > 0) if lesions else 0
    measures = Measures(
        dice=dice if lesions else nan,
        hd95_mm=nan,
        nsd=dice if lesions else nan,
        precision=dice if found else nan,
        sensitivity=dice if lesions else nan,
        lesion_f1=dice if lesions else nan,
        lesion_sensitivity=float(found) if lesions else nan,
        reference_ml=float(lesions),
        predicted_ml=float(found),
        difference_ml=float(found - lesions),
        reference_lesions=lesions,
        predicted_lesions=found,
        found_lesions=found,
        false_positives=0,
        false_positive_ml=0.0,
        false_negative_ml=float(lesions - found),
    )
    return Row(case, f"patient of {case}", "lesion", arm, seen, measures)


def compared(
    folder: Path,
    dice: Mapping[str, Sequence[float]],
    seen: str = "verified",
    chain: str = "",
    arms: Mapping[str, Any] | None = None,
) -> Job:
    """Leave a finished comparison of arms, the first the baseline, as a job of a project."""
    rows = [
        row(f"case_{number:03}", arm, value, seen)
        for arm, values in dice.items()
        for number, value in enumerate(values, 1)
    ]
    controls = tuple(arm for arm in dice if arm == "control")
    settings = ComparisonSettings(next(iter(dice)), controls, bootstrap=Bootstrap(resamples=500))
    comparison = conclude(rows, settings)
    params = {"arms": arms or {arm: f"jobs/{arm}" for arm in dice}}
    job = submit(folder, "compare", params, "compare", chain=chain, start=False)
    home = folder / "comparisons" / job.id
    home.mkdir(parents=True)
    write_cases(comparison, home / "cases.csv")
    write_summary(comparison, home / "summary.json")
    place = f"comparisons/{job.id}"
    return succeeded(job, {"folder": place, "report": f"{place}/report.html"})
