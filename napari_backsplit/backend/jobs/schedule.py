"""Which jobs of a queue may start now, and what the others wait for: no files, no processes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from napari_backsplit.backend.jobs.spec import FINAL, JobSpec, State

_WORDS = {
    State.FAILED: "failed",
    State.CANCELLED: "was cancelled",
    State.LOST: "is lost",
}


@dataclass(frozen=True)
class View:
    """What the queue knows of a job.

    Attributes
    ----------
    state : State or None
        None where the job's files cannot be read.
    launched : bool
        A worker was started for it.
    place : tuple of str
        Where it runs and the device it occupies there.
    """

    state: State | None
    needs: tuple[str, ...] = ()
    place: tuple[str, str] = ("", "cpu")
    launched: bool = False

    @property
    def active(self) -> bool:
        """Whether it occupies its place."""
        coming = self.state is State.PENDING and self.launched
        return coming or self.state in (State.RUNNING, State.PAUSED)

    @property
    def over(self) -> bool:
        """Whether it is in a final state."""
        return self.state in FINAL

    @property
    def waiting(self) -> bool:
        """Whether it can be started or resumed."""
        return self.state is State.LOST or (self.state is State.PENDING and not self.launched)

    @property
    def elsewhere(self) -> bool:
        """Whether a scheduler gives it to one of its workers: those are not counted here."""
        return bool(self.place[0])


Views = Mapping[str, View]


def occupied(spec: JobSpec) -> tuple[str, str]:
    """Return what a job occupies; "cuda" is the first of the GPUs."""
    return spec.where, "cuda:0" if spec.device == "cuda" else spec.device


def due(order: Sequence[str], views: Views, resting: Collection[str] = ()) -> list[str]:
    """Return the jobs to start now: in the order, needs met, on this machine one a device.

    Parameters
    ----------
    order : sequence of str
        Ids of the queued jobs.
    views : mapping
        All jobs of the project; those that are not queued occupy their place too.
    resting : collection of str
        Jobs that keep their turn but shall not start yet.
    """
    taken = {view.place for view in views.values() if view.active and not view.elsewhere}
    found = []
    for job in order:
        view = views.get(job)
        if view is None or view.place in taken or not _ready(view, views):
            continue
        if not view.elsewhere:
            taken.add(view.place)
        found.append(job)
    return [job for job in found if job not in resting]


def is_left(order: Sequence[str], views: Views) -> bool:
    """Whether any queued job runs, or can run without a person's help."""
    able: dict[str, bool] = {}

    def can(job: str) -> bool:
        if job not in able:
            able[job] = False  # A circle of needs never runs.
            view = views.get(job)
            able[job] = view is not None and (
                view.active
                or view.state is State.SUCCEEDED
                or (job in order and view.waiting and all(map(can, view.needs)))
            )
        return able[job]

    return any(can(job) for job in order if job in views and not views[job].over)


def waits_for(job: str, order: Sequence[str], views: Views) -> str:
    """Say what a pending job waits for; "" where it is started next or was started just now."""
    view = views[job]
    if view.active:
        return ""
    for need in view.needs:
        state = views[need].state if need in views else None
        if state is not State.SUCCEEDED:
            gone = "" if need in views else "is gone"
            why = gone if state is None else _WORDS.get(state, "")
            return f"waits for {need}, which {why}" if why else f"waits for {need}"
    if job not in order:
        return "is not in the queue"
    return _waits_for_place(job, order, views)


def _waits_for_place(job: str, order: Sequence[str], views: Views) -> str:
    place = views[job].place
    if views[job].elsewhere:
        return f"waits for a worker of {place[0]}"
    before = order[: order.index(job)]
    ahead = [j for j, view in views.items() if view.active and view.place == place]
    ahead += [j for j in before if j in views and _ready(views[j], views, place)]
    return f"waits for {place[1]}, after {ahead[-1]}" if ahead else ""


def _ready(view: View, views: Views, place: tuple[str, str] | None = None) -> bool:
    met = all(n in views and views[n].state is State.SUCCEEDED for n in view.needs)
    return view.waiting and met and place in (None, view.place)
