"""The server's process: what it refuses to load, and when it is gone."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from napari_backsplit.backend.errors import BackSplitError, InputError, UntrustedModelError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.structures import serve
from napari_backsplit.backend.structures.engines import EngineCancelled, EngineError
from napari_backsplit.backend.structures.server import Server

Change = Callable[[Path], None]


def quiet(words: str) -> None:
    pass


def never() -> bool:
    return False


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(scope="module")
def running(tiny_model: Path, own_settings: Path) -> Iterator[Server]:
    """Start a server, at the second attempt."""
    made = Server(tiny_model, "cpu", 1)
    with pytest.raises(EngineCancelled):
        made.start(quiet, lambda: made.pid is not None)
    pid = made.pid
    made.start(quiet, never)
    assert made.pid == pid, "the start that was cancelled goes on and is waited for"
    yield made
    made.kill()


@pytest.fixture
def server(tiny_model: Path, own_settings: Path) -> Iterator[Server]:
    made = Server(tiny_model, "cpu", 1)
    yield made
    made.kill()


class Creates:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (open, (str(self.file), "w"))


def malicious(folder: Path) -> None:
    """Put code into the checkpoint, as torch would load it with weights_only=False."""
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(checkpoint, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Creates(folder / "created"), 2))
        archive.writestr("archive/version", "3\n")


def half_a_checkpoint(folder: Path) -> None:
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:150_000])


def no_checkpoint(folder: Path) -> None:
    shutil.rmtree(folder / "fold_0")


def foreign_plans(folder: Path) -> None:
    plans = read_json(folder / "plans.json")
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = "os.system"
    write_json(folder / "plans.json", plans)


def foreign_session(folder: Path) -> None:
    write_json(folder / "inference_info.json", {"inference_class": "subprocess.Popen"})


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (half_a_checkpoint, InputError, "no whole checkpoint"),
        (no_checkpoint, InputError, "checkpoint_final.pth"),
        (foreign_plans, UntrustedModelError, "os.system"),
        (foreign_session, UntrustedModelError, "subprocess.Popen"),
        (malicious, UntrustedModelError, "open"),
    ],
)
def test_a_model_that_is_not_what_it_should_be_is_refused(
    model: Path, change: Change, kind: type[BackSplitError], word: str
) -> None:
    assert serve.check(model).name == "checkpoint_final.pth"
    change(model)
    with pytest.raises(kind, match=word):
        serve.check(model)
    assert not (model / "created").exists()


def test_a_model_of_nnunet_is_refused(model: Path) -> None:
    import torch

    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"trainer_name": "nnUNetTrainer"}, checkpoint)
    with pytest.raises(InputError, match=r"no nnInteractive model.*nnUNetTrainer"):
        serve.check(model)


def test_the_refusal_of_the_servers_process_is_raised_here(model: Path, own_settings: Path) -> None:
    malicious(model)
    words: list[str] = []
    server = Server(model, "cpu", 1)
    with pytest.raises(UntrustedModelError, match="not loaded") as raised:
        server.start(words.append, never)
    assert raised.value.remedy
    assert words == ["starting the server", "checking the model"]
    assert server.pid is None
    assert not (model / "created").exists()


def test_a_device_that_is_not_there_is_refused(tiny_model: Path, own_settings: Path) -> None:
    server = Server(tiny_model, "cuda:77", 1)
    with pytest.raises(InputError, match="cuda:77"):
        server.start(quiet, never)


def test_it_listens_on_loopback_with_a_key_that_no_list_of_processes_shows(
    running: Server,
) -> None:
    assert running.ready
    assert running.url.startswith("http://127.0.0.1:")
    assert httpx.get(f"{running.url}/capabilities", trust_env=False).status_code == 401
    right = {"Authorization": f"Bearer {running.key}"}
    assert httpx.get(f"{running.url}/capabilities", headers=right, trust_env=False).is_success
    process = psutil.Process(running.pid)
    assert not any(running.key in word for word in process.cmdline())
    assert {c.laddr.ip for c in process.net_connections() if c.status == "LISTEN"} == {"127.0.0.1"}
    log = running.log.read_text()
    assert "Application startup complete" in log
    assert running.key not in log


def test_a_server_that_dies_while_it_starts_is_an_error(server: Server) -> None:
    with pytest.raises(EngineError, match="ended with code") as raised:
        server.start(lambda words: _kill(server) if words.startswith("checking") else None, never)
    assert str(server.log) in raised.value.remedy
    assert server.pid is None


def _kill(server: Server) -> None:
    assert server.pid is not None
    psutil.Process(server.pid).kill()


def test_the_patches_of_a_refinement_are_drawn_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from nnInteractive.utils import bboxes

    monkeypatch.setattr(bboxes, "random_sampling_fallback", bboxes.random_sampling_fallback)
    mask = torch.rand(60, 60, 60) > 0.9

    def drawn() -> Any:
        return bboxes.random_sampling_fallback(mask, (16, 16, 16), (2, 2, 2), 5)

    assert drawn() != drawn(), "nnInteractive draws alike by itself: serve.py need not see to it"
    serve._draw_the_same_patches()
    assert drawn() == drawn()


PARENT = """
import os, sys, time
from pathlib import Path
from napari_backsplit.backend.structures.server import Server

folder, how, stage = sys.argv[1:]
server = Server(Path(folder), "cpu", 1)

def tell(words):
    if words.startswith(stage):
        if how == "forked" and os.fork() == 0:
            time.sleep(30)  # It holds the other end of the server's input.
            os._exit(0)
        print(server.pid, flush=True)
        if how == "ends":
            sys.exit()
        time.sleep(600)

server.start(tell, lambda: False)
tell(stage)
"""


@pytest.mark.parametrize(
    ("how", "stage"),
    [("killed", "ready"), ("killed", "loading"), ("ends", "checking"), ("forked", "checking")],
)
def test_the_server_is_gone_when_its_parent_is(
    tiny_model: Path, own_settings: Path, how: str, stage: str
) -> None:
    if how == "forked" and not hasattr(os, "fork"):
        pytest.skip("nothing is forked here")
    command = [sys.executable, "-c", PARENT, str(tiny_model), how, stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        if how != "ends":
            parent.kill()
        server.wait(timeout=10)
        parent.stdout.close()
