"""The fourth step: whether it helped, on the image, in a table and in figures."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.components import ViewerModel
from qtpy.QtCore import Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_backsplit.backend.jobs.spec import FINAL, State
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.shown import Shown, TableRow
from napari_backsplit.widgets._choosing import ChoosingBox
from napari_backsplit.widgets._colours import follow_theme
from napari_backsplit.widgets._compare_asking import CompareWays
from napari_backsplit.widgets._comparing import Comparing
from napari_backsplit.widgets._comparison_layers import ComparisonLayers
from napari_backsplit.widgets._counted import Counted
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._figures import Figures
from napari_backsplit.widgets._jobs import JobMonitor
from napari_backsplit.widgets._keys import looking_keys
from napari_backsplit.widgets._layout import in_column, scrolling
from napari_backsplit.widgets._lesion_rows import Pair
from napari_backsplit.widgets._lesion_table import LesionTable
from napari_backsplit.widgets._parts import PartsBox
from napari_backsplit.widgets._result import ResultBox
from napari_backsplit.widgets._result_files import ResultFiles
from napari_backsplit.widgets._threads import Lane
from napari_backsplit.widgets._tools import Tools
from napari_backsplit.widgets._turns import Turns

if TYPE_CHECKING:
    from napari_backsplit.widgets._watch import ChainView

_NOBODY = Pair("", "")
_ORDER = ("choosing", "monitor", "result", "looking")
"""The parts, from above to below."""
_MESSAGE_PX = 90
"""How high a message below the panel is at most."""


class ComparisonPanel(QWidget):
    """The comparison, for the project that is on the desk.

    Parameters
    ----------
    viewer : ViewerModel
    desk : Desk
    tools : Tools
        Its keys are answered here while the step is shown.
    ways : CompareWays, optional
        What is asked of the backend.
    layers : ComparisonLayers, optional
        What is laid over the image; made here by default.

    Attributes
    ----------
    step_wanted : Signal
        Emits the number of another step that is to be shown.
    """

    step_wanted = Signal(int)

    def __init__(
        self,
        viewer: ViewerModel,
        desk: Desk,
        tools: Tools,
        ways: CompareWays | None = None,
        layers: Any = None,
    ) -> None:
        super().__init__()
        self._viewer, self._desk, self._tools = viewer, desk, tools
        self._ways = ways or CompareWays()
        self.comparing = Comparing(desk, self._ways)
        self.layers = layers or ComparisonLayers(viewer, desk, tools.layers)
        self._lane = Lane(desk.hop, desk.failed.emit, "looking")
        self.pair, self.target = _NOBODY, ""
        self._active = self._closed = False
        self._opened: Any = None
        self._case = ""
        self._asked_for, self._asked_case = 0, ""
        self._chain, self._over = "", False
        self._turns = Turns(self)
        self._room = 0
        self._forget_theme: Callable[[], object] = lambda: None
        self._build()
        self._connect()

    # ------------------------------------------------------------------ build

    def _build(self) -> None:
        """Make what is small; the rest is made when it is first asked for, as it takes long."""
        self.result = ResultBox()
        self.files = ResultFiles(self._desk, self.comparing, self.result, self._ways)
        self.parts, self.table = PartsBox(), LesionTable()
        self.counted = Counted(self._desk, self.parts, self._ways)
        self.looking = in_column(self.parts, self.table)
        self.looking.hide()
        self._inside = in_column()
        self._inside.layout().addStretch(1)
        self._inside.setMinimumWidth(1)  # a part that asks for too much is cut off, not all
        self._there: set[str] = set()
        self._put("result", self.result)
        self._put("looking", self.looking)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(scrolling(self._inside), 1)

    def _put(self, name: str, part: QWidget) -> None:
        above = self._there & set(_ORDER[: _ORDER.index(name)])
        self._there.add(name)
        layout = self._inside.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.insertWidget(len(above), part)

    @cached_property
    def choosing(self) -> ChoosingBox:
        """What is compared."""
        choosing = ChoosingBox(self._desk, self.comparing)
        self._put("choosing", choosing)
        return choosing

    @cached_property
    def monitor(self) -> JobMonitor:
        """What goes on."""
        monitor = JobMonitor(self._viewer)
        monitor.hide()
        monitor.changed.connect(self._seen)
        monitor.repeat_asked.connect(self._repeat)
        monitor.told.connect(self._desk.told)
        monitor.failed.connect(self._desk.failed)
        self._put("monitor", monitor)
        return monitor

    @cached_property
    def figures(self) -> Figures:
        """The figures of the result."""
        figures = Figures()
        figures.hide()
        figures.chosen.connect(self.open_case)
        self._forget_theme = follow_theme(self._viewer, figures.set_colours)
        self.destroyed.connect(self._forget_theme)  # napari does not close what it deletes
        self.looking.layout().addWidget(figures)
        return figures

    def _is_made(self, part: str) -> bool:
        return part in vars(self)

    def _connect(self) -> None:
        comparing, desk = self.comparing, self._desk
        comparing.begun.connect(self._begun)
        comparing.results_changed.connect(self._show_results)
        comparing.shown_changed.connect(self._show_result)
        for part in (self.table, self.layers):
            part.told.connect(desk.told)
        self.layers.failed.connect(desk.failed)
        self.result.wanted.connect(comparing.show)
        self.result.pair_wanted.connect(self._look_at)
        self.table.chosen.connect(self.go_to)
        self._connect_parts()
        desk.project_changed.connect(self._project_changed)
        desk.case_changed.connect(self._show_case)

    def _connect_parts(self) -> None:
        parts, layers = self.parts, self.layers
        parts.part_wanted.connect(layers.set_part)
        parts.outlines_wanted.connect(layers.set_outlines)
        parts.blink_wanted.connect(layers.set_blink)
        parts.side_wanted.connect(layers.set_side_by_side)
        parts.swipe_wanted.connect(layers.set_swipe)
        parts.probability_wanted.connect(layers.set_probability)
        layers.shown.connect(self._has_loaded)
        layers.side_by_side_closed.connect(parts.take_side_back)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Give the table more room in a high window (called by Qt).

        A message that comes and goes below the panel is no reason to move what is read.
        """
        super().resizeEvent(event)
        if abs(self.height() - self._room) > _MESSAGE_PX:
            self._room = self.height()
            self.table.set_room(self._room)

    # ------------------------------------------------------------------ shown or not

    def set_active(self, on: bool) -> None:
        """Begin to compare, or leave it."""
        if on == self._active:
            if on:
                self._look()
            return
        self._active = on
        self._turns.drop()
        self._tools.choose("look" if on else "point")
        self._tools.looking = looking_keys(self._viewer, self.table, self.parts) if on else {}
        if on:
            choosing = (lambda: self.choosing, lambda: self.choosing.form)
            begin = partial(self.layers.set_active, True)
            self._turns.do(*choosing, begin, self._look, self._show_case)
        else:
            self.layers.set_active(False)

    def close_all(self) -> None:
        """End the threads and take the layers away; jobs go on."""
        if self._closed:
            return
        self._closed = True
        self._turns.drop()
        self._forget_theme()
        self._tools.looking = {}
        self.comparing.close()
        if self._is_made("monitor"):
            self.monitor.close_all()
        self.layers.close()
        self.files.close()
        self.counted.close()
        self._lane.close(drop=True)

    def _project_changed(self) -> None:
        if self._active or self._desk.project is None:
            self._look()

    def _look(self) -> None:
        """Look at the project on the desk: anew, or again where models or results may be new."""
        project = self._desk.project
        if project is self._opened:
            self.comparing.again()
            self.comparing.look_for_results()
            return
        self._opened, self._chain = project, ""
        self.choosing.begin_anew()
        if self._is_made("monitor"):
            self._hide_monitor()
        self.comparing.open()
        if project is not None:
            work = partial(self._ways.running, project.folder)
            self._lane.do(work, partial(self._has_running, project))

    # ------------------------------------------------------------------ what goes on

    def _begun(self, chain: str) -> None:
        self._desk.told.emit("Begun. It goes on in the background, also when napari is closed.")
        self._watch(chain)

    def _has_running(self, project: Any, chain: str) -> None:
        if project is self._desk.project and chain and not self._chain:
            self._watch(chain)

    def _watch(self, chain: str) -> None:
        if self._desk.project is not None and chain:
            self._chain, self._over = chain, False
            folder = self._desk.project.folder
            self._turns.do(lambda: self.monitor, partial(self._show_chain, folder, chain))

    def _show_chain(self, folder: Path, chain: str) -> None:
        if chain == self._chain:
            self.monitor.show()
            self.monitor.show_chain(folder, chain)

    def _hide_monitor(self) -> None:
        self.monitor.show_nothing()
        self.monitor.hide()

    def _seen(self, view: ChainView | None) -> None:
        """Open the result once its chain is over."""
        if view is None or view.chain.name != self._chain or self._over:
            return
        if view.status.state in FINAL:
            self._over = True
            self.comparing.let_begin_again()
        if view.status.state is State.SUCCEEDED:
            self._hide_monitor()
            self.comparing.look_for_results(newest=True)

    def _repeat(self, job: Any, changes: dict[str, Any]) -> None:
        work = partial(self._ways.repeat, job, changes)
        self._lane.do(work, lambda new: self._watch(new.spec.chain or new.id))

    # ------------------------------------------------------------------ the result

    def _show_results(self) -> None:
        shown = self.comparing.shown
        self.result.show_results(self.comparing.results, shown.id if shown else "")

    def _show_result(self) -> None:
        shown = self.comparing.shown
        if shown is None:
            self.pair, self.target = _NOBODY, ""
            self._case = self._asked_case = ""
            self._asked_for += 1
            self.layers.show(None)
            self.result.show_result(None, "", _NOBODY)
            self.looking.hide()
            return
        self._look_at(shown.targets[0], shown.new)

    def _look_at(self, target: str, new: str) -> None:
        """Look at a target and a new model of the result."""
        shown = self.comparing.shown
        if shown is None:
            return
        self.target, self.pair = target, Pair(shown.baseline, new)
        self.result.show_result(shown, target, self.pair)
        self.parts.set_pair(self.pair)
        self.layers.set_probability(None)
        self.layers.look_ahead(None)  # of another result or model
        rows = [row for row in shown.table if row.target == target]
        self.table.show_rows(rows, self.pair)
        self.looking.show()
        show = partial(self._show_figures, shown, target, self.pair)
        self._turns.do(lambda: self.figures, show, self.layers.prepare)
        self._case = self._asked_case = ""
        self._show_case()

    def _show_figures(self, shown: Shown, target: str, pair: Pair) -> None:
        if (shown, target, pair) == (self.comparing.shown, self.target, self.pair):
            self.figures.show_result(shown, target, pair)
            self.figures.mark_case(self._case)
            self.figures.setVisible(bool(shown.cases))

    # ------------------------------------------------------------------ the case

    def go_to(self, row: TableRow) -> None:
        """Show the case of a row, and its place where it has one."""
        if row.voxel is not None:
            self.layers.go_to(row.voxel, row.case)
        if self._is_open(row.case):
            self._show_case()
            return
        if self._active and self.comparing.shown is not None:
            self._ask_for_overlay(self.comparing.shown, row.case)  # while its image is read
        self._desk.open_case(row.case)

    def open_case(self, case: str) -> None:
        """Show a case: the first of its rows."""
        row = next((row for row in self.table.model.ordered if row.case == case), None)
        if row is not None:
            self.table.go(row)

    def _is_open(self, case: str) -> bool:
        return self._desk.annotation is not None and self._desk.annotation.case == case

    def _show_case(self) -> None:
        """Lay the result over the case that is open; where it has none, open its first row's."""
        shown, annotation = self.comparing.shown, self._desk.annotation
        if not self._active or shown is None or annotation is None:
            return
        if annotation.case not in {row.case for row in self.table.model.ordered}:
            self._open_first(shown)
        elif annotation.case != self._case:
            self._case = annotation.case
            self.table.mark_case(self._case)
            if self._is_made("figures"):
                self.figures.mark_case(self._case)
            self.counted.show_case(self._case)
            if self._asked_case != self._case:
                self._ask_for_overlay(shown, self._case)
            self._look_ahead(shown)

    def _open_first(self, shown: Shown) -> None:
        """Open a case of the result: what is open is none of it, and so nothing would be seen."""
        self._case = self._asked_case = ""
        self.layers.show(None)
        if self.table.model.ordered and not self._desk.opening:
            self.table.go(self.table.model.ordered[0])

    def _ask_for_overlay(self, shown: Shown, case: str) -> None:
        project, self._asked_for = self._desk.project, self._asked_for + 1
        if project is not None:
            self._asked_case = case
            work = self._overlay_of(project, shown, case)
            self._lane.do(work, partial(self._has_overlay, self._asked_for))

    def _look_ahead(self, shown: Shown) -> None:
        """Read the case that going on in the same way leads to."""
        project, after = self._desk.project, self.table.next_case()
        self._desk.look_ahead(after)
        if after and project is not None:
            work = self._overlay_of(project, shown, after)
            self._lane.do(work, partial(self._has_next, self._asked_for))

    def _overlay_of(self, project: Project, shown: Shown, case: str) -> Callable[[], Any]:
        return partial(self._ways.overlay, project, shown, case, self.target, self.pair.new)

    def _has_overlay(self, number: int, overlay: Any) -> None:
        if number == self._asked_for and self._active:
            self.layers.show(overlay)

    def _has_next(self, number: int, overlay: Any) -> None:
        if number == self._asked_for and self._active:
            self.layers.look_ahead(overlay)

    def _has_loaded(self, loaded: Any) -> None:
        self.files.show_case(loaded.overlay if loaded is not None else None)
        self.counted.show_loaded(loaded)
