"""How much an experiment writes, by arithmetic: parameters, and the sizes of images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from napari_backsplit.backend.experiments.draws import Draw
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.plan_data import Synthetic
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import StudyArm, parts_of
from napari_backsplit.backend.training import space
from napari_backsplit.backend.training.architectures import about_parameters
from napari_backsplit.backend.training.spec import PlanSpec

PLANNED = 31e6
"""Parameters of nnU-Net's own U-Net on volumes (BackSplit, Tab. 1)."""

STATES = {"sgd": 1, "adam": 2, "adamw": 2}
"""Numbers that an optimiser keeps beside each parameter."""

PREDICTED = 0.02
"""Share of its plain size that a predicted mask takes on disk, compressed."""

PROBABLE = 0.5
"""The same of its probabilities."""


def parameters_of(arm: StudyArm, plan: PlanSpec) -> float:
    """Return about how many parameters an arm's network has."""
    features = (arm.plan or plan).features
    flat = (arm.plan or plan).configuration == "2d"
    if other := about_parameters(arm.run):
        return other
    return unet_parameters(features, 2 if flat else 3) if features else PLANNED


def unet_parameters(features: Sequence[int], axes: int = 3) -> float:
    """Return the parameters of nnU-Net's plain U-Net: two convolutions of 3 a stage, both ways."""
    kernel = 3**axes
    down = sum(kernel * (before + after) * after for before, after in pairwise((1, *features)))
    up = sum((3 * kernel * a + 2**axes * b) * a for a, b in pairwise(features))
    return float(down + up)


def checkpoint_bytes(arm: StudyArm, plan: PlanSpec) -> float:
    """Return about what the checkpoints of one training take."""
    numbers = parameters_of(arm, plan) * (1 + STATES[arm.run.optimiser])
    return 4 * numbers * space.CHECKPOINTS


def footprint_gb(plan: ExperimentPlan, draws: Sequence[Draw]) -> float:
    """Return about what a whole experiment writes, GB, if nothing of it is there yet.

    Images count as stored: the spacing that they are resampled to is not known before the plan.
    """
    arms = plan.study_arms(0)
    checkpoints = sum(
        len(parts_of(arm.name, plan.folds)) * checkpoint_bytes(arm, plan.plan) for arm in arms
    )
    return sum(checkpoints + _images(plan, arms, draw) for draw in draws) / 1e9


def _images(plan: ExperimentPlan, arms: Sequence[StudyArm], draw: Draw) -> float:
    """Return the bytes of preprocessed images and label maps, and of predictions."""
    training, tested, channels = _voxels(plan, draw)
    sets = len({(arm.plan or plan.plan).name for arm in arms})
    schemes = len({_scheme(arm, plan.plan) for arm in arms})
    share = PREDICTED + PROBABLE * 4 * bool(plan.prediction.get("probabilities"))
    learnt = sets * space.image_bytes(training, channels) + schemes * space.label_bytes(training)
    return learnt + len(arms) * share * (training if plan.folds else tested)


def _scheme(arm: StudyArm, plan: PlanSpec) -> tuple[object, ...]:
    run = arm.run
    told = (run.arm, run.supports, run.support_count, run.support_cases, run.missing, run.labels)
    return ((arm.plan or plan).name, *told)


def _voxels(plan: ExperimentPlan, draw: Draw) -> tuple[int, int, int]:
    """Return voxels to train on, voxels to predict, and channels; 0 where nothing is known yet."""
    if (draw.project / "project.json").is_file():
        with Project.open(draw.project, read_only=True) as project:
            parts = (project.training_cases(), project.test_cases())
            sizes = [sum(prod(project.geometry(case).shape) for case in part) for part in parts]
            return sizes[0], sizes[1], len(project.schema.channels)
    if isinstance(plan.data, Synthetic):
        case = prod(plan.data.spec.shape)
        return plan.data.train * case, plan.data.test * case, 1
    return 0, 0, 1
