"""The second step: see what the network will be told, mend it, and say whether it will do."""

from __future__ import annotations

from functools import partial
from typing import Any

from napari.components import ViewerModel
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QInputDialog,
    QLabel,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.fusion.findings import Finding
from napari_backsplit.backend.fusion.review import CaseState
from napari_backsplit.backend.fusion.tidying import TOOLS
from napari_backsplit.backend.project.recipes import owners
from napari_backsplit.backend.project.schema import Structure
from napari_backsplit.widgets._cohort import MARKS, WORDS, Cohort
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._exports import Exports
from napari_backsplit.widgets._findings import Findings
from napari_backsplit.widgets._fusion_layers import CONFLICTS, FUSED, UNLABELLED, FusionLayers
from napari_backsplit.widgets._layout import bold, in_column, in_row, push_button, scrolling, short
from napari_backsplit.widgets._legend import Entry, Legend
from napari_backsplit.widgets._orientation import PLANES, show_plane
from napari_backsplit.widgets._recipes import RecipeMenu
from napari_backsplit.widgets._reviewing import Reviewing
from napari_backsplit.widgets._tools import KEYS, Tool, Tools
from napari_backsplit.widgets._verdict import VerdictBar

EDITING: tuple[tuple[Tool, str], ...] = (
    ("look", "Look"),
    ("paint", "Brush"),
    ("erase", "Erase"),
    ("fill", "Fill"),
    ("polygon", "Polygon"),
)


class ReviewPanel(QWidget):
    """The review of the project that is on the desk.

    Parameters
    ----------
    viewer : ViewerModel
    desk : Desk
    tools : Tools
        Its keys are answered here while the review is shown.
    """

    def __init__(self, viewer: ViewerModel, desk: Desk, tools: Tools) -> None:
        super().__init__()
        self._viewer, self._desk, self._tools = viewer, desk, tools
        self.reviewing = Reviewing(desk)
        self.layers = FusionLayers(viewer, self.reviewing, tools.layers)
        self.cohort = Cohort()
        self.findings = Findings()
        self.verdict = VerdictBar()
        inside = in_column(
            self.cohort,
            self._build_map(),
            self._build_editing(),
            self.findings,
        )
        inside.layout().setStretch(0, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(scrolling(inside), 1)
        column.addWidget(self.verdict)
        self._connect()

    # ------------------------------------------------------------------ build

    def _build_map(self) -> QWidget:
        self.title = bold("Fused label map")
        self.legend = Legend()
        up = push_button("▲", "The row wins over the one above it")
        down = push_button("▼", "The row gives way to the one below it")
        up.clicked.connect(lambda: self.legend.move(-1))
        down.clicked.connect(lambda: self.legend.move(1))
        for button in (up, down):
            button.setMaximumWidth(34)
        up.setAccessibleName("Up: higher priority")
        down.setAccessibleName("Down: lower priority")
        self.recipes = RecipeMenu(self.reviewing)
        self.more = push_button(
            "More", "The cohort at a glance, exports, which supports to train with"
        )
        self.more.setMenu(QMenu(self.more))
        self.exports = Exports(self._desk, lambda: self.reviewing.admit, self)
        self.exports.fill(self.more.menu())
        self.fused = _tick("Map", "Show the fused label map", True)
        self.conflicts = _tick("Conflicts", "Show voxels that two supports or more claim", True)
        self.unlabelled = _tick("Unlabelled", "Show voxels that no structure has", False)
        self.strict = _tick(
            "Accepted only",
            "Fuse what training takes by default: masks of supports that a person accepted",
            False,
        )
        self.said = QLabel()
        self.said.setWordWrap(True)
        return in_column(
            in_row(self.title, up, down, self.recipes, self.more),
            self.legend,
            self.said,
            in_row(self.fused, self.conflicts, self.unlabelled, stretch=False),
            self.strict,
        )

    def _build_editing(self) -> QWidget:
        self.tools: dict[Tool, QPushButton] = {}
        group = QButtonGroup(self)
        for tool, title in EDITING:
            words, key = KEYS[tool][1], KEYS[tool][0]
            button = push_button(title, f"{words} ({key}); other supports are locked", True)
            button.clicked.connect(lambda _, tool=tool: self._tools.choose(tool))
            group.addButton(button)
            self.tools[tool] = button
        self.unlock = push_button("Unlock", "Let this finished mask be changed")
        self.unlock.clicked.connect(lambda: self._desk.set_locked(self._desk.structure, False))
        self.undo = push_button("Undo", f"{KEYS['undo'][1]} (Ctrl+Z)")
        self.redo = push_button("Redo", f"{KEYS['redo'][1]} (Ctrl+Shift+Z)")
        self.tidy = QPushButton("Tidy")
        self.tidy.setToolTip(
            "Islands, holes and the surface of the chosen mask; undo brings it back"
        )
        self.planes: list[QPushButton] = []
        for plane in PLANES:
            button = push_button(plane.capitalize(), f"{KEYS['plane'][1]} ({KEYS['plane'][0]})")
            button.clicked.connect(lambda _, plane=plane: show_plane(self._viewer, plane))
            self.planes.append(button)
        self.cross = _tick("Cross-hair", "Show the point that all planes go through", False)
        self.edited = bold("Edit")
        self.edited.setMinimumWidth(40)
        self._build_tidying()
        return in_column(
            in_row(self.edited, self.unlock, self.undo, self.redo, self.tidy),
            in_row(*self.tools.values()),
            in_row(*self.planes, self.cross),
        )

    def _build_tidying(self) -> None:
        menu = QMenu(self.tidy)
        for name, tool in TOOLS.items():
            menu.addAction(tool.words + ("…" if tool.amount else ""), partial(self._tidy, name))
        self.tidy.setMenu(menu)

    def _connect(self) -> None:
        desk, reviewing = self._desk, self.reviewing
        self.cohort.chosen.connect(self._open)
        self.cohort.next_wanted.connect(self.open_next)
        self.legend.chosen.connect(self._edit)
        self.legend.reordered.connect(reviewing.set_priorities)
        self.findings.chosen.connect(self._jump)
        self.verdict.given.connect(self._judge)
        self.undo.clicked.connect(lambda: desk.turn("undo"))
        self.redo.clicked.connect(lambda: desk.turn("redo"))
        for box, what in ((self.fused, FUSED), (self.conflicts, CONFLICTS)):
            box.toggled.connect(partial(self.layers.show, what))
        self.unlabelled.toggled.connect(partial(self.layers.show, UNLABELLED))
        self.strict.toggled.connect(self._strict)
        self.cross.toggled.connect(self.layers.show_cross)
        self._tools.pointed.connect(self._pointed)
        self._tools.changed.connect(self._show_tool)
        reviewing.fused.connect(lambda box: self._show_map())
        reviewing.found.connect(self._show_findings)
        reviewing.judged.connect(self._show_states)
        desk.case_changed.connect(self._show_case)
        desk.structure_selected.connect(lambda name: self._show_tool())
        desk.structure_changed.connect(lambda name, bounds: self._show_tool())
        self._show_case()

    # ------------------------------------------------------------------ shown or not

    def set_active(self, on: bool) -> None:
        """Begin the review, or leave it."""
        if on == self.reviewing.active:
            return
        if self._desk.annotation is not None:
            self._desk.annotation.keep_others = on
        self.reviewing.set_active(on)
        self.layers.set_active(on)
        actions = self._tools.actions
        if on:
            self._before = {name: actions.get(name) for name in ("accept", "next")}
            actions["accept"] = partial(self.verdict.give, "accepted")
            actions["needs_work"] = partial(self.verdict.give, "needs_work")
            actions["reject"] = partial(self.verdict.give, "rejected")
            actions["finding"] = self.findings.jump
            actions["next"] = self.open_next
            self._tools.choose("look")
        else:
            actions.update({name: action for name, action in self._before.items() if action})
            for name in ("needs_work", "reject", "finding"):
                actions.pop(name, None)
            self._tools.choose("point")
        self._show_case()

    def close_all(self) -> None:
        """Take layers and threads away."""
        self.layers.close()
        self.reviewing.close()
        self.exports.close()

    # ------------------------------------------------------------------ cases

    def open_next(self) -> None:
        """Open the next case that waits for a verdict."""
        case = self.reviewing.next_to_judge(self.cohort.cases())
        if case is None:
            self._desk.told.emit("No other case that is listed waits for a verdict.")
        else:
            self._desk.open_case(case)

    def _open(self, case: str) -> None:
        if self._desk.annotation is None or self._desk.annotation.case != case:
            self._desk.open_case(case)

    def _show_case(self) -> None:
        annotation = self._desk.annotation
        if annotation is not None:
            annotation.keep_others = self.reviewing.active
            self.cohort.mark(annotation.case)
            self._desk.look_ahead(self._after(annotation.case))
        self._show_states()
        self._show_map()
        self._show_findings()
        self._show_tool()

    def _after(self, case: str) -> str:
        cases = self.cohort.cases()
        here = cases.index(case) + 1 if case in cases else len(cases)
        return cases[here] if here < len(cases) else ""

    def _show_states(self) -> None:
        project, annotation = self._desk.project, self._desk.annotation
        names = [s.name for s in project.schema.structures] if project else []
        self.cohort.show_states(self.reviewing.states, names)
        case = annotation.case if annotation else ""
        if case:
            self.cohort.mark(case)
        state = self.reviewing.states.get(case)
        there = [m.structure for m in state.masks if m.state != "none"] if state else []
        open_ = project is not None and not project.read_only
        self.verdict.show_case(case, there, _last(state), open_)
        self._show_legend()

    # ------------------------------------------------------------------ the fused map

    def _show_map(self) -> None:
        fusion = self.reviewing.fusion
        conflicts = fusion.conflicts if fusion else 0
        annotation = self._desk.annotation
        words = []
        if fusion and annotation:
            ml = conflicts * annotation.grid.voxel_ml
            words += [f"{_ml(ml)} in conflict."] if conflicts else ["No conflict."]
            if fusion.missing:
                missing = ", ".join(fusion.missing)
                words += [f"Not known: {missing}; background means background or it."]
        self.said.setText(" ".join(words))
        self._show_legend()

    def _show_legend(self) -> None:
        project = self._desk.project
        if project is None:
            self.legend.show_entries([])
            return
        schema = project.schema
        owner = owners(schema.support_names, schema.recipes)
        entries = [self._entry(target, movable=False) for target in schema.targets]
        for support in schema.fused_supports:
            sources = [s for s in schema.supports if owner[s.name] == support.name]
            plain = [s.name for s in sources] == [support.name]
            inner = () if plain else tuple(self._entry(s, fused=False) for s in sources)
            entries.append(self._entry(support, sources=inner))
        self.legend.show_entries(entries)
        self.legend.mark(self._desk.structure)
        self.recipes.show_recipes()

    def _entry(
        self,
        structure: Structure,
        *,
        sources: tuple[Entry, ...] = (),
        movable: bool = True,
        fused: bool = True,
    ) -> Entry:
        annotation, fusion = self._desk.annotation, self.reviewing.fusion
        volume = "–"
        if annotation is not None and fusion is not None:
            voxels = fusion.voxels().get(structure.name, 0) if fused else None
            count = annotation.voxels(structure.name) if voxels is None else voxels
            volume = _ml(count * annotation.grid.voxel_ml)
        state = "" if sources else self._state(structure.name)
        return Entry(structure.name, structure.colour, volume, state, sources, movable)

    def _state(self, name: str) -> str:
        annotation = self._desk.annotation
        state = self.reviewing.states.get(annotation.case) if annotation else None
        if state is None or annotation is None:
            return ""
        if name in annotation.unreadable:
            return "✗ unreadable"
        mask = next((mask for mask in state.masks if mask.structure == name), None)
        if mask is None:  # it was added since
            return ""
        words = "no mask" if mask.state == "none" else WORDS[mask.state]
        return f"{MARKS[mask.state]} {words}" + ", edited" * mask.edited

    def _strict(self, on: bool) -> None:
        self.reviewing.set_admit("accepted" if on else "unreviewed")

    # ------------------------------------------------------------------ editing

    def _edit(self, name: str) -> None:
        """Take up the mask of a row; of a support that a recipe makes, its first source."""
        project = self._desk.project
        if project is None:
            return
        names = [s.name for s in project.schema.structures]
        owner = owners(project.schema.support_names, project.schema.recipes)
        own = [source for source, made in owner.items() if made == name]
        self._desk.select(name if name in names else own[0] if own else "")

    def _tidy(self, name: str) -> None:
        tool, amount = TOOLS[name], 0.0
        if tool.amount:
            label = f"{tool.words} of {self._desk.structure}: {tool.amount}"
            amount, given = QInputDialog.getDouble(
                self, tool.words, label, tool.usual, 0.0, 10_000.0, 2
            )
            if not given:
                return
        self.reviewing.tidy(name, amount)

    def _show_tool(self) -> None:
        name, annotation = self._desk.structure, self._desk.annotation
        self.legend.mark(name)
        self.edited.setText(f"Edit {short(name, 16)}" if name else "Edit")
        self.edited.setToolTip(name)
        button = self.tools.get(self._tools.tool)
        if button is not None:
            button.setChecked(True)
        open_ = bool(name) and self._desk.can_change(name)
        for tool, button in self.tools.items():
            button.setEnabled(open_ or tool == "look")
        self.tidy.setEnabled(open_)
        locked = bool(annotation and name and annotation.locked(name))
        readable = bool(annotation and name not in annotation.unreadable)
        writable = bool(self._desk.project and not self._desk.project.read_only)
        self.unlock.setVisible(locked and readable and writable)
        self.undo.setEnabled(bool(open_ and annotation and annotation.can_undo(name)))
        self.redo.setEnabled(bool(open_ and annotation and annotation.can_redo(name)))

    def _pointed(self, position: Any) -> None:
        if self.reviewing.active:
            self.layers.go_to(position, center=False)

    # ------------------------------------------------------------------ findings and verdicts

    def _show_findings(self) -> None:
        searched = self.reviewing.searched or self._desk.annotation is None
        self.findings.show_findings(self.reviewing.findings, searched)

    def _jump(self, finding: Finding) -> None:
        if finding.structure:
            self._edit(finding.structure)
        if finding.position_zyx is not None:
            self.layers.go_to(finding.position_zyx)

    def _judge(self, judgement: Any, structure: str, comment: str) -> None:
        following = "" if structure else self.reviewing.next_to_judge(self.cohort.cases())
        self.reviewing.judge(judgement, [structure] if structure else [], comment)
        if following:
            self._desk.open_case(following)


def _tick(title: str, tip: str, on: bool) -> QCheckBox:
    box = QCheckBox(title)
    box.setToolTip(tip)
    box.setChecked(on)
    return box


def _ml(ml: float) -> str:
    return f"{ml:.0f} ml" if ml >= 10 else f"{ml:.2g} ml" if ml else "–"


def _last(state: CaseState | None) -> str:
    """Return what was said of a case last."""
    verdict = state.verdict if state else None
    if state is None or verdict is None:
        return ""
    comment = f": “{verdict.comment}”" if verdict.comment else ""
    edited = " It was edited since." if state.edited else ""
    return (
        f"{MARKS[verdict.verdict]} {WORDS[verdict.verdict].capitalize()} by {verdict.who} on "
        f"{verdict.when[:10]}{comment}.{edited}"
    )
