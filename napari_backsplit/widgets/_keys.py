"""What the keys do, in a window of its own."""

from __future__ import annotations

from qtpy.QtWidgets import QMessageBox, QWidget

from napari_backsplit.widgets._tools import KEYS, LOOKING


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
