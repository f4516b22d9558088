"""The lesion table and the figures: sorting, narrowing, jumping, and what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytestqt.qtbot import QtBot
from qtpy.QtCore import QPoint, QPointF, Qt

from napari_backsplit.backend.shown import TableRow
from napari_backsplit.widgets._colours import colours_of
from napari_backsplit.widgets._figure_values import by_size, curve, dots, false_by_organ
from napari_backsplit.widgets._figures import NONE, Figures
from napari_backsplit.widgets._lesion_rows import (
    FILTERS,
    THIN,
    Pair,
    following,
    found_text,
    is_disagreement,
    place_text,
)
from napari_backsplit.widgets._lesion_table import LesionTable
from tests.widgets.comparing_support import TABLE, false_positive, lesion, result, with_froc

PAIR = Pair("base", "ours")


@pytest.fixture
def table(qtbot: QtBot) -> LesionTable:
    table = LesionTable()
    qtbot.addWidget(table)
    table.resize(360, 400)
    table.show()
    table.show_rows(TABLE, PAIR)
    return table


@pytest.fixture
def figures(qtbot: QtBot) -> Figures:
    figures = Figures()
    qtbot.addWidget(figures)
    figures.set_colours(colours_of("dark"))
    figures.resize(360, 320)
    figures.show()
    return figures


def texts(table: LesionTable, column: int) -> list[str]:
    model = table.model
    return [model.data(model.index(row, column)) for row in range(model.rowCount())]


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("title", "rows"),
    [
        ("All", [0, 1, 2, 3, 4, 6]),  # the control's own false positive concerns neither
        ("Disagreements", [1, 2, 3]),
        ("Missed", [1]),
        ("Found only by new", [3]),
        ("Found only by baseline", [1]),
        ("False positives", [2, 4]),
        ("Lesions", [0, 1, 3]),
    ],
)
def test_the_table_is_narrowed_to_what_is_asked_for(
    table: LesionTable, title: str, rows: list[int]
) -> None:
    table.filter.setCurrentText(title)
    assert table.model.shown == [TABLE[row] for row in rows]
    assert f"({len(rows)})" in table.title.text()


def test_every_filter_is_tested_above() -> None:
    assert len(FILTERS) == 7


def test_the_table_is_searched_for_cases_and_organs(table: LesionTable) -> None:
    table.search.setText("BOWEL")
    assert table.model.shown == [TABLE[2], TABLE[4]]
    table.search.setText("no such")
    assert table.none.isVisible()


def test_a_column_sorts_and_the_chosen_row_stays(table: LesionTable) -> None:
    table.go(TABLE[3])
    table.table.sortByColumn(2, Qt.SortOrder.DescendingOrder)
    assert [row.ml for row in table.model.shown if row.kind == "reference"] == [20.0, 5.0, 3.0]
    row = table.table.currentIndex().row()
    assert table.model.shown[row] is TABLE[3]
    assert table.here is TABLE[3]


def test_cells_say_by_whom_and_how_far(table: LesionTable) -> None:
    assert texts(table, 3) == [
        "●●",
        "●○",
        "○●",
        "○●",
        "●●",
        "–",
    ]
    assert found_text(lesion("c", 1), PAIR) == "○○"
    assert texts(table, 4)[1:3] == [f"0.50{THIN}→{THIN}0.00", "–"]
    assert texts(table, 5)[:3] == ["kidney", "kidney", "bowel"]
    assert place_text(false_positive("c", 1, organ=""), PAIR) == "12 mm kidney"


def test_every_column_is_seen_in_a_narrow_dock(table: LesionTable) -> None:
    table.resize(338, 400)
    table.show_rows([lesion("a_case_with_a_very_long_name", 1, "base")] * 40, PAIR)
    view = table.table
    last = table.model.columnCount() - 1
    right = view.columnViewportPosition(last) + view.columnWidth(last)
    assert right <= view.viewport().width()
    assert view.columnWidth(last) >= 50
    assert not view.horizontalScrollBar().isVisible()
    tip = table.model.data(table.model.index(0, 0), Qt.ItemDataRole.ToolTipRole)
    assert "a_case_with_a_very_long_name" in tip


def test_the_table_grows_with_its_panel(table: LesionTable) -> None:
    table.show_rows([lesion(f"case_{n:03}", 1, "base") for n in range(100)], PAIR)
    table.set_room(500)
    low = table.table.height()
    table.set_room(1400)
    assert table.table.height() > low + 200


def test_the_case_that_comes_next_is_the_one_that_the_same_key_leads_to(
    table: LesionTable,
) -> None:
    rows = [
        lesion("case_001", 1, "base"),
        lesion("case_002", 1, "base", "ours"),
        lesion("case_003", 1, "base"),
        lesion("case_004", 1, "base"),
    ]
    table.show_rows(rows, PAIR)
    table.jump("disagreement")
    assert table.next_case() == "case_003"
    table.jump("disagreement")
    assert table.next_case() == "case_004"
    table.jump("disagreement", -1)
    assert table.next_case() == "case_004", "backwards it begins anew at the other end"
    table.step_case(1)
    assert table.next_case() == "case_003"
    table.step_case(1)
    table.step_case(-1)
    assert table.next_case() == "case_001"


def test_a_click_on_a_row_goes_there_and_the_keyboard_does_too(
    table: LesionTable, qtbot: QtBot
) -> None:
    chosen: list[TableRow] = []
    table.chosen.connect(chosen.append)
    view = table.table
    at = view.visualRect(table.model.index(1, 0)).center()
    qtbot.mouseClick(view.viewport(), Qt.MouseButton.LeftButton, pos=at)
    assert chosen == [TABLE[1]]
    qtbot.keyClick(view, Qt.Key.Key_Down)
    assert chosen[-1] is TABLE[2]


def test_jumps_go_on_into_the_next_case_and_begin_anew(table: LesionTable) -> None:
    chosen: list[TableRow] = []
    told: list[str] = []
    table.chosen.connect(chosen.append)
    table.told.connect(told.append)
    for _ in range(4):
        table.jump("disagreement")
    assert chosen == [TABLE[1], TABLE[2], TABLE[3], TABLE[1]]
    assert "again" in told[0]
    table.jumps["disagreement", -1].click()
    assert chosen[-1] is TABLE[3]


def test_a_jump_to_a_hidden_row_lists_all_again(table: LesionTable) -> None:
    table.filter.setCurrentText("Lesions")
    table.jump("false")
    assert table.here is TABLE[2]
    assert table.model.row_of(TABLE[2]) >= 0


def test_where_there_is_nothing_to_go_to_the_button_is_off(table: LesionTable) -> None:
    told: list[str] = []
    table.told.connect(told.append)
    table.show_rows(TABLE[:1], PAIR)
    assert not table.jumps["missed", 1].isEnabled()
    table.jump("missed")
    assert told == ["There is no missed lesion."]


def test_set_from_outside_the_table_tells_nothing(table: LesionTable) -> None:
    chosen: list[TableRow] = []
    table.chosen.connect(chosen.append)
    table.mark_case("case_002")
    table.show_rows(TABLE, Pair("base", "control"))
    assert table.here is TABLE[3]
    assert not chosen


def test_ten_thousand_rows_need_no_widget_each(table: LesionTable) -> None:
    rows = [lesion(f"case_{n // 20:03}", n % 20, "base") for n in range(10_000)]
    table.show_rows(rows, PAIR)
    assert table.model.rowCount() == 10_000
    assert len(table.table.findChildren(LesionTable)) == 0
    assert table.table.viewport().children() == []


@given(
    marks=st.lists(st.sampled_from(["", "base", "ours", "both"]), min_size=1, max_size=12),
    start=st.integers(0, 11),
)
def test_stepping_on_visits_every_wanted_row_once(marks: list[str], start: int) -> None:
    arms = {"": (), "base": ("base",), "ours": ("ours",), "both": ("base", "ours")}
    rows = [lesion("case_001", n, *arms[mark]) for n, mark in enumerate(marks)]
    wanted = [row for row in rows if is_disagreement(row, PAIR)]
    here: TableRow | None = rows[start % len(rows)]
    visited = []
    for _ in wanted:
        found, _ = following(rows, here, is_disagreement, PAIR, 1)
        if found is None:
            break
        visited.append(found)
        here = found
    others = [row for row in wanted if row is not rows[start % len(rows)]]
    assert len({id(row) for row in visited}) == len(visited)
    assert {id(row) for row in visited} >= {id(row) for row in others}


# ---------------------------------------------------------------- the figures


def test_the_numbers_behind_the_figures_are_those_of_the_table() -> None:
    shown = result()
    assert [(d.case, d.old, d.new) for d in dots(shown, "lesion", PAIR)] == [
        ("case_001", 0.6, 0.7),
        ("case_002", 0.0, 0.5),
    ]
    (size,) = by_size(shown, "lesion", PAIR)
    assert size.said == ("2/3", "2/3")
    (organ,) = false_by_organ(shown, "lesion", PAIR)
    assert (organ.name, organ.old, organ.new) == ("bowel", 2.0, 4.0)
    assert curve(shown, "lesion", "ours") == []
    assert curve(with_froc(shown), "lesion", "ours") == [(2 / 3, 2 / 3), (4 / 3, 1.0)]


def test_small_lesions_stand_left_of_large_ones() -> None:
    small = lesion("case_001", 3, ml=0.2)
    small = TableRow(**{**small.__dict__, "stratum": "< 1 ml"})
    shares = by_size(result(table=(*result().table, small)), "lesion", PAIR)
    assert [(share.name, share.said[1]) for share in shares] == [
        ("< 1 ml", "0/1"),
        ("1 to 10 ml", "2/3"),
    ]


def test_a_click_on_a_dot_tells_its_case(figures: Figures, qtbot: QtBot) -> None:
    with qtbot.waitExposed(figures):
        figures.show_result(result(), "lesion", PAIR)
    canvas = figures.dice.canvas
    box = canvas.getViewBox()
    qtbot.waitUntil(lambda: 0 < box.width() < canvas.width() == figures.width())
    told: list[str] = []
    figures.chosen.connect(told.append)

    def is_told() -> bool:
        canvas.grab()  # drawn, so that everything is where it stays
        point = canvas.mapFromScene(box.mapViewToScene(QPointF(1.0, 0.5)))
        qtbot.mouseMove(canvas.viewport(), point)
        qtbot.mouseClick(canvas.viewport(), Qt.MouseButton.LeftButton, pos=QPoint(point))
        return bool(told)

    qtbot.waitUntil(is_told)  # the first click may meet a plot that is still laid out
    assert set(told) == {"case_002"}


def test_the_keyboard_goes_from_dot_to_dot(figures: Figures, qtbot: QtBot) -> None:
    figures.show_result(result(), "lesion", PAIR)
    canvas = figures.dice.canvas
    qtbot.keyClick(canvas, Qt.Key.Key_Up)
    assert figures.said.text() == "case_001: Dice 0.60 → 0.70 (+0.10)"
    qtbot.keyClick(canvas, Qt.Key.Key_Up)
    with qtbot.waitSignal(figures.chosen) as told:
        qtbot.keyClick(canvas, Qt.Key.Key_Return)
    assert told.args == ["case_002"]


def test_a_figure_that_cannot_be_drawn_says_why(figures: Figures) -> None:
    figures.show_result(result(), "lesion", PAIR)
    figures.tabs["FROC"].click()
    assert figures.said.text() == NONE["FROC"]
    assert not figures.pages.isVisible()
    figures.show_result(with_froc(result()), "lesion", PAIR)
    assert figures.pages.isVisible()
    assert figures.froc.filled


def test_a_result_without_lesions_or_false_positives_draws_nothing(figures: Figures) -> None:
    figures.show_result(result(rows=(), table=()), "lesion", PAIR)
    for title, words in NONE.items():
        figures.tabs[title].click()
        assert figures.said.text() == words


def test_many_organs_are_cut_and_that_is_said(figures: Figures) -> None:
    table = [false_positive("c", n, "ours", organ=f"organ number {n}") for n in range(9)]
    figures.show_result(result(table=tuple(table)), "lesion", PAIR)
    figures.tabs["False positives"].click()
    assert "and 3 more" in figures.said.text()


def test_every_dot_of_five_hundred_cases_is_drawn(figures: Figures) -> None:
    shown = result()
    first = [row for row in shown.rows if row.case == "case_001"]
    rows = [
        type(row)(f"case_{n:03}", row.patient, row.target, row.arm, row.seen, row.measures)
        for n in range(500)
        for row in first
    ]
    figures.show_result(result(rows=tuple(rows)), "lesion", PAIR)
    x, y = figures.dice.points.getData()
    assert len(x) == 1000
    assert set(np.round(y, 3)) == {0.6, 0.7}
