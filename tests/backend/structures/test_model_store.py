"""Models on this machine, and from a stand-in of the hub on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.errors import InputError, UntrustedModelError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.structures import model_store
from napari_backsplit.backend.structures.engines import EngineCancelled, EngineError
from napari_backsplit.backend.structures.nninteractive import NNInteractive, model_folder
from napari_backsplit.backend.structures.settings import EngineSettings

NAME = "nnInteractive_tiny"
PIECE = 2_000_000
STALL = 3_000_000
COMMIT = "0" * 39 + "1"
MANIFEST = {
    "schema_version": 1,
    "models": [
        {"id": "nnInteractive_../../evil", "display_name": "Evil", "path": NAME},
        {"id": "nnInteractive_other", "display_name": "Other", "path": "nnInteractive_other"},
        {"id": NAME, "display_name": "Tiny", "path": NAME, "default": True},
    ],
}


@pytest.fixture
def store(own_settings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NNINTERACTIVE_MODEL_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def put(store: Path, model: Path, name: str, age_s: float = 0) -> Path:
    folder = Path(shutil.copytree(model, store / "models" / name))
    moment = time.time() - age_s
    os.utime(folder / "fold_0" / "checkpoint_final.pth", (moment, moment))
    return folder


def test_the_newest_whole_model_is_used(store: Path, tiny_model: Path) -> None:
    assert model_store.models() == ()
    older, newer = put(store, tiny_model, "a", 60), put(store, tiny_model, "b")
    assert model_store.models() == (newer, older)
    checkpoint = newer / "fold_0" / "checkpoint_final.pth"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert model_store.models() == (older,)
    checkpoint.write_bytes(b"")
    (older / "plans.json").write_text("{")
    assert model_store.models() == ()


def test_a_chosen_folder_goes_before_the_store(store: Path, tiny_model: Path) -> None:
    put(store, tiny_model, "a")
    assert model_folder(EngineSettings(model_folder=str(tiny_model))) == tiny_model
    assert model_folder(EngineSettings()).name == "a"
    with pytest.raises(InputError, match="model folder is not whole"):
        model_folder(EngineSettings(model_folder=str(store)))


def test_the_licence_is_the_first_line_of_its_file(store: Path, tiny_model: Path) -> None:
    folder = put(store, tiny_model, "a")
    assert model_store.licence_of(folder) == "CC0 1.0"
    (folder / "LICENSE").unlink()
    assert model_store.licence_of(folder) == "unknown"
    write_json(folder / "plans.json", {"dataset_name": "Dataset225_nnInteractiveV2"})
    assert model_store.licence_of(folder) == "CC BY-NC-SA 4.0"


def test_looking_needs_no_network(
    store: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "socket", lambda *a, **b: pytest.fail("it opened a socket"))
    put(store, tiny_model, "a")
    assert NNInteractive.look(EngineSettings()).state == "ready"


@dataclass
class Hub:
    """What the stand-in of the hub serves, and how."""

    root: Path
    url: str = ""
    stalls: bool = False
    released: threading.Event = field(default_factory=threading.Event)
    sent: list[tuple[str, int]] = field(default_factory=list)

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.root.rglob("*") if path.is_file()]
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in paths}

    def info(self) -> dict[str, Any]:
        siblings = [
            {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
            for name, content in self.files().items()
        ]
        card = {"license": "cc-by-nc-sa-4.0"}
        return {"id": "MIC-DKFZ/nnInteractive", "sha": COMMIT, "cardData": card} | {
            "siblings": siblings,
            "private": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
        }

    def tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
            for n, c in self.files().items()
        ]


@pytest.fixture
def hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(tmp_path / "hub")
    shutil.copytree(tiny_model, made.root / NAME)
    write_json(made.root / "models.json", MANIFEST)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(made)) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
        yield made
        server.shutdown()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path.startswith("/api/") and "/tree/" in path:
                self._send(json.dumps(hub.tree()).encode(), {})
            elif path.startswith("/api/"):
                self._send(json.dumps(hub.info()).encode(), {})
            else:
                self._file(path.rpartition(f"/{path.split('/resolve/')[-1].split('/')[0]}/")[2])

        do_HEAD = do_GET

        def _file(self, name: str) -> None:
            content = hub.files().get(name)
            if content is None:
                self.send_error(404)
                return
            found = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "")
            start = int(found[1]) if found else 0
            if self.command == "GET":
                hub.sent.append((name, start))
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if found:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._send(content[start:], headers, 206 if found else 200)

        def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "HEAD":
                return
            stalled = hub.stalls and len(content) > STALL
            self.wfile.write(content[:STALL] if stalled else content)
            if stalled:
                hub.released.wait(30)

        def log_message(self, *arguments: Any) -> None:
            pass

    return Handler


def never() -> bool:
    return False


def test_what_is_offered_says_size_and_licence_before_anything_large_is_got(
    store: Path, hub: Hub
) -> None:
    offers = model_store.offered()
    size = sum(len(c) for name, c in hub.files().items() if name.startswith(f"{NAME}/"))
    assert offers[0] == model_store.Offer(NAME, "Tiny", size, "CC BY-NC-SA 4.0", NAME)
    assert [offer.id for offer in offers] == [NAME, "nnInteractive_other"]
    assert {name for name, _ in hub.sent} == {"models.json"}
    assert model_store.models() == ()


def test_a_download_that_is_cut_off_is_no_model_and_goes_on_later(store: Path, hub: Hub) -> None:
    large = b"\0" * (2 * STALL)
    (hub.root / NAME / "notes.bin").write_bytes(large)
    offer = model_store.offered()[0]
    words: list[str] = []
    hub.stalls = True
    with pytest.raises(EngineCancelled):
        model_store.download(offer, words.append, lambda: _got(store) >= PIECE)
    hub.stalls = False
    hub.released.set()
    assert model_store.models() == ()
    folder = model_store.download(offer, words.append, never)
    assert "checking the model" in words
    assert model_store.models() == (folder,) == (store / "models" / NAME,)
    assert (folder / "notes.bin").read_bytes() == large
    assert any(name.endswith("notes.bin") and start >= PIECE for name, start in hub.sent)
    sent = len(hub.sent)
    assert model_store.download(offer, words.append, never) == folder
    assert len(hub.sent) == sent


def _got(store: Path) -> int:
    return sum(part.stat().st_size for part in store.rglob("*.part"))


def test_a_malicious_model_does_not_enter_the_store(store: Path, hub: Hub) -> None:
    plans = hub.root / NAME / "plans.json"
    plans.write_text(plans.read_text().replace("torch.nn.LeakyReLU", "os.system"))
    with pytest.raises(UntrustedModelError, match=r"os\.system"):
        model_store.download(model_store.offered()[0], lambda words: None, never)
    assert model_store.models() == ()


def test_no_space_left_is_said_before_the_download(store: Path, hub: Hub) -> None:
    offer = model_store.Offer(NAME, "Tiny", 10**18, "CC0", NAME)
    with pytest.raises(InputError, match="MB left"):
        model_store.download(offer, lambda words: None, never)
    assert hub.sent == []


def test_without_a_network_it_is_an_error_with_a_way_out(
    store: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(EngineError, match="could not be used") as raised:
        model_store.offered()
    assert "copy a model folder" in raised.value.remedy
