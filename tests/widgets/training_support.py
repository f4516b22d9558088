"""A backend that answers what a test tells it to, for the panel of training."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.improvement import Improvement
from napari_backsplit.backend.jobs.devices import Device
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.checks import Check, passed
from napari_backsplit.backend.training.estimate import Estimate
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.words import sentence
from napari_backsplit.widgets._asking import Scratch, Start
from napari_backsplit.widgets._improving import Ways

RUN = RunSpec(epochs=250, supports=("kidney",), baseline="jobs/0002-train/model")
ESTIMATE = Estimate(
    seconds=11_400.0,
    device_title="NVIDIA A",
    gpu_bytes=6_200_000_000,
    gpu_total_bytes=11_000_000_000,
    ram_bytes=None,
    disk_bytes=1_000_000,
    free_bytes=18_000_000_000,
    source="probe",
)


@dataclass
class Backend:
    """What the panel asks, and what it is answered; `gate` holds answers back."""

    starts: list[Start] = field(
        default_factory=lambda: [
            Start("0002-train", "binary (job 2)"),
            Start("0001-train", "binary (job 1)"),
        ]
    )
    checks: list[Check] = field(default_factory=lambda: [passed("model", "It is whole.")])
    estimate: Estimate | None = ESTIMATE
    measured: Estimate | None = ESTIMATE
    plan: PlanSpec | None = None
    error: Exception | None = None
    made: dict[str, int] = field(default_factory=dict)
    proposed: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    begun: list[Any] = field(default_factory=list)
    repeated: list[Any] = field(default_factory=list)
    probes: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    probe_gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()
        self.probe_gate.set()

    def ways(self) -> Ways:
        return Ways(
            starts=lambda folder: self.starts,
            propose=self.propose,
            sentence=sentence,
            estimate=lambda project, improvement: self.estimate,
            probe=self.probe,
            preflight=lambda project, improvement, estimate: self.checks,
            begin=self.begin,
            scratch=self.scratch,
            recommend=dict,
            folds=lambda project, improvement: 3,
            plan_sets=lambda folder: self.made,
            is_busy=lambda folder: False,
            devices=lambda: [Device("cuda:0", "NVIDIA A", 1), Device("cpu", "Processor", 1)],
            newest=lambda folder: "",
            answer=lambda folder, chain: None,
            test_cluster=lambda settings: "Connected: 2 workers.",
            repeat=lambda job, changes: self.repeated.append((job, changes)),
        )

    def propose(self, project: Project, model: str, changes: Mapping[str, Any]) -> Improvement:
        self.proposed.append((model, dict(changes)))
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        own = {
            k: changes[k] for k in ("control", "folds", "declare_unseen", "where") if k in changes
        }
        run = {k: v for k, v in changes.items() if k in RunSpec.model_fields}
        plan = changes.get("plan", self.plan)
        name = Path(model).name
        proposal = Improvement(model=model, run=RUN.model_copy(update=run), plan=plan, name=name)
        return replace(proposal, **own)

    def probe(
        self, project: Project, improvement: Improvement, stop: threading.Event
    ) -> Estimate | None:
        self.probes += 1
        while not self.probe_gate.wait(0.01):
            if stop.is_set():
                return None
        self.estimate = self.measured
        return self.measured

    def begin(self, project: Project, improvement: Improvement) -> str:
        self.gate.wait(10)
        self.begun.append(improvement)
        return "0003-train"

    def scratch(self, project: Project, scratch: Scratch) -> str:
        self.begun.append(scratch)
        return "0003-plan"


def unfit() -> InputError:
    return InputError("The model has 2 channels, the project 1.", "Choose another model.")
