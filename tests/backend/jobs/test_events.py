from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import Metric, Note, Phase, Progress
from napari_backsplit.backend.jobs.events import (
    EventLog,
    from_line,
    plain,
    read_events,
    to_line,
)

EVENTS = st.one_of(
    st.builds(Phase, st.text()),
    st.builds(Progress, st.integers(0, 10**9), st.integers(0, 10**9), st.text()),
    st.builds(Metric, st.text(), st.integers(0, 10**9), st.floats(allow_nan=False)),
    st.builds(Note, st.sampled_from(["info", "warning", "error"]), st.text()),
)


@given(EVENTS)
def test_an_event_survives_its_line(event):
    line = to_line(event)
    assert line.count(b"\n") == 1
    assert from_line(line) == event


def test_not_a_number_is_strict_json_and_comes_back():
    line = to_line(Metric("loss", 1, math.nan))
    assert json.loads(line, parse_constant=pytest.fail)["value"] == "NaN"
    assert math.isnan(from_line(line).value)


def test_numpy_numbers_are_taken():
    assert Metric("loss", np.int64(2), np.float32(0.5)).value == 0.5
    assert Progress(np.int32(1), np.int64(2)).done == 1


def test_events_are_frozen_and_checked():
    with pytest.raises(ValidationError):
        Note("loud", "text")
    with pytest.raises(AttributeError):
        Phase("a").name = "b"


def test_a_torn_last_line_is_left_for_later(tmp_path: Path):
    file = tmp_path / "events.jsonl"
    whole, torn = to_line(Phase("one")), to_line(Phase("two"))
    file.write_bytes(whole + torn[:9])
    events, position = read_events(file)
    assert [e.name for e in events] == ["one"]
    assert position == len(whole)
    file.write_bytes(whole + torn)
    assert [e.name for e in read_events(file, position)[0]] == ["two"]


@given(cut=st.integers(1, 200))
def test_a_torn_line_costs_no_other_event(tmp_path_factory, cut):
    file = tmp_path_factory.mktemp("torn") / "events.jsonl"
    line = to_line(Phase("lost" * 50))
    file.write_bytes(to_line(Phase("first")) + line[: min(cut, len(line) - 2)])
    log = EventLog(file)
    log.append(Phase("after"))
    log.append(Phase("again"))
    log.close()
    assert [e.name for e in read_events(file)[0]] == ["first", "after", "again"]


def test_unknown_kinds_are_dropped(tmp_path: Path):
    file = tmp_path / "events.jsonl"
    file.write_bytes(b'{"kind": "smell", "time": 1}\n\xff\xfe\n' + to_line(Phase("known")))
    assert [e.name for e in read_events(file)[0]] == ["known"]


def test_no_file_holds_no_events(tmp_path: Path):
    assert read_events(tmp_path / "events.jsonl") == ([], 0)


def test_plain_json():
    value = {"dice": np.float32(0.5), "shape": (1, 2), "n": np.int64(3), "lost": math.nan}
    copy = plain(value, "The result")
    assert copy["dice"] == 0.5
    assert copy["shape"] == [1, 2]
    assert copy["n"] == 3
    with pytest.raises(JobError, match=r"The result is not plain JSON.*Path"):
        plain({"a": Path()}, "The result")
