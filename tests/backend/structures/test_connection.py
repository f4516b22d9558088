"""A server elsewhere: what may be used, and what is said when it cannot be."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from napari_backsplit.backend.structures import connection
from napari_backsplit.backend.structures.engines import EngineError
from napari_backsplit.backend.structures.nninteractive import NNInteractive
from napari_backsplit.backend.structures.settings import EngineSettings

KEY = "a-secret-key"
CAPABILITIES = {
    "supported_interactions": {"points": True},
    "channel_mapping": {"prev_seg": 0, "points": [1, 2]},
    "num_interaction_channels": 7,
    "supports_initial_label": True,
    "supports_zero_shot_label_refinement": True,
    "preferred_scribble_thickness": [2, 2, 2],
    "interaction_decay": 0.98,
    "inference_session_version": "2.6.0",
    "license": "CC BY-NC-SA 4.0",
}
LEASE = {"lease_token": "t", "idle_timeout_seconds": 600.0, "liveness_timeout_seconds": 0.0}
HTML = "<html>Access through the proxy of the hospital</html>"
Reply = tuple[int, Any]


class StandIn:
    """A server on loopback that answers as it is told."""

    def __init__(self, **replies: Reply) -> None:
        self.replies: dict[str, Reply] = {
            "/capabilities": (200, CAPABILITIES),
            "/claim": (200, LEASE),
            "/release": (200, {"released": True}),
        }
        self.replies |= {f"/{path}": reply for path, reply in replies.items()}
        self.asked: list[str] = []
        self.port = 0


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            stand_in.asked.append(self.path)
            status, content = stand_in.replies.get(self.path, (404, {"detail": "Not Found"}))
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                status, content = 401, {"detail": "Invalid bearer token"}
            text = content if isinstance(content, str) else json.dumps(content)
            self.send_response(status)
            if status in (301, 307):
                self.send_header("Location", "https://elsewhere.example/")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET

        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def elsewhere(url: str, key: str = KEY, **more: Any) -> EngineSettings:
    return EngineSettings(where="elsewhere", url=url, key=key, **more)


def refused(settings: EngineSettings) -> EngineError:
    with pytest.raises(EngineError) as raised:
        connection.test_connection(settings)
    assert raised.value.remedy
    assert KEY not in str(raised.value)
    return raised.value


def test_a_connection_that_works_says_version_and_licence_and_leaves_no_session() -> None:
    stand_in = StandIn()
    with serving(stand_in) as url:
        reached = connection.test_connection(elsewhere(f" {url}/ "))
    assert reached == connection.Reached(url, "2.6.0", "CC BY-NC-SA 4.0")
    assert stand_in.asked == ["/capabilities", "/claim", "/release"]


@pytest.mark.parametrize(
    ("path", "reply", "problem", "remedy"),
    [
        ("claim", (410, {"detail": "lease expired"}), "expired", "taken up anew"),
        ("claim", (413, {"detail": "limit is 8 bytes"}), "too large.*limit is 8", "Crop"),
        ("claim", (413, HTML), "too large", "Crop"),
        ("claim", (500, "Internal Server Error"), "failed", "log"),
        ("claim", (503, {"detail": "at capacity (2 sessions)"}), "taken.*2 sessions", "minute"),
        ("claim", (400, {"detail": "bad"}), r"\(400\): bad", "another"),
        ("capabilities", (403, HTML), "refuses access", "access"),
        ("capabilities", (404, {"detail": "Not Found"}), "no nnInteractive server", "address"),
        ("capabilities", (407, HTML), r"proxy answered.*407", "NO_PROXY=127.0.0.1"),
        ("capabilities", (502, HTML), r"proxy answered.*502", "NO_PROXY"),
        ("capabilities", (503, HTML), r"proxy answered.*503", "NO_PROXY"),
        ("capabilities", (200, HTML), "no nnInteractive server.*proxy", "NO_PROXY"),
        ("capabilities", (200, [1]), "no nnInteractive server", "address"),
        ("capabilities", (307, ""), "https://elsewhere.example/", "Write that one"),
        ("capabilities", (200, {"version": 1}), "unknown version", "Update"),
        (
            "capabilities",
            (200, CAPABILITIES | {"inference_session_version": "1.1.2"}),
            "nnInteractive 1.1.2",
            "2.6",
        ),
    ],
)
def test_each_answer_that_is_no_success_is_explained(
    path: str, reply: Reply, problem: str, remedy: str
) -> None:
    with serving(StandIn(**{path: reply})) as url:
        error = refused(elsewhere(url))
    assert_says(error, problem, remedy)


def assert_says(error: EngineError, problem: str, remedy: str) -> None:
    assert re.search(problem, error.problem), error.problem
    assert re.search(remedy, error.remedy), error.remedy


def test_a_wrong_key_is_said_to_be_wrong() -> None:
    with serving(StandIn()) as url:
        assert_says(refused(elsewhere(url, "another")), "refused the key", "Correct the key")
        assert_says(refused(elsewhere(url, "")), "refused the key", "Correct the key")


def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    error = refused(elsewhere(f"http://127.0.0.1:{port}"))
    assert_says(error, f"Nothing listens at http://127.0.0.1:{port}", "tunnel")


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = refused(elsewhere(f"http://127.0.0.1:{silent.getsockname()[1]}"))
    assert_says(error, "did not answer in time", "firewall")


def test_a_server_without_tls_behind_an_https_address() -> None:
    with serving(StandIn()) as url:
        error = refused(elsewhere(url.replace("http:", "https:")))
    assert_says(error, "No safe connection", "HTTPS")


def test_a_name_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: Any, **more: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = refused(elsewhere("https://no-such-host.example"))
    assert_says(error, "no-such-host.example is not known", "VPN")


def test_a_proxy_that_is_not_there_is_named_as_such() -> None:
    error = connection.explain(httpx.ProxyError("403 Forbidden"), "https://host:1527")
    assert_says(
        error, "proxy answered in place of the server at https://host:1527", "NO_PROXY=host"
    )


def test_proxies_of_the_environment_are_not_asked_about_loopback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:9")
    stand_in = StandIn()
    with serving(stand_in) as url:
        engine = NNInteractive(elsewhere(url))
        about = engine.start(lambda words: None)
        engine.close()
    assert (about.model, about.licence) == (f"as served by {url}", "CC BY-NC-SA 4.0")
    assert stand_in.asked == ["/capabilities", "/claim", "/capabilities", "/release"]


@pytest.mark.parametrize(
    ("reply", "problem"), [((401, {"detail": "no"}), "key"), ((503, {"detail": "full"}), "taken")]
)
def test_the_engine_explains_what_the_official_client_raises(reply: Reply, problem: str) -> None:
    with serving(StandIn(claim=reply)) as url:
        engine = NNInteractive(elsewhere(url))
        with pytest.raises(EngineError, match=problem):
            engine.start(lambda words: None)
        engine.close()


@pytest.mark.parametrize(
    ("url", "problem", "remedy"),
    [
        ("", "No address", "https://host:1527"),
        ("host:1527", "host:1527 does not say how", "https://host:1527"),
        ("ftp://host", "does not say how", "https://host"),
        ("https://", "has no host", "https://host:1527"),
        ("https://me:word@host", "https://host has no host, or a name and password", "key"),
        ("http://host:99999", "no address.*99999", "Write one"),
        ("http://host:port", "no address", "Write one"),
        ("http://10.0.0.7:1528", "unprotected", "ssh -N -L 1527:127.0.0.1:1528 10.0.0.7"),
        ("http://gpu.example", "unprotected", "ssh -N -L 1527:127.0.0.1:80 gpu.example"),
    ],
)
def test_an_address_is_judged_before_anything_is_sent(
    url: str, problem: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: pytest.fail("it connected"))
    error = refused(elsewhere(url))
    assert_says(error, problem, remedy)
    assert "word" not in error.problem.replace("password", "")


@pytest.mark.parametrize(
    ("url", "insecure"),
    [
        ("https://gpu.example:1527", False),
        ("http://gpu.example:1527", True),
        ("http://localhost:1527", False),
        ("http://127.0.0.3:1527", False),
        ("http://[::1]:1527", False),
    ],
)
def test_https_a_tunnel_or_an_explicit_word_is_enough(url: str, insecure: bool) -> None:
    assert connection.checked_url(elsewhere(url, insecure=insecure)) == url


def test_a_tunnel_leads_elsewhere_too() -> None:
    assert elsewhere("http://127.0.0.1:1527").is_elsewhere
    assert not EngineSettings(url="https://gpu.example").is_elsewhere
