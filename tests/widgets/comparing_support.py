"""A comparison that was never computed, a backend that tells it, and layers that only listen."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_backsplit.backend.arms_asked import Arm
from napari_backsplit.backend.compare_settings import CompareSettings
from napari_backsplit.backend.comparing import Proposal, suggested
from napari_backsplit.backend.comparison.curves import OperatingPoint
from napari_backsplit.backend.comparison.results import Verdict
from napari_backsplit.backend.jobs.devices import Device
from napari_backsplit.backend.model_choices import CaseGroups, ModelChoice
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.shown import Listed, Shown, TableRow
from napari_backsplit.widgets._compare_asking import Asked, CompareWays
from tests.backend.improvement_support import row

BASE, OURS, CONTROL = "baselines/b", "jobs/0002-train/model", "jobs/0003-train/model"
MODELS = (
    ModelChoice("ours", OURS, "trained", "backsplit", "fine-tune with kidney (job 2)", BASE),
    ModelChoice("control", CONTROL, "trained", "binary", "the same training (job 3)", BASE),
    ModelChoice("base", BASE, "adopted", "", "adopted: b"),
)
GROUPS = CaseGroups(
    ("case_001", "case_002"),
    ("case_001", "case_002", "case_003"),
    ("case_001", "case_002", "case_003"),
    ("case_004",),
)
VERDICT = Verdict(
    "lesion",
    "ours",
    "base",
    "Finds 2 of 3 lesions against 2; Dice probably better: +0.05 [0.02, 0.08].",
    ("3 lesion cases.",),
    "better",
)


def lesion(case: str, number: int, *found_by: str, ml: float = 1.0) -> TableRow:
    """Return a row of a lesion that some arms find."""
    dice = {arm: 0.5 if arm in found_by else 0.0 for arm in ("base", "ours", "control")}
    return TableRow(
        case, "lesion", "reference", number, ml, "1 to 10 ml", found_by, dice, "kidney",
        "kidney", 0.0, (1, 2, number),
    )  # fmt: skip


def false_positive(case: str, number: int, *found_by: str, organ: str = "bowel") -> TableRow:
    """Return a row of something that some arms mark and that is no lesion."""
    return TableRow(
        case, "lesion", "false positive", number, 2.0, "1 to 10 ml", found_by, {}, organ,
        "kidney", 12.0, (3, 4, number),
    )  # fmt: skip


TABLE = (
    lesion("case_001", 1, "base", "ours", ml=20.0),
    lesion("case_001", 2, "base", ml=3.0),
    false_positive("case_001", 1, "ours"),
    lesion("case_002", 1, "ours", "control", ml=5.0),
    false_positive("case_002", 1, "base", "ours"),
    false_positive("case_002", 2, "control"),
    TableRow("case_003", "lesion", "nothing"),
)


def result(name: str = "0007-compare", **changes: Any) -> Shown:
    """Return a comparison of three models on three cases."""
    arms = ("base", "ours", "control")
    dice = {"base": (0.6, 0.0), "ours": (0.7, 0.5), "control": (0.6, 0.4)}
    rows = [
        row(f"case_{number:03}", arm, value)
        for arm, values in dice.items()
        for number, value in enumerate(values, 1)
    ]
    rows += [row("case_003", arm, 0.0, lesions=0) for arm in arms]
    shown = Shown(
        id=name,
        title="ours against base",
        arms=arms,
        controls=("control",),
        targets=("lesion",),
        cases=("case_001", "case_002", "case_003"),
        unlabelled=(),
        table=TABLE,
        rows=tuple(rows),
        verdicts=(VERDICT,),
        report=Path("nowhere/report.html"),
    )
    return replace(shown, **changes)


def with_froc(shown: Shown) -> Shown:
    """Return a result with operating points of both models."""
    points = tuple(OperatingPoint(t, 3 - n, 3, 4 - 2 * n, 3) for n, t in enumerate((0.2, 0.5)))
    return replace(shown, curves={"lesion": {"base": points, "ours": points}})


@dataclass
class Backend:
    """What the panel asks, and what it is answered; `gate` holds what it begins back."""

    choices: tuple[ModelChoice, ...] = MODELS
    groups: CaseGroups = GROUPS
    results: list[Listed] = field(default_factory=list)
    shown: dict[str, Shown] = field(default_factory=dict)
    error: Exception | None = None
    notes: tuple[str, ...] = ()
    todo: bool = True
    asked: list[Asked] = field(default_factory=list)
    begun: list[Asked] = field(default_factory=list)
    printed: list[Path] = field(default_factory=list)
    dicom: tuple[str, ...] = ()
    written: list[tuple[str, Path, Path]] = field(default_factory=list)
    going: str = ""
    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    def add(self, shown: Shown) -> None:
        """Let a result be there."""
        when = datetime(2026, 11, 1 + len(self.results), tzinfo=UTC)
        self.results.insert(0, Listed(shown.id, shown.title, when))
        self.shown[shown.id] = shown

    def ways(self) -> CompareWays:
        return CompareWays(
            models=lambda folder: self.choices,
            suggested=suggested,
            groups=lambda project, chosen: self.groups,
            propose=self.propose,
            begin=self.begin,
            listed=lambda folder: list(self.results),
            open_shown=lambda project, name: self.shown[name],
            predicted=lambda project, asked: result("", cases=(), verdicts=(), report=None),
            overlay=self.overlay,
            volumes_ml=lambda loaded: dict.fromkeys(range(1, 8), 1.25),
            running=lambda folder: self.going,
            write_pdf=self.write_pdf,
            came_as_dicom=lambda project, case: case in self.dicom,
            write_seg=self.write_seg,
            recommend=dict,
            devices=lambda: [Device("cuda:0", "NVIDIA A", 1), Device("cpu", "Processor", 1)],
            repeat=lambda job, changes: None,
        )

    def propose(self, project: Project, asked: Asked) -> Proposal:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        known = {choice.path: choice for choice in self.choices}
        labelled = tuple(c for c in asked.cases if c in self.groups.labelled)
        arms = [
            Arm(name, known[path], {}, asked.cases if self.todo else (), {}, None)
            for name, path in asked.models.items()
        ]
        unlabelled = tuple(c for c in asked.cases if c not in labelled)
        settings = CompareSettings.of(asked.settings)
        return Proposal(tuple(arms), labelled, unlabelled, settings, self.notes)

    def begin(self, project: Project, asked: Asked) -> str:
        self.gate.wait(10)
        self.begun.append(asked)
        return "0008-predict"

    def overlay(self, project: Project, shown: Shown, case: str, target: str, new: str) -> Any:
        return SimpleNamespace(case=case, target=target, arms=(shown.baseline, new))

    def write_seg(self, project: Project, case: str, folder: Path, file: Path) -> Path:
        self.written.append((case, folder, file))
        return file

    def write_pdf(self, report: Path) -> Path:
        self.printed.append(report)
        return report.with_suffix(".pdf")


class Listening(QObject):
    """Takes what the panel asks of the image, and shows nothing."""

    told = Signal(str)
    failed = Signal(object)
    shown = Signal(object)
    side_by_side_closed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def heard(*given: Any) -> None:
            self.asked.append((name, given[0] if len(given) == 1 else given))

        return heard

    def last(self, name: str) -> Any:
        """Return what was asked last under a name."""
        return next((given for what, given in reversed(self.asked) if what == name), None)

    def read(self, case: str, has_reference: bool = True) -> None:
        """Say that an overlay is on the image."""
        overlay = SimpleNamespace(case=case, arms=(), predictions={})
        self.shown.emit(SimpleNamespace(overlay=overlay, has_reference=has_reference))
