from __future__ import annotations

import threading
from typing import Any

import pytest

from napari_backsplit.backend.prediction import pipeline as room
from napari_backsplit.backend.prediction.pipeline import Pipeline

WAIT_S = 20


class Stages:
    """Stages that note what they do; events hold one of them back."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.threads: dict[str, int] = {}
        self.hold: dict[str, threading.Event] = {}
        self.began: dict[str, threading.Event] = {}
        self.fail: dict[str, BaseException] = {}
        self.pipeline = Pipeline(self.prepare, self.compute, self.finish, self.finished)

    def prepare(self, item: str) -> str:
        return self._do(f"prepare {item}")

    def compute(self, item: str, ready: str) -> str:
        assert ready == f"prepare {item}"
        return self._do(f"compute {item}")

    def finish(self, item: str, made: str) -> str:
        assert made == f"compute {item}"
        return self._do(f"finish {item}")

    def finished(self, item: str, result: str) -> None:
        self.told.append((item, result))

    def _do(self, what: str) -> str:
        self.threads[what] = threading.get_ident()
        self.began.setdefault(what, threading.Event()).set()
        if what in self.hold:
            assert self.hold[what].wait(WAIT_S)
        if what in self.fail:
            raise self.fail[what]
        self.said.append(what)
        return what


def test_all_cases_come_through_in_order() -> None:
    stages = Stages()
    stages.pipeline.run(["a", "b", "c"])
    assert stages.told == [(item, f"finish {item}") for item in "abc"]
    assert len(stages.said) == 9
    here = threading.get_ident()
    assert {stages.threads[f"compute {item}"] for item in "abc"} == {here}
    assert here not in {stages.threads[f"{stage} a"] for stage in ("prepare", "finish")}
    stages.pipeline.run([])


def test_the_next_is_prepared_and_the_last_finished_while_one_is_computed() -> None:
    stages = Stages()
    finishing, preparing = threading.Event(), threading.Event()
    stages.hold = {"finish a": finishing, "prepare c": preparing}
    for name in ("finish a", "prepare c"):
        stages.began[name] = threading.Event()

    def compute(item: str, ready: str) -> str:
        if item == "b":  # both have begun, and neither can end before this one does
            assert stages.began["finish a"].wait(WAIT_S)
            assert stages.began["prepare c"].wait(WAIT_S)
            assert stages.told == []
            finishing.set()
            preparing.set()
        return stages._do(f"compute {item}")

    Pipeline(stages.prepare, compute, stages.finish, stages.finished).run(["a", "b", "c"])
    assert [item for item, _ in stages.told] == ["a", "b", "c"]


def test_no_more_than_one_case_waits_on_each_side() -> None:
    """Each stage counts how many cases it finds between its own and the next: never above one."""
    alive: set[str] = set()
    most = 0
    lock = threading.Lock()

    def enter(item: str) -> str:
        nonlocal most
        with lock:
            alive.add(item)
            most = max(most, len(alive))
        return item

    def leave(item: str, made: str) -> None:
        with lock:
            alive.discard(item)

    Pipeline(enter, lambda item, ready: ready, leave, lambda item, result: None).run(
        [str(number) for number in range(50)]
    )
    assert not alive
    assert 1 <= most <= 3


@pytest.mark.parametrize("stage", ["prepare", "compute", "finish"])
def test_what_a_stage_raises_passes_through_and_the_case_before_is_kept(stage: str) -> None:
    stages = Stages()
    stages.fail = {f"{stage} b": ValueError(f"{stage} of b")}
    with pytest.raises(ValueError, match=f"{stage} of b"):
        stages.pipeline.run(["a", "b", "c"])
    assert stages.told == [("a", "finish a")]


def test_a_failed_finish_is_told_while_the_next_is_computed() -> None:
    stages = Stages()
    stages.fail = {"finish a": OSError("disk full")}

    def compute(item: str, ready: str) -> str:
        while item == "b":
            pipeline.look()
        return f"compute {item}"

    pipeline = Pipeline(stages.prepare, compute, stages.finish, stages.finished)
    with pytest.raises(OSError, match="disk full"):
        pipeline.run(["a", "b"])


class Crowded(Exception):
    pass


def test_a_case_without_room_waits_for_the_one_before_and_comes_before_the_next() -> None:
    """Else the next would take the room that it waits for."""
    said: list[str] = []

    def prepare(item: str) -> str:
        said.append(f"prepare {item}")
        if said.count(f"prepare {item}") == 1 and item in "bc":
            raise Crowded
        return item

    def finish(item: str, made: str) -> str:
        said.append(f"finish {item}")
        return made

    Pipeline(prepare, lambda item, ready: ready, finish, lambda item, result: None, Crowded).run(
        ["a", "b", "c"]
    )
    order = ["finish a", "prepare b", "prepare c", "finish b", "prepare c", "finish c"]
    assert [line for line in said if line != "prepare a"][1:] == order
    with pytest.raises(Crowded):
        Pipeline(_refuse, _refuse, _refuse, lambda item, result: None, Crowded).run(["a"])


def _refuse(*_: str) -> str:
    raise Crowded


class Cancelled(BaseException):
    pass


def test_a_cancel_waits_for_no_thread_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "LEAVE_S", 0.05)
    stages = Stages()
    never: Any = threading.Event()
    stages.hold = {"finish a": never, "prepare c": never}
    stages.fail = {"compute b": Cancelled()}
    with pytest.raises(Cancelled):
        stages.pipeline.run(["a", "b", "c"])
    assert stages.told == []
    never.set()


def test_a_cancel_keeps_the_case_that_is_just_written() -> None:
    stages = Stages()
    stages.fail = {"compute b": Cancelled()}
    with pytest.raises(Cancelled):
        stages.pipeline.run(["a", "b"])
    assert stages.told == [("a", "finish a")]


def test_the_threads_do_not_keep_the_process_alive() -> None:
    stages = Stages()
    held = threading.Event()
    stages.hold = {"prepare b": held}
    found: list[bool] = []

    def compute(item: str, ready: str) -> str:
        found.extend(t.daemon for t in threading.enumerate() if t.name == "prepare")
        held.set()
        return f"compute {item}"

    Pipeline(stages.prepare, compute, stages.finish, stages.finished).run(["a", "b"])
    assert found == [True]
