from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from job_support import COMMAND, ENV

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import JobStatus, State, list_jobs, submit
from napari_backsplit.backend.jobs.batch import Step, look_up, run_batch


def _add(name: str, a: int, *needs: str) -> Step:
    """A step that adds `a` to the sums of the steps it needs."""
    return Step(
        name,
        "succeed",
        lambda done: {"a": a, "b": sum(done[need]["sum"] for need in needs)},
        needs,
    )


def _run(project: Path, steps: list[Step], **how: Any) -> dict[str, dict[str, Any]]:
    return run_batch(project, steps, env=ENV, command=COMMAND, poll_s=0.02, **how)


def test_steps_get_the_results_of_those_they_need(project: Path) -> None:
    steps = [_add("one", 1), _add("two", 2, "one"), _add("three", 3, "one", "two")]
    results = _run(project, steps, at_once=2)
    assert {name: result["sum"] for name, result in results.items()} == {
        "one": 1,
        "two": 3,
        "three": 7,
    }


def test_what_is_done_is_not_done_again(project: Path) -> None:
    steps = [_add("one", 1), _add("two", 2, "one")]
    _run(project, steps)
    _run(project, [*steps, _add("three", 3, "two")])
    assert [job.spec.title for job in list_jobs(project)] == ["one", "two", "three"]


def test_a_failed_step_ends_the_batch_and_is_tried_again_by_the_next(project: Path) -> None:
    steps = [_add("one", 1), Step("bad", "raise_remedy", lambda done: {}, ("one",))]
    told: list[tuple[str, State]] = []

    def tell(name: str, status: JobStatus) -> None:
        told.append((name, status.state))

    for attempt in (1, 2):
        with pytest.raises(JobError, match="bad ended as FAILED: The spacing is 0 mm"):
            _run(project, steps, tell=tell)
        bad = list_jobs(project)[1]
        assert bad.status().attempt == attempt
    assert len(list_jobs(project)) == 2
    assert ("bad", State.FAILED) in told


def test_a_job_that_was_never_launched_is_started(project: Path) -> None:
    submit(project, "succeed", {"a": 1, "b": 0}, "one", start=False, command=COMMAND)
    assert _run(project, [_add("one", 1)])["one"]["sum"] == 1
    assert len(list_jobs(project)) == 1


def test_a_batch_that_keeps_going_ends_only_what_needs_the_step_that_failed(project: Path) -> None:
    steps = [
        Step("bad", "raise_remedy", lambda done: {}),
        _add("after", 1, "bad"),
        _add("later", 1, "after"),
        _add("one", 1),
        Step("some", "succeed", lambda done: {"a": len(done), "b": 9}, ("one",), ("bad", "one"), 1),
        Step("all", "succeed", lambda done: {"a": 0, "b": 0}, (), ("bad", "one"), least=2),
    ]
    for _ in range(2):
        results = _run(project, steps, keep_going=True, retry=False)
        assert {name: result["sum"] for name, result in results.items()} == {"one": 1, "some": 10}
        assert [job.status().attempt for job in list_jobs(project)] == [1, 1, 1]
    _run(project, steps, keep_going=True)
    assert [job.status().attempt for job in list_jobs(project)] == [2, 1, 1]
    jobs = look_up(project, steps)
    assert {name: job.status().state for name, job in jobs.items()} == {
        "bad": State.FAILED,
        "one": State.SUCCEEDED,
        "some": State.SUCCEEDED,
    }


def test_a_step_may_have_a_project_of_its_own(project: Path) -> None:
    folders = [project / "a", project / "b"]
    steps = [replace(_add(f.name, 1), folder=f) for f in folders]
    assert _run(project, steps, at_once=2).keys() == {"a", "b"}
    assert [len(list_jobs(folder)) for folder in (project, *folders)] == [0, 1, 1]


def test_a_step_may_know_its_job_by_more_than_equality(project: Path) -> None:
    _run(project, [_add("one", 1)])
    same = replace(_add("one", 2), same=lambda old, new: old["b"] == new["b"])
    assert _run(project, [same])["one"]["sum"] == 1
