"""Tasks that act as trainings: imported by a job's own process only.

A learning rate of 7 diverges, 8 fails, 9 waits until a file "go" lies in the project.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.jobs import JobContext
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import Volume, read_mask, write_volume

TASKS = {name: f"fake_tasks:{name}" for name in ("plan", "train", "predict", "compare", "segment")}


def plan(context: JobContext) -> dict[str, Any]:
    if context.params["plan"]["batch_size"] == 7:
        raise InputError("The plan is bad.", "Mend it.")
    return {}


def train(context: JobContext) -> dict[str, Any]:
    rate = context.params["run"]["initial_lr"]
    if rate == 7 and not (context.project_folder / "mended").exists():
        raise FloatingPointError("The loss became nan in epoch 3. Lower the learning rate.")
    if rate == 8:
        raise ValueError("a | bad value")
    while rate == 9 and not (context.project_folder / "go").exists():
        context.checkpoint()
        time.sleep(0.02)
    return {"model": f"jobs/{context.folder.name}/model"}


def segment(context: JobContext) -> dict[str, Any]:
    """Answer every click with an empty mask, on the grid of the support; bowel is never there."""
    params, rows = context.params, []
    with Project.open(context.project_folder, read_only=True) as project:
        for case in params["cases"]:
            for name in params["structures"]:
                source = params["clicked_in"][name]
                if source == "bowel":
                    rows.append({"case": case, "structure": name, "state": "absent"})
                    continue
                volume = read_mask(project.mask_path(case, source) or Path())
                place = context.folder / "masks" / case / f"{name}.nii.gz"
                write_volume(Volume(np.zeros_like(volume.array), volume.geometry), place)
                write_json(place.with_name(f"{name}.json"), {"engine": params["engine"]})
                rows.append({"case": case, "structure": name, "state": "segmented"})
    means = [{"structure": name, "dice_mean": 0.5} for name in params["structures"]]
    write_json(context.folder / "segment.json", {"rows": rows, "summary": means})
    return {"masks": f"jobs/{context.folder.name}/masks"}


def predict(context: JobContext) -> dict[str, Any]:
    return {"predictions": f"jobs/{context.folder.name}/predictions"}


def compare(context: JobContext) -> dict[str, Any]:
    arms = context.params["arms"]
    means = {"dice": 0.5}
    entry = {"target": "lesion", "group": "lesion", "cases": 2, "missed": 0, "means": means}
    content = {
        "targets": ["lesion"],
        "summaries": [{**entry, "arm": arm} for arm in arms],
        "matched_sensitivity": [],
        "controls": context.params["controls"],
    }
    report = Path("comparisons") / context.folder.name / "report.html"
    write_json((context.project_folder / report).with_name("summary.json"), content)
    return {"report": report.as_posix()}
