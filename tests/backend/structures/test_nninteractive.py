"""The engine against nnInteractive's real server with a tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures import client, nninteractive
from napari_backsplit.backend.structures.engines import (
    EngineCancelled,
    EngineError,
    Scene,
    engine_states,
)
from napari_backsplit.backend.structures.nninteractive import NNInteractive
from napari_backsplit.backend.structures.prompts import Bounds, Scribble, slices
from napari_backsplit.backend.structures.settings import EngineSettings
from tests.backend.structures.ellipsoid import (
    CENTRE,
    SHAPE,
    AnyPrompt,
    ask,
    click,
    deep_box,
    dice,
    flat_box,
    line,
    loop,
    never,
    organ,
    play,
)

ORGAN = organ()
FIRST, SECOND, THIRD = click(), click(dy=7), click(dz=-4)
POSIX = pytest.mark.skipif(os.name != "posix", reason="SIGSTOP holds a prediction")


@pytest.fixture(scope="module")
def engine(tiny_model: Path, own_settings: Path) -> Iterator[NNInteractive]:
    made = NNInteractive(EngineSettings(model_folder=str(tiny_model), device="cpu", threads=1))
    yield made
    made.close()


def pid_of(engine: NNInteractive) -> int:
    assert engine.server is not None
    assert engine.server.pid is not None
    return engine.server.pid


def held(engine: NNInteractive) -> int:
    """Stop the engine's server where it is, so that the next prediction lasts."""
    engine.start(lambda words: None)
    os.kill(pid_of(engine), signal.SIGSTOP)
    return pid_of(engine)


def session_of(engine: NNInteractive) -> Any:
    engine.start(lambda words: None)
    assert engine._lease is not None
    return engine._lease.session


def test_starting_says_what_goes_on_and_what_is_recorded(engine: NNInteractive) -> None:
    words: list[str] = []
    about = engine.start(words.append)
    assert words in ([], ["starting the server", "checking the model", "loading the model"])
    name, _, digest = about.model.partition(" ")
    assert (about.engine, name, about.licence) == ("nninteractive", "nninteractive-tiny", "CC0 1.0")
    assert len(digest) == 12
    assert engine.device == "cpu"  # A training on it waits while a click is answered.
    pid = pid_of(engine)
    assert engine.start(words.append) == about
    assert pid_of(engine) == pid


def test_two_clicks_segment_an_organ(engine: NNInteractive) -> None:
    assert dice(play(engine, ORGAN, (FIRST, SECOND)), ORGAN.mask) >= 0.95


@pytest.mark.parametrize("prompt", [flat_box(), deep_box(), line(), loop()])
def test_every_kind_of_prompt_segments_it(engine: NNInteractive, prompt: AnyPrompt) -> None:
    assert dice(play(engine, ORGAN, (prompt,), run=prompt.model_dump_json()), ORGAN.mask) >= 0.9


def test_a_negative_click_gives_less_than_a_positive_one(engine: NNInteractive) -> None:
    one = play(engine, ORGAN, (FIRST,), run="signs")
    more, less = (
        ask(engine, ORGAN, (FIRST, click(dy=10, positive=sign)), one, run="signs")
        for sign in (True, False)
    )
    assert less.sum() < more.sum()


def test_a_mask_made_by_hand_is_refined(engine: NNInteractive) -> None:
    start = ORGAN.mask.copy()
    start[:, :, CENTRE[2] :] = False
    mask = play(engine, ORGAN, (click(dx=5),), run="hand", start=start)
    assert dice(mask, ORGAN.mask) > dice(start, ORGAN.mask)


def test_the_answer_does_not_depend_on_the_way(engine: NNInteractive) -> None:
    one = play(engine, ORGAN, (FIRST,), run="plain")
    two = ask(engine, ORGAN, (FIRST, SECOND), one, run="plain")
    three = ask(engine, ORGAN, (FIRST, SECOND, THIRD), two, run="plain")
    assert len({mask.tobytes() for mask in (one, two, three)}) == 3
    play(engine, ORGAN, (FIRST, SECOND, click(dx=6)), run="undone")
    assert np.array_equal(ask(engine, ORGAN, (FIRST, SECOND, THIRD), two, run="undone"), three)
    assert np.array_equal(ask(engine, ORGAN, (FIRST, SECOND), one, run="undone"), two)
    elsewhere = replace(ORGAN, scene=replace(ORGAN.scene, key="the same image"))
    assert np.array_equal(ask(engine, elsewhere, (FIRST, SECOND, THIRD), two), three)


def test_one_undo_is_the_servers_own_and_a_second_is_replayed(
    engine: NNInteractive, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(engine, ORGAN, (FIRST, SECOND, THIRD), run="counted")
    given: list[AnyPrompt] = []
    apply = client.apply

    def counted(session: Any, prompt: AnyPrompt, shape: Any) -> Bounds | None:
        given.append(prompt)
        return apply(session, prompt, shape)

    monkeypatch.setattr(client, "apply", counted)
    ask(engine, ORGAN, (FIRST, SECOND, click(dx=6)), run="counted")
    assert given == [click(dx=6)]
    ask(engine, ORGAN, (FIRST, THIRD), run="counted")
    assert given == [click(dx=6), FIRST, THIRD]


def test_no_voxel_of_a_finished_structure_is_in_the_answer(engine: NNInteractive) -> None:
    forbidden = np.zeros(SHAPE, bool)
    forbidden[:, :, CENTRE[2] + 1 :] = True
    mask = play(engine, ORGAN, (FIRST,), run="beside", forbidden=forbidden)
    assert mask[CENTRE]
    assert not (mask & forbidden).any()
    assert np.array_equal(mask, play(engine, ORGAN, (FIRST,), run="alone") & ~forbidden)


def test_the_answer_is_cut_to_what_changed(engine: NNInteractive) -> None:
    mask = np.zeros(SHAPE, bool)
    request = nninteractive.Request(ORGAN.scene, "cut", None, (FIRST,), mask)
    answer = engine.segment(request, never)
    changed = answer.mask != mask[slices(answer.bounds)]
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        assert changed.any(axis=others)[[0, -1]].all()


@pytest.mark.parametrize(
    ("prompt", "values", "word"),
    [
        (click(dz=40), None, "outside"),
        (FIRST, 7.0, "nothing to see"),
        (FIRST, np.nan, "nothing to see"),
    ],
)
def test_what_cannot_be_segmented_is_refused(
    engine: NNInteractive, prompt: AnyPrompt, values: float | None, word: str
) -> None:
    image = ORGAN.scene.image if values is None else np.full(SHAPE, values, np.float32)
    scene = Scene(f"scene {values}", image, (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=word):
        ask(engine, replace(ORGAN, scene=scene), (prompt,))
    assert dice(play(engine, ORGAN, (FIRST, SECOND), run=f"after {values}"), ORGAN.mask) >= 0.95


def kill_soon(pid: int) -> threading.Thread:
    def kill() -> None:
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@POSIX
def test_a_server_killed_in_mid_click_comes_back_and_answers_the_same(
    engine: NNInteractive,
) -> None:
    whole = play(engine, ORGAN, (FIRST, SECOND), run="whole")
    one = play(engine, ORGAN, (FIRST,), run="killed")
    killed = held(engine)
    words: list[str] = []
    engine._tell = words.append
    killer = kill_soon(killed)
    assert np.array_equal(ask(engine, ORGAN, (FIRST, SECOND), one, run="killed"), whole)
    killer.join()
    assert pid_of(engine) != killed
    assert "starting the server" in words


@POSIX
@pytest.mark.soak
def test_twenty_servers_killed_in_mid_click(engine: NNInteractive) -> None:
    prompts = (FIRST, SECOND, THIRD)
    whole = play(engine, ORGAN, prompts, run="whole")
    rng = np.random.default_rng(0)
    for round_ in range(20):
        two = play(engine, ORGAN, prompts[:2], run=f"round {round_}")
        engine.start(lambda words: None)
        if round_ % 2:
            held(engine)
        timer = threading.Timer(
            float(rng.uniform(0.0, 0.3)), os.kill, (pid_of(engine), signal.SIGKILL)
        )
        timer.start()
        assert np.array_equal(ask(engine, ORGAN, prompts, two, run=f"round {round_}"), whole)
        timer.join()


@POSIX
def test_cancelling_is_immediate_and_the_next_answer_is_as_if_it_had_not_been(
    engine: NNInteractive,
) -> None:
    whole = play(engine, ORGAN, (FIRST, SECOND), run="whole")
    one = play(engine, ORGAN, (FIRST,), run="cancelled")
    pid = held(engine)
    asked = time.monotonic()
    with pytest.raises(EngineCancelled):
        ask(engine, ORGAN, (FIRST, THIRD), one, "cancelled", lambda: time.monotonic() > asked + 0.3)
    assert time.monotonic() - asked < 0.8
    os.kill(pid, signal.SIGCONT)  # It ends within the time that it is given: it is kept.
    assert np.array_equal(ask(engine, ORGAN, (FIRST, SECOND), one, run="cancelled"), whole)
    assert pid_of(engine) == pid


@POSIX
def test_a_prediction_that_does_not_end_is_ended_with_its_server(
    engine: NNInteractive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nninteractive, "PATIENCE_S", 0.5)
    whole = play(engine, ORGAN, (FIRST,), run="whole")
    pid = held(engine)
    with pytest.raises(EngineCancelled):
        ask(engine, ORGAN, (THIRD,), None, "hung", after(0.2))
    assert np.array_equal(ask(engine, ORGAN, (FIRST,), run="hung"), whole)
    assert pid_of(engine) != pid


def after(seconds: float) -> Callable[[], bool]:
    moment = time.monotonic() + seconds
    return lambda: time.monotonic() > moment


def test_a_session_that_expired_is_taken_up_anew(engine: NNInteractive) -> None:
    whole = play(engine, ORGAN, (FIRST, SECOND), run="whole")
    one = play(engine, ORGAN, (FIRST,), run="expired")
    pid = pid_of(engine)
    session_of(engine)._http.post("/release")
    assert np.array_equal(ask(engine, ORGAN, (FIRST, SECOND), one, run="expired"), whole)
    assert pid_of(engine) == pid


def test_a_connection_lost_after_a_click_was_applied_counts_it_once(engine: NNInteractive) -> None:
    whole = play(engine, ORGAN, (FIRST, SECOND), run="whole")
    one = play(engine, ORGAN, (FIRST,), run="lost")
    session = session_of(engine)
    add = session.add_point_interaction

    def apply_and_lose(*arguments: Any) -> None:
        add(*arguments)
        raise httpx.ReadError("lost")

    session.add_point_interaction = apply_and_lose
    assert np.array_equal(ask(engine, ORGAN, (FIRST, SECOND), one, run="lost"), whole)


def test_a_server_that_fails_again_and_again_is_an_error_with_its_log(
    engine: NNInteractive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(session: Any, prompt: AnyPrompt, shape: Any) -> None:
        request = httpx.Request("POST", "http://127.0.0.1/add_point_interaction")
        response = httpx.Response(500, request=request)
        response.raise_for_status()

    engine.start(lambda words: None)
    with monkeypatch.context() as patch:
        patch.setattr(client, "apply", fail)
        with pytest.raises(EngineError, match="failed") as raised:
            play(engine, ORGAN, (FIRST,), run="failing")
    assert engine.server is not None
    assert str(engine.server.log) in raised.value.remedy
    assert engine.server.log.exists()
    assert dice(play(engine, ORGAN, (FIRST, SECOND), run="failing"), ORGAN.mask) >= 0.95


PROBE = """
import sys
from pathlib import Path
from napari_backsplit.backend.structures.engines import make_engine
from napari_backsplit.backend.structures.settings import EngineSettings
from tests.backend.structures.ellipsoid import ask, click, organ

engine = make_engine("nninteractive", EngineSettings(model_folder=sys.argv[1], device="cpu"))
before = [m for m in sys.modules if m.startswith("nnInteractive")]
assert ask(engine, organ(), (click(),)).any()
engine.close()
loaded = {name.partition(".")[0] for name in sys.modules}
print(before, sorted(loaded & {"torch", "nnunetv2", "fastapi", "uvicorn"}))
print(sorted(m for m in sys.modules if m.startswith("nnInteractive.") and m.count(".") == 2))
"""


def test_a_click_loads_the_client_and_no_torch(tiny_model: Path, own_settings: Path) -> None:
    run = [sys.executable, "-c", PROBE, str(tiny_model)]
    root = Path(__file__).parents[3]
    done = subprocess.run(run, cwd=root, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[] []", "['nnInteractive.inference.remote']"]


def test_looking_needs_a_model_and_says_its_licence(tiny_model: Path, own_settings: Path) -> None:
    found = {state.name: state for state in engine_states(EngineSettings())}["nninteractive"]
    assert found.state == "needs"
    assert "No nnInteractive model" in found.reason
    assert "model folder" in found.remedy
    ready = NNInteractive.look(EngineSettings(model_folder=str(tiny_model)))
    assert (ready.state, ready.model, ready.licence) == ("ready", "nninteractive-tiny", "CC0 1.0")
    away = NNInteractive.look(EngineSettings(where="elsewhere", url="host:1527"))
    assert away.state == "needs"
    assert "http://" in away.remedy


def test_a_deep_box_is_given_as_its_middle_slice() -> None:
    assert client.flat(((2, 7), (0, 9), (4, 8))) == ((2, 7), (0, 9), (6, 7))
    assert client.flat(((2, 3), (0, 9), (4, 8))) == ((2, 3), (0, 9), (4, 8))


def test_a_scribble_gets_the_thickness_of_the_pen() -> None:
    drawn, bounds = client.thick(Scribble(axis=0, index=5, path=((4, 6), (8, 6))), [3, 3, 3], SHAPE)
    assert bounds == ((5, 6), (3, 10), (5, 8))
    assert drawn.all()


@given(
    axis=st.integers(0, 2),
    corners=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=5),
    pen=st.integers(1, 4),
)
def test_a_thick_scribble_holds_the_thin_one_and_stays_in_the_image(
    axis: Any, corners: list[tuple[int, int]], pen: int
) -> None:
    scribble = Scribble(axis=axis, index=3, path=tuple((float(a), float(b)) for a, b in corners))
    drawn, bounds = client.thick(scribble, [pen] * 3, (10, 10, 10))
    canvas = np.zeros((10, 10, 10), bool)
    canvas[slices(bounds)] = drawn
    assert canvas[slices(scribble.bounds())][scribble.mask()].all()
    assert drawn.shape[axis] == 1
    assert canvas.sum() == drawn.sum() >= scribble.mask().sum()
