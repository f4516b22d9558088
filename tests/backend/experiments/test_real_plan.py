"""A tiny plan for real: two plan sets, volumes beside slices, down to the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment_support import plan_of

from napari_backsplit.backend.experiments.layout import layout_tables
from napari_backsplit.backend.experiments.runner import run_experiment

TINY = {"features": [4, 8], "batch_size": 2, "folds": 2}
RUN = {"epochs": 1, "iterations": 2, "validation_iterations": 1, "picture_every": 0}


@pytest.mark.soak
def test_volumes_and_slices_are_planned_trained_predicted_and_compared(tmp_path: Path) -> None:
    arms = [
        {"name": "3D", "row": "Regular Training", "column": "3D U-Net", "run": {"arm": "binary"}},
        {"name": "2D", "row": "Regular Training", "column": "2D U-Net"}
        | {"run": {"arm": "binary", "recipe": ["2d"]}},
    ]
    plan = plan_of(
        *arms,
        data={"draws": [1], "train": 4, "test": 1, "phantom": {"shape": [20, 30, 30]}},
        plan={**TINY, "patch_size": [16, 16, 16]},
        plans={"2d": {**TINY, "patch_size": [16, 16]}},
        run=RUN,
        prediction={"mirroring": False},
        layout={"published": "table-10", "metrics": ["parameters", "dice"]},
    )
    (result,) = run_experiment(plan, tmp_path, at_once=1)
    assert {name: outcome.text for name, outcome in result.outcomes.items()} == {
        "3D": "done",
        "2D": "done",
    }
    assert result.summary is not None
    assert result.parameters["3D"] > result.parameters["2D"] > 0
    ours = layout_tables(plan, [result])[0]
    assert ours.head[1:] == (
        "3D U-Net: #Params",
        "3D U-Net: Dice",
        "2D U-Net: #Params",
        "2D U-Net: Dice",
    )
    assert ours.rows[0][1].endswith("M")
