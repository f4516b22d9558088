"""The way to a server elsewhere: its address, its trust, and its errors in plain words."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_backsplit.backend.structures.engines import EngineError
from napari_backsplit.backend.structures.settings import EngineSettings

if TYPE_CHECKING:
    import httpx

CLIENT_VERSION = (2, 0)
"""Oldest nnInteractive whose server speaks as the client does."""

_NEEDED = (
    "supported_interactions",
    "channel_mapping",
    "num_interaction_channels",
    "supports_initial_label",
    "supports_zero_shot_label_refinement",
    "preferred_scribble_thickness",
    "interaction_decay",
    "inference_session_version",
)
"""What the client reads of a server's capabilities, without a default."""

_CONNECT_S = 10.0
_ANSWER_S = 30.0
_LEASE_ERRORS: Mapping[str, int] = {"SessionExpiredError": 410, "ServerAtCapacityError": 503}
_PROXY_ANSWERS = (407, 502, 504)
_PLAIN_ANSWERS = (401, 403, 404, 413)
"""Mean the same, whether a proxy in front of the server or the server itself says so."""


@dataclass(frozen=True)
class Reached:
    """What a server said about itself.

    Attributes
    ----------
    version : str
        Of its nnInteractive.
    licence : str
        Of its model.
    """

    url: str
    version: str
    licence: str


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = _parsed(url).host
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def checked_url(settings: EngineSettings) -> str:
    """Return the address of the server elsewhere; nothing is connected.

    Raises
    ------
    EngineError
        It is no web address, or neither HTTPS nor loopback and this was not allowed.
    """
    url = settings.url.strip()
    if not url:
        raise EngineError("No address of a server is set.", "Write one, as https://host:1527.")
    if not re.match(r"https?://", url):
        named = url.rpartition("@")[2]
        raise EngineError(
            f"The address {named} does not say how to connect.",
            f"Write http:// or https:// before it, as https://{named.rpartition('://')[2]}.",
        )
    parsed = _parsed(url)
    if not parsed.host or parsed.userinfo:
        raise EngineError(
            f"The address {shown(url)} has no host, or a name and password in it.",
            "Write it as https://host:1527; the key has a field of its own.",
        )
    if parsed.scheme == "http" and not is_loopback(url) and not settings.insecure:
        raise _unprotected(url)
    return url.rstrip("/")


def _unprotected(url: str) -> EngineError:
    parsed = _parsed(url)
    port = parsed.port or 80
    return EngineError(
        f"Images would go unprotected to {shown(url)}.",
        f"Use https://, or a tunnel: `ssh -N -L 1527:127.0.0.1:{port} {parsed.host}` and then "
        "http://127.0.0.1:1527; or allow a server without HTTPS in the settings.",
    )


def _parsed(url: str) -> httpx.URL:
    import httpx

    try:
        parsed = httpx.URL(url)
        if parsed.port is not None and not 0 < parsed.port < 2**16:
            raise httpx.InvalidURL(f"there is no port {parsed.port}")
    except httpx.InvalidURL as error:
        raise EngineError(
            f"{url.rpartition('@')[2]} is no address: {error}.", "Write one, as https://host:1527."
        ) from error
    return parsed


def shown(url: str) -> str:
    """Return an address without name, password, path and query."""
    parsed = _parsed(url)
    port = f":{parsed.port}" if parsed.port else ""
    return f"{parsed.scheme}://{parsed.host}{port}"


def test_connection(settings: EngineSettings) -> Reached:
    """Connect to the server elsewhere, claim a session and give it back.

    Raises
    ------
    EngineError
        It cannot be reached or used; the remedy says what to do.
    """
    url = checked_url(settings)
    with _client(url, settings.key) as client:
        reached = _capabilities(client, url)
        lease = _answer(client, url, "POST", "/claim").get("lease_token", "")
        _answer(client, url, "POST", "/release", {"X-Lease-Token": str(lease)})
    return reached


test_connection.__test__ = False  # type: ignore[attr-defined]  # No test: named as the button is.


def reach(url: str, key: str) -> Reached:
    """Ask a server what it is. It takes no session.

    Raises
    ------
    EngineError
        As `test_connection`.
    """
    with _client(url, key) as client:
        return _capabilities(client, url)


def _client(url: str, key: str) -> httpx.Client:
    import httpx

    return httpx.Client(
        base_url=url,
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
        trust_env=not is_loopback(url),
    )


def _capabilities(client: httpx.Client, url: str) -> Reached:
    said = _answer(client, url, "GET", "/capabilities")
    version = str(said.get("inference_session_version", ""))
    if any(key not in said for key in _NEEDED) or _numbers(version) < CLIENT_VERSION:
        raise _other_version(url, version)
    return Reached(url, version, str(said.get("license") or ""))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version)[:2])


def _other_version(url: str, version: str) -> EngineError:
    return EngineError(
        f"The server at {shown(url)} is nnInteractive {version or 'of an unknown version'}, which "
        "this client does not understand.",
        "Update nninteractive on the server to version 2.6 or newer.",
    )


def _answer(
    client: httpx.Client, url: str, method: str, path: str, headers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    try:
        response = client.request(method, path, headers=headers)
        response.raise_for_status()
        content = response.json()
    except Exception as error:
        raise explain(error, url) from error
    if not isinstance(content, dict):
        raise _no_server(url)
    return content


def explain(error: BaseException, url: str) -> EngineError:
    """Say in plain words what went wrong between this machine and a server.

    Parameters
    ----------
    error : Exception
        What httpx or nnInteractive's client raised.
    url : str
        The server's address.
    """
    import httpx

    lease = _LEASE_ERRORS.get(type(error).__name__)
    if lease is not None:
        return _by_status(lease, url, str(error))
    if isinstance(error, httpx.HTTPStatusError):
        return _by_response(error.response, url)
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError | KeyError):
        return _no_server(url)
    if isinstance(error, httpx.TransportError):
        return _by_cause(error, url)
    return EngineError(
        f"The server at {shown(url)} gave an answer that was not understood: {error}.",
        "Try again; check the versions of nnInteractive here and there.",
    )


def _by_response(response: httpx.Response, url: str) -> EngineError:
    if response.is_redirect:
        where = response.headers.get("location", "")
        return EngineError(
            f"The server at {shown(url)} sends to another address: {where}.", "Write that one."
        )
    detail = _detail(response)
    status = response.status_code
    if status in _PROXY_ANSWERS or (detail is None and status not in _PLAIN_ANSWERS):
        return _proxy(url, status)
    return _by_status(status, url, detail or "no reason given")


def _detail(response: httpx.Response) -> str | None:
    """Return what nnInteractive's server says about an error; None if it did not speak."""
    if response.status_code == 500:  # The only error without words of its own.
        return ""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return None


def _by_status(status: int, url: str, detail: str) -> EngineError:
    where = shown(url)
    texts = {
        401: (f"The server at {where} refused the key.", "Correct the key in the settings."),
        403: (f"The server at {where} refuses access.", "Ask who runs it for access."),
        404: (f"There is no nnInteractive server at {where}.", "Correct the address."),
        410: (f"The session on {where} has expired.", "Click again: it is taken up anew."),
        413: (
            f"The image is too large for the server at {where}: {detail}.",
            "Crop the image, or use a server with more memory.",
        ),
        500: (
            f"The server at {where} failed.",
            "Try again; its log says why. Graphics memory may be short.",
        ),
        503: (
            f"All sessions of the server at {where} are taken: {detail}.",
            "Try again in a minute, or start it with more --max-sessions.",
        ),
    }
    default = (f"The server at {where} refused this ({status}): {detail}.", "Try another prompt.")
    return EngineError(*texts.get(status, default))


def _by_cause(error: httpx.TransportError, url: str) -> EngineError:
    import httpx

    where, host = shown(url), _parsed(url).host
    causes = list(_causes(error))
    if isinstance(error, httpx.ProxyError):
        return _proxy(url, None)
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return EngineError(
            f"No safe connection to {where}: {error}.",
            "Check that it speaks HTTPS with a valid certificate; SSL_CERT_FILE names your own.",
        )
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return EngineError(f"The name {host} is not known.", "Correct the address; check the VPN.")
    if isinstance(error, httpx.TimeoutException):
        return EngineError(
            f"The server at {where} did not answer in time.",
            "Check the address, the firewall and the load of the server.",
        )
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return EngineError(
            f"Nothing listens at {where}.", "Start the server, or correct the address or tunnel."
        )
    reason = str(error) or type(error).__name__
    return EngineError(f"The connection to {where} failed: {reason}.", "Try again.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _proxy(url: str, status: int | None) -> EngineError:
    said = f" ({status})" if status else ""
    return EngineError(
        f"A proxy answered in place of the server at {shown(url)}{said}.",
        f"Set NO_PROXY={_parsed(url).host} for this program, or ask who runs the proxy.",
    )


def _no_server(url: str) -> EngineError:
    return EngineError(
        f"What answers at {shown(url)} is no nnInteractive server; it may be a proxy.",
        f"Correct the address, or set NO_PROXY={_parsed(url).host}.",
    )
