"""Only legal changes of state; the final state is written once."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import TASKS, Job, State, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.spec import FINAL, NEXT, RESUMABLE, ProcessMark, Record, now
from napari_backsplit.backend.jobs.worker import opened

LEGAL = {
    ("PENDING", "RUNNING"),
    ("PENDING", "FAILED"),
    ("PENDING", "CANCELLED"),
    ("RUNNING", "PAUSED"),
    ("RUNNING", "SUCCEEDED"),
    ("RUNNING", "FAILED"),
    ("RUNNING", "CANCELLED"),
    ("PAUSED", "RUNNING"),
    ("PAUSED", "FAILED"),
    ("PAUSED", "CANCELLED"),
}
WRITTEN = [state for state in State if state is not State.LOST]


@pytest.mark.parametrize(("old", "new"), itertools.product(WRITTEN, State))
def test_the_legal_changes(old, new):
    record = Record(state=old)
    if (old, new) in LEGAL:
        assert record.moved(new).state is new
    else:
        with pytest.raises(JobError, match=f"is {old} cannot become {new}"):
            record.moved(new)


def test_final_states_lead_nowhere():
    assert all(not NEXT[state] for state in FINAL)


@given(st.lists(st.sampled_from(State)))
def test_a_final_state_never_changes(path):
    record = Record()
    for state in path:
        try:
            changed = record.moved(state)
        except JobError:
            continue
        assert not record.final
        assert changed.final == (changed.ended is not None)
        record = changed


@given(st.sampled_from(WRITTEN), st.booleans())
def test_resuming_keeps_the_history(state, lost):
    record = Record(state=state, attempt=2, error="why", started=now())
    shown = State.LOST if lost and state not in FINAL else state
    if shown not in RESUMABLE:
        with pytest.raises(JobError, match="cannot be resumed"):
            record.reopened(lost=lost)
        return
    again = record.reopened(lost=lost)
    assert (again.state, again.attempt, again.error) == (State.PENDING, 3, "")
    assert again.attempts[-1].state is shown
    assert again.attempts[-1].error == "why"


class JobLife(RuleBasedStateMachine):
    """Workers, tasks, people and crashes act on one folder in any order."""

    def __init__(self):
        super().__init__()
        self.project = Path(tempfile.mkdtemp())
        self.job: Job = submit(self.project, "compare", {}, start=False)
        self.files = JobFolder(self.job.folder)
        self.state, self.attempt, self.final_bytes = State.PENDING, 1, None

    def teardown(self):
        shutil.rmtree(self.project)

    def move(self, state: State, **changes):
        record = self.files.read_record()
        if self.state in FINAL or (self.state, state) not in LEGAL:
            with pytest.raises(JobError):
                record.moved(state, **changes)
            return
        self.files.write_record(record.moved(state, **changes))
        self.state = state
        if state in FINAL:
            self.final_bytes = self.files.status_file.read_bytes()

    def lost(self) -> bool:
        return self.job.status().state is State.LOST

    @rule()
    def begin(self):
        """A worker comes; it takes a pending job and no other, a lost one neither."""
        if self.state is not State.PENDING:
            with pytest.raises(JobError, match="not PENDING"), opened(self.files, TASKS):
                pass
            return
        self.files.heartbeat_file.touch()
        self.move(State.RUNNING, worker=mark())

    @precondition(lambda self: self.state is not State.LOST)
    @rule(state=st.sampled_from([State.PAUSED, State.RUNNING, *sorted(FINAL)]))
    def task_moves(self, state):
        if not (self.state is State.PENDING and state is State.RUNNING):
            self.move(state)

    @precondition(lambda self: self.state in (State.RUNNING, State.PAUSED))
    @rule()
    def worker_dies(self):
        gone = ProcessMark(pid=mark().pid, started="before", host=mark().host)
        record = self.files.read_record()
        self.files.write_record(record.model_copy(update={"worker": gone}))
        self.state = State.LOST

    @precondition(lambda self: self.state in (State.PENDING, State.LOST) or self.state in FINAL)
    @rule()
    def cancel(self):
        self.job.cancel(grace_s=0)
        if self.state not in FINAL:
            self.state = State.CANCELLED
            self.final_bytes = self.files.status_file.read_bytes()

    @rule()
    def resume(self):
        if self.state not in RESUMABLE:
            with pytest.raises(JobError):
                self.job.resume(start=False)
            return
        self.job.resume(start=False)
        self.attempt += 1
        self.state, self.final_bytes = State.PENDING, None

    @invariant()
    def shown_as_it_is(self):
        status = self.job.status()
        assert (status.state, status.attempt) == (self.state, self.attempt)
        assert [a.number for a in status.attempts] == list(range(1, self.attempt))
        assert status.final == (status.ended is not None)

    @invariant()
    def the_final_state_is_written_once(self):
        if self.final_bytes is not None:
            assert self.files.status_file.read_bytes() == self.final_bytes
            assert not self.files.reserve_file.exists()


JobLife.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestJobLife = JobLife.TestCase
