"""The training panel: one sentence, one button, and what speaks against it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent, QWheelEvent
from qtpy.QtWidgets import QApplication, QCheckBox, QInputDialog, QLabel, QPushButton

from napari_backsplit.backend.answer import Answer
from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import State, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.spec import Record, now
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.checks import passed, refused, warned
from napari_backsplit.backend.training.spec import PlanSpec
from napari_backsplit.backend.volume import Volume
from napari_backsplit.widgets import _asking, _supervising
from napari_backsplit.widgets._answer import AnswerBox
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._from_scratch import ScratchDialog
from napari_backsplit.widgets._preflight import _spoken
from napari_backsplit.widgets.training import TrainingPanel
from tests.backend.structures.drawing import SHAPE, make_project
from tests.widgets.conftest import Window
from tests.widgets.training_support import Backend, unfit


@dataclass
class Shown:
    """The panel with a project on the desk, and the backend that answers it."""

    bot: QtBot
    desk: Desk
    panel: TrainingPanel
    backend: Backend
    told: list[str]
    failed: list[Any]

    def until(self, condition: Callable[[], object]) -> None:
        self.bot.waitUntil(lambda: bool(condition()), timeout=30_000)

    def open(self, folder: Path, **options: Any) -> None:
        self.desk.open_project(lambda: Project.open(folder, **options))
        self.until(lambda: self.desk.project is not None)
        self.panel.set_active(True)

    def ready(self) -> None:
        """Wait until the proposal has its checks."""
        self.until(lambda: self.panel.improving.checks is not None)

    def set(self, **value: Any) -> None:
        """Change settings and wait until they are proposed."""
        self.panel.settings.set_value(value)
        self.until(lambda: self.panel.improving.checks is None)
        self.ready()

    @property
    def reason(self) -> str:
        return self.panel.reason.text()

    def buttons(self) -> dict[str, QPushButton]:
        return {b.text(): b for b in self.panel.checks.findChildren(QPushButton)}


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of four cases, closed."""
    with make_project(tmp_path, cases=4) as project:
        for case in project.case_ids():
            lesion = Volume(np.zeros(SHAPE, bool), project.geometry(case))
            project.set_mask(case, "lesion", lesion, {"engine": "drawn"})
        return project.folder


@pytest.fixture
def panel(
    qtbot: QtBot, backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shown]:
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path / "settings"))
    desk = Desk()
    widget = TrainingPanel(ViewerModel(), desk, backend.ways())
    qtbot.addWidget(widget)
    widget.show()
    shown = Shown(qtbot, desk, widget, backend, [], [])
    desk.told.connect(shown.told.append)
    desk.failed.connect(shown.failed.append)
    yield shown
    backend.gate.set()
    backend.probe_gate.set()
    widget.close_all()
    desk.close()


@pytest.fixture
def shown(panel: Shown, folder: Path) -> Shown:
    """The panel with a project whose newest binary model is proposed."""
    panel.open(folder)
    panel.ready()
    return panel


def test_one_sentence_says_what_the_button_does_and_what_it_takes(shown: Shown) -> None:
    said = shown.panel.sentence.text()
    assert "0002-train with kidney, 250 epochs" in said
    assert "3 h 10 min on NVIDIA A" in said
    assert shown.panel.button.isEnabled()
    assert not shown.reason


def test_the_button_begins_once_however_often_it_is_pressed(shown: Shown) -> None:
    shown.backend.gate.clear()
    shown.panel.button.click()
    assert not shown.panel.button.isEnabled()
    shown.panel.button.click()
    shown.panel.improving.begin()
    shown.backend.gate.set()
    shown.until(lambda: shown.backend.begun and not shown.panel.improving.beginning)
    assert len(shown.backend.begun) == 1
    assert "also when napari is closed" in shown.told[-1]
    assert shown.reason == "Begun: it goes on below."
    assert not shown.panel.button.isEnabled()
    shown.set(epochs=300)
    assert shown.panel.button.isEnabled(), "another training may be queued behind it"


def test_what_cannot_begin_is_told_and_the_button_is_there_again(shown: Shown) -> None:
    def refuse(project: Any, improvement: Any) -> str:
        raise unfit()

    shown.panel.improving._ways = replace(shown.backend.ways(), begin=refuse)
    shown.panel.button.click()
    shown.until(lambda: shown.failed)
    assert "2 channels" in str(shown.failed[0])
    assert shown.panel.button.isEnabled()


def test_what_refuses_is_always_seen_and_its_remedy_is_a_button(
    panel: Shown, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel.backend.checks = [
        passed("model", "It is whole."),
        warned("memory", "Tight.", "Take fewer workers (--workers).", "fewer workers"),
        refused("test set", "No case is held out.", "Reserve some.", "reserve"),
    ]
    panel.open(folder)
    panel.ready()
    assert panel.reason == "▲ 1 thing to settle first:"
    assert not panel.panel.button.isEnabled()
    assert panel.panel.checks.folded.head.text() == "1 check passed, 1 warning ▸"
    reserve = panel.buttons()["Reserve…"]
    assert reserve.isVisible()
    assert not panel.buttons()["No workers"].isVisible(), "warnings are folded"
    monkeypatch.setattr(QInputDialog, "getInt", lambda *a: (1, True))
    panel.backend.checks = [passed("test set", "1 patient.")]
    reserve.click()
    panel.until(lambda: panel.panel.button.isEnabled())
    assert panel.desk.project is not None
    assert len(panel.desk.project.test_cases()) == 1


def test_a_remedy_changes_the_settings(shown: Shown) -> None:
    shown.backend.checks = [warned("unseen", "2 cases: unknown.", "", "declare unseen")]
    shown.set(epochs=20)
    shown.panel.checks.folded.set_open(True)
    shown.buttons()["It never saw them"].click()
    shown.until(lambda: shown.backend.proposed[-1][1].get("declare_unseen"))
    assert shown.backend.proposed[-1][1]["epochs"] == 20, "what was set before stays"
    assert shown.panel.settings.unseen.isChecked()


def test_an_unfit_model_can_be_accepted(panel: Shown, folder: Path) -> None:
    panel.backend.plan = PlanSpec(name="theirs", baseline="baselines/baseline-1")
    panel.backend.checks = [refused("spacing", "4 mm, not 1.", "", "accept unfit")]
    panel.open(folder)
    panel.ready()
    panel.buttons()["Use it anyway"].click()
    panel.until(lambda: "plan" in panel.backend.proposed[-1][1])
    assert panel.backend.proposed[-1][1]["plan"].accept_unfit


def test_settings_are_folded_and_start_from_the_recommended(shown: Shown) -> None:
    settings = shown.panel.settings
    assert not shown.panel.settings_part.is_open
    assert settings.value() == {}
    assert settings.form.spec().epochs == 250
    shown.set(hours=8.0, supports=("kidney", "liver"))
    assert "8 h" in shown.panel.sentence.text()
    assert "kidney and liver" in shown.panel.sentence.text()
    settings.reset.click()
    shown.until(lambda: "250 epochs" in shown.panel.sentence.text())
    assert settings.value() == {}


def test_a_setting_that_cannot_be_used_keeps_the_button_from_being_pressed(shown: Shown) -> None:
    shown.panel.settings.form.editor("initial_lr").setText("much")  # type: ignore[attr-defined]
    assert not shown.panel.button.isEnabled()
    assert shown.reason == "▲ Settings: Initial learning rate: A number, please."


def test_more_than_three_supports_are_warned_of(shown: Shown) -> None:
    settings = shown.panel.settings
    settings.set_supports(["kidney", "liver", "spleen", "bowel"])
    settings.set_value({"supports": ("kidney", "liver", "spleen")})
    assert settings.many.isHidden()
    settings.set_value({"supports": ("kidney", "liver", "spleen", "bowel")})
    assert not settings.many.isHidden()
    assert "4 supports are many" in settings.many.text()


def test_late_answers_are_dropped(panel: Shown, folder: Path) -> None:
    panel.backend.gate.clear()
    panel.open(folder)
    panel.until(lambda: panel.backend.proposed)
    panel.panel.improving.choose("0001-train")
    panel.backend.gate.set()
    panel.ready()
    assert "0001-train" in panel.panel.sentence.text()
    shown = [model for model, _ in panel.backend.proposed]
    assert shown == ["0002-train", "0001-train"]


def test_what_takes_is_measured_and_can_be_stopped(panel: Shown, folder: Path) -> None:
    assert panel.backend.estimate is not None
    panel.backend.estimate = replace(panel.backend.estimate, seconds=None, source="")
    panel.backend.probe_gate.clear()
    panel.open(folder)
    panel.until(lambda: panel.backend.probes == 1)
    assert panel.panel.measured.text() == "Measuring on this machine: some 20 s…"
    assert panel.panel.button.isEnabled(), "nobody has to wait for it"
    panel.panel.stop.click()
    assert panel.panel.measured.text() == "How long is not known yet."
    panel.backend.probe_gate.set()
    panel.panel.measure.click()
    panel.until(lambda: "3 h 10 min" in panel.panel.sentence.text())
    assert panel.panel.measuring.isHidden()


def test_a_measurement_ends_also_where_one_looked_elsewhere_meanwhile(
    panel: Shown, folder: Path
) -> None:
    assert panel.backend.estimate is not None
    panel.backend.estimate = replace(panel.backend.estimate, seconds=None, source="")
    panel.backend.probe_gate.clear()
    panel.open(folder)
    panel.until(lambda: panel.backend.probes == 1)
    asked = len(panel.backend.proposed)
    panel.panel.set_active(False)
    panel.panel.set_active(True)
    panel.until(lambda: len(panel.backend.proposed) > asked)
    panel.backend.probe_gate.set()
    panel.until(lambda: not panel.panel.improving.measuring)
    panel.until(lambda: "3 h 10 min" in panel.panel.sentence.text())
    assert panel.backend.probes == 1


def test_what_cannot_be_measured_is_tried_once(panel: Shown, folder: Path) -> None:
    assert panel.backend.estimate is not None
    unknown = replace(panel.backend.estimate, seconds=None, source="")
    panel.backend.estimate = panel.backend.measured = unknown
    panel.open(folder)
    panel.until(lambda: panel.backend.probes == 1 and not panel.panel.improving.measuring)
    for _ in range(2):
        asked = len(panel.backend.proposed)
        panel.panel.improving.again()
        panel.until(lambda asked=asked: len(panel.backend.proposed) > asked)
        panel.bot.wait(50)
        panel.ready()
    assert panel.backend.probes == 1


def test_without_a_model_the_page_says_what_to_do_and_offers_it(panel: Shown, folder: Path) -> None:
    panel.backend.starts = []
    panel.open(folder)
    panel.until(lambda: panel.panel.improving.looked)
    box = panel.panel.baseline
    assert "No binary lesion model yet" in box.none.text()
    assert all(b.isVisible() for b in (box.none, box.folder, box.zip, box.scratch))
    assert panel.reason == "Choose a baseline first."


def test_a_model_that_is_dropped_is_started_from(shown: Shown, tmp_path: Path) -> None:
    file = tmp_path / "theirs.zip"
    file.touch()
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(file))])
    none, left = Qt.KeyboardModifier.NoModifier, Qt.MouseButton.LeftButton
    shown.panel.dropEvent(QDropEvent(QPoint(), Qt.DropAction.CopyAction, data, left, none))
    shown.until(lambda: "theirs.zip" in shown.panel.sentence.text())
    assert shown.panel.baseline.choice.currentText() == "theirs.zip"


def test_a_model_that_does_not_fit_says_why(panel: Shown, folder: Path) -> None:
    panel.backend.error = unfit()
    panel.open(folder)
    panel.until(lambda: panel.panel.improving.error)
    assert panel.reason == "▲ The model has 2 channels, the project 1. Choose another model."
    assert not panel.failed, "it is said once, beside the button"


def test_a_project_open_to_read_only_says_why_nothing_can_begin(panel: Shown, folder: Path) -> None:
    panel.open(folder, read_only=True)
    panel.ready()
    assert "read only" in panel.reason
    assert not panel.panel.button.isEnabled()


def test_another_project_forgets_what_was_set(shown: Shown, tmp_path: Path) -> None:
    shown.set(epochs=7)
    (tmp_path / "other").mkdir()
    with make_project(tmp_path / "other", cases=2) as project:
        other = project.folder
    shown.desk.open_project(lambda: Project.open(other))
    shown.until(lambda: shown.desk.project is not None and shown.desk.project.folder == other)
    shown.until(lambda: "250 epochs" in shown.panel.sentence.text())
    assert shown.panel.settings.value() == {}


def test_supports_of_another_project_are_not_offered(shown: Shown, tmp_path: Path) -> None:
    settings = shown.panel.settings
    assert settings.form.editor_value("supports") == ("kidney",)
    shown.backend.starts = []
    (tmp_path / "other").mkdir()
    with make_project(tmp_path / "other", cases=2) as project:
        supports = [s for s in project.schema.supports if s.name != "kidney"]
        project.set_supports(supports)
        names, other = project.schema.support_names, project.folder
    assert "kidney" not in names
    shown.open(other)
    shown.until(lambda: shown.desk.project.folder == other and shown.panel.improving.looked)
    boxes = settings.form.editor("supports").findChildren(QCheckBox)
    assert [box.text() for box in boxes if not box.isHidden()] == list(names)
    assert settings.value() == {}


def test_what_begins_while_another_project_is_opened_is_not_shown_there(
    shown: Shown, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    with make_project(tmp_path / "other", cases=2) as project:
        other = project.folder
    shown_chains: list[str] = []
    shown.panel.improving.begun.connect(shown_chains.append)
    shown.backend.gate.clear()
    shown.panel.button.click()
    shown.desk.open_project(lambda: Project.open(other))
    shown.desk.close_project()
    shown.backend.gate.set()
    shown.until(lambda: shown.desk.project is not None and shown.desk.project.folder == other)
    shown.ready()
    assert len(shown.backend.begun) == 1
    assert shown_chains == []
    assert shown.panel.button.isEnabled()


def test_another_model_chosen_while_it_begins_does_not_let_it_begin_twice(shown: Shown) -> None:
    shown.backend.gate.clear()
    shown.panel.button.click()
    shown.panel.improving.choose("0001-train")
    assert shown.panel.improving.beginning
    shown.backend.gate.set()
    shown.until(lambda: not shown.panel.improving.beginning)


def test_the_wheel_scrolls_the_panel_and_changes_no_baseline(shown: Shown) -> None:
    box = shown.panel.baseline.choice
    before = box.currentIndex()
    middle = QPointF(box.rect().center())
    event = QWheelEvent(
        middle, box.mapToGlobal(middle), QPoint(), QPoint(0, -120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    box.clearFocus()
    QApplication.sendEvent(box, event)
    assert box.count() > 1
    assert box.currentIndex() == before
    assert len(shown.backend.proposed) == 1


def test_what_changed_in_the_project_is_looked_at_before_it_can_begin(shown: Shown) -> None:
    """As after a test set was reserved: what stood there before is not taken for the present."""
    shown.backend.gate.clear()
    shown.desk.project_changed.emit()
    assert not shown.panel.button.isEnabled()
    assert shown.reason == "Looking at the model and the project…"
    shown.backend.gate.set()
    shown.ready()
    assert shown.panel.button.isEnabled()


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        ("Reserve some patients: backsplit reserve --fraction 0.25", "Reserve some patients."),
        ("Take fewer (--folds 3). Or more.", "Take fewer. Or more."),
        ("Give the model more cases.", "Give the model more cases."),
    ],
)
def test_a_remedy_is_told_without_what_is_typed_in_a_terminal(remedy: str, words: str) -> None:
    assert _spoken(remedy) == words


def test_the_checks_stay_while_others_are_made(shown: Shown) -> None:
    lines = shown.panel.checks.findChildren(QLabel)
    shown.backend.gate.clear()
    shown.panel.settings.set_value({"epochs": 9})
    shown.until(lambda: shown.panel.improving.checks is None)
    assert not shown.panel.checks.isEnabled()
    assert shown.panel.checks.findChildren(QLabel) == lines, "nothing below moves"
    shown.backend.gate.set()
    shown.ready()
    assert shown.panel.checks.isEnabled()


def test_from_scratch_the_plan_sets_are_read_in_a_thread(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def plan_sets(folder: Path) -> dict[str, int]:
        threads.append(threading.current_thread().name)
        return {}

    monkeypatch.setattr(shown.panel, "_ways", replace(shown.panel._ways, plan_sets=plan_sets))
    monkeypatch.setattr(ScratchDialog, "exec", lambda self: threads.append("asked"))
    shown.panel.ask_scratch()
    shown.until(lambda: threads[-1:] == ["asked"])
    assert "training dialogs" in threads[0]


def test_an_answer_of_another_project_is_not_shown(shown: Shown, tmp_path: Path) -> None:
    """The first chain of every project has the same name."""
    running = shown.panel.running
    running._folder, running._chain = tmp_path / "here", "0001-plan"
    answer = Answer("Better.", True, (), (), (), 3, tmp_path / "r.html")
    running._has_answer(tmp_path / "there", "0001-plan", answer)
    assert running.answer.isHidden()
    running._has_answer(tmp_path / "here", "0001-plan", answer)
    assert not running.answer.isHidden()


def test_the_button_cross_validates_where_that_is_set(shown: Shown) -> None:
    shown.panel.cross_validate()
    shown.until(lambda: "3 folds in cross-validation" in shown.panel.sentence.text())
    assert shown.panel.button.text() == "Cross-validate with supports"
    shown.panel.button.click()
    shown.until(lambda: shown.backend.begun)
    assert shown.backend.begun[0].folds == (0, 1, 2)


def test_controls_are_offered_last(tmp_path: Path) -> None:
    """Who comes back after a fine-tune is not led to start from what it was measured against."""
    for title, base in (("binary", None), ("the same extra binary training", "baselines/theirs")):
        run = {"arm": "binary", "baseline": base}
        job = submit(tmp_path, "train", {"run": run}, title, start=False)
        JobFolder(job.folder).write_record(
            Record(state=State.SUCCEEDED, started=now(), ended=now())
        )
    (tmp_path / "baselines" / "theirs").mkdir(parents=True)
    words = [start.words for start in _asking.starts(tmp_path)]
    assert words == ["binary (job 1)", "adopted: theirs", "control (job 2)"]


def test_from_scratch_both_arms_share_their_plan_set(qtbot: QtBot) -> None:
    dialog = ScratchDialog(["kidney"], [("cuda:0", "NVIDIA A")], ["own"])
    qtbot.addWidget(dialog)
    asked = dialog.value(folds=3)
    assert list(asked.runs) == ["binary", "backsplit"]
    assert asked.plan is None, "a plan set that is there is used"
    assert {run.device for run in asked.runs.values()} == {"cuda:0"}
    dialog.plan.set_value({"name": "second", "preset": "resenc-m"})
    dialog.arms["backsplit"].setChecked(False)
    asked = dialog.value(folds=3)
    assert list(asked.runs) == ["binary"]
    assert asked.plan is not None
    assert (asked.plan.name, asked.plan.preset) == ("second", "resenc-m")
    assert asked.runs["binary"].plan_set == "second"
    dialog.every.setChecked(True)
    assert dialog.value().folds == (0, 1, 2, 3, 4)
    dialog.arms["binary"].setChecked(False)
    assert not dialog.ok.isEnabled()


def test_other_machines_need_consent_once(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    from qtpy.QtWidgets import QMessageBox

    asked: list[str] = []

    def answer(parent: Any, title: str, words: str) -> Any:
        asked.append(words)
        return QMessageBox.StandardButton.Yes

    monkeypatch.setattr(QMessageBox, "question", answer)
    where = shown.panel.where
    where.elsewhere.setChecked(True)
    where.form.set_value({"address": "tcp://127.0.0.1:8786"})
    where.try_it.click()
    shown.until(lambda: "2 workers" in where.said.text())
    where.use.click()
    shown.until(lambda: shown.backend.proposed[-1][1].get("where") == "tcp://127.0.0.1:8786")
    assert "tcp://127.0.0.1:8786" in asked[0]
    where.here.setChecked(True)
    shown.until(lambda: not shown.panel.improving.proposal.where)
    where.elsewhere.setChecked(True)
    assert "still run on this machine" in where.said.text()
    where.use.click()
    assert len(asked) == 1
    where.form.set_value({"address": "nonsense"})
    assert not where.use.isEnabled()


@pytest.mark.parametrize("better", [True, False, None])
def test_the_answer_is_said_in_words_and_opens_its_report(
    qtbot: QtBot, tmp_path: Path, better: bool | None
) -> None:
    box = AnswerBox()
    qtbot.addWidget(box)
    assert box.isHidden()
    box.show_answer(Answer("Better than the baseline.", better, (), (), (), 3, tmp_path / "r.html"))
    words = {True: "✓ Better", False: "Not shown to be better", None: "No verdict"}
    assert words[better] in box.head.text()
    assert box.words.text() == "Better than the baseline."
    assert box.open.isEnabled()
    few = Answer("Probably.", better, (), (), (), 3, tmp_path / "r.html", hedged=True)
    box.show_answer(few)
    assert ("Probably better" in box.head.text()) is (better is True)
    box.show_answer(None)
    assert box.isHidden()


def test_the_window_never_waits(shown: Shown) -> None:
    """Nothing that the panel does in the window's thread takes over 50 ms."""
    panel, slow = shown.panel, {}
    deeds: dict[str, Callable[[], object]] = {
        "show": panel._show,
        "settings": lambda: panel.settings.set_value({"epochs": 3}),
        "open": lambda: panel.settings_part.set_open(True),
        "choose": lambda: panel.improving.choose("0001-train"),
        "begin": panel.improving.begin,
        "project": panel._project_changed,
    }
    for name, deed in deeds.items():
        shortest = min(_seconds(deed) for _ in range(3))
        if shortest > 0.05:
            slow[name] = shortest
    assert not slow


def _seconds(deed: Callable[[], object]) -> float:
    start = time.perf_counter()
    deed()
    return time.perf_counter() - start


def test_the_step_shows_the_projects_own_answers(window: Window, tmp_path: Path) -> None:
    """The dock's third page, with the backend as it is: nothing to start from, a torn model."""
    dock = window.dock
    dock.steps.button(2).click()
    panel = dock.training
    assert dock.pages.currentWidget() is panel
    window.until(lambda: panel.improving.looked)
    assert panel.baseline.none.isVisibleTo(panel)
    assert not panel.button.isEnabled()
    torn = tmp_path / "torn.zip"
    torn.write_bytes(b"PK\x03\x04")
    panel.improving.choose(str(torn))
    window.until(lambda: panel.improving.error)
    assert "torn.zip" in panel.reason.text()
    window.desk.close_project()
    assert dock.pages.currentIndex() == 0, "the empty page offers a project"


def test_queued_jobs_go_on_while_their_project_is_open_to_write(
    make_window: Callable[[], Window], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor may be killed while the window lives: it is asked for again and again."""
    supervised: list[Path] = []
    monkeypatch.setattr(_asking, "supervise", supervised.append)
    monkeypatch.setattr(_supervising, "LOOK_EVERY_MS", 20)
    window = make_window()
    window.open(folder)
    window.until(lambda: len(supervised) >= 3)
    assert set(supervised) == {folder}
    with Project.open(folder, fall_back=True) as other:
        assert other.read_only
    window.desk.close_project()
    window.kept()
    supervised.clear()
    with Project.open(folder):
        second = make_window()
        second.open(folder)
        assert second.desk.project is not None
        assert second.desk.project.read_only
        second.bot.wait(100)
    assert supervised == [], "who only reads starts nothing"


def test_a_supervisor_that_cannot_start_is_told_of_once(
    make_window: Callable[[], Window], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supervise(folder: Path) -> None:
        raise JobError("No supervisor.", "Look.")

    monkeypatch.setattr(_asking, "supervise", supervise)
    monkeypatch.setattr(_supervising, "LOOK_EVERY_MS", 20)
    window, failed = make_window(), []
    window.desk.failed.connect(failed.append)
    window.open(folder)
    window.bot.wait(200)
    assert len(failed) == 1
