"""Who trains waits while another process answers a person's click."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from job_support import until

from napari_backsplit.backend.jobs import courtesy
from napari_backsplit.backend.jobs.courtesy import canonical, claim, claimed, folder, release_asked
from napari_backsplit.backend.jobs.processes import mark

CLAIMER = """
import sys
from napari_backsplit.backend.jobs.courtesy import claim
with claim(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""
TRAINER = """
import sys, time
from pathlib import Path
from napari_backsplit.backend.jobs.courtesy import claimed
iterations = 0
while True:
    while claimed("cpu"):
        time.sleep(0.01)
    time.sleep(0.01)
    iterations += 1
    Path(sys.argv[1]).write_text(str(iterations))
"""


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program, and end it with the test."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str, argument: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", program, argument]
        started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def held(process: subprocess.Popen[str]) -> None:
    assert process.stdout.readline() == "held\n"


def no_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "LINGER_S", -1.0)


def test_a_claim_of_another_process_counts_until_shortly_after_its_end(start):
    assert not claimed("cuda")
    other = start(CLAIMER, "cuda:0")
    held(other)
    assert claimed("cuda")
    assert not claimed("cuda:1")
    assert not claimed("cpu")
    other.stdin.close()
    other.wait()
    until(lambda: not claimed("cuda"))
    assert not list(folder().iterdir())


def test_a_claimer_that_is_killed_frees_the_training(start, tmp_path):
    count = tmp_path / "count"
    start(TRAINER, str(count))
    until(lambda: count.exists() and count.read_text())
    clicker = start(CLAIMER, "cpu")
    held(clicker)
    time.sleep(0.2)  # The iteration that was going on.
    before = count.read_text()
    time.sleep(0.3)
    assert count.read_text() == before
    clicker.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    clicker.wait()
    until(lambda: count.read_text() not in ("", before))
    assert time.monotonic() - killed < courtesy.STALE_S / 3


def test_several_claims_count_as_long_as_one_is_held(monkeypatch):
    no_linger(monkeypatch)
    with claim("cpu"):
        with claim("cpu"), claim("mps"):
            assert claimed("mps")
        assert claimed("cpu")
        assert not claimed("mps")
    assert not claimed("cpu")


def test_prompts_given_one_after_the_other_are_one_claim():
    for _ in range(3):
        with claim("cpu"):
            pass
        assert claimed("cpu"), "an iteration would begin between two prompts"
    until(lambda: not claimed("cpu"))


def test_an_error_gives_the_claim_up(monkeypatch):
    no_linger(monkeypatch)
    with pytest.raises(ValueError, match="no answer"), claim("cpu"):
        raise ValueError("no answer")
    assert not claimed("cpu")


def test_the_cache_is_asked_for_only_while_the_claim_is_held():
    with claim("cuda"):
        assert not release_asked("cuda")
        with claim("cuda:0", free_cache=True):
            assert release_asked("cuda")
            assert not release_asked("cuda:1")
    assert claimed("cuda")
    assert not release_asked("cuda")


def only_file() -> Path:
    (file,) = folder().iterdir()
    return file


@pytest.mark.parametrize("way", [-1, 1], ids=["long ago", "clock set back"])
def test_a_claim_that_nobody_touches_is_forgotten(way):
    with claim("cpu"):
        then = time.time() + way * (courtesy.STALE_S + 1)
        os.utime(only_file(), (then, then))
        assert not claimed("cpu")
        assert not list(folder().iterdir())


def test_a_long_prediction_keeps_its_claim(monkeypatch):
    monkeypatch.setattr(courtesy, "TOUCH_S", 0.02)
    with claim("cpu"):
        then = time.time() - courtesy.STALE_S / 2
        os.utime(only_file(), (then, then))
        until(lambda: time.time() - only_file().stat().st_mtime < 1)
        only_file().unlink()  # As one that was forgotten while this machine slept.
        until(lambda: claimed("cpu"))
    monkeypatch.setattr(courtesy, "LINGER_S", -1.0)
    assert not claimed("cpu")


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}', "reused"])
def test_a_number_used_again_and_half_a_file_claim_nothing(content):
    if content == "reused":
        content = mark().model_copy(update={"started": "another boot:1"}).model_dump_json()
    folder().mkdir(parents=True)
    (folder() / f"cpu~{os.getpid()}~00000000.held").write_text(content)
    assert not claimed("cpu")
    assert not list(folder().iterdir())


@pytest.mark.skipif(os.name != "posix", reason="files have owners")
def test_claims_are_private_and_those_of_another_user_do_not_count(monkeypatch):
    with claim("cpu"):
        assert stat.S_IMODE(folder().stat().st_mode) == 0o700
        monkeypatch.setattr(os, "getuid", lambda: -1)
        assert not claimed("cpu")


def test_a_prediction_is_never_hindered(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BACKSPLIT_CONFIG_DIR", str(tmp_path / "file"))
    with claim("cpu"), claim(""):
        assert not claimed("cpu")
        assert not release_asked("cpu")


def test_without_a_folder_of_its_own_it_is_in_the_users_runtime_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("BACKSPLIT_CONFIG_DIR")
    for name in ("TMPDIR", "HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    tmp_path.chmod(0o700)
    assert folder().name == "claims"
    assert folder().parent.name == "napari-backsplit"


@pytest.mark.parametrize(
    ("device", "visible", "name"),
    [
        ("cuda", None, "cuda:0"),
        ("cuda:1", "", "cuda:1"),
        ("cuda", "2,3", "cuda:2"),
        ("cuda:1", "2, 3", "cuda:3"),
        ("cuda:7", "2,3", "cuda:7"),
        ("cuda", "GPU-1a2b", "cuda:GPU-1a2b"),
        ("CPU", "2", "cpu"),
        ("mps", None, "mps"),
    ],
)
def test_a_gpu_has_one_name_for_all_processes(device, visible, name, monkeypatch):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert canonical(device) == name


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(
        st.tuples(st.sampled_from(["cpu", "cuda:0", "cuda:10"]), st.booleans()), max_size=8
    )
)
def test_a_device_is_claimed_exactly_while_someone_holds_it(turns, monkeypatch):
    no_linger(monkeypatch)
    open_claims: list[tuple[str, contextlib.ExitStack]] = []
    for device, begin in turns:
        if begin:
            stack = contextlib.ExitStack()
            stack.enter_context(claim(device))
            open_claims.append((device, stack))
        elif open_claims:
            open_claims.pop(0)[1].close()
        holders = {name for name, _ in open_claims}
        for name in ("cpu", "cuda:0", "cuda:10", "cuda:1"):
            assert claimed(name) == (name in holders)
    for _, stack in open_claims:
        stack.close()
