"""The tasks that a job may name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs.context import JobContext

Task = Callable[[JobContext], dict[str, Any] | None]

TASKS: Mapping[str, str] = {
    "plan": "napari_backsplit.backend.training.tasks:run_plan",
    "train": "napari_backsplit.backend.training.tasks:run_train",
    "export": "napari_backsplit.backend.training.tasks:run_export",
    "segment": "napari_backsplit.backend.structures.tasks:run_segment",
    "predict": "napari_backsplit.backend.prediction.tasks:run_predict",
    "compare": "napari_backsplit.backend.comparison.tasks:run_compare",
}


def reference(task: str, tasks: Mapping[str, str] = TASKS) -> str:
    """Return "module:function" of a task.

    Raises
    ------
    JobError
        The name is not in the table: a job never names an arbitrary module.
    """
    if task not in tasks:
        known = ", ".join(sorted(tasks))
        raise JobError(f"There is no task named {task!r}.", f"The tasks are: {known}.")
    return tasks[task]


def load(target: str) -> Task:
    """Import the function "module:function"."""
    module, _, name = target.partition(":")
    task: Task = getattr(import_module(module), name)
    return task
