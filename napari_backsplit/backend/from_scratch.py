"""Trainings from scratch as one chain: plan, train each arm, predict held-out cases, compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from napari_backsplit.backend.improvement_chain import (
    beginning,
    compare,
    prediction,
    require_new,
    training,
)
from napari_backsplit.backend.links import Links
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.readiness import (
    held_out_cases,
    keep_test_set,
    require_ready,
)
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

LAST = "checkpoint_final.pth"


def begin_from_scratch(
    project: Project | Path,
    runs: Mapping[str, RunSpec],
    plan: PlanSpec | None,
    *,
    where: str = "",
) -> str:
    """Queue trainings of one plan set as one chain, and keep the test set from now on.

    Parameters
    ----------
    project : Project or Path
        Open, or its folder.
    runs : mapping of str to RunSpec
        Name -> arm; the first is what the others are compared with.
    plan : PlanSpec, optional
        The runs' plan set, where it is to be made first.
    where : str
        Address of the scheduler that runs it; "" for this machine.

    Returns
    -------
    str
        The name of the chain. With one arm it ends with its training; with more, with a
        comparison on the test set.

    Raises
    ------
    InputError, ProjectError
        A run is impossible, or arms are to be compared and no case is held out.
    JobError
        The same is queued or runs already.
    """
    with beginning(project) as opened:
        for run in runs.values():
            require_new(opened.folder, training(run))
            require_ready(opened, run, plan)
        cases = held_out_cases(opened) if len(runs) > 1 else []
        keep_test_set(opened, None if plan is None else plan.folds)
        with Links(opened.folder, where) as links:
            _queue(links, runs, plan, cases)
            return links.name


def _queue(
    links: Links, runs: Mapping[str, RunSpec], plan: PlanSpec | None, cases: Sequence[str]
) -> None:
    title = f"train from scratch: {' and '.join(runs)}"
    planned = []
    if plan is not None:
        planned = [links.add("plan", {"plan": plan.model_dump(mode="json")}, f"{title}: plan")]
    trained = {
        name: links.add("train", training(run), f"{title}: {name}", planned, run.device)
        for name, run in runs.items()
    }
    if len(runs) == 1:
        return
    predicted = {
        name: links.add(
            "predict",
            prediction(f"jobs/{job}/model", runs[name], list(cases), LAST, []),
            f"predict: {name}",
            [job],
            runs[name].device,
        )
        for name, job in trained.items()
    }
    compare(links, {name: f"jobs/{job}" for name, job in predicted.items()}, [*predicted.values()])
