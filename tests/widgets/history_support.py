"""Job folders of a project with a past, written by hand: nothing is started."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from napari_backsplit.backend.jobs.spec import JobSpec, Record, State

LONG = "Fine-tune renal-cysts-2026-portal-venous with kidney and liver: "
LINKS = ("plan", "train", "train", "predict", "predict", "predict", "compare")


def write_job(
    project: Path,
    number: int,
    task: str = "train",
    state: State = State.SUCCEEDED,
    created: datetime | None = None,
    minutes: float = 30.0,
    record: dict[str, Any] | None = None,
    **spec: Any,
) -> Path:
    """Write a job as one that ended, or that waits."""
    folder = project / "jobs" / f"{number:04d}-{task}"
    (folder / "control").mkdir(parents=True)
    created = created or datetime.now(UTC)
    started = None if state is State.PENDING else created
    over = state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)
    ended = created + timedelta(minutes=minutes) if over else None
    what = {"params": {}, **spec}
    made = JobSpec(id=folder.name, task=task, created=created, **what)
    told = Record(state=state, started=started, ended=ended, **(record or {}))
    (folder / "status.json").write_text(told.model_dump_json())
    (folder / "job.json").write_text(made.model_dump_json())
    (folder / "log.txt").write_bytes(bytes(2000))
    return folder


def write_chain(
    project: Path, number: int, title: str, states: tuple[State, ...], created: datetime
) -> list[str]:
    """Write a chain of as many links as there are states; return their ids."""
    first, ids = "", list[str]()
    for n, state in enumerate(states):
        task = LINKS[n]
        needs = (ids[-1],) if ids else ()
        result = {"cases": 12} if state is State.SUCCEEDED else None
        folder = write_job(
            project,
            number + n,
            task,
            state,
            created + timedelta(minutes=25 * n),
            record={"result": result},
            title=f"{title}: {task}",
            chain=first,
            needs=needs,
            params={"epochs": 250 + number, "model": f"jobs/{ids[-1]}/model" if ids else ""},
        )
        first = first or folder.name
        ids.append(folder.name)
    return ids


def write_queue(project: Path, ids: list[str]) -> None:
    """Write the order of the queue; no supervisor looks at it."""
    (project / "jobs").mkdir(parents=True, exist_ok=True)
    (project / "jobs" / "queue.json").write_text(json.dumps({"order": ids}))


def write_past(project: Path, chains: int) -> None:
    """Write many chains of every state; of those that wait the newest is last in the queue."""
    now, order, number = datetime.now(UTC), list[str](), 1
    kinds = (
        (State.SUCCEEDED,) * 7,
        (State.SUCCEEDED, State.FAILED, State.PENDING),
        (State.SUCCEEDED, State.CANCELLED, State.PENDING, State.PENDING),
        (State.SUCCEEDED,),
    )
    for n in range(chains):
        created = now - timedelta(hours=9 * (chains - n))
        waits = n >= chains - 3 and chains > 3
        states = (State.PENDING,) * 4 if waits else kinds[n % 4]
        title = LONG.rstrip(": ") if n % 3 == 0 else f"Train on {n} cases"
        ids = write_chain(project, number, title, states, created)
        number += len(ids)
        order += ids if waits else []
    write_queue(project, order)
