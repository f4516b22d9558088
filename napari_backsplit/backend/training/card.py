"""What the card of a run's model says: what it learnt from, under which licences, how it ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_backsplit.backend.fusion.cases import admitted
from napari_backsplit.backend.geometry import axis_codes
from napari_backsplit.backend.jobs import JobContext
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.recipes import sources_of
from napari_backsplit.backend.training.arms import ArmScheme
from napari_backsplit.backend.training.spec import RunSpec


def data_record(
    project: Project, cases: Sequence[str], fold: tuple[Sequence[str], Sequence[str]]
) -> dict[str, Any]:
    """Return what the model sees: case -> SHA-256 of its first channel, by role.

    Parameters
    ----------
    cases : sequence of str
        Of the plan set.
    fold : (sequence of str, sequence of str)
        The cases that are trained on, and validated on.
    """
    training, validation = fold
    channel = project.schema.channels[0].name
    hashes = {case: project.case(case).images[channel].sha256 for case in cases}
    return {
        "training": {case: hashes[case] for case in training},
        "validation": {case: hashes[case] for case in validation if case not in training},
    }


def orientations(project: Project, cases: Sequence[str]) -> dict[str, int]:
    """Return which way the images lie that a run learns from: axes such as LPS -> cases."""
    return dict(Counter(axis_codes(project.geometry(case)) for case in cases))


def licences(project: Project, scheme: ArmScheme, cases: Sequence[str]) -> dict[str, list[str]]:
    """Return under which licences the masks stand that a run learns from."""
    found = {
        name: {
            record.licence
            for source in sources_of(name, project.schema.recipes)
            for case in cases
            if admitted(project, case, source, scheme.admit)
            and (record := project.provenance(case, source))
        }
        for name in (*scheme.targets, *scheme.supports)
    }
    return {name: sorted(known - {""}) for name, known in found.items() if known - {""}}


def baseline_record(context: JobContext, spec: RunSpec) -> dict[str, Any] | None:
    """Return which model a fine-tune starts from, and what that one had seen, if it says so."""
    if spec.baseline is None:
        return None
    model = ModelFolder.open(
        context.path(spec.baseline), folds=[spec.fold], checkpoint=spec.baseline_checkpoint
    )
    return {
        "model": spec.baseline,
        "hashes": model.hashes(),
        **{key: model.card.get(key) for key in ("data", "run", "baseline")},
        "exported_checkpoint": model.card.get("exported_checkpoint", "checkpoint_final.pth"),
    }


def trained_epochs(model: Path) -> int:
    """Return for how many epochs a model was trained, as its card or its checkpoint says.

    Raises
    ------
    InputError
        There is no such model, or its training has not ended.
    """
    folder = ModelFolder.open(model)
    trained = folder.card.get("trained")
    if trained:
        return int(trained["epochs"])
    from napari_backsplit.backend.prediction.checkpoint import load_checkpoint

    return int(load_checkpoint(next(iter(folder.checkpoints.values())))["current_epoch"])
