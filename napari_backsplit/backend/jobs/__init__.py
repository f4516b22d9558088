"""Long work in a process of its own: a job folder, its worker, and who follows it."""

from napari_backsplit.backend.jobs.context import Cancelled, JobContext
from napari_backsplit.backend.jobs.events import Event, Metric, Note, Phase, Progress
from napari_backsplit.backend.jobs.follow import follow
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.queue import list_jobs, submit
from napari_backsplit.backend.jobs.registry import TASKS
from napari_backsplit.backend.jobs.spec import JobSpec, JobStatus, State

__all__ = [
    "TASKS",
    "Cancelled",
    "Event",
    "Job",
    "JobContext",
    "JobSpec",
    "JobStatus",
    "Metric",
    "Note",
    "Phase",
    "Progress",
    "State",
    "follow",
    "list_jobs",
    "submit",
]
