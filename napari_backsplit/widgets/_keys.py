"""What the keys do, in a window of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_backsplit.widgets._orientation import show_next_plane
from napari_backsplit.widgets._tools import KEYS, LOOKING

if TYPE_CHECKING:
    from napari_backsplit.widgets._lesion_table import LesionTable
    from napari_backsplit.widgets._parts import PartsBox


def show_keys(parent: QWidget) -> QMessageBox:
    """Show what the keys do, in a window that may stay; returns it."""
    keys: dict[str, str] = {}
    for key, words in (*KEYS.values(), *LOOKING.values()):
        shown = key.replace("Control", "Ctrl").replace("-", "+")
        keys[shown] = "; ".join(dict.fromkeys(filter(None, (keys.get(shown), words))))
    keys["Ctrl+click"] = "turn ± over for one prompt"
    row = "<tr><td><b>{}</b>&nbsp;&nbsp;</td><td>{}</td></tr>"
    rows = "".join(row.format(key, words) for key, words in keys.items())
    sheet = QMessageBox(parent)
    sheet.setWindowTitle("Keys")
    sheet.setText(f"While the canvas has the focus:<br><table>{rows}</table>")
    sheet.setModal(False)
    sheet.show()
    return sheet


def looking_keys(viewer: ViewerModel, table: LesionTable, parts: PartsBox) -> dict[str, Any]:
    """Return what the keys of `LOOKING` do in the step that compares."""
    jumps = {
        name if step > 0 else f"{name} before": partial(table.jump, name, step)
        for name, step in table.jumps
    }
    return {
        **jumps,
        "case": partial(table.step_case, 1),
        "case before": partial(table.step_case, -1),
        "blink": parts.blink.toggle,
        "plane": lambda: show_next_plane(viewer),
    }
