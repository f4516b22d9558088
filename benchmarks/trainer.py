"""What our trainer costs over plain nnU-Net's, what more classes cost, and how true the ETA is.

    python benchmarks/trainer.py [--pairs 9] [--device cuda]   epochs of three trainers in turn
    python benchmarks/trainer.py --eta                         the ETA after 5 % against the truth

An epoch is training and validation, on the phantom, with the same data, seed, network and number
of batches. Checkpoints are timed apart on both sides, and nnU-Net's progress.png, which takes it
two to three seconds an epoch, is drawn on neither. The trainers take turns, their order drawn anew
in each round, so that a busy machine hits all of them.

On a CPU all is done by one thread, without workers, and its CPU time is what is compared: on a
machine of its own that is the time on the clock, and elsewhere other programs disturb it less. The
network has nnU-Net's least width (32 features) and three stages, so that it is smaller than any
that nnU-Net plans. Of the eleven classes those that the sample lacks have no voxel.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.arms import arm_scheme
from napari_backsplit.backend.training.prepare import make_plan_set, open_plan_set, prepare_arm
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["nnUNet_compile"] = "False"
CLASSES = 11
SHAPE = (48, 96, 96)
RESAMPLES = 10_000


def make_project(folder: Path, plan: PlanSpec) -> None:
    """Make a sample project with a plan set."""
    with sample_project(folder, 1, train=6, test=2, spec=PhantomSpec(shape=SHAPE)) as project:
        make_plan_set(project, plan, lambda what, done, total: None)
    for kind in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{kind}"] = str(folder / "nnunet" / kind)


def dataset(
    folder: Path, arm: str, soft: bool = False, **choices: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return plans and dataset.json of an arm."""
    with Project.open(folder) as project:
        plan_set = open_plan_set(project, "own")
        scheme = arm_scheme(project, arm, (), plan_set.cases, **choices)  # type: ignore[arg-type]
        plan_set, name = prepare_arm(
            project, plan_set, scheme, lambda what, done, total: None, soft=soft
        )
    dataset_json = read_json(plan_set.preprocessed(name) / "dataset.json")
    return plan_set.plans(name), dataset_json


def with_classes(dataset_json: dict[str, Any], classes: int) -> dict[str, Any]:
    """Return a dataset.json with names for more classes, which no voxel has."""
    labels = dict(dataset_json["labels"])
    labels |= {f"support {label}": label for label in range(len(labels), classes)}
    scheme = {**dataset_json["backsplit"], "label_sets": []}
    scheme["supports"] = [name for name, label in labels.items() if label > 1]
    return {**dataset_json, "labels": labels, "backsplit": scheme}


class Epochs:
    """Trains a trainer epoch by epoch, and times what an epoch is: training and validation."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.clock = process_time if trainer.device.type == "cpu" else perf_counter
        trainer.on_train_start()

    def __call__(self) -> float:
        """Return the seconds of one more epoch."""
        import torch

        trainer, begin = self.trainer, self.clock()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        next_batch = getattr(trainer, "_train_next", None) or (
            lambda: trainer.train_step(next(trainer.dataloader_train))
        )
        next_judged = getattr(trainer, "_validate_next", None) or (
            lambda: trainer.validation_step(next(trainer.dataloader_val))
        )
        trainer.on_train_epoch_end([next_batch() for _ in range(trainer.num_iterations_per_epoch)])
        with torch.no_grad():
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end(
                [next_judged() for _ in range(trainer.num_val_iterations_per_epoch)]
            )
        seconds = self.clock() - begin
        trainer.current_epoch += 1
        return seconds


def ours(spec: RunSpec, plans: dict[str, Any], dataset_json: dict[str, Any], folder: Path) -> Any:
    """Return our trainer."""
    from napari_backsplit.backend.training.run import Run
    from napari_backsplit.backend.training.trainer import trainer_for

    return trainer_for(Run(spec, folder), plans, spec_configuration(plans), dataset_json)


def stock(spec: RunSpec, plans: dict[str, Any], dataset_json: dict[str, Any], folder: Path) -> Any:
    """Return nnU-Net's own trainer, with as many batches."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    from napari_backsplit.backend.training.seeds import WEIGHTS_STREAM, seed_everything

    os.environ["nnUNet_results"] = str(folder)
    seed_everything(spec.seed, WEIGHTS_STREAM)
    plans = {"continue_training": False, **plans}
    device = torch.device(spec.device)
    trainer = nnUNetTrainer(plans, spec_configuration(plans), 0, dataset_json, device)
    trainer.num_iterations_per_epoch = spec.iterations
    trainer.num_val_iterations_per_epoch = spec.validation_iterations
    trainer.num_epochs = spec.epochs
    trainer.initialize()
    return trainer


def spec_configuration(plans: dict[str, Any]) -> str:
    """Return the name of the one configuration."""
    (name,) = plans["configurations"]
    return str(name)


def interval(ratios: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Return a bootstrap interval of the median."""
    rng = np.random.default_rng(1)
    drawn = rng.choice(np.asarray(ratios), (RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def compare(folder: Path, spec: RunSpec, pairs: int) -> None:
    """Print seconds an epoch of nnU-Net, of ours with two classes and of ours with eleven."""
    plans, binary = dataset(folder, "binary")
    many_plans, many = dataset(folder, "backsplit")
    many = with_classes(many, CLASSES)
    names = ("nnU-Net", "ours, K = 2", f"ours, K = {CLASSES}")
    with redirect_stdout(StringIO()):
        trainers = {
            names[0]: Epochs(stock(spec, plans, binary, folder / "stock")),
            names[1]: Epochs(ours(spec, plans, binary, folder / "two")),
            names[2]: Epochs(ours(spec, many_plans, many, folder / "many")),
        }
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(pairs + 1):
        for name in random.Random(round_).sample(names, len(names)):
            with redirect_stdout(StringIO()):
                taken = trainers[name]()
            if round_:  # the first is a warm-up
                seconds[name].append(taken)
        print(f"round {round_}: load {os.getloadavg()[0]:.1f}", flush=True)
    report(seconds, names)


def report(seconds: dict[str, list[float]], names: Sequence[str]) -> None:
    """Print the table and both ratios."""
    for name in names:
        values = seconds[name]
        print(
            f"{name:14s} {np.median(values):8.3f} s an epoch ({min(values):.3f}-{max(values):.3f})"
        )
    for above, below, aim in ((names[1], names[0], 1.02), (names[2], names[1], 1.05)):
        ratios = [a / b for a, b in zip(seconds[above], seconds[below], strict=True)]
        low, high = interval(ratios)
        print(
            f"{above} / {below}: median of {len(ratios)} pairs {np.median(ratios):.3f} "
            f"[{low:.3f}, {high:.3f}], aim at most {aim}"
        )


def eta(folder: Path, spec: RunSpec) -> None:
    """Print what was said to be left after 5 % of the batches, and what was left."""
    from napari_backsplit.backend.training.run import Run
    from napari_backsplit.backend.training.trainer import trainer_for

    told: list[tuple[float, int, int, float | None]] = []

    def progress(done: int, total: int, text: str, eta_s: float | None) -> None:
        told.append((perf_counter(), done, total, eta_s))

    plans, dataset_json = dataset(folder, "backsplit")
    run = Run(spec, folder / "eta", progress=progress)
    with redirect_stdout(StringIO()):
        trainer = trainer_for(run, plans, spec_configuration(plans), dataset_json)
        trainer.run_training()
    end = told[-1][0]
    for share in (0.01, 0.05, 0.1, 0.25, 0.5):
        at, done, total, left = next(entry for entry in told if entry[1] >= share * entry[2])
        foretold = float("nan") if left is None else left
        print(
            f"after {done / total:5.1%}: {foretold:7.1f} s foretold, {end - at:7.1f} s true, "
            f"off by {foretold / (end - at) - 1:+.1%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--eta", action="store_true")
    chosen = parser.parse_args()
    cuda = chosen.device.startswith("cuda")
    patch = (48, 96, 96) if cuda else (32, 32, 32)
    features = (8, 16, 32) if chosen.eta and not cuda else (32, 64, 128)
    plan = PlanSpec(features=features, patch_size=patch, batch_size=2, folds=3)
    spec = RunSpec(
        epochs=40 if chosen.eta else 1000,
        iterations=100 if cuda else 4,
        validation_iterations=20 if cuda else 1,
        workers=4 if cuda else 0,
        device=chosen.device,
        picture_every=10,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "project"
        with redirect_stdout(StringIO()):
            make_project(folder, plan)
        os.environ["nnUNet_n_proc_DA"] = str(spec.workers)
        import torch

        torch.set_num_threads(spec.threads)
        act: Callable[[], None] = (
            (lambda: eta(folder, spec))
            if chosen.eta
            else (lambda: compare(folder, spec, chosen.pairs))
        )
        act()


if __name__ == "__main__":
    main()
