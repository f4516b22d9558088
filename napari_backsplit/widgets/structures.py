"""The first step: choose a case and a structure, click, and accept."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QAbstractItemView,
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QCompleter,
    QHeaderView,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.structures.engines import EngineState
from napari_backsplit.backend.structures.vocabulary import vocabulary
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._layout import (
    bold,
    in_column,
    in_row,
    narrow,
    push_button,
    scrolling,
    short,
    swatch,
)
from napari_backsplit.widgets._tools import KEYS, Tools
from napari_backsplit.widgets._worklist import Worklist, word_of

WORDS = {"none": "empty", "editing": "to accept", "needs_work": "needs work"}
LIGHTS = {
    "off": ("○", "not started"),
    "starting": ("◔", ""),
    "ready": ("●", "ready"),
    "failed": ("▲", ""),
}
COLOURS = {"off": "#999999", "starting": "#e69f00", "ready": "#009e73", "failed": "#d55e00"}
TOOLS = (
    ("point", "Point"),
    ("box", "Box"),
    ("scribble", "Scribble"),
    ("lasso", "Lasso"),
    ("paint", "Brush"),
    ("erase", "Eraser"),
)
HINTS = {
    "point": "Click inside {name}. Where the mask is wrong, click with − outside of it.",
    "box": "Drag a box around {name} in one slice.",
    "scribble": "Draw a line along {name}.",
    "lasso": "Draw around {name} in one slice; its inside counts.",
    "paint": "Paint {name} by hand.",
    "erase": "Rub out what is not {name}.",
    "fill": "Click inside an outline to fill it.",
    "polygon": "Click the corners of {name}; Enter closes the outline.",
    "look": "Choose a tool to change {name}.",
}
SHOW, LOCK = 3, 4
TICK_MS = 300


class StructuresPanel(QWidget):  # type: ignore[misc]
    """Worklist, structures, engine and tools of one project."""

    def __init__(self, viewer: ViewerModel, desk: Desk, tools: Tools) -> None:
        super().__init__()
        self._viewer, self._desk, self._tools = viewer, desk, tools
        self._layers = tools.layers
        self._states: dict[str, EngineState] = {}
        self.worklist = Worklist(desk)
        parts = (self._build_structures(), self._build_engine(), self._build_tools())
        inside = in_column(self.worklist, *parts)
        inside.layout().setStretch(0, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(scrolling(inside), 1)
        column.addWidget(self._build_said())
        column.addWidget(self._build_accept())
        self._connect()

    # ------------------------------------------------------------------ build

    def _build_structures(self) -> QWidget:
        self.title = bold("Structures")
        self.name = QLineEdit()
        self.name.setPlaceholderText("Add a structure, such as kidney")
        completer = QCompleter([term.name for term in vocabulary()])
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        completer.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        self.name.setCompleter(completer)
        self.add = push_button("Add", "Add the structure to the project")
        self.structures = QTreeWidget()
        self.structures.setAccessibleName("Structures")
        self.structures.setHeaderLabels(["Structure", "Volume", "State", "Show", "Lock"])
        self.structures.setRootIsDecorated(False)
        self.structures.setUniformRowHeights(True)
        self.structures.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = self.structures.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setMinimumSectionSize(34)
        for section in range(1, 5):
            header.setSectionResizeMode(section, QHeaderView.ResizeMode.ResizeToContents)
        return in_column(self.title, self.structures, in_row(self.name, self.add))

    def _build_engine(self) -> QWidget:
        self.engine = narrow(QComboBox())
        self.engine.setToolTip("What turns clicks into a mask")
        self.light = QLabel()
        self.light.setWordWrap(True)
        self.settings = push_button("Settings…", "Model, device and server of nnInteractive")
        self.channel = narrow(QComboBox())
        self.channel.setToolTip("The channel that is shown and clicked on")
        self.channel_row = in_row(QLabel("Channel"), self.channel)
        self.channel_row.hide()
        self.protect = QCheckBox("Finished structures count as negatives")
        self.protect.setToolTip("A prompt then takes no voxel of an accepted support structure")
        return in_column(
            in_row(bold("Engine"), self.engine, self.settings),
            self.light,
            self.channel_row,
            self.protect,
        )

    def _build_tools(self) -> QWidget:
        self.buttons: dict[str, QPushButton] = {}
        group = QButtonGroup(self)
        for tool, title in TOOLS:
            button = push_button(title, f"{KEYS[tool][1]} ({KEYS[tool][0]})", checkable=True)
            button.clicked.connect(lambda _, tool=tool: self._tools.choose(tool))
            group.addButton(button)
            self.buttons[tool] = button
        self.plus = push_button("+", f"Belongs to the structure ({KEYS['sign'][0]})", True)
        self.minus = push_button("−", f"Does not belong to it ({KEYS['sign'][0]})", True)
        signs = QButtonGroup(self)
        signs.addButton(self.plus)
        signs.addButton(self.minus)
        self.undo = push_button("Undo", f"{KEYS['undo'][1]} (Ctrl+Z)")
        self.redo = push_button("Redo", f"{KEYS['redo'][1]} (Ctrl+Shift+Z)")
        self.clear = push_button("Clear", "Empty the mask; undo brings it back")
        self.keys = push_button("Keys", "What the keys do")
        return in_column(
            in_row(*self.buttons.values(), stretch=False),
            in_row(
                self.plus, self.minus, self.undo, self.redo, self.clear, self.keys, stretch=False
            ),
        )

    def _build_said(self) -> QWidget:
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Minimum)
        self.busy = QLabel()
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.bar.setTextVisible(False)
        self.bar.setMaximumHeight(10)
        self.cancel = QPushButton("Cancel")
        self.busy_row = in_row(self.busy, self.bar, self.cancel)
        self.busy_row.hide()
        self._tick = QTimer(self)
        self._tick.setInterval(TICK_MS)
        return in_column(self.hint, self.busy_row)

    def _build_accept(self) -> QWidget:
        self.accept = QPushButton("Accept")
        self.accept.setToolTip(f"{KEYS['accept'][1]} ({KEYS['accept'][0]})")
        self.accept.setMinimumHeight(32)
        font = self.accept.font()
        font.setBold(True)
        self.accept.setFont(font)
        return self.accept

    def _connect(self) -> None:
        desk, tools = self._desk, self._tools
        self.structures.currentItemChanged.connect(self._structure_chosen)
        self.structures.itemChanged.connect(self._ticked)
        self.structures.itemClicked.connect(lambda item, _: self._clicked(item))
        self.add.clicked.connect(self._add_structure)
        self.name.returnPressed.connect(self._add_structure)
        self.engine.activated.connect(lambda _: desk.use_engine(self.engine.currentData()))
        self.channel.activated.connect(self._channel_chosen)
        self.protect.toggled.connect(self._protect)
        self.plus.clicked.connect(lambda: tools.set_positive(True))
        self.minus.clicked.connect(lambda: tools.set_positive(False))
        self.undo.clicked.connect(lambda: desk.turn("undo"))
        self.redo.clicked.connect(lambda: desk.turn("redo"))
        self.clear.clicked.connect(desk.clear)
        self.accept.clicked.connect(desk.accept)
        self.cancel.clicked.connect(desk.cancel)
        self._tick.timeout.connect(self._show_busy)
        tools.actions["next"] = self.worklist.open_next
        tools.changed.connect(self._show_tool)
        desk.project_changed.connect(self._show_structures)
        desk.case_changed.connect(self._show_case)
        desk.structure_selected.connect(lambda name: self._show_structure())
        desk.structure_changed.connect(lambda name, bounds: self._show_figures(name))
        desk.engine_changed.connect(self._show_engine)
        desk.busy_changed.connect(self._show_busy)
        self._show_tool()
        self._show_structures()

    # ------------------------------------------------------------------ the case

    def _show_case(self) -> None:
        annotation = self._desk.annotation
        self.title.setText(f"Structures of {annotation.case}" if annotation else "Structures")
        channels = annotation.channels() if annotation else ()
        self.channel_row.setVisible(len(channels) > 1)
        self.channel.clear()
        self.channel.addItems(list(channels))
        if annotation and self._desk.channel:
            self.channel.setCurrentText(self._desk.channel)
        self._protect(self.protect.isChecked())
        self._show_structures()

    def _channel_chosen(self) -> None:
        self._desk.channel = self.channel.currentText()
        self._layers.show_channel()

    def _protect(self, on: bool) -> None:
        if self._desk.annotation is not None:
            self._desk.annotation.protect = on

    # ------------------------------------------------------------------ structures

    def _show_structures(self) -> None:
        self.structures.blockSignals(True)
        self.structures.clear()
        targets = self._desk.project.schema.target_names if self._desk.project else ()
        for structure in self._desk.structures():
            item = QTreeWidgetItem([structure.name])
            item.setData(0, Qt.ItemDataRole.UserRole, structure.name)
            item.setIcon(0, swatch(structure.colour))
            kind = "lesion" if structure.name in targets else "support structure"
            item.setToolTip(0, f"{structure.name} ({kind})")
            item.setToolTip(LOCK, "A locked mask is not changed by prompts or strokes")
            item.setTextAlignment(1, int(Qt.AlignmentFlag.AlignRight))
            item.setCheckState(SHOW, Qt.CheckState.Checked)
            self.structures.addTopLevelItem(item)
        self.structures.blockSignals(False)
        rows = min(max(self.structures.topLevelItemCount(), 3), 8)
        height = self.structures.header().sizeHint().height() + 20 * rows + 6
        self.structures.setFixedHeight(height)
        for structure in self._desk.structures():
            self._show_figures(structure.name)
        self._show_structure()

    def _item(self, name: str) -> QTreeWidgetItem | None:
        for row in range(self.structures.topLevelItemCount()):
            item = self.structures.topLevelItem(row)
            if item.data(0, Qt.ItemDataRole.UserRole) == name:
                return item
        return None

    def _show_figures(self, name: str) -> None:
        """Show volume, state and lock of a structure."""
        item, annotation = self._item(name), self._desk.annotation
        if item is None or annotation is None:
            return
        ml = annotation.volume_ml(name)
        self.structures.blockSignals(True)
        item.setText(1, f"{ml:.0f} ml" if ml >= 10 else f"{ml:.2g} ml" if ml else "–")
        state = word_of(self._desk, name, annotation.standing(name))
        absent = state == "accepted" and not ml
        item.setText(2, "absent" if absent else WORDS.get(state, state))
        locked = annotation.locked(name)
        item.setCheckState(LOCK, Qt.CheckState.Checked if locked else Qt.CheckState.Unchecked)
        layer = self._layers.labels.get(name)
        visible = layer is not None and layer.visible
        item.setCheckState(SHOW, Qt.CheckState.Checked if visible else Qt.CheckState.Unchecked)
        self.structures.blockSignals(False)
        if name == self._desk.structure:
            self._show_tool()

    def _show_structure(self) -> None:
        item = self._item(self._desk.structure)
        self.structures.blockSignals(True)
        self.structures.setCurrentItem(item)
        self.structures.blockSignals(False)
        self._show_tool()

    def _structure_chosen(self, item: QTreeWidgetItem | None, _: Any = None) -> None:
        if item is not None:
            self._desk.select(item.data(0, Qt.ItemDataRole.UserRole))

    def _clicked(self, item: QTreeWidgetItem) -> None:
        """Show a structure again whose layer was removed."""
        name = item.data(0, Qt.ItemDataRole.UserRole)
        if name == self._desk.structure and name not in self._layers.labels:
            self._desk.structure_selected.emit(name)

    def _ticked(self, item: QTreeWidgetItem, section: int) -> None:
        name = item.data(0, Qt.ItemDataRole.UserRole)
        on = item.checkState(section) == Qt.CheckState.Checked
        if section == SHOW and name in self._layers.labels:
            self._layers.labels[name].visible = on
        elif section == LOCK:
            self._desk.set_locked(name, on)

    def _add_structure(self) -> None:
        text = self.name.text().strip()
        if not text:
            self.name.setFocus()
            return
        try:
            self._desk.add_structure(text)
            self.name.clear()
        except BackSplitError as error:
            self._desk.failed.emit(error)

    # ------------------------------------------------------------------ engine and tools

    def show_engines(self, states: tuple[EngineState, ...]) -> None:
        """Show which engines there are; those that cannot be used say why."""
        self._states = {state.name: state for state in states}
        self.engine.clear()
        for state in states:
            self.engine.addItem(state.title, state.name)
            row = self.engine.count() - 1
            tip = f"{state.reason} {state.remedy}".strip() or state.title
            self.engine.setItemData(row, tip, Qt.ItemDataRole.ToolTipRole)
            model = self.engine.model()
            model.item(row).setEnabled(state.state == "ready")
        self._show_engine()

    def _show_engine(self) -> None:
        driver = self._desk.driver
        if driver is None:
            return
        self.engine.setCurrentIndex(max(0, self.engine.findData(driver.name)))
        mark, words = LIGHTS[driver.light]
        state = self._states.get(driver.name)
        about = [driver.words or words]
        if driver.light in ("ready", "off") and state is not None:
            model = driver.about.model or state.model
            licence = driver.about.licence or state.licence
            about += [model] * bool(model) + [f"licence {licence}"] * bool(licence)
        self.light.setText(
            f'<span style="color:{COLOURS[driver.light]}">{mark}</span> ' + " · ".join(about)
        )

    def _show_tool(self) -> None:
        tools, name = self._tools, self._desk.structure
        if tools.tool in self.buttons:
            self.buttons[tools.tool].setChecked(True)
        (self.plus if tools.positive else self.minus).setChecked(True)
        annotation = self._desk.annotation
        locked = bool(annotation and name and annotation.locked(name))
        open_ = bool(name) and self._desk.can_change(name)
        for button in (*self.buttons.values(), self.plus, self.minus, self.clear, self.accept):
            button.setEnabled(open_)
        waits = bool(annotation and self._desk.engines.orders_for(annotation, name))
        self.undo.setEnabled(bool(open_ and annotation and (waits or annotation.can_undo(name))))
        self.redo.setEnabled(bool(open_ and annotation and annotation.can_redo(name)))
        self.accept.setText(f"Accept {short(name)} →" if name else "Accept")
        self.hint.setText(self._hint(locked))

    def _hint(self, locked: bool) -> str:
        name = short(self._desk.structure)
        if self._desk.project is not None and self._desk.project.read_only:
            return f"{self._desk.project.notice} Nothing can be changed here."
        if self._desk.project is not None and not self._desk.standings:
            return "No case yet: add images from the project menu."
        if not name:
            return "Add a structure: type its name above, such as kidney."
        if locked:
            return f"{name} is locked. Untick Lock in its row to change it."
        return HINTS[self._tools.tool].format(name=name)

    # ------------------------------------------------------------------ busy

    def _show_busy(self) -> None:
        words, more, waits = self._desk.busy()
        self.busy.setText(f"{words}{more}")
        self.busy_row.setVisible(waits)
        self.cancel.setVisible(bool(self._desk.engines.orders()))
        self._show_tool()
        self._layers.say(words if waits else "")  # not how long: that draws the canvas again
        if words and not self._tick.isActive():
            self._tick.start()
        elif not words:
            self._tick.stop()
