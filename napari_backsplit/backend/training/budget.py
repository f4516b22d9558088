"""Whether a fine-tune is likely to pay, said before it starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.training.spec import MANY_SUPPORTS, RunSpec

STOCK_ITERATIONS = 1000 * 250
"""nnU-Net's own training, taken for a baseline that does not say how long it was trained."""

LEAST_ITERATIONS = 1200
"""The shortest fine-tune that was seen to pay on the phantom (docs/experiments/finetune.md)."""

LEAST_SHARE = 0.05
"""The shortest that the paper shows to pay, as a share of the baseline's own training: 50 epochs of
1000 (Sec. 4.6)."""


def trained_iterations(baseline: Path) -> int:
    """Return for how many batches a model was trained, as far as its folder says."""
    return iterations_of(ModelFolder.open(baseline).card)


def iterations_of(card: Mapping[str, Any]) -> int:
    """Return for how many batches a model was trained, as far as its card says."""
    run = card.get("run")
    if not run:
        return STOCK_ITERATIONS
    epochs = (card.get("trained") or run)["epochs"]
    return int(epochs) * int(run["iterations"])


def least_iterations(baseline_iterations: int) -> int:
    """Return the fewest batches of a fine-tune that were seen to pay."""
    return max(LEAST_ITERATIONS, round(LEAST_SHARE * baseline_iterations))


def warnings(spec: RunSpec, baseline_iterations: int) -> Iterator[str]:
    """Yield what speaks against a fine-tune with supports as it is planned.

    Parameters
    ----------
    spec : RunSpec
        The fine-tune.
    baseline_iterations : int
        Batches that its baseline was trained for.
    """
    iterations, needed = spec.epochs * spec.iterations, least_iterations(baseline_iterations)
    if iterations < needed:
        epochs = -(-needed // spec.iterations)
        yield (
            f"{iterations} iterations are fewer than any fine-tune was seen to pay with ({needed}):"
            " the supports are hardly learnt by then, and supports learnt by half can cost more "
            f"than they give. Take --epochs {epochs} or more, or train from scratch with supports: "
            "backsplit train --arm backsplit"
        )
    if len(spec.supports) > MANY_SUPPORTS:
        yield f"{len(spec.supports)} supports are many for a fine-tune; one to three work best."
