"""nnInteractive's own server, started by us on this machine and ended with us."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.structures.child import Child, Report
from napari_backsplit.backend.structures.settings import settings_file

MODULE = "napari_backsplit.backend.structures.serve"
KEY = "NN_INTERACTIVE_API_KEY"
SILENCE_S = 600.0
"""A large model on a slow disk takes minutes to read."""

_KEPT_LOGS = 5
_WORDS = {"checking": "checking the model", "loading": "loading the model"}


class Server:
    """A server for one model, on a free port of the loopback interface, with a random key.

    Parameters
    ----------
    folder : Path
        The model; its safe loader runs in the server's process.
    device : str
        "auto", "cpu", "mps", "cuda", "cuda:1".
    threads : int
        CPU threads; 0: all but one of the cores.
    """

    def __init__(self, folder: Path, device: str = "auto", threads: int = 0) -> None:
        self.folder = folder
        self.device = device
        self.threads = threads or max(1, (os.cpu_count() or 2) - 1)
        self.key = ""
        self.sha256 = ""
        self.runs_on = ""
        self.url = ""
        self.log = log_file()
        self._child: Child | None = None

    @property
    def pid(self) -> int | None:
        """Number of its process; None if there is none."""
        return self._child.pid if self._child is not None else None

    @property
    def ready(self) -> bool:
        """Whether it runs and listens."""
        return bool(self.url) and self._child is not None and self._child.alive

    def start(self, tell: Callable[[str], None], cancelled: Callable[[], bool]) -> None:
        """Start it and wait until it listens; at once if it does.

        Raises
        ------
        EngineCancelled
            `cancelled` came true; it goes on starting, and the next call waits for it.
        EngineError, InputError, UntrustedModelError
            It cannot; the model is refused.
        """
        if self.ready:
            return
        child = self._launched(tell)
        try:
            while not self.url:
                self._take(child.report(cancelled, SILENCE_S), tell)
        except BackSplitError:
            self.kill()
            raise

    def _launched(self, tell: Callable[[str], None]) -> Child:
        if self._child is None or not self._child.alive:
            self.kill()
            tell("starting the server")
            self.key = secrets.token_urlsafe(32)
            arguments = [str(self.folder.resolve()), "--device", self.device]
            arguments += ["--threads", str(self.threads)]
            environment = {KEY: self.key, "HF_HUB_OFFLINE": "1"}
            self._child = Child(MODULE, arguments, environment, self.log)
        return self._child

    def _take(self, report: Report, tell: Callable[[str], None]) -> None:
        if report["state"] == "ready":
            self.sha256, self.runs_on = report["sha256"], report["device"]
            self.url = f"http://127.0.0.1:{report['port']}"
        else:
            tell(_WORDS[report["state"]])

    def kill(self) -> None:
        """End it, whatever it does; its memory and its GPU's are free afterwards."""
        if self._child is not None:
            self._child.kill()
        self._child, self.url = None, ""


def log_file() -> Path:
    """Return a file for what this process' servers print; only the newest few are kept."""
    folder = settings_file().parent / "logs"
    logs = sorted(folder.glob("nninteractive-*.log"), key=lambda log: log.stat().st_mtime)
    for old in logs[:-_KEPT_LOGS]:
        old.unlink(missing_ok=True)
    return folder / f"nninteractive-{os.getpid()}.log"
