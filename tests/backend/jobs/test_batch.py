from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_support import COMMAND, ENV

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import JobStatus, State, list_jobs, submit
from napari_backsplit.backend.jobs.batch import Step, run_batch


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
