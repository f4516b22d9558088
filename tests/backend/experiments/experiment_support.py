"""What the tests of experiments share: a tiny plan, fake tasks, hand-made summaries."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_backsplit.backend.experiments.outcomes import DrawResult, Outcome
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.jobs import list_jobs

HERE = Path(__file__).parent
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from napari_backsplit.backend.jobs.worker import main;"
    "from fake_tasks import TASKS; sys.exit(main(sys.argv[1], tasks=TASKS))",
)
ENV = {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
FAKE: dict[str, Any] = {"command": COMMAND, "env": ENV, "poll_s": 0.02}
DATA = {
    "kind": "synthetic",
    "draws": [1, 2],
    "train": 2,
    "test": 1,
    "phantom": {"shape": [8, 10, 10]},
}


def arm(name: str, start: str | None = None, **run: Any) -> dict[str, Any]:
    return {"name": name, "start": start, "run": run}


BINARY, OURS = arm("binary", arm="binary"), arm("ours")


def plan_of(*arms: dict[str, Any], **fields: Any) -> ExperimentPlan:
    data = {**DATA, **fields.pop("data", {})}
    planned = {"folds": 2, **fields.pop("plan", {})}
    values = {"name": "tiny", "title": "Tiny", "data": data, "plan": planned}
    return ExperimentPlan.model_validate({**values, "arms": arms or (BINARY, OURS), **fields})


def until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.05)


def jobs_in(folder: Path) -> list[str]:
    """Return "project task attempt" of all jobs below a folder."""
    projects = sorted(file.parent for file in folder.rglob("project.json"))
    jobs = [(project.name, job) for project in projects for job in list_jobs(project)]
    return [f"{name} {job.spec.task} {job.status().attempt}" for name, job in jobs]


def end_jobs(folder: Path) -> None:
    for file in folder.rglob("project.json"):
        for job in list_jobs(file.parent):
            job.cancel(grace_s=0)
            job.wait(10)


def summary(
    arms: dict[str, dict[str, Any]],
    matched: tuple[tuple[Any, ...], ...] = (),
    lesion_cases: int = 4,
    free_cases: int = 2,
) -> dict[str, Any]:
    """Return a summary.json: arm -> figures; a figure of lesion-free cases begins with "free_"."""
    entries = []
    for group, cases in (("lesion", lesion_cases), ("lesion-free", free_cases)):
        for name, figures in arms.items():
            own = {k: v for k, v in figures.items() if k.startswith("free_") == ("-" in group)}
            means = {key.removeprefix("free_"): value for key, value in own.items()}
            entries.append(
                {
                    "target": "lesion",
                    "arm": name,
                    "group": group,
                    "cases": cases,
                    "missed": means.pop("missed", 0),
                    "means": means if cases else dict.fromkeys(means),
                }
            )
    return {
        "targets": ["lesion"],
        "summaries": entries,
        "matched_sensitivity": [
            {
                "target": "lesion",
                "arm": one,
                "against": against,
                "found": found,
                "false_positives": theirs,
                "point": None if ours is None else {"false_positives": ours},
            }
            for one, against, found, theirs, ours in matched
        ],
    }


def result(seed: int, made: dict[str, Any] | None, **outcomes: Outcome) -> DrawResult:
    """Return a draw of the arms "binary" and "ours", both done unless said otherwise."""
    done = {"binary": Outcome("done", hours=1.0), "ours": Outcome("done", hours=2.0)}
    return DrawResult(seed, {**done, **outcomes}, made)
