"""What is said of jobs outside of the dock: napari's list of tasks, the desktop, the settings."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from napari.utils.task_status import TaskStatusManager
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QSystemTrayIcon, QWidget

from napari_backsplit.backend.jobs import Chain, Job, State
from napari_backsplit.backend.jobs.courtesy import claimed
from napari_backsplit.backend.jobs.spec import Record, now
from napari_backsplit.backend.structures.prompts import Point
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.widgets import _telling
from napari_backsplit.widgets._chain_rows import ChainRow
from napari_backsplit.widgets._engine_settings import EngineDialog
from napari_backsplit.widgets._repeating import RepeatDialog
from napari_backsplit.widgets._telling import Announcer, TaskList, notify_desktop
from napari_backsplit.widgets._threads import Hop, Lane
from tests.widgets.conftest import Window
from tests.widgets.history_support import write_job


class FakeDesk(QObject):
    """As much of a desk as the announcer knows."""

    project_changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.project: Any = None
        self.settings = EngineSettings()
        self.hop = Hop(self)

    def open(self, folder: Path | None) -> None:
        self.project = SimpleNamespace(folder=folder) if folder else None
        self.project_changed.emit()


class FakeRows:
    """Chains as they are told to stand."""

    def __init__(self, **states: State) -> None:
        self.states = dict(states)

    def read(self) -> list[ChainRow]:
        return [row(name, state) for name, state in self.states.items()]


def row(name: str, state: State) -> ChainRow:
    chain = Chain(name, f"title of {name}", (Job(Path("/nowhere") / name),))
    return ChainRow(chain, state, 0, now(), None, "", "")


class Told:
    """An announcer on a fake desk, and what it told."""

    def __init__(self, bot: QtBot, rows: FakeRows, manager: Any = None) -> None:
        self.bot, self.rows, self.desk = bot, rows, FakeDesk()
        self.manager = manager or TaskStatusManager()
        self.said: list[tuple[str, str]] = []
        self.announcer = Announcer(
            self.desk,  # type: ignore[arg-type]
            tasks=TaskList(self.manager),
            notify=lambda *words: self.said.append(words),
            read=lambda folder: self.rows,
        )

    def look(self, **states: State) -> None:
        self.rows.states |= states
        self.bot.waitUntil(lambda: not self.announcer._reading)
        self.announcer.look()
        self.bot.waitUntil(lambda: not self.announcer._reading)


@pytest.fixture
def tell(qtbot: QtBot) -> Iterator[Callable[..., Told]]:
    made: list[Told] = []

    def open_it(manager: Any = None, **states: State) -> Told:
        made.append(Told(qtbot, FakeRows(**states), manager))
        made[-1].desk.open(Path("/nowhere"))
        made[-1].look()
        return made[-1]

    yield open_it
    for told in made:
        told.announcer.close_all()


def test_the_end_of_a_chain_is_told_once(tell):
    told = tell(a=State.RUNNING, b=State.RUNNING, c=State.RUNNING)
    told.look(a=State.SUCCEEDED, b=State.FAILED, c=State.CANCELLED)
    told.look()
    assert told.said == [
        ("BackSplit: done", "title of a"),
        ("BackSplit: failed", "title of b"),
    ]


def test_what_ended_before_napari_was_opened_is_not_told(tell):
    told = tell(a=State.SUCCEEDED)
    told.look()
    told.look(short=State.SUCCEEDED)  # It began and ended between two looks.
    assert told.said == [("BackSplit: done", "title of short")]


def test_a_chain_that_was_taken_up_again_is_told_of_again(tell):
    told = tell(a=State.RUNNING)
    for state in (State.FAILED, State.PENDING, State.RUNNING, State.SUCCEEDED):
        told.look(a=state)
    assert [head for head, _ in told.said] == ["BackSplit: failed", "BackSplit: done"]


def test_nothing_is_told_where_that_is_switched_off(tell):
    told = tell(a=State.RUNNING)
    told.desk.settings = EngineSettings(notify=False)
    told.look(a=State.SUCCEEDED)
    told.desk.settings = EngineSettings()
    told.look()
    assert not told.said


def test_napari_is_told_of_what_runs_and_that_it_goes_on(tell):
    told = tell(a=State.RUNNING, b=State.PENDING, c=State.PAUSED, d=State.SUCCEEDED)
    busy = told.manager.get_status()
    assert len(busy) == 2
    assert busy[0].startswith("BackSplit: “title of ")
    assert all("goes on in the background" in words for words in busy)
    told.look(a=State.SUCCEEDED, c=State.RUNNING)
    assert len(told.manager.get_status()) == 1
    told.desk.open(None)
    assert not told.manager.is_busy()


def test_another_project_begins_anew(tell):
    told = tell(a=State.RUNNING)
    told.rows = FakeRows(a=State.SUCCEEDED)
    told.desk.open(Path("/elsewhere"))
    told.look()
    assert not told.said
    assert not told.manager.is_busy()


def test_an_error_in_reading_does_not_end_the_looking(tell):
    told = tell(a=State.RUNNING)
    read = told.rows.read
    told.rows.read = lambda: 1 / 0  # type: ignore[assignment,return-value]
    told.look()
    told.rows.read = read  # type: ignore[method-assign]
    told.look(a=State.SUCCEEDED)
    assert len(told.said) == 1


def test_without_a_window_nobody_is_told_of_tasks():
    TaskList(None).show([row("a", State.RUNNING)])
    assert _telling.napari_tasks() is None


CLOSING = """
import os, sys
from pathlib import Path
import napari
from napari_backsplit.backend.jobs import Job, State
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._telling import Announcer
from qtpy.QtWidgets import QApplication
from types import SimpleNamespace
import time
viewer = napari.Viewer(show=False)
desk = Desk()
announcer = Announcer(desk)
desk.project = SimpleNamespace(folder=Path(sys.argv[1]))
desk.project_changed.disconnect()
announcer._project_changed()
manager = viewer.window._task_status_manager
until = time.monotonic() + 20
while not manager.is_busy() and time.monotonic() < until:
    QApplication.processEvents()
    time.sleep(0.01)
print(manager.get_status())
viewer.close()
announcer.close_all()
print("cancel asked:", (Path(sys.argv[1]) / "jobs" / "0001-train" / "control" / "cancel").exists())
"""


def test_closing_napari_cancels_no_job(tmp_path):
    """A real window, a real list of tasks, a job folder whose worker is this process."""
    from napari_backsplit.backend.jobs.processes import mark

    folder = write_job(tmp_path, 1, title="Fine-tune it")
    (folder / "heartbeat").touch()
    running = Record(state=State.RUNNING, started=now(), worker=mark())
    (folder / "status.json").write_text(running.model_dump_json())
    env = {**os.environ, "QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path)}
    env["BACKSPLIT_CONFIG_DIR"] = str(tmp_path / "settings")
    done = subprocess.run(
        [sys.executable, "-c", CLOSING, str(tmp_path)],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "Fine-tune it” goes on in the background" in done.stdout, done.stderr
    assert "cancel asked: False" in done.stdout
    assert Job(folder).status().state is State.RUNNING


# ------------------------------------------------------------------ ways to the desktop


@pytest.fixture
def lane(qtbot: QtBot) -> Iterator[Lane]:
    lane = Lane(Hop(), lambda error: None, "test")
    yield lane
    lane.close()


@pytest.fixture
def in_napari(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_info", said.append)
    monkeypatch.setattr(QSystemTrayIcon, "isSystemTrayAvailable", lambda: False)
    return said


def notifier(folder: Path, code: int) -> str:
    """Write a program that notes its arguments, one a line."""
    program = folder / "notify-send"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/said\nexit {code}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(folder)


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_notify_send_is_given_the_words_as_they_are(lane, in_napari, tmp_path, qtbot, monkeypatch):
    monkeypatch.setenv("PATH", notifier(tmp_path, 0), prepend=os.pathsep)
    notify_desktop(lane, "BackSplit: done", "--evil $(touch x); “title”")
    file = tmp_path / "said"
    qtbot.waitUntil(lambda: file.exists() and file.read_text().endswith("title”\n"))
    assert file.read_text().split("\n")[-4:-1] == [
        "--",
        "BackSplit: done",
        "--evil $(touch x); “title”",
    ]
    assert not in_napari


@pytest.mark.skipif(os.name != "posix", reason="a shell script")
def test_napari_says_it_where_the_desktop_cannot(lane, in_napari, tmp_path, qtbot, monkeypatch):
    monkeypatch.setenv("PATH", notifier(tmp_path, 1), prepend=os.pathsep)
    notify_desktop(lane, "BackSplit: failed", "title")
    qtbot.waitUntil(lambda: in_napari == ["BackSplit: failed: title"])
    monkeypatch.setenv("PATH", str(tmp_path / "nothing here"))
    notify_desktop(lane, "BackSplit: done", "title")
    assert in_napari[1:] == ["BackSplit: done: title"]


# ------------------------------------------------------------------ pause for my clicks


def predicting(window: Window, device: str, claims: str) -> list[bool]:
    """Click, and return whether a device was claimed while the engine answered and after it."""
    seen: list[bool] = []
    window.engine.device = device  # type: ignore[attr-defined]
    window.engine.gate.clear()
    window.dock.tools.choose("point")
    window.desk.ask(Point(at=(4, 4, 4)))
    window.until(lambda: window.desk.driver.orders)
    if claims:
        window.until(lambda: claimed(claims))
    seen.append(claimed(device or "cpu"))
    window.engine.gate.set()
    window.answered()
    window.until(lambda: not claimed(device or "cpu"))
    return seen


def test_a_prompt_claims_the_engines_device_while_it_is_answered(window):
    window.desk.select("kidney")
    assert predicting(window, "cuda:1", "cuda:1") == [True]
    assert predicting(window, "", "") == [False]


def test_nothing_is_claimed_where_training_shall_not_wait(window):
    window.desk.select("kidney")
    engine = window.desk.engines.driver
    window.desk.use_engine(engine.name, EngineSettings(training_waits=False, notify=False))
    assert window.desk.engines.driver is engine, "the engine was started anew for a switch"
    assert window.engine.started == 1
    assert predicting(window, "cpu", "") == [False]


@pytest.mark.parametrize("on", [True, False])
def test_the_switches_are_kept(window, on):
    dialog = EngineDialog(window.desk)
    dialog.set_value(EngineSettings(training_waits=on, notify=on))
    assert dialog.value() == EngineSettings(training_waits=on, notify=on)
    dialog.done(0)
    assert EngineSettings().same_engine(EngineSettings(training_waits=on, notify=on))
    assert not EngineSettings().same_engine(EngineSettings(device="cpu", notify=on))


# ------------------------------------------------------------------ repeat with changes


@pytest.fixture
def ask(qtbot: QtBot) -> Callable[..., RepeatDialog]:
    parents: list[QWidget] = []

    def open_it(**params: Any) -> RepeatDialog:
        parents.append(QWidget())
        qtbot.addWidget(parents[-1])
        return RepeatDialog("title", params, parents[-1])

    return open_it


def test_the_changes_of_a_run_are_what_a_job_can_hold(ask):
    run = RunSpec(epochs=30, supports=("kidney",), patch_size=(8, 8, 8)).model_dump(mode="json")
    dialog = ask(run=run, other=1)
    assert dialog.value() == {}
    dialog.forms["run"].set_value({"epochs": 40, "supports": ("kidney", "liver"), "hours": None})
    changes = dialog.value()
    assert changes == {"run": {"epochs": 40, "supports": ["kidney", "liver"]}}
    RunSpec.model_validate(run | changes["run"])
    assert dialog.ok.isEnabled()


def test_the_changes_of_a_plan(ask):
    dialog = ask(plan=PlanSpec().model_dump(mode="json"))
    dialog.forms["plan"].set_value({"folds": 3})
    assert dialog.value() == {"plan": {"folds": 3}}


def test_other_tasks_have_a_line_for_each_parameter(ask):
    dialog = ask(model="jobs/0001-train/model", cases=None, threads=1, mirroring=True)
    lines = dialog.lines.lines
    assert dialog.value() == {}
    lines["threads"].setText("4")
    lines["cases"].setText('["case_001"]')
    lines["model"].setText("jobs/0002-train/model")
    assert dialog.value() == {
        "model": "jobs/0002-train/model",
        "cases": ["case_001"],
        "threads": 4,
    }
    lines["mirroring"].setText("perhaps")
    assert not dialog.ok.isEnabled()
    assert "perhaps" in dialog.lines.said.text()
    lines["mirroring"].setText("false")
    assert dialog.ok.isEnabled()


def test_parameters_of_another_version_are_lines_too(ask):
    dialog = ask(run={"epochs": -1})
    assert not dialog.forms
    assert dialog.lines.lines["run"].text() == '{"epochs": -1}'
