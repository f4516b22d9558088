"""Curves for other programs: TensorBoard files always, MLflow or Weights & Biases on request.

They get numbers, the names of structures, and the id of the job; no case, path or machine. One that
fails is left out from then on: it never ends a training.
"""

from __future__ import annotations

import json
import queue
import re
import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json

TITLES = {"mlflow": "MLflow", "wandb": "Weights & Biases"}
PROJECT = "napari-backsplit"
CLOSE_S = 20.0
"""How long a training that is over waits for a tracker to send the rest."""

BROKEN_OFF_S = 1.0
"""The same for one that is cancelled or failed: who cancelled it waits."""

_WANDB = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "host": PROJECT,
    "program": PROJECT,
    "save_code": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Scalars only: without these it sends the machine's name, its paths and what the program says."""


def require_tracker(name: str) -> None:
    """Refuse a tracker that is not installed.

    Raises
    ------
    InputError
        With the command that installs it.
    """
    if name != "none" and find_spec(name) is None:
        raise InputError(
            f"{TITLES[name]} is not installed where the training runs.",
            f"Install it with `pip install {name}`, or train without a tracker.",
        )


class Tracker(Protocol):
    """Takes points of curves."""

    def add(self, name: str, step: int, value: float) -> None:
        """Take a finite value."""

    def close(self, wait_s: float) -> None:
        """Send what is left, within some seconds."""


class Trackers:
    """All trackers of a run.

    Parameters
    ----------
    tracker : str
        none, mlflow or wandb.
    folder : Path
        The job's folder.
    first_step : int
        Epoch that the attempt goes on from; what an earlier one reported from there on is void.
    note : callable
        Takes a sentence on a tracker that failed.
    """

    def __init__(
        self, tracker: str, folder: Path, first_step: int, note: Callable[[str], None]
    ) -> None:
        self._note = note
        self._open: dict[str, Tracker] = {}
        self._try("TensorBoard", lambda: TensorBoard(folder / "tensorboard", first_step))
        if tracker != "none":
            kinds: dict[str, Callable[[Path], Tracker]] = {"mlflow": Mlflow, "wandb": Wandb}
            self._try(TITLES[tracker], lambda: InTheBackground(lambda: kinds[tracker](folder)))

    def add(self, name: str, step: int, value: float) -> None:
        """Pass a point of a curve on."""
        if not isfinite(value):
            return
        for title, tracker in list(self._open.items()):
            self._guard(title, partial(tracker.add, plain_name(name), step, value))

    def __enter__(self) -> Trackers:
        """Return the trackers, to be closed after the block."""
        return self

    def __exit__(self, kind: Any, *error: object) -> None:
        """Send what is left."""
        wait_s = CLOSE_S if kind is None else BROKEN_OFF_S
        for title, tracker in list(self._open.items()):
            self._guard(title, partial(tracker.close, wait_s))
        self._open = {}

    def _try(self, title: str, make: Callable[[], Tracker]) -> None:
        self._guard(title, lambda: self._open.update({title: make()}))

    def _guard(self, title: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # Whatever it was, the training matters more.
            self._open.pop(title, None)
            self._note(
                f"{title} does not take the curves any more ({type(error).__name__}); the training "
                "goes on, and its curves are here."
            )


def plain_name(name: str) -> str:
    """Return the name of a curve as all trackers take it: "seconds: data" is "seconds/data"."""
    return re.sub(r"[^\w\-. /]", "_", name.replace(": ", "/"))


class TensorBoard:
    """A file that TensorBoard reads, one for each attempt.

    tensorboardX's own writer names its file after the machine; this one does not.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns() // 10**9}.{len(list(folder.iterdir()))}"
        self._messages = event_pb2
        self._file = RecordWriter(str(folder / name))
        self._write(file_version="brain.Event:2")
        if first_step:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step=first_step, session_log=start)

    def add(self, name: str, step: int, value: float) -> None:
        """Append a point; it is on the disk when this returns."""
        from tensorboardX.proto.summary_pb2 import Summary

        point = Summary.Value(tag=name, simple_value=value)
        self._write(step=step, summary=Summary(value=[point]))

    def close(self, wait_s: float) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, **content: Any) -> None:
        event = self._messages.Event(wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())
        self._file._writer.flush()  # its own flush waits for the disk, each time


class Mlflow:
    """A run of MLflow, named after the job; where to is set up as for any MLflow program.

    By its client: `mlflow.start_run` would also send the user's name and the program's path.
    """

    def __init__(self, folder: Path) -> None:
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self._run = kept_id(folder, "mlflow", lambda: self._new_run(folder.name))

    def _new_run(self, name: str) -> str:
        experiment = self._client.get_experiment_by_name(PROJECT)
        key = experiment.experiment_id if experiment else self._client.create_experiment(PROJECT)
        return str(self._client.create_run(key, run_name=name).info.run_id)

    def add(self, name: str, step: int, value: float) -> None:
        """Send a point."""
        self._client.log_metric(self._run, name, value, step=step)

    def close(self, wait_s: float) -> None:
        """Say that the run is over."""
        self._client.set_terminated(self._run)


class Wandb:
    """A run of Weights & Biases, named after the job."""

    def __init__(self, folder: Path) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT,
            name=folder.name,
            id=kept_id(folder, "wandb", lambda: secrets.token_hex(4)),
            resume="allow",
            dir=str(folder),
            settings=wandb.Settings(**_WANDB),
        )

    def add(self, name: str, step: int, value: float) -> None:
        """Send a point."""
        self._run.log({name: value}, step=step)

    def close(self, wait_s: float) -> None:
        """Say that the run is over."""
        self._run.finish()


def kept_id(folder: Path, tracker: str, make: Callable[[], str]) -> str:
    """Return the id of a job's run at a tracker, so that a resumed job goes on with it."""
    file = folder / "tracker.json"
    known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    if tracker not in known:
        known[tracker] = make()
        write_json(file, known)
    return known[tracker]


class InTheBackground:
    """Passes points to a tracker in a thread: a slow server holds up no training."""

    def __init__(self, make: Callable[[], Tracker]) -> None:
        self._points: queue.Queue[tuple[str, int, float] | None] = queue.Queue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._send, args=(make,), daemon=True)
        self._thread.start()

    def add(self, name: str, step: int, value: float) -> None:
        """Take a point, unless an earlier one could not be sent."""
        self._raise()
        self._points.put((name, step, value))

    def close(self, wait_s: float) -> None:
        """Wait for the rest, but not for long."""
        self._points.put(None)
        self._thread.join(wait_s)
        if self._thread.is_alive():
            raise TimeoutError
        self._raise()

    def _send(self, make: Callable[[], Tracker]) -> None:
        try:
            tracker = make()
            while (point := self._points.get()) is not None:
                tracker.add(*point)
            tracker.close(CLOSE_S)
        except Exception as error:  # Raised where the training can say it.
            self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
