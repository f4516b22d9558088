"""A person at a real napari window presses the button; what is seen is printed, a line a step."""

from __future__ import annotations

import json
from pathlib import Path

from napari_backsplit.backend.jobs import submit
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.widgets._watch import ChainView
from napari_backsplit.widgets.training import TrainingPanel
from tests.widgets.screen_support import Screen

PLAN = PlanSpec(features=(4, 8), patch_size=(16, 16, 16), batch_size=2, folds=3)
RUN = RunSpec(arm="binary", epochs=3, iterations=4, validation_iterations=2, seed=7)
SHORT = {"epochs": 3, "iterations": 4, "validation_iterations": 2}
WAIT_S = 240


def tell(step: str, **facts: object) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)  # noqa: T201


def make(folder: Path) -> None:
    """Make a small project with a finished binary training, by real jobs."""
    spec = PhantomSpec(shape=(20, 30, 30), lesion_radius_mm=(14.0, 22.0))
    with sample_project(folder, 3, train=6, test=2, spec=spec):
        pass
    for task, params in (("plan", {"plan": PLAN}), ("train", {"run": RUN})):
        values = {name: value.model_dump(mode="json") for name, value in params.items()}
        job = submit(folder, task, values, f"binary {task}")
        assert job.wait(WAIT_S).state == "SUCCEEDED", job.log_tail(20)


def opened(folder: Path) -> tuple[Screen, TrainingPanel]:
    screen = Screen()
    screen.dock.open_project(folder)
    screen.until(lambda: screen.desk.project, what="project")
    screen.dock.steps.button(2).click()
    panel = screen.dock.training
    screen.until(lambda: panel.improving.checks is not None, WAIT_S, what="checks")
    return screen, panel


def press(folder: str) -> None:
    """Press the button, and close napari while the training runs."""
    make(Path(folder))
    screen, panel = opened(Path(folder))
    panel.settings.set_value(SHORT)
    screen.until(lambda: panel.improving.checks is None)
    screen.until(lambda: panel.improving.checks is not None, WAIT_S, what="checks again")
    wide = screen.dock.width(), screen.viewer.window._qt_window.width()
    tell("proposed", said=panel.sentence.text(), reason=panel.reason.text(), width=wide)
    panel.button.click()
    panel.button.click()
    monitor = panel.running.monitor
    screen.until(lambda: _runs(monitor.view), WAIT_S, "running")
    tell("begun", chain=monitor.view.chain.name, reason=panel.reason.text())
    screen.close()


def _runs(view: ChainView | None) -> bool:
    return view is not None and len(view.chain.jobs) > 1 and view.job_status.state == "RUNNING"


def come_back(folder: str) -> None:
    """Open napari again: the chain is found, and at its end its answer."""
    screen, panel = opened(Path(folder))
    screen.until(lambda: panel.running.monitor.view, WAIT_S, "monitor")
    tell("found", chain=panel.running.monitor.view.chain.name)
    screen.until(lambda: not panel.running.answer.isHidden(), 2 * WAIT_S, "answer")
    tell("answered", said=panel.running.answer.words.text())
    screen.close()
