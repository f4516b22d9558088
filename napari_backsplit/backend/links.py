"""Jobs queued as one thing: later ones name earlier ones before those have run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from napari_backsplit.backend.jobs import Job, enqueue


@dataclass
class Links:
    """The links of a new chain, queued in their order; if one cannot be, the others are cancelled.

    Attributes
    ----------
    folder : Path
        The project folder.
    where : str
        Address of the scheduler that runs them; "" for this machine.
    """

    folder: Path
    where: str = ""
    jobs: list[Job] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The name of the chain; "" before its first link."""
        return self.jobs[0].id if self.jobs else ""

    def add(
        self,
        task: str,
        params: Mapping[str, Any],
        title: str,
        needs: Sequence[str] = (),
        device: str = "cpu",
    ) -> str:
        """Queue a job and return its id."""
        job = enqueue(
            self.folder,
            task,
            params,
            title,
            needs=tuple(needs),
            chain=self.name,
            device=device,
            where=self.where,
        )
        self.jobs.append(job)
        return job.id

    def __enter__(self) -> Links:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            for job in reversed(self.jobs):
                job.cancel(0)
