"""`backsplit demo`: the whole loop on synthetic cases, small enough for two CPU cores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_backsplit.backend.training.spec import FINETUNE as RECIPE
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption

if TYPE_CHECKING:
    from napari_backsplit.backend.study import StudyArm

PLAN = PlanSpec(
    features=(8, 16, 32, 64), patch_size=(32, 32, 32), batch_size=2, batch_dice=True, folds=4
)
SCRATCH = RunSpec(
    epochs=12,
    iterations=100,
    validation_iterations=10,
    optimiser="adamw",
    initial_lr=3e-3,
    weight_decay=1e-2,
)
FINETUNE = SCRATCH.model_copy(
    update={"supports": ("kidney",), "target_dice_share": RECIPE["target_dice_share"]}
)
PREDICTION = {"probabilities": True, "mirroring": False}
BASELINE, CONTROL = "binary", "binary, longer"


def demo_arms(seed: int = 0) -> list[StudyArm]:
    """Return the demo's trainings: two from scratch, and a fine-tune with its control."""
    from napari_backsplit.backend.study import StudyArm

    def run(base: RunSpec, arm: str) -> RunSpec:
        return base.model_copy(update={"arm": arm, "seed": seed})

    return [
        StudyArm(BASELINE, run(SCRATCH, "binary")),
        StudyArm("BackSplit", run(SCRATCH, "backsplit")),
        StudyArm("fine-tuned", run(FINETUNE, "backsplit"), BASELINE),
        StudyArm(CONTROL, run(FINETUNE, "binary"), BASELINE),
    ]


@app.command(rich_help_panel="1 Prepare")
def demo(
    folder: Annotated[Path, typer.Argument(help="Project folder; an interrupted demo goes on.")],
    seed: Annotated[int, typer.Option(help="Another seed draws other cases.")] = 1,
    train: Annotated[int, typer.Option(help="Cases to train on.")] = 16,
    test: Annotated[int, typer.Option(help="Cases held out.")] = 24,
    at_once: Annotated[int, typer.Option(help="Jobs side by side, one CPU core each.")] = 2,
    as_json: JsonOption = False,
) -> None:
    """Try everything on SYNTHETIC cases: train, fine-tune, predict, compare, report.

    The network and the budget are small: a demonstration, not evidence.
    """
    from napari_backsplit.backend.files import read_json
    from napari_backsplit.backend.jobs.batch import run_batch
    from napari_backsplit.backend.phantom import sample_project
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.study import study_steps
    from napari_backsplit.cli.console import say, show, show_summary, teller

    if not (folder / "project.json").exists():
        sample_project(folder, seed, train, test).close()
    with Project.open(folder) as project:
        project.freeze_test(PLAN.folds)
    if not as_json:
        for line in _announcement(folder, train, test):
            say(line)
    comparison = {"controls": [CONTROL]}
    steps = study_steps(PLAN, demo_arms(), PREDICTION, comparison)
    tell = teller(quiet=as_json)
    done = run_batch(folder, steps, at_once=at_once, env={"OMP_NUM_THREADS": "1"}, tell=tell)
    report = folder / done["compare"]["report"]
    summary = read_json(report.parent / "summary.json")
    show(summary, as_json)
    if not as_json:
        show_summary(summary)
        say(f"Report: {report}")


def _announcement(folder: Path, train: int, test: int) -> list[str]:
    features = "/".join(map(str, PLAN.features or ()))
    patch = "x".join(map(str, PLAN.patch_size or ()))
    scratch, tuned = (run.epochs * run.iterations for run in (SCRATCH, FINETUNE))
    return [
        f"SYNTHETIC cases in {folder}: {train} to train on, {test} held out.",
        f"Network: U-Net {features}, patch {patch}, batch {PLAN.batch_size}. From scratch "
        f"{scratch} iterations, fine-tuned {tuned} with {', '.join(FINETUNE.supports)}; "
        f"{SCRATCH.optimiser}, learning rate {SCRATCH.initial_lr:g}.",
    ]
