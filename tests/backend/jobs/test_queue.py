"""The order of the queue, chains and repetitions: what is written, before anything runs."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_support import ENV

from napari_backsplit.backend.errors import JobError, ProjectError
from napari_backsplit.backend.jobs import (
    Chain,
    Job,
    State,
    chain,
    chains,
    enqueue,
    list_jobs,
    move,
    order,
    queue,
    queued,
    repeat,
    size_bytes,
    submit,
)
from napari_backsplit.backend.jobs.chain import merge, renamed
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.removal import put_aside

FIRST, SECOND, THIRD = "0001-plan", "0002-train", "0003-compare"


@pytest.fixture(autouse=True)
def unsupervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing starts by itself."""
    for module in (queue, chain):
        monkeypatch.setattr(module, "ensure_supervisor", lambda *_, **__: None)


@pytest.fixture
def links(tmp_path: Path) -> Chain:
    """Plan, train, compare: each needs the one before and names it."""
    plan = enqueue(tmp_path, "plan", {}, "Fine-tune: plan")
    train = enqueue(
        tmp_path,
        "train",
        {"run": {"epochs": 50, "lr": 0.1, "plan": f"jobs/{plan.id}/plan"}},
        "Fine-tune: train",
        needs=[plan.id],
        chain=plan.id,
        device="cuda",
    )
    enqueue(
        tmp_path,
        "compare",
        {"arms": {"ours": f"jobs/{train.id}"}, "plan": plan.id},
        needs=[plan.id, train.id],
        chain=plan.id,
    )
    (found,) = chains(tmp_path)
    return found


def put(job: Job, *states: State) -> None:
    """Bring a job to a state, as its worker does."""
    files = JobFolder(job.folder)
    files.heartbeat_file.touch()
    for state in states:
        changes = {"worker": mark()} if state is State.RUNNING else {}
        files.write_record(files.read_record().moved(state, **changes))


def succeed(job: Job) -> None:
    put(job, State.RUNNING, State.SUCCEEDED)


def fail(job: Job) -> None:
    put(job, State.RUNNING, State.FAILED)


def test_jobs_are_queued_last_and_moved(tmp_path):
    ids = [enqueue(tmp_path, "plan", {}).id for _ in range(3)]
    assert queued(tmp_path) == ids
    move(tmp_path, ids[2], 0)
    assert queued(tmp_path) == [ids[2], ids[0], ids[1]]
    move(tmp_path, ids[2], 99)
    assert queued(tmp_path) == ids
    made = submit(tmp_path, "plan", {}, start=False)
    assert queued(tmp_path) == ids
    move(tmp_path, ids[:2], 1)
    assert queued(tmp_path) == [ids[2], ids[0], ids[1]]
    move(tmp_path, ids[:2], 0)
    with pytest.raises(JobError, match=f"{made.id} is not in the queue"):
        move(tmp_path, made.id, 0)
    assert queued(tmp_path / "nowhere") == []


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 7)), max_size=6),
)
def test_moving_keeps_all_and_the_order_of_the_others(tmp_path_factory, moves):
    project = tmp_path_factory.mktemp("moves")
    ids = [f"{n:04d}-plan" for n in range(5)]
    for job in ids:
        (project / "jobs" / job / "control").mkdir(parents=True)
        (project / "jobs" / job / "job.json").touch()
    with order.changing(project / "jobs") as listed:
        listed[:] = ids
    for n, place in moves:
        before = queued(project)
        move(project, ids[n], place)
        after = queued(project)
        assert [job for job in after if job != ids[n]] == [job for job in before if job != ids[n]]
        assert after.index(ids[n]) == min(max(place, 0), 4)


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ({"needs": ["0009-plan"]}, "no job '0009-plan' to need"),
        ({"device": "gpu"}, "no device 'gpu'"),
        ({"device": "cuda:"}, "no device 'cuda:'"),
    ],
)
def test_what_cannot_be_queued_leaves_nothing(tmp_path, asked, text):
    with pytest.raises(JobError, match=text):
        enqueue(tmp_path, "plan", {}, **asked)
    assert list_jobs(tmp_path) == []


def test_many_enqueue_at_the_same_moment(tmp_path):
    code = (
        "import sys; from pathlib import Path; from napari_backsplit.backend.jobs import queue;"
        "queue.ensure_supervisor = lambda *_, **__: None;"
        "[queue.enqueue(Path(sys.argv[1]), 'plan', {}) for _ in range(5)]"
    )
    env = {**os.environ, **ENV}
    others = [subprocess.Popen([sys.executable, "-c", code, tmp_path], env=env) for _ in range(2)]
    threads = [
        threading.Thread(target=lambda: [enqueue(tmp_path, "plan", {}) for _ in range(5)])
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [other.wait() for other in others] == [0, 0]
    assert sorted(queued(tmp_path)) == [f"{n:04d}-plan" for n in range(1, 21)]


def test_a_full_disk_keeps_the_old_queue_and_makes_no_job(tmp_path, monkeypatch):
    kept, second = enqueue(tmp_path, "plan", {}), enqueue(tmp_path, "plan", {})
    before = (tmp_path / "jobs" / "queue.json").read_bytes()

    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(order, "write_json", full)
    with pytest.raises(ProjectError, match="queue cannot be written: No space left"):
        enqueue(tmp_path, "plan", {})
    with pytest.raises(ProjectError, match="queue cannot be written"):
        move(tmp_path, second.id, 0)
    assert (tmp_path / "jobs" / "queue.json").read_bytes() == before
    assert [job.id for job in list_jobs(tmp_path)] == [kept.id, second.id]
    assert kept.delete() > 0  # Space must be freed where there is none.
    assert queued(tmp_path) == [second.id]


def test_a_job_that_a_full_disk_cannot_take_leaves_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(JobFolder, "make_reserve", full)
    with pytest.raises(ProjectError, match="The job 0001-plan cannot be written: No space left"):
        enqueue(tmp_path, "plan", {})
    assert not list((tmp_path / "jobs").glob("0*"))


@pytest.mark.parametrize("content", ['{"order": ["0001-pl', "[]", '{"order": 3}', "", "\x00"])
def test_a_torn_queue_is_set_aside_and_made_anew(tmp_path, caplog, content):
    ids = [enqueue(tmp_path, "plan", {}).id for _ in range(2)]
    submit(tmp_path, "plan", {}, start=False)  # Not for the queue.
    over = enqueue(tmp_path, "plan", {})
    queue.take(tmp_path, [over.id])
    (tmp_path / "jobs" / "queue.json").write_text(content)
    assert queued(tmp_path) == ids
    (aside,) = (tmp_path / "jobs").glob("queue.torn-*")
    assert aside.read_text() == content
    assert aside.name in caplog.text
    enqueue(tmp_path, "plan", {})
    assert queued(tmp_path) == [*ids, "0005-plan"]


def test_a_chain_stands_as_one(tmp_path, links):
    assert (links.name, links.title) == (FIRST, "Fine-tune")
    assert [job.id for job in links.jobs] == [FIRST, SECOND, THIRD]
    status = links.status()
    assert (status.state, status.done, status.total) == (State.PENDING, 0, 3)
    assert status.current.id == FIRST
    plan, train, compare = links.jobs
    put(plan, State.RUNNING)
    assert links.status()[:3] == (State.RUNNING, 0, 3)
    put(plan, State.SUCCEEDED)
    fail(train)
    status = links.status()
    assert status[:3] == (State.FAILED, 1, 3)
    assert status.current.id == SECOND
    train.resume(start=False)
    succeed(train)
    succeed(compare)
    assert links.status() == (State.SUCCEEDED, 3, 3, None, "")
    alone = enqueue(tmp_path, "plan", {}, "Plan: again")
    assert chains(tmp_path)[-1].title == "Plan: again"
    assert chains(tmp_path)[-1].jobs[0].id == alone.id


def test_a_chain_waits_for_a_job_of_another(tmp_path, links):
    other = enqueue(tmp_path, "compare", {}, needs=[SECOND])
    assert chains(tmp_path)[-1].status().message == f"waits for {SECOND}"
    fail(links.jobs[1])
    assert chains(tmp_path)[-1].status().message == f"waits for {SECOND}, which failed"
    assert other.id in queued(tmp_path)


def test_cancel_takes_the_rest_from_the_queue_and_go_on_brings_it_back(tmp_path, links):
    other = enqueue(tmp_path, "plan", {})
    links.cancel()
    assert [job.status().state for job in links.jobs] == [State.CANCELLED, *[State.PENDING] * 2]
    assert links.status().state is State.CANCELLED
    assert queued(tmp_path) == [other.id]
    links.go_on()
    assert queued(tmp_path) == [FIRST, SECOND, THIRD, other.id]
    assert links.status().state is State.PENDING


def test_go_on_after_a_failure_leaves_what_has_succeeded(tmp_path, links):
    plan, train, _ = links.jobs
    succeed(plan)
    fail(train)
    queue.take(tmp_path, [FIRST, SECOND])
    links.go_on()
    assert plan.status().state is State.SUCCEEDED
    assert train.status().attempt == 2
    assert queued(tmp_path) == [SECOND, THIRD]


def test_a_chain_that_has_succeeded_has_nowhere_to_go(links):
    for job in links.jobs:
        succeed(job)
    with pytest.raises(JobError, match="All links of 0001-plan have succeeded"):
        links.go_on()


def test_only_a_running_chain_is_paused(links):
    with pytest.raises(JobError, match="No link of 0001-plan runs"):
        links.pause()
    put(links.jobs[0], State.RUNNING)
    links.pause()
    assert JobFolder(links.jobs[0].folder).pause_file.exists()
    links.unpause()
    assert not JobFolder(links.jobs[0].folder).pause_file.exists()


def test_a_job_that_others_need_stays(tmp_path, links):
    with pytest.raises(JobError, match=f"{SECOND} needs the job {FIRST}"):
        links.jobs[0].delete()
    for job in links.jobs:
        succeed(job)
    assert links.jobs[0].delete() > 0
    assert [job.id for job in list_jobs(tmp_path)] == [SECOND, THIRD]


def test_deleting_says_what_it_freed(tmp_path, links):
    model = tmp_path / "model"
    model.write_bytes(bytes(1000))
    for n, job in enumerate(links.jobs):
        os.link(model, job.folder / "linked")  # Held elsewhere: not freed.
        (job.folder / "checkpoint").write_bytes(bytes(10_000))
        os.link(job.folder / "checkpoint", job.folder / f"again-{n}")  # Twice here: once freed.
    size = links.size_bytes()
    assert size == sum(map(size_bytes, links.jobs))
    assert 30_000 <= size < 30_000 + 3 * 70_000
    assert links.delete() == size
    assert list_jobs(tmp_path) == []
    assert queued(tmp_path) == []
    assert not list((tmp_path / "jobs").glob(".deleted*"))


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_a_chain_that_runs_is_not_deleted(tmp_path, links, state):
    put(links.jobs[0], *dict.fromkeys((State.RUNNING, state)))
    with pytest.raises(JobError, match=f"{FIRST} is {state}"):
        links.delete()
    assert [job.id for job in list_jobs(tmp_path)] == queued(tmp_path) == [FIRST, SECOND, THIRD]


def test_a_job_occupies_the_device_that_its_parameters_name(tmp_path):
    train = enqueue(tmp_path, "train", {"run": {"device": "cuda:1"}})
    predict = enqueue(tmp_path, "predict", {"device": "mps"})
    compare = enqueue(tmp_path, "compare", {})
    assert [j.spec.device for j in (train, predict, compare)] == ["cuda:1", "mps", "cpu"]
    train.cancel()
    assert repeat(train, {"run": {"device": "cuda:0"}}).spec.device == "cuda:0"


def test_repeat_puts_new_links_in_the_places_of_the_old(tmp_path, links):
    plan, train, compare = links.jobs
    succeed(plan)
    fail(train)
    queue.take(tmp_path, [FIRST, SECOND])
    other = enqueue(tmp_path, "plan", {})
    again = repeat(train, {"run": {"epochs": 5}}, title="Fine-tune: shorter")
    (found, _) = chains(tmp_path)
    _, new_train, new_compare = found.jobs
    assert new_train.id == again.id == "0005-train"
    assert new_train.spec.params["run"] == {"epochs": 5, "lr": 0.1, "plan": f"jobs/{FIRST}/plan"}
    assert (new_train.spec.needs, new_train.spec.device) == ((FIRST,), "cuda")
    assert new_train.spec.title == "Fine-tune: shorter"
    assert new_compare.spec.params == {"arms": {"ours": f"jobs/{again.id}"}, "plan": FIRST}
    assert new_compare.spec.needs == (FIRST, again.id)
    assert compare.status().state is State.CANCELLED
    assert train.status().state is State.FAILED
    assert [job.id for job in found.replaced] == [SECOND, THIRD]
    assert found.status()[:3] == (State.PENDING, 1, 3)
    assert queued(tmp_path) == [new_train.id, new_compare.id, other.id]
    assert found.delete() > 0
    assert [job.id for job in list_jobs(tmp_path)] == [other.id]


def test_repeating_of_a_chain_that_has_succeeded_is_a_new_one(tmp_path, links):
    for job in links.jobs:
        succeed(job)
    again = repeat(links.jobs[1], {})
    old, new = chains(tmp_path)
    assert old.status().state is State.SUCCEEDED
    assert [job.id for job in new.jobs] == [again.id, "0005-compare"]
    assert new.jobs[1].spec.params["arms"] == {"ours": f"jobs/{again.id}"}
    assert not new.replaced


def test_a_job_that_runs_is_not_repeated(tmp_path, links):
    put(links.jobs[1], State.RUNNING)
    for job in links.jobs[:2]:
        with pytest.raises(JobError, match=f"{SECOND} is RUNNING"):
            repeat(job, {})
    assert len(list_jobs(tmp_path)) == 3


def test_a_job_that_was_repeated_is_not_repeated_again(tmp_path, links):
    """What needed it needs the new one now."""
    fail(links.jobs[1])
    again = repeat(links.jobs[1], {})
    with pytest.raises(JobError, match=f"{again.id} has taken the place of {SECOND}"):
        repeat(links.jobs[1], {})
    assert len(list_jobs(tmp_path)) == 5


def test_what_began_while_it_was_repeated_is_ended(tmp_path, links, monkeypatch):
    made = chain.make

    def make(*arguments: object, **how: object) -> Job:
        put(links.jobs[0], *([State.RUNNING] if how["replaces"] == FIRST else []))
        return made(*arguments, **how)

    monkeypatch.setattr(chain, "make", make)
    repeat(links.jobs[0], {})
    assert JobFolder(links.jobs[0].folder).cancel_file.exists()


def test_a_chain_that_another_needs_is_not_deleted_in_part(tmp_path, links):
    put_after = enqueue(tmp_path, "compare", {}, needs=[FIRST])
    for delete in (links.delete, lambda: put_aside(links.jobs)):
        with pytest.raises(JobError, match=f"{put_after.id} needs the job {FIRST}"):
            delete()
        assert len(list_jobs(tmp_path)) == 4
        assert queued(tmp_path)[:3] == [FIRST, SECOND, THIRD]


def test_what_was_put_back_is_not_in_the_queue(tmp_path, links):
    put_aside(links.jobs).undo()
    assert [job.queued for job in list_jobs(tmp_path)] == [False] * 3
    assert queued(tmp_path) == []


def test_a_chain_that_is_still_ending_does_not_go_on(tmp_path, links):
    put(links.jobs[0], State.RUNNING)
    links.cancel(7.0)
    assert JobFolder(links.jobs[0].folder).grace_s(0) == 7.0
    with pytest.raises(JobError, match=f"{FIRST} is still ending"):
        links.go_on()
    assert queued(tmp_path) == []


def test_a_queue_names_no_folder_outside(tmp_path):
    job = enqueue(tmp_path, "plan", {})
    outside = tmp_path / "outside"
    (outside / "control").mkdir(parents=True)
    for file in (outside / "job.json", outside / "control" / "queued"):
        file.touch()
    names = ["../outside", str(outside), "0" * 300, job.id, "."]
    (tmp_path / "jobs" / "queue.json").write_text(json.dumps({"order": names}))
    assert queued(tmp_path) == [job.id]
    queue.take(tmp_path, [job.id])
    assert (outside / "control" / "queued").exists()


def test_merging():
    params = {"run": {"epochs": 50, "lr": 0.1}, "cases": [1, 2]}
    changed = merge(params, {"run": {"epochs": 5, "loss": {"k": 1}}, "cases": [3]})
    assert changed == {"run": {"epochs": 5, "lr": 0.1, "loss": {"k": 1}}, "cases": [3]}
    assert params["run"]["epochs"] == 50
    assert merge({"run": 1}, {"run": {"a": 2}}) == {"run": {"a": 2}}


def test_only_whole_ids_are_renamed():
    new = {"0002-train": "0005-train", "0005-train": "0007-train"}
    value = {"a": ["jobs/0002-train/model", "0002-train"], "b": 3, "c": {"d": "0005-train"}}
    expected = {"a": ["jobs/0005-train/model", "0005-train"], "b": 3, "c": {"d": "0007-train"}}
    assert renamed(value, new) == expected
    for other in ("0002-training", "0002-train-2", "10002-train"):
        assert renamed(other, new) == other
    assert renamed("0002-train", {}) == "0002-train"
