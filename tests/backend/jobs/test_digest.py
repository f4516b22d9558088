from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.jobs import Metric, Note, Phase, Progress
from napari_backsplit.backend.jobs.digest import (
    POINTS,
    Curve,
    Digest,
    EventReader,
    data_share,
    epoch_seconds,
    thinned,
)
from napari_backsplit.backend.jobs.events import EventLog, Picture, to_line


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "events.jsonl")


@pytest.fixture
def reader(tmp_path: Path) -> EventReader:
    return EventReader(tmp_path / "events.jsonl")


def points(digest: Digest, name: str) -> list[tuple[float, float]]:
    curve = digest.curves[name]
    return list(zip(curve.steps.tolist(), curve.values.tolist(), strict=True))


def test_what_was_said_is_kept_in_order(log, reader):
    for event in (
        Phase("train"),
        Metric("training loss", 0, 0.5),
        Metric("target Dice", 0, 0.1),
        Progress(1, 4, "epoch 1 of 4", 30.0),
        Picture("pictures/0.png", 0, "case_001"),
        Note("info", "one"),
        Metric("training loss", 1, 0.25),
        Note("warning", "two"),
    ):
        log.append(event)
    digest = reader.read()
    assert points(digest, "training loss") == [(0, 0.5), (1, 0.25)]
    assert list(digest.curves) == ["training loss", "target Dice"]
    assert digest.phase == "train"
    assert digest.progress.text == "epoch 1 of 4"
    assert [note.text for note in digest.notes] == ["one", "two"]
    assert digest.pictures[0].file == "pictures/0.png"
    assert not digest.behind


def test_nothing_new_is_the_same_digest(log, reader):
    log.append(Metric("a", 0, 1.0))
    first = reader.read()
    assert reader.read() is first
    log.append(Metric("b", 0, 1.0))
    second = reader.read()
    assert second is not first
    assert second.curves["a"] is first.curves["a"]


def test_a_job_that_has_said_nothing_has_an_empty_digest(reader):
    assert not reader.read().curves


def test_a_torn_line_waits_for_its_end(tmp_path, reader):
    line = to_line(Metric("a", 0, 1.0))
    file = tmp_path / "events.jsonl"
    file.write_bytes(line + line[:20])
    assert points(reader.read(), "a") == [(0, 1.0)]
    file.write_bytes(line + line.replace(b'"step":0', b'"step":1'))
    assert points(reader.read(), "a") == [(0, 1.0), (1, 1.0)]


def test_rubbish_and_events_of_a_newer_version_are_passed_over(tmp_path, reader):
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'\0\0\xff\n{"kind": "smell", "time": 1}\n' + to_line(Metric("a", 0, 1.0)))
    assert points(reader.read(), "a") == [(0, 1.0)]


def test_a_line_that_nobody_ends_is_passed_over_in_bounded_memory(tmp_path, reader):
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"x" * (9 << 20) + b"\n" + to_line(Metric("a", 0, 1.0)))
    digest = reader.read(60.0)
    assert points(digest, "a") == [(0, 1.0)]


def test_an_epoch_that_is_done_again_replaces_itself_and_what_followed(log, reader):
    for step, value in ((0, 1.0), (1, 2.0), (2, 3.0), (1, 20.0)):
        log.append(Metric("a", step, value))
    assert points(reader.read(), "a") == [(0, 1.0), (1, 20.0)]


def test_not_a_number_stays_a_gap(log, reader):
    log.append(Metric("a", 0, float("nan")))
    log.append(Metric("a", 1, math.inf))
    (_, nan), (_, infinite) = points(reader.read(), "a")
    assert math.isnan(nan)
    assert infinite == math.inf


def test_a_long_history_is_read_in_slices_that_leave_others_the_lock(tmp_path, reader):
    lines = [to_line(Metric("a", step, float(step))) for step in range(40_000)]
    (tmp_path / "events.jsonl").write_bytes(b"".join(lines))
    first = reader.read(0.0)
    assert first.behind
    assert 0 < len(first.curves["a"].steps) <= POINTS
    digest = first
    while digest.behind:
        digest = reader.read(0.05)
    curve = digest.curves["a"]
    assert len(curve.steps) <= POINTS
    assert (curve.steps[0], curve.steps[-1]) == (0, 39_999)
    assert digest.last_time <= time.time()


def test_a_file_that_became_shorter_is_read_anew(tmp_path, log, reader):
    for step in range(3):
        log.append(Metric("a", step, 1.0))
    reader.read()
    (tmp_path / "events.jsonl").write_bytes(to_line(Metric("b", 0, 2.0)))
    assert list(reader.read().curves) == ["b"]


values = st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=400)


@given(values, st.integers(4, 60))
def test_thinning_keeps_the_ends_and_the_extremes(values, most):
    curve = Curve(np.arange(len(values), dtype=float), np.array(values))
    thin = thinned(curve, most)
    assert len(thin.steps) <= max(most, 4)
    assert np.all(np.diff(thin.steps) > 0)
    assert (thin.steps[0], thin.steps[-1]) == (0, len(values) - 1)
    finite = [value for value in values if not math.isnan(value)]
    if finite:
        assert (np.nanmin(thin.values), np.nanmax(thin.values)) == (min(finite), max(finite))
    np.testing.assert_array_equal(thin.values, curve.values[thin.steps.astype(int)])


def test_the_time_of_an_epoch_is_that_of_the_last_ones(log, reader):
    for epoch, seconds in enumerate([90.0, 2.0, 2.0, 4.0, 2.0, 2.0]):
        log.append(Metric("seconds: data", epoch, seconds))
        log.append(Metric("seconds: forward", epoch, 2.0))
        log.append(Metric("seconds: epoch", epoch, seconds + 2.0))
    seconds = epoch_seconds(reader.read())
    assert seconds == {"data": 2.0, "forward": 2.0}
    assert data_share(seconds) == 0.5
    assert data_share({}) == 0.0
