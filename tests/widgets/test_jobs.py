from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication, QPushButton

from napari_backsplit.backend.jobs import Chain, Metric, Progress, State, chains, submit
from napari_backsplit.backend.jobs.digest import EventReader
from napari_backsplit.backend.jobs.events import Picture, to_line
from napari_backsplit.backend.jobs.spec import Cause
from napari_backsplit.widgets._jobs import JobMonitor
from napari_backsplit.widgets._log import LogWindow
from napari_backsplit.widgets._numbers import duration, figure, of_bytes
from napari_backsplit.widgets._snapshots import said_of
from napari_backsplit.widgets._watch import LOOK_EVERY_MS, ChainView, JobWatch
from tests.backend.jobs.job_support import COMMAND, ENV
from tests.widgets.job_folders import SECONDS, TITLE, Written, write_chain


@pytest.fixture
def chain(tmp_path: Path) -> Written:
    return write_chain(tmp_path)


@pytest.fixture
def make(qtbot: QtBot) -> Iterator[Callable[[], JobMonitor]]:
    made: list[JobMonitor] = []

    def monitor() -> JobMonitor:
        made.append(JobMonitor(ViewerModel()))
        qtbot.addWidget(made[-1])
        made[-1].resize(380, 900)
        made[-1].show()
        return made[-1]

    yield monitor
    for one in made:
        one.close_all()


@pytest.fixture
def until(qtbot: QtBot) -> Callable[[Callable[[], object]], None]:
    return lambda condition: qtbot.waitUntil(lambda: bool(condition()), timeout=20_000)


@pytest.fixture
def shown(chain: Written, make, until) -> JobMonitor:
    """The monitor with the chain, looked at once."""
    monitor = make()
    monitor.show_chain(chain.project, chain.name)
    until(lambda: monitor.view)
    return monitor


def count(monitor: JobMonitor) -> int:
    """Return the points with which the training's loss is drawn."""
    losses = monitor.curves.losses
    return len(losses.values("training")[0]) if losses.filled else 0


def buttons(monitor: JobMonitor) -> list[str]:
    return [button.text() for button in monitor.diagnosis.buttons]


# ---------------------------------------------------------------------- what is shown


def test_a_chain_is_shown_as_one_thing(chain, shown, until):
    chain.epochs(12)
    until(lambda: shown.words.text() == "epoch 12 of 250, 2 h 40 min left")
    assert shown.title.text() == TITLE
    assert shown.step.text() == "Step 2 of 5: fine-tune"
    assert shown.state.text() == "▶ running"
    assert shown.bar.value() == round(1000 * 12 / 250)
    assert [shown.links.item(row).text() for row in range(3)] == [
        "✓ 1. plan: done",
        "▶ 2. fine-tune: running",
        "… 3. control: waiting",
    ]
    assert shown.notes.item(0).text() == "▲ The masks of liver were not reviewed."
    assert not shown.diagnosis.isVisible()


def test_changes_of_its_state_are_seen(chain, shown, until):
    chain.state(State.PAUSED)
    until(lambda: shown.state.text() == "‖ paused")
    assert shown.pause.text() == "Continue"
    chain.state(State.SUCCEEDED)
    until(lambda: shown.step.text() == "Step 3 of 5: control")
    assert shown.state.text() == "… waiting"
    assert not shown.pause.isEnabled()
    assert shown.cancel.isEnabled()


def test_the_curves_are_the_events(chain, shown, until):
    chain.epochs(30)
    chain.say(Metric("training loss", 30, float("nan")), Metric("training loss", 31, 0.125))
    until(lambda: count(shown) == 32)
    epochs, values = shown.curves.losses.values("training")
    np.testing.assert_array_equal(epochs, np.arange(1, 33))
    np.testing.assert_allclose(values[:30], 0.5 - np.arange(30) / 250)
    assert np.isnan(values[30])
    assert values[31] == 0.125
    names = [entry.name for entry in shown.curves.dice.legend.entries]
    assert names == ["lesion", "kidney"]
    assert shown.curves.dice.legend.entries[0].value == figure(29 / 250)
    assert "patches" in shown.curves.dice.title.text()


def test_epochs_are_counted_in_whole_numbers(chain, shown, until):
    chain.epochs(2)
    until(lambda: count(shown) == 2)
    axis = shown.curves.losses.canvas.getAxis("bottom")
    for last, size in ((2.0, 300), (9.0, 300), (1000.0, 300)):
        ticks = [tick for _, level in axis.tickValues(1.0, last, size) for tick in level]
        assert ticks
        assert all(tick == int(tick) for tick in ticks), ticks


def test_a_picture_names_its_epoch_once():
    assert said_of(Picture("a.png", 1, "case_016, after epoch 2")) == "case_016, after epoch 2"
    assert said_of(Picture("a.png", 1, "case_016")) == "epoch 2, case_016"
    assert said_of(Picture("a.png", 1, "case_epoch 21")) == "epoch 2, case_epoch 21"


def test_the_learning_rate_is_shown_on_demand(chain, shown, until, qtbot):
    assert not shown.curves.isVisible()
    chain.epochs(2)
    until(lambda: shown.curves.show_rate.isVisible())
    assert not shown.curves.rate.isVisible()
    shown.curves.show_rate.click()
    assert shown.curves.rate.isVisible()
    np.testing.assert_allclose(shown.curves.rate.values("learning rate")[1], [0.01, 0.00996])


def test_a_torn_event_is_shown_once_it_is_whole(chain, shown, until):
    chain.epochs(3)
    line = to_line(Metric("training loss", 3, 0.25))
    with chain.files.events_file.open("ab") as file:
        file.write(line[:25])
        file.flush()
        until(lambda: count(shown) == 3)
        file.write(line[25:])
    until(lambda: count(shown) == 4)


def test_what_the_job_takes_of_its_machine_is_told_with_units(chain, shown, until):
    chain.measure()
    until(lambda: shown.gauges.isVisible())
    words = {name: label.text() for name, label in shown.gauges.words.items()}
    assert words == {
        "GPU": "71 %",
        "GPU memory": "6.2 of 11 GB",
        "Memory": "9.4 of 32 GB",
        "CPU": "3.1 of 8 cores",
    }
    assert shown.gauges.bars["GPU memory"].value() == 56


def test_a_job_on_the_cpu_has_no_gauge_of_a_gpu(tmp_path, make, until):
    chain, monitor = write_chain(tmp_path, device="cpu"), make()
    chain.measure()
    chain.epochs(2)
    monitor.show_chain(chain.project, chain.name)
    until(lambda: monitor.gauges.isVisible())
    assert not monitor.gauges.bars["GPU"].isVisible()
    assert monitor.gauges.bars["CPU"].isVisible()
    assert monitor.time.isVisible()
    assert not monitor.time.light.isVisible()


def test_a_gpu_that_waits_for_data_is_told_of_with_a_button(chain, shown, until, qtbot):
    chain.epochs(3)
    until(lambda: shown.time.more.isVisible())
    assert shown.time.light.text() == "▲ The GPU waits for data 50 % of the time: raise workers"
    assert next((e.name, e.value) for e in shown.time.words.entries) == ("data", "50 %")
    with qtbot.waitSignal(shown.repeat_asked) as asked:
        shown.time.more.click()
    job, changes = asked.args
    assert (job.id, changes) == (chain.job.id, {"run": {"workers": 2}})


def test_a_gpu_that_is_busy_is_told_of_without_a_button(chain, shown, until):
    chain.epochs(3, {**SECONDS, "data": 1.0})
    until(lambda: shown.time.light.isVisible())
    assert shown.time.light.text().startswith("✓")
    assert not shown.time.more.isVisible()


def test_an_earlier_step_can_be_looked_at(chain, shown, until):
    shown.links.setCurrentRow(0)
    until(lambda: shown.step.text() == "Step 1 of 5: plan")
    assert shown.state.text() == "✓ done"
    assert shown.words.text() == "took 4 min"
    shown.links.setCurrentRow(1)
    until(lambda: shown.step.text() == "Step 2 of 5: fine-tune")


def test_the_theme_can_change_while_it_is_shown(chain, make, until, qtbot):
    viewer = ViewerModel()
    viewer.theme = "dark"
    monitor = JobMonitor(viewer)
    qtbot.addWidget(monitor)
    chain.epochs(2)
    monitor.show_chain(chain.project, chain.name)
    until(lambda: monitor.curves.losses.legend.entries)
    dark = monitor.curves.losses.legend.entries[0].colour
    ground = monitor.curves.losses.canvas.backgroundBrush().color()
    viewer.theme = "light"
    assert monitor.curves.losses.legend.entries[0].colour != dark
    assert monitor.curves.losses.canvas.backgroundBrush().color().lightness() > ground.lightness()
    monitor.close_all()
    viewer.theme = "dark"
    assert monitor.curves.losses.legend.entries[0].colour != dark


def test_curves_are_told_apart_without_colour(chain, shown, until):
    chain.epochs(2)
    until(lambda: shown.curves.dice.filled)
    styles = {entry.style for entry in shown.curves.dice.legend.entries}
    assert len(styles) == 2


@pytest.mark.parametrize("width", [360, 380, 460])
def test_nothing_is_wider_than_the_dock(chain, shown, until, width):
    chain.epochs(3)
    chain.measure()
    chain.picture(2)
    chain.state(State.PAUSED)
    until(lambda: shown.gauges.isVisible() and shown.thumb.isVisible())
    assert shown.minimumSizeHint().width() <= width
    shown.resize(width, 1200)
    QApplication.processEvents()
    for button in shown.findChildren(QPushButton):
        if button.isVisible():
            assert button.width() >= button.sizeHint().width(), button.text()


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("cause", "words", "changes"),
    [
        ("gpu memory", "Batches of 1 patch instead of 2", {"run": {"batch_size": 1}}),
        ("workers died", "No workers instead of 1", {"run": {"workers": 0}}),
        ("not a number", "Learning rate 0.001 instead of 0.01", {"run": {"initial_lr": 0.001}}),
    ],
)
def test_a_failed_training_offers_what_to_change(
    chain, shown, until, qtbot, cause: Cause, words, changes
):
    chain.state(State.FAILED, cause=cause, error="It broke.")
    until(lambda: words in buttons(shown))
    assert shown.state.text() == "✗ failed"
    assert "It broke." in shown.diagnosis.text.text()
    with qtbot.waitSignal(shown.repeat_asked) as asked:
        shown.diagnosis.buttons[buttons(shown).index(words)].click()
    assert asked.args[0].id == chain.job.id
    assert asked.args[1] == changes


def test_a_full_disk_is_told_of_with_the_space_and_a_way_on(chain, shown, until, monkeypatch):
    gone_on = []
    monkeypatch.setattr(Chain, "go_on", lambda chain: gone_on.append(chain.name))
    chain.state(State.FAILED, cause="disk full", error="No space left.")
    until(lambda: buttons(shown) == ["Free some space, then resume"])
    assert "GB are free now" in shown.diagnosis.text.text()
    shown.diagnosis.buttons[0].click()
    until(lambda: gone_on == [chain.name])


def test_a_lost_job_can_be_resumed(chain, shown, until, monkeypatch):
    gone_on = []
    monkeypatch.setattr(Chain, "go_on", lambda chain: gone_on.append(chain.name))
    chain.lose()
    until(lambda: buttons(shown) == ["Resume"])
    assert shown.state.text() == "▲ lost"
    assert "no sign of life for 4" in shown.diagnosis.text.text()
    shown.pause.click()
    until(lambda: gone_on == [chain.name])


def test_silence_is_told_of_before_the_job_is_lost(chain, shown, until):
    chain.beat(age_s=20)
    until(lambda: shown.diagnosis.isVisible())
    assert shown.diagnosis.title.text().startswith("▲ No sign of life for 2")
    assert shown.state.text() == "▶ running"
    chain.beat()
    until(lambda: not shown.diagnosis.isVisible())


def test_a_standstill_of_a_living_job_is_told_of(chain, shown, until):
    then = time.time() - 900
    chain.say(Metric("seconds: epoch", 0, 60.0, time=then), Progress(1, 250, time=then))
    until(lambda: shown.diagnosis.title.text() == "▲ No progress for 15 min")


def test_a_step_that_cannot_be_read_is_named(chain, shown, until):
    text = chain.files.status_file.read_text()
    chain.files.status_file.write_text("{")
    until(lambda: shown.links.item(1).text() == "? 2. fine-tune: unreadable")
    chain.files.status_file.write_text(text)
    until(lambda: shown.links.item(1).text() == "▶ 2. fine-tune: running")


def test_an_error_in_reading_is_told_once_and_reading_goes_on(chain, shown, until, monkeypatch):
    errors, looks = [], []

    def fail(reader: EventReader, budget_s: float = 0.15) -> None:
        looks.append(reader)
        raise OSError("the disk is away")

    shown.failed.connect(errors.append)
    with monkeypatch.context() as away:
        away.setattr(EventReader, "read", fail)
        until(lambda: len(looks) > 3)
    assert [str(error) for error in errors] == ["the disk is away"]
    chain.epochs(1)
    until(lambda: shown.words.text().startswith("epoch 1 of 250"))


def test_a_chain_that_was_deleted_leaves_an_empty_monitor(chain, shown, until):
    shutil.rmtree(chain.project / "jobs")
    until(lambda: shown.empty.isVisible())
    assert shown.view is None


def test_a_chain_that_is_deleted_while_it_is_looked_at_is_no_error(chain, shown, until, qtbot):
    """It vanishes between two looks at the chain: its job cannot be read, and nobody is told."""
    failed: list[object] = []
    shown.failed.connect(failed.append)
    shown.watch._reader.due = float("inf")
    shutil.rmtree(chain.project / "jobs")
    until(lambda: shown.empty.isVisible())
    assert not failed


# ---------------------------------------------------------------------- what is done


def test_a_real_job_is_paused_continued_and_cancelled(tmp_path, make, until, qtbot):
    job = submit(tmp_path, "loop", {}, "a loop", env=ENV, command=COMMAND)
    monitor = make()
    monitor.show_chain(tmp_path, job.id)
    until(lambda: monitor.view and monitor.state.text() == "▶ running")
    until(lambda: monitor.pause.isEnabled())
    qtbot.mouseClick(monitor.pause, Qt.MouseButton.LeftButton)
    until(lambda: monitor.state.text() == "‖ paused" and monitor.pause.isEnabled())
    assert (job.folder / "control" / "pause").exists()
    monitor.pause.click()
    until(lambda: monitor.state.text() == "▶ running")
    assert not (job.folder / "control" / "pause").exists()
    monitor.cancel.click()
    until(lambda: monitor.state.text() == "■ cancelled")
    assert job.wait(20).state is State.CANCELLED
    until(lambda: monitor.pause.text() == "Resume" and not monitor.cancel.isEnabled())


def test_what_was_asked_is_shown_until_it_happens(chain, shown, until):
    shown.pause.click()
    until(lambda: shown.state.text() == "▶ pausing…")
    assert shown.pause.text() == "Continue"
    shown.pause.click()
    until(lambda: shown.state.text() == "▶ running")
    until(shown.cancel.isEnabled)
    shown.cancel.click()
    until(lambda: shown.state.text() == "▶ cancelling…")
    assert not shown.cancel.isEnabled()


def test_an_action_that_takes_long_does_not_hold_the_window(shown, until, monkeypatch):
    let, threads = threading.Event(), []

    def slow(chain: Chain) -> None:
        threads.append(threading.get_ident())
        let.wait(20)

    monkeypatch.setattr(Chain, "pause", slow)
    begun = time.perf_counter()
    shown.pause.click()
    assert time.perf_counter() - begun < 0.5
    until(lambda: threads)
    assert threads != [threading.get_ident()]
    let.set()


def test_an_action_that_fails_is_told(chain, shown, until, qtbot):
    chain.state(State.SUCCEEDED)
    with qtbot.waitSignal(shown.failed, timeout=20_000) as failed:
        shown.pause.click()
    assert "Only a running one can be paused" in str(failed.args[0])


# ---------------------------------------------------------------------- how it watches


def test_it_tells_at_most_four_times_a_second(chain, qtbot, until):
    watch, told = JobWatch(), []
    watch.seen.connect(lambda view: told.append(time.monotonic()))
    watch.watch(chain.project, chain.name)
    until(lambda: len(told) >= 6)
    watch.close()
    gaps = np.diff(told)
    assert gaps.min() >= 0.9 * LOOK_EVERY_MS / 1e3


def test_answers_about_a_chain_that_is_left_are_dropped(tmp_path, qtbot, until, monkeypatch):
    first, second = write_chain(tmp_path / "a"), write_chain(tmp_path / "b")
    let, read = threading.Event(), EventReader.read

    def slow(reader: EventReader, budget_s: float = 0.15):
        if str(first.project) in str(reader._path):
            let.wait(20)
        return read(reader, budget_s)

    monkeypatch.setattr(EventReader, "read", slow)
    watch, seen = JobWatch(), []
    watch.seen.connect(seen.append)
    watch.watch(first.project, first.name)
    watch.watch(second.project, second.name)
    let.set()
    until(lambda: seen)
    watch.close()
    assert {view.chain.jobs[0].folder.parent.parent for view in seen} == {second.project}


def test_closed_in_the_middle_of_reading_it_says_no_more(chain, make, until, monkeypatch):
    let, reading = threading.Event(), threading.Event()

    def slow(reader: EventReader, budget_s: float = 0.15):
        reading.set()
        let.wait(20)
        raise OSError("the disk is gone")

    monkeypatch.setattr(EventReader, "read", slow)
    monitor, told = make(), []
    monitor.changed.connect(told.append)
    monitor.failed.connect(told.append)
    monitor.show_chain(chain.project, chain.name)
    until(reading.is_set)
    told.clear()
    monitor.close_all()
    let.set()
    for _ in range(20):
        QApplication.processEvents()
        time.sleep(0.01)
    assert told == []


def test_no_window_and_no_thread_is_left(chain, shown, until):
    chain.epochs(12)
    chain.picture(9)
    until(lambda: shown.thumb.isVisible())
    before = set(QApplication.topLevelWidgets())
    shown.log.click()
    shown.thumb.button.click()
    opened = set(QApplication.topLevelWidgets()) - before
    assert len(opened) == 2
    shown.close_all()

    def are_gone() -> bool:
        return not {w for w in QApplication.topLevelWidgets() if w in opened}

    until(are_gone)
    names = ("backsplit watch", "backsplit actions", "backsplit log", "backsplit pictures")
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith(names)])


def test_pictures_of_all_epochs_are_a_slider_away(chain, shown, until, qtbot):
    for epoch in (9, 19, 29):
        chain.picture(epoch)
    until(lambda: shown.thumb.title.text() == "Newest picture: epoch 30, case_007")
    shown.thumb.button.click()
    window = shown._windows["pictures"]
    until(lambda: window.words.text() == "epoch 30, case_007")
    qtbot.keyClick(window.slider, Qt.Key.Key_Left)
    until(lambda: window.words.text() == "epoch 20, case_007")
    grey = window.shown.pixmap().toImage().pixelColor(30, 20).red()
    assert grey == 19


# ---------------------------------------------------------------------- the log


@pytest.fixture
def log(tmp_path: Path, qtbot: QtBot) -> Iterator[LogWindow]:
    path = tmp_path / "log.txt"
    with path.open("wb") as file:
        file.write(b"the first line\n")
        file.seek(250 << 20)  # a hole
        file.write(b"\n" + b"".join(b"line %d\n" % n for n in range(100_000)))
    window = LogWindow(path, "Log")
    window.show()
    yield window
    window.close()


def test_a_huge_log_opens_at_its_end_at_once(log, until):
    begun = time.perf_counter()
    until(lambda: log.text.toPlainText().endswith("line 99999\n"))
    assert time.perf_counter() - begun < 5
    assert len(log.text.toPlainText()) <= 1 << 18


def test_words_are_found_in_the_whole_log(log, until):
    until(lambda: "line 99999" in log.text.toPlainText())
    log.words.setText("The FIRST line")
    log.next.click()
    until(lambda: log.text.textCursor().selectedText() == "the first line")
    log.words.setText("line 500")
    log.next.click()
    until(lambda: log.text.textCursor().selectedText() == "line 500")
    log.words.setText("absent")
    log.next.click()
    until(lambda: log.said.text() == "“absent” is nowhere in the log.")


def test_new_lines_are_followed_until_one_looks_elsewhere(tmp_path, log, until):
    until(lambda: "line 99999" in log.text.toPlainText())
    with (tmp_path / "log.txt").open("ab") as file:
        file.write(b"a new line\n")
        file.flush()
        until(lambda: log.text.toPlainText().endswith("a new line\n"))
        log.earlier.click()
        until(lambda: "line 99999" not in log.text.toPlainText())
        assert not log.follow.isChecked()
    log.again.click()
    until(lambda: log.text.toPlainText().endswith("a new line\n"))


def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path, qtbot, until):
    window = LogWindow(tmp_path / "none.txt", "Log")
    window.show()
    until(lambda: window.said.text() == "Nothing has been written yet.")
    (tmp_path / "none.txt").write_text("here\n")
    until(lambda: window.text.toPlainText() == "here\n")
    window.close()


# ---------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (59.6 * 60, "1 h"),
        (9600, "2 h 40 min"),
        (7200, "2 h"),
        (277_200, "3 d 5 h"),
        (23 * 3600 + 59.9 * 60, "1 d"),
    ],
)
def test_a_time_span_has_sensible_units(seconds, words):
    assert duration(seconds) == words


def test_memory_has_no_more_digits_than_mean_something():
    assert of_bytes(6.2e9, 11e9) == "6.2 of 11 GB"
    assert of_bytes(0, 139.8e9) == "0.0 of 140 GB"


def test_the_fixture_is_a_chain_as_the_queue_makes_it(chain):
    (one,) = chains(chain.project)
    assert one.title == TITLE
    assert len(one.jobs) == 5
    assert isinstance(one.status().state, State)
    assert ChainView.__dataclass_params__.frozen
