"""Which jobs start: needs met, one a device, in the order; and when nothing is left."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_backsplit.backend.jobs.schedule import View, due, is_left, occupied, waits_for
from napari_backsplit.backend.jobs.spec import JobSpec, State

CPU, GPU = ("", "cpu"), ("", "cuda:0")
DONE, WAITING = View(State.SUCCEEDED), View(State.PENDING)
ENDS = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST)


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[str], dict[str, View]]:
    """Jobs that wait, each needing some before it, in a user's order."""
    count = draw(st.integers(1, 7))
    ids = [f"{n:04d}-x" for n in range(count)]
    places = st.sampled_from([CPU, GPU, ("tcp://there:1", "cuda:0")])
    jobs = {}
    for n, job in enumerate(ids):
        needs = draw(st.lists(st.sampled_from(ids[:n]), max_size=2, unique=True)) if n else []
        jobs[job] = View(State.PENDING, tuple(needs), draw(places))
    return draw(st.permutations(ids)), jobs


def _check(started: list[str], order: list[str], jobs: dict[str, View]) -> None:
    places = [jobs[job].place for job in started if not jobs[job].elsewhere]
    busy = {view.place for view in jobs.values() if view.active}
    assert len(set(places)) == len(places)
    assert busy.isdisjoint(places)
    for job in started:
        assert all(jobs[need].state is State.SUCCEEDED for need in jobs[job].needs)
        for earlier in order[: order.index(job)]:  # Nothing that could have run was passed over.
            view = jobs[earlier]
            ready = all(jobs[need].state is State.SUCCEEDED for need in view.needs)
            assert earlier in started or not (
                view.waiting and ready and view.place == jobs[job].place
            )


@settings(max_examples=150)
@given(queues(), st.data())
def test_a_queue_from_its_start_to_its_end(queue, data):
    order, jobs = queue
    for _ in range(60):
        started = due(order, jobs)
        _check(started, order, jobs)
        for job in started:
            jobs[job] = replace(jobs[job], state=State.RUNNING)
        running = [job for job, view in jobs.items() if view.active]
        if not running:
            break
        assert is_left(order, jobs)
        ended = data.draw(st.sampled_from(running))
        likely = (State.SUCCEEDED, *ENDS)
        jobs[ended] = replace(jobs[ended], state=data.draw(st.sampled_from(likely)))
        order = [job for job in order if not jobs[job].over]
    else:
        return  # Lost again and again: the supervisor's counting ends that.
    assert not is_left(order, jobs)
    for job, view in jobs.items():
        unmet = any(jobs[need].state is not State.SUCCEEDED for need in view.needs)
        assert view.over or unmet, job


def test_a_job_that_is_not_queued_occupies_its_device():
    direct = View(State.RUNNING, place=CPU)
    assert due(["b"], {"a": direct, "b": WAITING}) == []
    assert due(["b"], {"a": replace(direct, state=State.PAUSED), "b": WAITING}) == []
    assert due(["b"], {"a": View(State.PENDING, launched=True), "b": WAITING}) == []
    assert due(["b"], {"a": View(State.LOST, place=CPU), "b": WAITING}) == ["b"]
    assert due(["b"], {"a": replace(direct, place=GPU), "b": WAITING}) == ["b"]


def test_a_scheduler_gets_all_that_can_run():
    there = View(State.PENDING, place=("tcp://there:1", "cuda:0"))
    jobs = {"a": replace(there, state=State.RUNNING), "b": there, "c": there, "d": WAITING}
    assert due(["b", "c", "d"], jobs) == ["b", "c", "d"]
    assert waits_for("c", ["b", "c"], jobs) == "waits for a worker of tcp://there:1"


def test_a_job_made_for_another_machine_is_never_started():
    jobs = {"a": WAITING, "b": View(State.PENDING, ("a",))}
    assert due(["b"], jobs) == []
    assert not is_left(["b"], jobs)
    assert waits_for("a", ["b"], jobs) == "is not in the queue"


def test_a_lost_job_that_rests_keeps_its_turn():
    jobs = {"a": View(State.LOST), "b": WAITING}
    assert due(["a", "b"], jobs) == ["a"]
    assert due(["a", "b"], jobs, resting={"a"}) == []


@pytest.mark.parametrize(
    ("jobs", "words"),
    [
        ({"a": View(State.FAILED)}, "waits for a, which failed"),
        ({"a": View(State.CANCELLED)}, "waits for a, which was cancelled"),
        ({"a": View(State.RUNNING)}, "waits for a"),
        ({}, "waits for a, which is gone"),
        ({"a": DONE, "c": View(State.RUNNING)}, "waits for cpu, after c"),
        ({"a": DONE}, ""),
    ],
)
def test_what_a_job_waits_for(jobs, words):
    jobs = {"b": View(State.PENDING, ("a",)), **jobs}
    assert waits_for("b", ["b"], jobs) == words


def test_what_cannot_run_does_not_keep_the_supervisor():
    failed = {"a": View(State.FAILED), "b": View(State.PENDING, ("a",))}
    unreadable = {"a": View(None), "b": View(State.PENDING, ("a",))}
    circle = {"a": View(State.PENDING, ("b",)), "b": View(State.PENDING, ("a",))}
    for jobs in (failed, unreadable, circle):
        assert not is_left(["a", "b"], jobs)
    assert is_left(["b"], {"a": View(State.RUNNING), "b": View(State.PENDING, ("a",))})


def test_cuda_is_the_first_gpu():
    spec = JobSpec(id="0001-x", task="x", params={}, device="cuda")
    assert occupied(spec) == GPU
