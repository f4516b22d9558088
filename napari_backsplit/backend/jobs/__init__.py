"""Long work in a process of its own: a job folder, its worker, and who follows it."""

from napari_backsplit.backend.jobs.chain import Chain, ChainStatus, chains, repeat
from napari_backsplit.backend.jobs.context import Cancelled, JobContext
from napari_backsplit.backend.jobs.events import Event, Metric, Note, Phase, Picture, Progress
from napari_backsplit.backend.jobs.follow import follow
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.queue import (
    enqueue,
    ensure_supervisor,
    go_on,
    list_jobs,
    move,
    queued,
    size_bytes,
    submit,
)
from napari_backsplit.backend.jobs.registry import TASKS
from napari_backsplit.backend.jobs.spec import Cause, JobSpec, JobStatus, State

__all__ = [
    "TASKS",
    "Cancelled",
    "Cause",
    "Chain",
    "ChainStatus",
    "Event",
    "Job",
    "JobContext",
    "JobSpec",
    "JobStatus",
    "Metric",
    "Note",
    "Phase",
    "Picture",
    "Progress",
    "State",
    "chains",
    "enqueue",
    "ensure_supervisor",
    "follow",
    "go_on",
    "list_jobs",
    "move",
    "queued",
    "repeat",
    "size_bytes",
    "submit",
]
