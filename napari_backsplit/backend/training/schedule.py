"""What changes from epoch to epoch: learning rate, supports that have joined, and their weight."""

from __future__ import annotations

from math import cos, pi

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import RunSpec


def lr_factor(spec: RunSpec, epoch: int, used: float | None = None) -> float:
    """Return the multiple of the initial learning rate that epoch 0, 1, ... trains with.

    Parameters
    ----------
    spec : RunSpec
    epoch : int
    used : float, optional
        Share of a budget of time that is used as the epoch starts; the number of the epoch then
        says nothing.

    Notes
    -----
    The cosine ends at `final_lr`, as torch's CosineAnnealingLR(T_max=epochs, eta_min=final_lr).
    """
    if used is not None:
        done = used
    elif epoch < spec.warmup_epochs:
        return (epoch + 1) / (spec.warmup_epochs + 1)
    else:
        done = (epoch - spec.warmup_epochs) / (spec.epochs - spec.warmup_epochs)
    end = spec.final_lr / spec.initial_lr
    cosine = end + (1 - end) * (1 + cos(pi * done)) / 2
    decays = {"poly": (1 - done) ** 0.9, "cosine": cosine, "constant": 1.0}
    return float(decays[spec.schedule])


def joined_supports(spec: RunSpec, epoch: int, supports: int) -> int:
    """Return how many of the supports, in their order, are classes of their own in an epoch."""
    if not spec.curriculum_epochs:
        return supports
    return min(supports, 1 + epoch // spec.curriculum_epochs)


def require_all_to_join(spec: RunSpec, supports: int) -> None:
    """Refuse a curriculum that ends before the last support has joined.

    Raises
    ------
    InputError
    """
    if not spec.curriculum_epochs:
        return
    joined = joined_supports(spec, spec.epochs - 1, supports)
    if joined < supports:
        raise InputError(
            f"With {spec.curriculum_epochs} epochs between two supports only {joined} of "
            f"{supports} join within {spec.epochs} epochs.",
            "Lower --curriculum-epochs, or train longer.",
        )


def support_weight(spec: RunSpec, epoch: int, used: float | None = None) -> float:
    """Return the weight of the loss over supports in an epoch, 1 at first; `used` as above."""
    done = epoch / max(spec.epochs - 1, 1) if used is None else used
    return 1 - done * (1 - spec.final_support_weight)
