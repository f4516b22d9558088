"""The engine `nninteractive`: nnInteractive's server, ours or elsewhere, by its own client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.structures import client, connection, model_store
from napari_backsplit.backend.structures.child import POLL_S
from napari_backsplit.backend.structures.engines import (
    About,
    Answer,
    EngineCancelled,
    EngineError,
    EngineState,
    Request,
)
from napari_backsplit.backend.structures.lease import Lease
from napari_backsplit.backend.structures.prompts import (
    KINDS,
    Bounds,
    bounds_of,
    check_inside,
    slices,
)
from napari_backsplit.backend.structures.server import Server
from napari_backsplit.backend.structures.settings import EngineSettings

TITLE = "nnInteractive"
ATTEMPTS = 3
PATIENCE_S = 3.0
"""How long a cancelled prediction may go on before its server is killed."""

CLOSING_S = 1.0
"""How long closing waits for a server elsewhere to take its session back."""

_NO_LICENCE = ("!!MISSING!!", "")
_AGAIN = frozenset({"SessionExpiredError"})
T = TypeVar("T")


@dataclass(frozen=True)
class _Address:
    url: str
    key: str
    model: str


@dataclass(frozen=True)
class _Abandoned:
    """A prediction that nobody waits for any more."""

    call: Future[Any]
    until: float


class NNInteractive:
    """nnInteractive, deep learning from prompts.

    A box is taken as its middle slice along its shortest axis: the models know flat boxes only.

    Parameters
    ----------
    settings : EngineSettings
        Which model and device here, or which server elsewhere.
    """

    kinds: tuple[str, ...] = KINDS

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self.server: Server | None = None
        self._lease: Lease | None = None
        self._address = _Address("", "", "")
        self._abandoned: _Abandoned | None = None
        self._tell: Callable[[str], None] = lambda words: None

    @property
    def device(self) -> str:
        """The device of this machine that computes: cpu, mps, cuda or cuda:N; "" for none."""
        return self.server.runs_on if self.server is not None else ""

    @staticmethod
    def look(settings: EngineSettings) -> EngineState:
        """Say whether it can be used with some settings. Nothing is started or connected."""
        if find_spec("nnInteractive") is None:
            raise ModuleNotFoundError("nnInteractive is missing", name="nnInteractive")
        try:
            model, licence = _look_elsewhere(settings) or _look_here(settings)
        except BackSplitError as error:
            return EngineState("nninteractive", TITLE, "needs", error.problem, error.remedy)
        return EngineState("nninteractive", TITLE, "ready", model=model, licence=licence)

    def start(self, tell: Callable[[str], None]) -> About:
        """Start our server or connect to the one elsewhere; see `Engine.start`."""
        self._tell = tell
        session = self._persistently(lambda: self._connected(lambda: False)).session
        licence = str(session.license or "")
        if licence in _NO_LICENCE:
            licence = model_store.UNKNOWN_LICENCE
        return About("nninteractive", self._address.model, licence)

    def segment(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        """Answer a request; see `Engine.segment`."""
        shape = request.mask.shape
        for prompt in request.prompts:
            check_inside(prompt, (shape[0], shape[1], shape[2]))
        return self._persistently(lambda: self._attempt(request, cancelled))

    def close(self) -> None:
        """End our server, or give the session elsewhere back."""
        if self.server is not None:
            self.server.kill()
        self.server = None
        self._drop().join(CLOSING_S)

    def _persistently(self, action: Callable[[], T]) -> T:
        """Do something with the server, again where it was lost and is back."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return action()
            except (BackSplitError, EngineCancelled):
                raise
            except Exception as error:  # Whatever httpx and the client raise is explained.
                self._recover(error, attempt)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        lease = self._connected(cancelled)
        stop = threading.Event()
        call = _called(lambda: lease.advance(request, stop.is_set))
        try:
            changed = _awaited(call, cancelled)
        except EngineCancelled:
            stop.set()
            self._abandon(call)
            raise
        return _answer(request, lease, changed)

    def _connected(self, cancelled: Callable[[], bool]) -> Lease:
        self._settle(cancelled)
        if self.server is not None and not self.server.ready:
            self._drop()
        if self._lease is None:
            self._address = self._reach(cancelled)
            url, key = self._address.url, self._address.key
            session = _awaited(_called(lambda: client.open_session(url, key)), cancelled)
            self._lease = Lease(session)
        return self._lease

    def _reach(self, cancelled: Callable[[], bool]) -> _Address:
        if self.settings.is_elsewhere:
            url = connection.checked_url(self.settings)
            self._tell("connecting to the server")
            _awaited(_called(lambda: connection.reach(url, self.settings.key)), cancelled)
            return _Address(url, self.settings.key, f"as served by {connection.shown(url)}")
        if self.server is None:
            folder = model_folder(self.settings)
            self.server = Server(folder, self.settings.device, self.settings.threads)
        self.server.start(self._tell, cancelled)
        model = f"{self.server.folder.name} {self.server.sha256[:12]}"
        return _Address(self.server.url, self.server.key, model)

    def _abandon(self, call: Future[Any]) -> None:
        """Leave a prediction alone: ours may end soon, one elsewhere is given up with its lease."""
        if self.server is None:
            self._drop()
        else:
            self._abandoned = _Abandoned(call, time.monotonic() + PATIENCE_S)

    def _settle(self, cancelled: Callable[[], bool]) -> None:
        """Wait a little for a prediction that was cancelled, or end it with its server."""
        if self._abandoned is None:
            return
        call, until = self._abandoned.call, self._abandoned.until
        while not call.done() and time.monotonic() < until:
            if cancelled():
                raise EngineCancelled
            time.sleep(POLL_S)
        self._abandoned = None
        fine = call.done() and isinstance(call.exception(), EngineCancelled | None)
        if fine and self._lease is not None:
            self._lease.forget()
        else:
            self._restart("ending a prediction that was cancelled")

    def _restart(self, words: str) -> None:
        self._tell(words)
        if self.server is not None:
            self.server.kill()
        self._drop()

    def _drop(self) -> threading.Thread:
        """Give the session back, on a thread: for some seconds it waits for the server's answer."""
        lease, self._lease, self._abandoned = self._lease, None, None
        close = (lambda: None) if lease is None else lease.session.close
        thread = threading.Thread(target=close, name="nninteractive-close", daemon=True)
        thread.start()
        return thread

    def _recover(self, error: Exception, attempt: int) -> None:
        """Get ready for another attempt, or raise what a person can act on."""
        if attempt == ATTEMPTS or not _worth_another(error):
            self._drop()
            raise self._explained(error) from error
        if attempt == 1:
            self._tell("the server was lost; taking up the work again")
            self._drop()
        else:
            self._restart("starting the server again")

    def _explained(self, error: Exception) -> EngineError:
        explained = connection.explain(error, self._address.url)
        if self.server is None:
            return explained
        return EngineError(explained.problem, f"Try again. {self.server.log} may say why.")


def _look_here(settings: EngineSettings) -> tuple[str, str]:
    folder = model_folder(settings)
    return folder.name, model_store.licence_of(folder)


def _look_elsewhere(settings: EngineSettings) -> tuple[str, str] | None:
    if not settings.is_elsewhere:
        return None
    return f"as served by {connection.shown(connection.checked_url(settings))}", ""


def model_folder(settings: EngineSettings) -> Path:
    """Return the folder of the model to use: the chosen one, or the newest of the store.

    Raises
    ------
    InputError
        There is none, or it is not whole.
    """
    if settings.model_folder:
        folder = Path(settings.model_folder).expanduser()
        if lacking := model_store.lacking(folder):
            raise InputError(
                f"The model folder is not whole. {lacking}",
                "Choose a folder with plans.json, dataset.json and fold_0/checkpoint_final.pth, or "
                "copy it again.",
            )
        return folder
    found = model_store.models()
    if not found:
        raise InputError(
            f"No nnInteractive model was found in {model_store.root()}.",
            "Download one, or choose a model folder in the settings.",
        )
    return found[0]


def _answer(request: Request, lease: Lease, changed: Bounds | None) -> Answer:
    """Cut the answer to what changed, and take finished structures out of it."""
    bounds = changed or request.prompts[-1].bounds()
    mask = lease.mask[slices(bounds)] != 0
    if request.forbidden is not None:
        mask &= ~request.forbidden[slices(bounds)]
    differs = bounds_of(mask != request.mask[slices(bounds)])
    if differs is None:
        return Answer(bounds, mask)
    pairs = zip(bounds, differs, strict=True)
    z, y, x = ((start + low, start + high) for (start, _), (low, high) in pairs)
    return Answer((z, y, x), mask[slices(differs)])


def _worth_another(error: Exception) -> bool:
    """Whether it may go better on a fresh session: it died, expired, or failed inside."""
    http = _http()
    if isinstance(error, http.HTTPStatusError):
        return bool(error.response.status_code == 500)
    lost = isinstance(error, http.TransportError) and not isinstance(error, http.TimeoutException)
    return lost or type(error).__name__ in _AGAIN


def _http() -> Any:
    import httpx

    return httpx


def _called(call: Callable[[], T]) -> Future[T]:
    """Make a call on a thread of its own, which does not keep the program from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="nninteractive-call", daemon=True).start()
    return future


def _awaited(call: Future[T], cancelled: Callable[[], bool]) -> T:
    while True:
        if cancelled():
            raise EngineCancelled
        try:
            return call.result(timeout=POLL_S)
        except TimeoutError:
            if call.done():
                return call.result()
