from __future__ import annotations

import os
import subprocess
import sys

import pytest
from job_support import lives, until

from napari_backsplit.backend.jobs.processes import (
    TOKEN,
    end,
    end_marked,
    family,
    host,
    is_alive,
    mark,
    started,
)

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def sleeper():
    process = subprocess.Popen(SLEEP, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_process_is_alive_until_it_is_not(sleeper):
    one = mark(sleeper.pid)
    assert is_alive(one) is True
    sleeper.kill()
    until(lambda: is_alive(one) is False)
    assert started(sleeper.pid) is None  # a zombie: nobody has waited for it
    assert is_alive(one.model_copy(update={"host": "elsewhere"})) is None


def test_a_number_used_again_is_never_killed(sleeper):
    other = mark(sleeper.pid).model_copy(update={"started": "another boot:1"})
    end_marked(other)
    assert family(other, "no such token") == []
    assert family(None, "") == []
    assert end(lambda: family(other, ""))
    assert lives(sleeper.pid)


def test_the_family_is_found_by_session_and_by_token():
    env = {**os.environ, TOKEN: "the-token"}
    code = (
        "import subprocess, sys, time;"
        "p = [sys.executable, '-c', 'import time; time.sleep(60)'];"
        "subprocess.Popen(p, env={}); subprocess.Popen(p, start_new_session=True);"
        "print(flush=True); time.sleep(60)"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", code], env=env, start_new_session=True, stdout=subprocess.PIPE
    )
    leader.stdout.readline()
    one = mark(leader.pid)
    until(lambda: len(family(one, "the-token")) == 3)
    assert len(family(one, "")) == 2
    assert end(lambda: family(one, "the-token"), ask_s=1)
    assert leader.wait(5) == -15


def test_the_end_of_a_marked_process(sleeper):
    end_marked(mark(sleeper.pid))
    assert sleeper.wait(5) == -9


def test_marks_tell_this_machine():
    assert mark().pid == os.getpid()
    assert mark().host == host()
    assert mark() == mark()
