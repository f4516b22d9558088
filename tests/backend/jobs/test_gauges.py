from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job_support import until, works

from napari_backsplit.backend.jobs import State
from napari_backsplit.backend.jobs.devices import Card
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.gauges import Gauges, Meter, measured, read_gauges
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.spec import Record

MB = 1 << 20
CARD = Card("0", "GPU-1", "NVIDIA A100", 50.0, 100 * MB, 1000 * MB)
BUSY = """
import os, time
held = bytearray(os.urandom(1)) * (200 << 20)
print("up", flush=True)
while True: pass
"""
SHARED = """
import mmap, os, time
held = mmap.mmap(-1, 200 << 20)
held.write(b"x" * (200 << 20))
for _ in range(3):
    if os.fork() == 0:
        held.seek(0); held.read(); os.write(1, b"up\\n"); time.sleep(60)
time.sleep(60)
"""


@pytest.fixture
def task(tmp_path: Path):
    """Starts a program as the task of a job; its whole session is ended after the test."""
    started = []

    def start(code: str, ready: int = 1) -> JobFolder:
        how = {"stdout": subprocess.PIPE, "start_new_session": True}
        process = subprocess.Popen([sys.executable, "-c", code], **how)
        started.append(process)
        for _ in range(ready):
            assert process.stdout.readline() == b"up\n"
        folder = JobFolder(tmp_path)
        folder.write_record(Record(state=State.RUNNING, task=mark(process.pid)))
        return folder

    yield start
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def meter(folder: JobFolder, cards: tuple[Card, ...] = ()) -> Meter:
    return Meter(folder, lambda: cards)


def test_the_task_is_measured_and_nothing_else(task):
    gauge = meter(task(BUSY))
    gauge.read()
    time.sleep(0.5)
    gauges = gauge.read()
    assert 200 * MB < gauges.used_bytes < 260 * MB
    assert 5 < gauges.cpu_percent < 130  # one thread, on a machine that others use too
    assert gauges.used_bytes < gauges.total_bytes
    assert gauges.cores >= 1


def test_memory_that_processes_share_counts_once(task):
    gauges = meter(task(SHARED, ready=3)).read()
    assert 200 * MB < gauges.used_bytes < 350 * MB


def test_a_job_without_a_process_takes_nothing(tmp_path):
    folder = JobFolder(tmp_path)
    assert meter(folder).read().used_bytes == 0
    folder.write_record(Record())
    assert meter(folder).read().cpu_percent == 0


def test_gpus_are_numbered_as_cuda_does(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    other = Card("1", "GPU-2", "NVIDIA T4", None, None, None)
    gpus = meter(JobFolder(tmp_path), (CARD, other)).read().gpus
    assert [(g.name, g.title, g.utilisation) for g in gpus] == [
        ("cuda:0", "NVIDIA A100", 50.0),
        ("cuda:1", "NVIDIA T4", None),
    ]


def test_a_slow_tool_is_asked_less_often(tmp_path):
    asked = []

    def ask():
        asked.append(time.monotonic())
        time.sleep(0.1)
        return (CARD,)

    gauge = Meter(JobFolder(tmp_path), ask)
    for _ in range(20):
        assert len(gauge.read().gpus) == 1
        time.sleep(0.01)
    assert len(asked) == 1


def test_measuring_takes_less_than_a_hundredth_of_a_core(task):
    gauge = meter(task(BUSY))
    gauge.read()
    begun = time.thread_time()
    for _ in range(10):
        gauge.read()
    assert (time.thread_time() - begun) / 10 < 0.02  # every 2 s


def test_it_is_written_while_it_is_measured(tmp_path):
    folder = JobFolder(tmp_path)
    assert read_gauges(tmp_path) is None
    with measured(folder, every_s=0.05):
        until(lambda: read_gauges(tmp_path))
    first = read_gauges(tmp_path)
    assert isinstance(first, Gauges)
    assert abs(first.time - time.time()) < 60
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_torn_file_is_no_measurement(tmp_path):
    (tmp_path / "gauges.json").write_text('{"time": 1.0, "cpu_pe')
    assert read_gauges(tmp_path) is None


def test_a_place_that_cannot_be_written_to_costs_the_measurement_only(tmp_path):
    folder = JobFolder(tmp_path / "gone")
    with measured(folder, every_s=0.01):
        time.sleep(0.1)
    assert read_gauges(folder.path) is None


def test_a_running_job_tells_what_it_takes(run):
    job = run("loop")
    works(job)
    until(lambda: job.gauges() and job.gauges().used_bytes > 5 * MB)
    assert job.gauges().total_bytes > job.gauges().used_bytes
    job.cancel()
    assert job.wait(20).state is State.CANCELLED


def test_a_tool_that_hangs_or_fails_never_hurts_the_job(project, run, tmp_path, monkeypatch):
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\nexec sleep 4\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    job = run("loop")
    works(job)
    until(lambda: job.gauges())
    assert job.gauges().gpus == ()
    assert job.status().heartbeat_age_s < 10
    begun = time.monotonic()
    job.cancel()
    assert job.wait(20).state is State.CANCELLED
    assert time.monotonic() - begun < 10
