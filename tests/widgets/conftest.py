"""A window without a screen: napari's model of a viewer, our dock, and an engine of cubes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures import engines
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.engines import About, Answer, EngineState, Request
from napari_backsplit.backend.structures.settings import FOLDER, EngineSettings
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets.workflow import BackSplitWidget
from tests.backend.structures.drawing import Cubes, make_project


class GatedCubes(Cubes):
    """An engine that answers when it is let, and says how often it was started and closed."""

    gate = threading.Event()
    error: Exception | None = None
    started = closed = 0

    def __init__(self, settings: EngineSettings | None = None) -> None:
        super().__init__()

    @staticmethod
    def look(settings: EngineSettings) -> EngineState:
        return EngineState("cubes", "Cubes", "ready", model="model of cubes", licence="CC0-1.0")

    def start(self, tell: Callable[[str], None]) -> About:
        type(self).started += 1
        tell("warming up")
        return super().start(tell)

    def segment(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        while not type(self).gate.wait(0.01):
            if cancelled():
                raise engines.EngineCancelled
        if type(self).error is not None:
            raise type(self).error
        return super().segment(request, cancelled)

    def close(self) -> None:
        type(self).closed += 1


@dataclass
class Window:
    """The dock and what belongs to it."""

    bot: QtBot
    viewer: ViewerModel
    dock: BackSplitWidget
    engine: type[GatedCubes]

    @property
    def desk(self) -> Desk:
        return self.dock.desk

    @property
    def work(self) -> Annotation:
        assert self.desk.annotation is not None
        return self.desk.annotation

    def until(self, condition: Callable[[], object]) -> None:
        self.bot.waitUntil(lambda: bool(condition()), timeout=10_000)

    def open(self, folder: Path) -> None:
        self.dock.open_project(folder)
        self.until(lambda: self.desk.annotation is not None and self.desk.driver is not None)
        self.until(lambda: self.desk.driver.light == "ready")

    def answered(self) -> None:
        """Wait until no prompt is on its way and no stroke waits to be kept."""
        self.until(lambda: not self.desk.driver.orders)
        self.kept()

    def kept(self) -> None:
        for lane in (self.desk.scribe, self.desk.files):
            done: list[bool] = []
            lane.do(lambda: None, lambda _, done=done: done.append(True))
            self.until(lambda done=done: done)


@pytest.fixture
def make_window(
    qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Window]]:
    engine = type("Fresh", (GatedCubes,), {"gate": threading.Event()})
    engine.gate.set()
    monkeypatch.setenv(FOLDER, str(tmp_path / "settings"))
    monkeypatch.setattr(engines, "ENGINES", {"cubes": "tests:Cubes"})
    monkeypatch.setattr(engines, "_class", lambda name: engine)
    made: list[Window] = []

    def make() -> Window:
        viewer = ViewerModel()
        dock = BackSplitWidget(viewer)
        qtbot.addWidget(dock)
        made.append(Window(qtbot, viewer, dock, engine))
        made[-1].until(lambda: dock.desk.driver is not None)
        return made[-1]

    yield make
    engine.gate.set()
    for window in made:
        window.dock.close_all()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of two cases, closed."""
    with make_project(tmp_path, cases=2) as project:
        return project.folder


@pytest.fixture
def window(make_window: Callable[[], Window], folder: Path) -> Window:
    """The dock with the first case open."""
    window = make_window()
    window.open(folder)
    return window


def masks(folder: Path, case: str = "case_001") -> dict[str, int]:
    """Return the voxels of every mask file of a case."""
    with Project.open(folder, read_only=True) as project:
        return {name: int(mask.sum()) for name, mask in project.masks(case).items()}
