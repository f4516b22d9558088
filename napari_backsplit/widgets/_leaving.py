"""What is done for a dock that napari deletes without closing it."""

from __future__ import annotations

from contextlib import suppress

from napari_backsplit.widgets._desk import Desk


def abandon(desk: Desk, gone: object = None) -> None:
    """Write what changed where the dock is gone without having been closed; nobody is told."""
    with suppress(RuntimeError):  # Qt has deleted it already
        if not desk.closed:
            desk.blockSignals(True)
            desk.hop.finish()
            desk.close()
