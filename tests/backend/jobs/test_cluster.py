"""Jobs on the workers of a real Dask scheduler, each a process of its own."""

from __future__ import annotations

import contextlib
import http.server
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import trustme
from cluster_support import COMMAND, Cluster, hand_over, tasks_of
from hypothesis import given
from hypothesis import strategies as st
from job_support import ENV, epochs_of, lives, processes_of, reaches, until, works

from napari_backsplit.backend.cluster_settings import (
    FOLDER,
    ClusterSettings,
    read_settings,
    require_trust,
    scheduler_address,
    settings_file,
    write_settings,
)
from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.jobs import Job, State, cluster, elsewhere, submit
from napari_backsplit.backend.jobs.cluster import connect, look_around, run_on
from napari_backsplit.backend.jobs.elsewhere import MOST_TRIES, Elsewhere
from napari_backsplit.backend.jobs.order import changing
from napari_backsplit.backend.jobs.supervisor import Supervisor

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the tests' tasks need POSIX")
NONE = ClusterSettings()
LIMIT_S = 40.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A scheduler for all tests here that leave it alive; its workers are theirs to add."""
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    made.start_scheduler()
    yield made
    made.end()


@pytest.fixture
def two(shared: Cluster) -> Cluster:
    """The shared scheduler with two workers that live."""
    shared.workers = [worker for worker in shared.workers if worker.poll() is None]
    if missing := 2 - len(shared.workers):
        shared.start_workers(missing)
        shared.await_workers(2)
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Make clusters that a test may do what it likes with."""
    made: list[Cluster] = []

    def make(*options: str) -> Cluster:
        folder = tmp_path / f"cluster-{len(made)}"
        folder.mkdir()
        made.append(Cluster(folder, *options))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def pending(project: Path) -> Callable[..., Job]:
    def make(task: str = "epochs", **params: object) -> Job:
        how = {name: params.pop(name) for name in ("device", "where") if name in params}
        asked = {"epochs": 40, **params}
        return submit(project, task, asked, command=COMMAND, start=False, **how)

    return make


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up on a scheduler that does not answer after a moment."""
    monkeypatch.setattr(cluster, "CONNECT_S", 1.0)


def ends(job: Job, state: State = State.SUCCEEDED) -> None:
    until(lambda: job.status().state is state, LIMIT_S)


def whole(job: Job, epochs: int = 40, losses: int = 1) -> None:
    """The job did all its epochs in order, at most one twice for each loss."""
    done = epochs_of(job)
    assert job.status().result == {"epochs": epochs}
    assert sorted(set(done)) == list(range(epochs))
    assert len(done) <= epochs + losses
    assert not (job.folder.parent.parent / "clash").exists()


def leaves_nothing(project: Path) -> None:
    until(lambda: not processes_of(project))


# ----------------------------------------------------------------------- the plain way


def test_a_worker_runs_the_job(two, pending, project):
    job = pending(epochs=5)
    handle = hand_over(two, job)
    until(lambda: handle.done)
    assert (handle.standing, handle.error, handle.alive) == ("done", None, True)
    whole(job, 5, losses=0)
    assert job.status().attempt == 1
    leaves_nothing(project)
    handle.close()


@pytest.mark.soak
def test_a_crash_ends_the_job_and_not_the_worker(two, pending):
    job = pending("crash")
    handle = hand_over(two, job)
    until(lambda: handle.done)
    assert job.status().state is State.FAILED
    assert "SIGSEGV" in job.status().error
    assert handle.error is None  # Dask did what it was asked for.
    assert all(worker.poll() is None for worker in two.workers)
    handle.close()


def test_a_job_handed_over_twice_runs_once(two, pending):
    job = pending()
    first = hand_over(two, job)
    works(job)
    second = hand_over(two, job)
    assert tasks_of(second, job) == [f"{job.folder} #1"]
    until(lambda: first.done and second.done, LIMIT_S)
    whole(job, losses=0)
    first.close()
    second.close()


@pytest.mark.soak
def test_a_job_that_runs_elsewhere_is_waited_for(two, pending, run):
    """Its lock says so; the worker takes it on where that one ends."""
    job = pending(epochs=60)
    job.start(env=ENV, command=(sys.executable, "-c", _HERE))
    works(job)
    handle = hand_over(two, job)
    time.sleep(0.5)
    assert handle.standing == "waiting"
    psutil.Process(job.status().pid).kill()
    until(lambda: handle.done, LIMIT_S)
    whole(job, 60)
    handle.close()


_HERE = (
    "import sys; from napari_backsplit.backend.jobs.worker import main;"
    "from tiny_tasks import TASKS; sys.exit(main(sys.argv[1], tasks=TASKS))"
)


@pytest.mark.soak
def test_a_job_outlives_whoever_asked(two, pending):
    job = pending()
    ask = (
        "import sys; from pathlib import Path; from cluster_support import COMMAND;"
        "from napari_backsplit.backend.jobs.cluster import run_on;"
        "from napari_backsplit.backend.cluster_settings import ClusterSettings;"
        "run_on(sys.argv[1], Path(sys.argv[2]), ClusterSettings(), command=COMMAND); input()"
    )
    command = [sys.executable, "-c", ask, two.address, str(job.folder)]
    with subprocess.Popen(command, env={**os.environ, **ENV}, stdin=subprocess.PIPE) as asking:
        works(job)
        asking.kill()
    ends(job)
    whole(job, losses=0)


def test_a_person_cancels_what_runs_and_what_waits(two, pending, project):
    running = [pending("loop"), pending("loop")]
    handles = [hand_over(two, job) for job in running]
    for job in running:
        works(job)
    waiting = pending()
    handles.append(hand_over(two, waiting))
    waiting.cancel()
    assert waiting.status().state is State.CANCELLED
    for job in running:
        job.cancel()
    until(lambda: all(handle.done for handle in handles))
    assert {job.status().state for job in (*running, waiting)} == {State.CANCELLED}
    assert not (waiting.folder / "epochs").exists()
    leaves_nothing(project)
    for handle in handles:
        handle.close()


# ----------------------------------------------------------------------- losses


def _lose(cluster: Cluster, job: Job) -> int:
    """Kill the Dask worker that has the job; return its number."""
    until(lambda: job.status().task_pid and lives(job.status().task_pid))
    holder = cluster.holder(job.status().task_pid)
    holder.kill()
    holder.wait()
    return holder.pid


@pytest.mark.soak
def test_another_worker_goes_on_where_one_was_killed(two, pending, project):
    job = pending()
    handle = hand_over(two, job)
    until(lambda: (job.folder / "checkpoint").exists())
    lost = _lose(two, job)
    reaches_attempt(job, 2)
    again = hand_over(two, job)  # As a supervisor that was started anew would.
    assert tasks_of(again, job) == [f"{job.folder} #1"]
    until(lambda: handle.done, LIMIT_S)
    whole(job)
    assert [a.state for a in job.status().attempts] == [State.LOST]
    assert not lives(lost)
    leaves_nothing(project)
    handle.close()
    again.close()


def reaches_attempt(job: Job, number: int) -> None:
    until(lambda: job.status().attempt == number and job.status().state is State.RUNNING)


def test_the_job_s_own_process_is_replaced_too(two, pending):
    job = pending()
    handle = hand_over(two, job)
    until(lambda: (job.folder / "checkpoint").exists())
    psutil.Process(job.status().pid).kill()
    until(lambda: handle.done, LIMIT_S)
    whole(job)
    handle.close()


@pytest.mark.soak
def test_a_stop_that_no_person_asked_for_is_no_end(two, pending):
    job = pending()
    handle = hand_over(two, job)
    works(job)
    psutil.Process(job.status().pid).terminate()  # As where its machine is shut down.
    until(lambda: handle.done, LIMIT_S)
    whole(job)
    assert [a.state for a in job.status().attempts] == [State.CANCELLED]
    handle.close()


@pytest.mark.soak
def test_a_scheduler_that_goes_and_comes_back(own, pending, project, soon):
    one = own()
    one.start_scheduler()
    one.start_workers(1)
    job = pending(epochs=60)
    handle = hand_over(one, job)
    until(lambda: (job.folder / "checkpoint").exists())
    one.end_scheduler()
    began = time.monotonic()
    until(lambda: handle.standing == "gone")
    assert time.monotonic() - began < 5
    assert not handle.done
    with pytest.raises(JobError, match="No Dask scheduler answers"):
        hand_over(one, job)
    _lose(one, job)  # It would give its task half a minute to end, then leave.
    reaches(job, State.LOST)
    one.start_scheduler(port=int(one.address.rpartition(":")[2]))
    one.start_workers(1)
    handle.close()
    handle = hand_over(one, job)
    until(lambda: handle.done, LIMIT_S)
    whole(job, 60)
    handle.close()


@pytest.mark.soak
def test_twenty_kills_at_random_times(two, pending, project):
    rng = random.Random(0)
    for _ in range(20):
        two.workers = [worker for worker in two.workers if worker.poll() is None]
        two.start_workers(2 - len(two.workers))
        job = pending(epochs=60)
        handle = hand_over(two, job)
        works(job)
        time.sleep(rng.uniform(0, 1.5))
        _lose(two, job)
        until(lambda handle=handle: handle.done, 90)
        whole(job, 60)
        leaves_nothing(project)
        handle.close()


# ----------------------------------------------------------------------- folders and devices


def test_a_folder_that_the_worker_does_not_see(two, pending, project, tmp_path):
    job = pending(epochs=2)
    handle = hand_over(two, job, path_map=f"{tmp_path}=/no/such/disk")
    until(lambda: handle.done)
    assert handle.standing == "failed"
    assert "does not see the folder /no/such/disk/jobs/0001-epochs" in str(handle.error)
    assert "--path-map" in str(handle.error)
    assert job.status().state is State.PENDING
    handle.close()
    handle = hand_over(two, job)  # Put right, it runs.
    ends(job)
    handle.close()


def test_a_disk_with_another_path_there(two, pending, tmp_path_factory, project):
    there = tmp_path_factory.mktemp("there") / "disk"
    there.symlink_to(project)
    job = pending(epochs=2)
    handle = hand_over(two, job, path_map=f"{project}={there}")
    until(lambda: handle.done)
    whole(job, 2, losses=0)
    assert handle._future.key.startswith(str(there / "jobs"))
    handle.close()


@pytest.mark.soak
def test_a_job_for_a_gpu_goes_where_one_is_declared(two, pending):
    job = pending(epochs=1, device="cuda")
    handle = hand_over(two, job)
    ends(job)  # Nobody declares GPUs, so anyone will do.
    handle.close()
    two.start_workers(1, "--resources", "GPU=1")
    two.await_workers(3)
    assert Counter(w["gpus"] for w in look_around(two.address, NONE)) == {0: 2, 1: 1}
    jobs = [pending("count", device="cuda", to=20) for _ in range(2)]
    handles = [hand_over(two, job) for job in jobs]
    for job in jobs:
        works(job)
        assert two.holder(job.status().pid) is two.workers[-1]
        ends(job)
    spans = sorted((job.status().started, job.status().ended) for job in jobs)
    assert spans[0][1] <= spans[1][0]  # One after the other on the one GPU.
    for handle in handles:
        handle.close()
    two.workers[-1].kill()
    two.workers.pop().wait()
    two.await_workers(2)


@pytest.mark.parametrize(
    ("declared", "device", "asked"),
    [
        ([{}, {}], "cuda", {}),
        ([{}, {"GPU": 1.0}], "cuda:0", {"GPU": 1}),
        ([{"GPU": 1.0}], "cpu", {}),
        ([], "cuda", {}),
    ],
)
def test_what_a_job_asks_of_its_worker(monkeypatch, declared, device, asked):
    known = {str(number): {"resources": resources} for number, resources in enumerate(declared)}
    monkeypatch.setattr(cluster, "_ask", lambda *_, **__: {"workers": known})
    assert cluster._resources(Mock(), device) == asked


def test_what_the_workers_are_and_see(two, project, tmp_path):
    seen = look_around(two.address, NONE, project)
    assert len(seen) == 2
    assert all(worker["sees"] for worker in seen)
    assert not any(w["sees"] for w in look_around(two.address, NONE, tmp_path / "nowhere"))


# ----------------------------------------------------------------------- addresses


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"tcp://127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def web() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"tcp://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def closed() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    yield f"127.0.0.1:{port}"


@contextlib.contextmanager
def unknown() -> Iterator[str]:
    yield "tcp://no-such-host.invalid:8786"


@pytest.mark.parametrize("place", [silent, web, closed, unknown])
def test_an_address_where_no_scheduler_is(place, pending, soon):
    job = pending()
    before = (job.folder / "status.json").read_bytes()
    began = time.monotonic()
    with place() as address, pytest.raises(JobError, match="No Dask scheduler answers") as told:
        run_on(address, job.folder, ClusterSettings(allow_unencrypted=True))
    assert time.monotonic() - began < cluster.CONNECT_S + 2
    assert "backsplit cluster test" in told.value.remedy
    assert (job.folder / "status.json").read_bytes() == before


def test_the_limit_is_within_ten_seconds():
    assert cluster.CONNECT_S <= 8


def test_a_worker_is_no_scheduler(two):
    with two_client(two) as client:
        worker = next(iter(client.scheduler_info()["workers"]))
    with pytest.raises(JobError, match="is no Dask scheduler but a worker"):
        connect(worker, NONE)


@contextlib.contextmanager
def two_client(two: Cluster) -> Iterator:
    client = connect(two.address, NONE)
    yield client
    client.close()


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:port", "http://host:80", "inproc://x/1", "tcp://host:99999",
     "tcp://u:p@host:1", "tcp://:p@host:1", "tcp://host:1#x", "[::1:8786",
     "tcp://host:1/path", "host:1\nhost:2", ":8786"],
)  # fmt: skip
def test_what_is_no_address(address):
    with pytest.raises(JobError, match="is no address of a Dask scheduler"):
        scheduler_address(address)


def test_addresses_get_their_protocol():
    assert scheduler_address(" host:8786 ") == "tcp://host:8786"
    assert scheduler_address("tls://[::1]:8786/") == "tls://[::1]:8786"


def test_without_dask_it_says_how_to_get_it(monkeypatch, pending):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(JobError, match=r"pip install napari-backsplit\[cluster\]"):
        run_on("tcp://127.0.0.1:8786", pending().folder, NONE)


def test_dask_is_loaded_by_those_only_who_use_it():
    code = "import sys, napari_backsplit.backend.jobs.cluster; print('distributed' in sys.modules)"
    asked = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert asked.stdout.strip() == b"False"


# ----------------------------------------------------------------------- trust


@pytest.mark.parametrize(
    ("address", "settings", "refused"),
    [
        ("tcp://127.0.0.1:1", NONE, ""),
        ("tcp://127.8.8.8:1", NONE, ""),
        ("tcp://[::1]:1", NONE, ""),
        ("tcp://localhost:1", NONE, ""),
        ("tcp://10.0.0.1:1", NONE, "not protected"),
        ("tcp://127.0.0.1.example.org:1", NONE, "not protected"),
        ("tcp://0.0.0.0:1", NONE, "not protected"),
        ("tcp://10.0.0.1:1", ClusterSettings(allow_unencrypted=True), ""),
        ("tls://10.0.0.1:1", NONE, "--tls-ca"),
        ("tls://127.0.0.1:1", ClusterSettings(tls_ca="/no/such"), "--tls-ca"),
    ],
)
def test_which_schedulers_are_trusted(address, settings, refused):
    if not refused:
        require_trust(address, settings)
        return
    with pytest.raises(JobError, match=refused):
        require_trust(address, settings)


def test_one_elsewhere_is_refused_before_anything_is_sent(pending, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was called"))
    with pytest.raises(JobError, match="not protected") as told:
        run_on("tcp://192.0.2.1:8786", pending().folder, NONE)
    assert "SSH tunnel" in told.value.remedy


def _certificates(folder: Path, name: str = "cluster") -> ClusterSettings:
    authority = trustme.CA()
    own = authority.issue_cert("127.0.0.1", common_name=name)
    files = {part: folder / f"{name}-{part}.pem" for part in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    own.cert_chain_pems[0].write_to_path(files["cert"])
    own.private_key_pem.write_to_path(files["key"])
    return ClusterSettings(**{f"tls_{part}": str(file) for part, file in files.items()})


def test_tls(own, pending, tmp_path, soon):
    ours, others = _certificates(tmp_path), _certificates(tmp_path, "other")
    how = ("--tls-ca-file", ours.tls_ca, "--tls-cert", ours.tls_cert, "--tls-key", ours.tls_key)
    one = own("--protocol", "tls", *how)
    assert one.start_scheduler().startswith("tls://")
    one.start_workers(1)
    job = pending(epochs=2)
    for address, settings in (
        (one.address.replace("tls://", "tcp://"), NONE),
        (one.address, others),
    ):
        with pytest.raises(JobError, match="No Dask scheduler answers"):
            run_on(address, job.folder, settings)
    handle = run_on(one.address, job.folder, ours, command=COMMAND)
    until(lambda: handle.done)
    whole(job, 2, losses=0)
    handle.close()


# ----------------------------------------------------------------------- settings


@pytest.fixture
def settings_folder(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path / "settings"))


def test_settings_are_kept(settings_folder, tmp_path):
    assert read_settings() == ClusterSettings()
    kept = ClusterSettings(address="host:8786", tls_ca="~/ca.pem", path_map="/here=/there")
    write_settings(kept)
    assert read_settings() == kept
    assert kept.address == "tcp://host:8786"
    assert kept.tls_ca == str(Path.home() / "ca.pem")
    assert settings_file().stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"address": "nonsense"}', '{"who": 1}'])
def test_settings_that_do_not_fit(settings_folder, text):
    settings_file().parent.mkdir()
    settings_file().write_text(text)
    with pytest.raises(InputError, match=r"cluster\.json"):
        read_settings()


def test_every_setting_has_its_help():
    assert all(field.description for field in ClusterSettings.model_fields.values())


_names = st.text(
    st.characters(exclude_characters="/=\n\0", exclude_categories=["C", "Z"]), min_size=1
)


@given(st.lists(_names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3))
def test_a_mapped_path_keeps_what_lies_below(parts):
    settings = ClusterSettings(path_map="/data/here=/mnt/there")
    assert settings.there(Path("/data/here", *parts)) == str(Path("/mnt/there", *parts))
    assert settings.there(Path("/data/here-too", *parts)) == str(Path("/data/here-too", *parts))
    windows = ClusterSettings(path_map="/data/here=Z:\\there")
    assert windows.there(Path("/data/here/a/b")) == "Z:\\there\\a\\b"


# ----------------------------------------------------------------------- the queue


def test_a_queued_job_waits_for_its_scheduler(two, pending, project, soon, monkeypatch):
    """However long it is away; why is said once."""
    monkeypatch.setattr(elsewhere, "BACK_OFF_S", 0.001)
    with closed() as nowhere:
        job = pending(where=nowhere, epochs=2)
    with changing(project / "jobs") as order:
        order.append(job.id)
    tries = []

    def hand(where: str, folder: Path) -> cluster.Handle:
        tries.append(where)
        back = len(tries) > MOST_TRIES + 1
        return run_on(two.address if back else where, folder, NONE, command=COMMAND)

    monkeypatch.setattr(cluster, "CONNECT_S", 0.2)
    supervisor = Supervisor(project / "jobs", elsewhere=Elsewhere(hand))
    until(lambda: supervisor.look() and len(tries) > MOST_TRIES, LIMIT_S)
    assert job.status().state is State.PENDING
    (note,) = job.events()[0]
    assert "No Dask scheduler answers" in note.text
    monkeypatch.setattr(cluster, "CONNECT_S", 8.0)
    until(lambda: not supervisor.look(), LIMIT_S)
    whole(job, 2, losses=0)


def test_the_supervisor_hands_over_what_is_for_elsewhere(two, pending, project):
    job = pending(where=two.address)
    with changing(project / "jobs") as order:
        order.append(job.id)
    handing = Elsewhere(lambda where, folder: run_on(where, folder, NONE, command=COMMAND))
    supervisor = Supervisor(project / "jobs", elsewhere=handing)
    lost, limit = False, time.monotonic() + LIMIT_S
    while supervisor.look():
        if not lost and (job.folder / "checkpoint").exists():
            _lose(two, job)
            lost = True
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert lost
    whole(job)
    leaves_nothing(project)
