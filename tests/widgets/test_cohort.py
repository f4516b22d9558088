"""The table of cases of a review, with many of them."""

from __future__ import annotations

from typing import Any

from pytestqt.qtbot import QtBot
from qtpy.QtWidgets import QStyledItemDelegate

from napari_backsplit.backend.fusion.review import CaseState, MaskState
from napari_backsplit.widgets._cohort import Cohort

NAMES = [f"structure_{number}" for number in range(12)]


class Measured(QStyledItemDelegate):
    """Counts how often a cell is measured."""

    count = 0

    def sizeHint(self, *given: Any) -> Any:
        type(self).count += 1
        return super().sizeHint(*given)


def state(number: int, ml: float = 3.0) -> CaseState:
    masks = tuple(MaskState(name, "accepted", ml, None, False) for name in NAMES)
    return CaseState(f"case_{number:03d}", None, False, masks)


def test_one_change_does_not_measure_every_row(qtbot: QtBot) -> None:
    cohort = Cohort()
    qtbot.addWidget(cohort)
    cohort.resize(360, 200)
    cohort.show()
    states = {f"case_{number:03d}": state(number) for number in range(500)}
    cohort.show_states(states, NAMES)
    counting = Measured()
    cohort.table.setItemDelegate(counting)
    Measured.count = 0
    cohort.show_states({**states, "case_007": state(7, 9.0)}, NAMES)
    assert cohort.table.topLevelItem(7).text(2) == "9 ✓"
    assert Measured.count < 5000, "each change of a cell measured its whole column"
