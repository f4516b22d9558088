"""How the state of a job is told: a mark and a word, the same wherever one looks."""

from __future__ import annotations

from napari_backsplit.backend.jobs import State

MARKS: dict[State | None, str] = {
    State.PENDING: "…",
    State.RUNNING: "▶",
    State.PAUSED: "‖",
    State.SUCCEEDED: "✓",
    State.FAILED: "✗",
    State.CANCELLED: "■",
    State.LOST: "▲",
    None: "?",
}
WORDS: dict[State | None, str] = {
    State.PENDING: "waiting",
    State.RUNNING: "running",
    State.PAUSED: "paused",
    State.SUCCEEDED: "done",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
    State.LOST: "lost",
    None: "unreadable",
}
