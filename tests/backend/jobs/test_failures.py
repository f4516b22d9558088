from __future__ import annotations

import errno
from pathlib import Path

import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.jobs import Cancelled, State, failures

JOB = Path("/home/someone/project/jobs/0001-train")


def test_a_remedy_is_kept():
    outcome = failures.of_error(InputError("It is torn.", "Restore it."), JOB)
    assert outcome == (State.FAILED, "It is torn.", "Restore it.", "refused")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_found_behind_other_errors(number):
    try:
        try:
            raise OSError(number, "full")
        except OSError as error:
            raise RuntimeError("cannot save") from error
    except RuntimeError as error:
        outcome = failures.of_error(error, JOB)
    assert "no space left on the disk of the job 0001-train" in outcome.error


def test_a_failed_write_without_a_number(monkeypatch):
    monkeypatch.setattr(failures, "_free_bytes", lambda folder: 4096)
    assert "no space left" in failures.of_error(RuntimeError("write failed"), JOB).error
    assert "no space left" not in failures.of_error(ValueError("bad"), JOB).error


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_says_what_to_lower(error):
    outcome = failures.of_error(error, JOB)
    assert "out of memory" in outcome.error
    assert "patch size" in outcome.remedy
    assert "batch size" in outcome.remedy


def test_other_errors_take_one_line_without_the_project_path():
    outcome = failures.of_error(OSError(f"cannot read {JOB.parent.parent}/a.nii\nmore"), JOB)
    assert outcome.error == "The task failed: OSError: cannot read a.nii."
    assert failures.of_error(KeyError(), JOB).error == "The task failed: KeyError."


GPU = "CUDA out of memory. Tried to allocate 2 GiB"
DIED = "One or more background workers are no longer alive. Exiting. Please check the print"


@pytest.mark.parametrize(
    ("error", "cause", "remedy"),
    [
        (OutOfMemoryError(GPU), "gpu memory", "batch size"),
        (RuntimeError("CUDA error: out of memory"), "gpu memory", "batch size"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"), "gpu memory", "batch size"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), "gpu memory", "patch"),
        (MemoryError(), "memory", "other programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "memory", "patch size"),
        (RuntimeError(DIED), "workers died", "number of workers"),
        (RuntimeError("Background workers died. Look for the error"), "workers died", "workers"),
        (FloatingPointError("The loss is nan in epoch 3."), "not a number", "learning rate"),
        (OSError(errno.ENOSPC, "full"), "disk full", "Free some space"),
        (InputError("It is torn.", "Restore it."), "refused", "Restore it."),
        (Cancelled(), "stopped", "Resume"),
        (KeyboardInterrupt(), "stopped", "Resume"),
        (ValueError("out of memory of the past"), "", "log"),
        (RuntimeError("workers of the past"), "", "log"),
    ],
)
def test_each_failure_has_its_cause_and_its_remedy(error, cause, remedy):
    outcome = failures.of_error(error, JOB)
    assert outcome.cause == cause
    assert remedy in outcome.remedy


def test_the_cause_behind_a_refusal_is_found():
    try:
        try:
            raise OutOfMemoryError(GPU)
        except OutOfMemoryError as error:
            raise InputError("The patch is too large.", "Lower it.") from error
    except InputError as error:
        outcome = failures.of_error(error, JOB)
    assert outcome[1:] == ("The patch is too large.", "Lower it.", "gpu memory")


def test_who_killed_it():
    assert failures.of_exit(-9).cause == "killed"
    assert failures.of_exit(-15).cause == failures.stopped(2).cause == "stopped"
    assert failures.of_exit(7).cause == ""


def test_cancelled_is_no_exception():
    assert not issubclass(Cancelled, Exception)
    assert failures.of_error(Cancelled(), JOB).state is State.CANCELLED


@pytest.mark.parametrize(
    ("code", "state", "text"),
    [
        (7, State.FAILED, "exit code 7"),
        (-11, State.FAILED, "signal 11 (SIGSEGV)"),
        (-9, State.FAILED, "memory runs out"),
        (-15, State.CANCELLED, "stopped by signal 15"),
        (-63, State.FAILED, "signal 63"),
    ],
)
def test_exit_codes(code, state, text):
    outcome = failures.of_exit(code)
    assert outcome.state is state
    assert text in outcome.error
