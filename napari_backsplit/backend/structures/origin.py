"""Where a mask comes from, told from its history: kept beside the mask as its provenance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from napari_backsplit.backend.structures.history import History

_BASE = ("engine", "model", "licence", "who", "when", "source_sha256", "notes", "resampled")


def provenance(history: History) -> dict[str, Any]:
    """Return the provenance of the mask that a history ends with.

    Engines, models and licences are those of every step that is done, and of the mask that the
    history began with; that one's own record is kept as ``based_on``.
    """
    steps = history.active()
    record: dict[str, Any] = {
        "engine": _joined([history.origin.get("engine", ""), *(s.about.engine for s in steps)]),
        "model": _joined([history.origin.get("model", ""), *(s.about.model for s in steps)]),
        "licence": _joined([history.origin.get("licence", ""), *(s.about.licence for s in steps)]),
        "prompts": [s.prompt.model_dump(mode="json") for s in steps if s.prompt is not None],
        "edits": sum(s.prompt is None for s in steps),
    }
    if history.origin:
        record["based_on"] = {k: history.origin[k] for k in _BASE if history.origin.get(k)}
    return record


def _joined(names: Iterable[str]) -> str:
    return " + ".join(dict.fromkeys(name for name in names if name))
