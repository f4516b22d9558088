"""What inverse weighting, label sets and soft labels add to an epoch.

    python benchmarks/recipes.py [--rounds 9] [--device cuda] [--only softseg ...] [--iterations 4]

Each recipe against the plain loss on the same cases, network and number of batches: Dice +
cross-entropy, for label sets with half of the cases told that a missing support is background. All
trainers take turns in one run, their order drawn anew in each round. As in benchmarks/trainer.py an
epoch is training and validation on the phantom, on a CPU in CPU time of one thread, with nnU-Net's
least width; the loader's own work, augmentation and weights, is part of it.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from trainer import Epochs, dataset, interval, make_project, ours

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.prepare import open_plan_set
from napari_backsplit.backend.training.recipes import RECIPES
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

SOFTSEG = RECIPES["softseg"].run


@dataclass(frozen=True)
class Variant:
    """A run: its settings, its data, and what it is measured against."""

    arm: str
    run: Mapping[str, Any] = field(default_factory=dict)
    partial: str = ""
    peer: str = ""
    aim: float = 0.0


VARIANTS = {
    "plain": Variant("backsplit"),
    "inverse weighting": Variant("backsplit", {"inverse_weighting": True}, "", "plain", 1.05),
    "softseg": Variant("backsplit", SOFTSEG, "", "plain", 1.25),
    "half is background": Variant("backsplit", {}, "background"),
    "label sets": Variant("backsplit", {}, "label-set", "half is background", 1.05),
    "binary": Variant("binary"),
    "binary inverse": Variant("binary", {"inverse_weighting": True}, "", "binary", 1.05),
    "binary softseg": Variant("binary", SOFTSEG, "", "binary", 1.25),
}


def chosen(names: Sequence[str]) -> dict[str, Variant]:
    """Return the variants of these names with their peers; all where none is named."""
    wanted = {*names, *(VARIANTS[name].peer for name in names)}
    return {name: each for name, each in VARIANTS.items() if not names or name in wanted}


def started(folder: Path, name: str, variant: Variant, spec: RunSpec) -> Epochs:
    """Return a variant's trainer, ready for its first epoch."""
    choices: dict[str, Any] = {}
    if variant.partial:
        with Project.open(folder) as project:
            cases = open_plan_set(project, "own").cases
        choices = {"without": tuple(cases[::2]), "missing": variant.partial}
    run = spec.model_validate({**spec.model_dump(), **variant.run, "arm": variant.arm})
    plans, dataset_json = dataset(folder, variant.arm, run.labels == "soft", **choices)
    return Epochs(ours(run, plans, dataset_json, folder / name.replace(" ", "-")))


def take_turns(epochs: Mapping[str, Epochs], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each variant's epochs, after a round to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in epochs}
    for round_ in range(rounds + 1):
        for name in random.Random(round_).sample(list(epochs), len(epochs)):
            with redirect_stdout(StringIO()):
                taken = epochs[name]()
            if round_:
                seconds[name].append(taken)
        print(f"round {round_}: load {os.getloadavg()[0]:.1f}", flush=True)
    return seconds


def report(seconds: Mapping[str, Sequence[float]]) -> None:
    """Print the seconds, and each ratio with its interval."""
    for name, values in seconds.items():
        median = np.median(values)
        print(f"{name:20s} {median:8.3f} s an epoch ({min(values):.3f}-{max(values):.3f})")
    for name, values in seconds.items():
        variant = VARIANTS[name]
        if variant.peer in seconds:
            ratios = [a / b for a, b in zip(values, seconds[variant.peer], strict=True)]
            low, high = interval(ratios)
            print(
                f"{name} / {variant.peer}: median of {len(ratios)} pairs {np.median(ratios):.3f} "
                f"[{low:.3f}, {high:.3f}], aim at most {variant.aim}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--iterations", type=int, help="batches in an epoch; 4, on CUDA 100")
    parser.add_argument("--only", nargs="*", default=[], choices=tuple(VARIANTS))
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    patch = (48, 96, 96) if cuda else (32, 32, 32)
    plan = PlanSpec(features=(32, 64, 128), patch_size=patch, batch_size=2, folds=3)
    spec = RunSpec(
        iterations=options.iterations or (100 if cuda else 4),
        validation_iterations=20 if cuda else 1,
        workers=4 if cuda else 0,
        device=options.device,
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "project"
        with redirect_stdout(StringIO()):
            make_project(folder, plan)
        os.environ["nnUNet_n_proc_DA"] = str(spec.workers)
        import torch

        torch.set_num_threads(spec.threads)
        with redirect_stdout(StringIO()):
            epochs = {
                name: started(folder, name, variant, spec)
                for name, variant in chosen(options.only).items()
            }
        report(take_turns(epochs, options.rounds))


if __name__ == "__main__":
    main()
