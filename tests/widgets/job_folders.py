"""Job folders written by hand: a chain of five, whose second link trains."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_backsplit.backend.jobs import Job, Metric, Note, Phase, Progress, State
from napari_backsplit.backend.jobs.events import EventLog, Picture
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.gauges import Gauges, GpuGauge, _write
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.queue import make
from napari_backsplit.backend.jobs.spec import Record, now

TITLE = "Fine-tune renal with kidney"
RUN = {"workers": 1, "batch_size": 2, "initial_lr": 0.01, "device": "cuda:0"}
GB = 10**9
SECONDS = {"data": 5.0, "forward": 2.0, "backward": 2.0, "validation": 0.9, "checkpoint": 0.1}


@dataclass
class Written:
    """A chain of a project, and the link of it that trains."""

    project: Path
    name: str
    job: Job

    @property
    def files(self) -> JobFolder:
        return JobFolder(self.job.folder)

    def say(self, *events: Any) -> None:
        log = EventLog(self.files.events_file)
        for event in events:
            log.append(event)
        log.close()

    def state(self, state: State, **changes: Any) -> None:
        """Let the training be in a state; its worker is this process."""
        if state in (State.FAILED, State.CANCELLED, State.SUCCEEDED):
            changes = {"ended": now(), **changes}
        record = Record(state=state, started=now() - timedelta(hours=2), worker=mark(), **changes)
        self.files.write_record(record)
        self.beat()

    def beat(self, age_s: float = 0.0) -> None:
        self.files.heartbeat_file.touch()
        then = time.time() - age_s
        os.utime(self.files.heartbeat_file, (then, then))

    def lose(self) -> None:
        """Let the worker be gone for 40 s."""
        record = self.files.read_record()
        gone = record.worker.model_copy(update={"started": "before"})
        self.files.write_record(record.model_copy(update={"worker": gone}))
        self.beat(40)

    def epochs(self, count: int, seconds: dict[str, float] = SECONDS) -> None:
        """Let it say what a training of some epochs says."""
        self.say(Phase("train"))
        for epoch in range(count):
            share = epoch / 250
            self.say(
                Metric("training loss", epoch, 0.5 - share),
                Metric("validation loss", epoch, 0.6 - share),
                Metric("target Dice", epoch, share),
                Metric("Dice of kidney", epoch, 1 - share),
                Metric("learning rate", epoch, 0.01 * (1 - share)),
                *(Metric(f"seconds: {part}", epoch, s) for part, s in seconds.items()),
                Metric("seconds: epoch", epoch, sum(seconds.values())),
                Progress(epoch + 1, 250, f"epoch {epoch + 1} of 250", 9600.0),
            )

    def picture(self, epoch: int) -> None:
        name = f"pictures/epoch_{epoch:04d}.png"
        path = self.job.folder / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((40, 60), epoch, np.uint8)).save(path)
        self.say(Picture(name, epoch, "case_007"))

    def measure(self) -> None:
        gpu = GpuGauge("cuda:0", "NVIDIA RTX 2080 Ti", 71.0, int(6.2 * GB), 11 * GB)
        gauges = Gauges(time.time(), 312.0, 8, int(9.4 * GB), 32 * GB, (gpu,))
        _write(self.job.folder / "gauges.json", gauges)


def write_chain(project: Path, device: str = "cuda:0") -> Written:
    """Write a chain whose first link is done and whose second runs."""
    plan = make(project, "plan", {}, f"{TITLE}: plan")
    how = {"chain": plan.id, "device": device}
    run = {"run": {**RUN, "device": device}}
    train = make(project, "train", run, f"{TITLE}: fine-tune", needs=(plan.id,), **how)
    control = make(project, "train", run, f"{TITLE}: control", needs=(plan.id,), **how)
    needs = (train.id, control.id)
    predict = make(project, "predict", {}, f"{TITLE}: predict", needs=needs, **how)
    make(project, "compare", {}, f"{TITLE}: compare", needs=(predict.id,), chain=plan.id)
    times = {"started": now() - timedelta(minutes=125), "ended": now() - timedelta(minutes=121)}
    JobFolder(plan.folder).write_record(Record(state=State.SUCCEEDED, **times))
    written = Written(project, plan.id, train)
    written.state(State.RUNNING)
    written.say(Note("warning", "The masks of liver were not reviewed.", time=time.time() - 7200))
    return written
