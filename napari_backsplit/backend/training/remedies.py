"""What to change after a training failed, as words and as changes that a repetition takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job
from napari_backsplit.backend.jobs.spec import Cause
from napari_backsplit.backend.training.architectures import patch_steps
from napari_backsplit.backend.training.spec import RunSpec

LEAST_STEPS = 2
"""The fewest voxels that a patch keeps along an axis at the network's lowest resolution: norms
need more than one."""


@dataclass(frozen=True)
class Suggestion:
    """Something to change before a training is tried again.

    Attributes
    ----------
    words : str
        What to do, as a person reads it on a button.
    changes : dict
        What `repeat` merges into the job's parameters; empty: resume it as it is.
    """

    words: str
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Planned:
    """What the plans say where a run says nothing: patch, batch and strides; empty if unknown."""

    patch_size: tuple[int, ...] = ()
    batch_size: int = 0
    strides: tuple[int, ...] = ()

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> Planned:
        """Read them from a configuration of nnU-Net's plans."""
        return cls(
            tuple(configuration["patch_size"]),
            int(configuration["batch_size"]),
            strides_of(configuration),
        )


def strides_of(configuration: Mapping[str, Any]) -> tuple[int, ...]:
    """Return by how much a network halves each axis in all: patches are multiples of it."""
    return patch_steps(configuration)


def remedies(cause: Cause, spec: RunSpec, planned: Planned | None = None) -> list[Suggestion]:
    """Return what may help a training that failed, the gentlest change first.

    Parameters
    ----------
    cause : Cause
        Why it failed.
    spec : RunSpec
        What it was told.
    planned : Planned, optional
        Patch, batch and strides of its plans; without them no patch is proposed, and a batch
        only where the run named one.

    Returns
    -------
    list of Suggestion
        Empty where nothing can be proposed. The first is the one to offer as a button.
    """
    planned = planned or Planned()
    match cause:
        case "gpu memory":
            return [*_smaller_batch(spec, planned), *_smaller_patch(spec, planned)]
        case "memory" | "workers died":
            return [*_fewer_workers(spec), *_smaller_patch(spec, planned)]
        case "killed":
            return [*_fewer_workers(spec), *_smaller_batch(spec, planned), _RESUME]
        case "not a number":
            return list(_calmer(spec))
        case "disk full":
            return [Suggestion("Free some space, then resume")]
        case "stopped":
            return [_RESUME]
    return []


_RESUME = Suggestion("Resume from the last checkpoint")


def remedies_of(job: Job) -> list[Suggestion]:
    """Return what may help a training job that failed; [] for another job, or one that did not."""
    cause = job.status().cause
    if job.spec.task != "train" or not cause:
        return []
    spec = RunSpec.model_validate(job.spec.params["run"])
    try:
        plans = read_json(job.folder / "model" / "plans.json")
        (configuration,) = plans["configurations"].values()
        planned = Planned.of(configuration)
    except (BackSplitError, KeyError, ValueError, TypeError):  # it failed before it was prepared
        planned = Planned()
    return remedies(cause, spec, planned)


def _change(words: str, **values: Any) -> Suggestion:
    return Suggestion(words, {"run": values})


def _smaller_batch(spec: RunSpec, planned: Planned) -> Iterator[Suggestion]:
    batch = spec.batch_size or planned.batch_size
    if batch > 1:
        fewer = f"{batch // 2} patch" if batch // 2 == 1 else f"{batch // 2} patches"
        yield _change(f"Batches of {fewer} instead of {batch}", batch_size=batch // 2)


def _smaller_patch(spec: RunSpec, planned: Planned) -> Iterator[Suggestion]:
    patch = spec.patch_size or planned.patch_size
    smaller = smaller_patch(patch, planned.strides)
    if smaller != tuple(patch):
        new, old = (" x ".join(map(str, sizes)) for sizes in (smaller, patch))
        yield _change(f"A patch of {new} instead of {old} voxels", patch_size=list(smaller))


def smaller_patch(patch: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Return the next smaller patch of about three quarters: the longest axes give way first.

    Parameters
    ----------
    patch, strides : sequence of int
        Of one length; a patch is a multiple of the strides. Without strides nothing is changed.

    Returns
    -------
    tuple of int
        Multiples of the strides, at least `LEAST_STEPS` of them; `patch` where none is smaller.
    """
    if len(patch) != len(strides):
        return tuple(patch)
    sizes, wanted = list(patch), 0.75 * float(np.prod(patch))
    while np.prod(sizes) > wanted:
        can = [axis for axis, step in enumerate(strides) if sizes[axis] > max(8, LEAST_STEPS * step)
               and sizes[axis] - step >= 8]  # fmt: skip
        if not can:
            break
        longest = max(can, key=lambda axis: sizes[axis])
        sizes[longest] -= strides[longest]
    return tuple(sizes)


def _fewer_workers(spec: RunSpec) -> Iterator[Suggestion]:
    if spec.workers:
        fewer = spec.workers // 2
        yield _change(f"{fewer or 'No'} workers instead of {spec.workers}", workers=fewer)


def _calmer(spec: RunSpec) -> Iterator[Suggestion]:
    rate = float(f"{spec.initial_lr / 10:.3g}")
    yield _change(f"Learning rate {rate:g} instead of {spec.initial_lr:g}", initial_lr=rate)
    if spec.precision != "float32":
        yield _change("Arithmetic in float32", precision="float32")
