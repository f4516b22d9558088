"""Which models are compared, on which cases, and how; the one button that begins it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.compare_settings import CompareSettings
from napari_backsplit.widgets._checks import Checks
from napari_backsplit.widgets._comparing import GROUPS, Comparing
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._fields import settle
from napari_backsplit.widgets._folding import Folded
from napari_backsplit.widgets._forms import SpecForm
from napari_backsplit.widgets._layout import (
    Wheel,
    bold,
    fill_column,
    in_column,
    in_row,
    narrow,
    push_button,
    short,
)

if TYPE_CHECKING:
    from napari_backsplit.backend.model_choices import CaseGroups, ModelChoice

BUTTON, SHOW = "Predict and compare", "Show the predictions"
ONLY_COMPARE, ONLY_PREDICT = "Compare", "Predict"
LETTERS = 44
WORDS = {
    "test": "Held-out test cases",
    "unseen": "With a reference, not seen in training",
    "unlabelled": "New cases, without a reference",
    "chosen": "Chosen one by one",
}
FIELDS = {
    "Prediction": (
        "device",
        "mirroring",
        "step_size",
        "rule",
        "probabilities",
        "declare_unseen",
    ),
    "Measurement": (
        "matching",
        "iou_threshold",
        "connectivity",
        "strata_ml",
        "tolerance_mm",
        "missed_hd95",
    ),
}


class ChoosingBox(QWidget):
    """The models, the cases, the sentence, the button and its settings.

    Parameters
    ----------
    desk : Desk
    comparing : Comparing
        It knows them, and is told what is chosen.
    """

    def __init__(self, desk: Desk, comparing: Comparing) -> None:
        super().__init__()
        self._desk, self._comparing = desk, comparing
        self._showing = False
        self._wheel = Wheel(self)
        fill_column(
            self,
            self._build_models(),
            self._build_others(),
            self._build_cases(),
            self._build_button(),
            self._build_settings(),
        )
        self._connect()

    # ------------------------------------------------------------------ build

    def _build_models(self) -> QWidget:
        self.baseline = self._choice("Baseline", "The model that the others are measured against")
        self.new = self._choice("New model", "The model that is to be better")
        self.cases = self._choice("Cases", "What the models are compared on")
        for group in GROUPS:
            self.cases.addItem(WORDS[group], group)
        box = QWidget()
        grid = QGridLayout(box)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(3)
        grid.setColumnStretch(1, 1)
        rows = (("Baseline", self.baseline), ("New model", self.new), ("Cases", self.cases))
        for row, (title, choice) in enumerate(rows):
            label = QLabel(title)
            label.setBuddy(choice)
            grid.addWidget(label, row, 0)
            grid.addWidget(choice, row, 1)
        return box

    def _choice(self, name: str, tip: str) -> QComboBox:
        box = narrow(QComboBox())
        box.setAccessibleName(name)
        box.setToolTip(tip)
        box.setPlaceholderText("none chosen")
        box.installEventFilter(self._wheel)
        settle(box)
        return box

    def _build_others(self) -> Folded:
        self.others = Checks("Other models")
        self.others_part = Folded(
            "Other models",
            self.others,
            "More models beside the two, such as the same extra training without supports",
        )
        return self.others_part

    def _build_cases(self) -> QWidget:
        self.filter = QLineEdit()
        self.filter.setPlaceholderText("Filter cases")
        self.filter.setClearButtonEnabled(True)
        self.filter.setAccessibleName("Filter cases")
        self.all = push_button("All", "Choose all cases that are listed")
        self.none = push_button("None", "Choose none of the cases that are listed")
        self.picked = Checks("Cases to compare on")
        self.picking = in_column(in_row(self.filter, self.all, self.none), self.picked)
        self.picking.hide()
        return self.picking

    def _build_button(self) -> QWidget:
        self.sentence = bold("")
        self.notes = QLabel()
        self.reason = QLabel()
        for label in (self.sentence, self.notes, self.reason):
            label.setWordWrap(True)
            label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.button = QPushButton(BUTTON)
        self.button.setMinimumHeight(32)
        self.button.setToolTip("Predict what is not predicted yet, then compare; in the background")
        font = self.button.font()
        font.setBold(True)
        self.button.setFont(font)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        return in_column(self.sentence, self.notes, self.button, self.reason)

    def _build_settings(self) -> Folded:
        self.reset = push_button("Reset to the recommended", "Forget all that was changed here")
        self._settings = in_column(in_row(self.reset, stretch=False))
        return Folded("Settings", self._settings, "Nothing here needs to be changed")

    @cached_property
    def form(self) -> SpecForm[CompareSettings]:
        """The settings; made when they are first asked for, as it takes long."""
        form: SpecForm[CompareSettings] = SpecForm(
            CompareSettings, FIELDS, choices={"device": ("cpu",)}
        )
        parts = [form.top]
        for title, group in form.groups.items():
            parts += [bold(title), group]
        layout = self._settings.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.insertWidget(0, in_column(*parts))
        form.value_changed.connect(self._set)
        return form

    def _connect(self) -> None:
        comparing = self._comparing
        comparing.choices_changed.connect(self._fill)
        comparing.changed.connect(self._show)
        comparing.devices_changed.connect(self._has_devices)
        for choice in (self.baseline, self.new):
            choice.activated.connect(lambda _: self._choose())
        self.others.itemChanged.connect(lambda _: self._choose())
        self.cases.activated.connect(lambda _: self._choose_cases())
        self.picked.itemChanged.connect(lambda _: self._choose_cases())
        self.filter.textChanged.connect(self.picked.narrow)
        self.all.clicked.connect(lambda: self.picked.tick_seen(True))
        self.none.clicked.connect(lambda: self.picked.tick_seen(False))
        self.picked.many.connect(self._choose_cases)
        self.button.clicked.connect(comparing.begin)
        self.reset.clicked.connect(lambda: self.form.set_value({}))
        self._fill()

    def begin_anew(self) -> None:
        """Forget what was set for another project."""
        self._showing = True
        self.form.set_value({})
        self.filter.clear()
        self._showing = False

    # ------------------------------------------------------------------ what is shown

    def _fill(self) -> None:
        """Offer the project's models."""
        self._showing = True
        for choice in (self.baseline, self.new):
            choice.clear()
            for model in self._comparing.choices:
                choice.addItem(short(model.name, LETTERS), model.path)
                last = choice.count() - 1
                choice.setItemData(
                    last, f"{model.name}: {model.title}", Qt.ItemDataRole.ToolTipRole
                )
        self._showing = False
        self._show()

    def _show(self) -> None:
        comparing = self._comparing
        self._showing = True
        self._show_models(comparing.chosen, comparing.choices)
        if comparing.group:
            self.cases.setCurrentIndex(self.cases.findData(comparing.group))
        self._show_groups(comparing.groups)
        self._showing = False
        proposal = comparing.proposal
        self.sentence.setText(proposal.sentence if proposal else "")
        self.sentence.setVisible(proposal is not None)
        notes = "\n".join(f"▲ {note}" for note in proposal.notes) if proposal else ""
        self.notes.setText(notes)
        self.notes.setVisible(bool(notes))
        self.button.setText(_title(proposal))
        reason = self.problem()
        self.button.setEnabled(not reason)
        self.reason.setText(reason)
        self.reason.setVisible(bool(reason))

    def _show_models(self, chosen: Sequence[str], choices: Sequence[ModelChoice]) -> None:
        for choice, path in zip((self.baseline, self.new), (*chosen, "", ""), strict=False):
            choice.setCurrentIndex(choice.findData(path))
            choice.setEnabled(bool(choices))
            choice.setToolTip(choice.currentData(Qt.ItemDataRole.ToolTipRole) or "")
        rest = [(c.path, c.name) for c in choices if c.path not in chosen[:2]]
        self.others.show_names(rest, chosen[2:])
        more = len(chosen[2:])
        self.others_part.set_title(f"Other models{f' ({more})' if more else ''}")
        self.others_part.setVisible(bool(rest))

    def _show_groups(self, groups: CaseGroups | None) -> None:
        for row, group in enumerate(GROUPS):
            count = len(getattr(groups, group, ())) if groups else 0
            known = f" ({count})" if groups and group != "chosen" else ""
            self.cases.setItemText(row, f"{WORDS[group]}{known}")
        picking = self._comparing.group == "chosen"
        self.picking.setVisible(picking)
        if picking and groups:
            new = [(case, f"{case}, without a reference") for case in groups.unlabelled]
            every = sorted([*((case, case) for case in groups.labelled), *new])
            self.picked.show_names(every, self._comparing.picked)

    def problem(self) -> str:
        """Return why the button cannot be pressed; "" where it can."""
        comparing, project = self._comparing, self._desk.project
        if project is None:
            return "Open a project first."
        if comparing.looked and len(comparing.choices) < 2:
            return _too_few(len(comparing.choices))
        showing = comparing.proposal is not None and comparing.proposal.idle
        if project.read_only and not showing:
            return "The project is open to read only: another window writes in it. Looking works."
        if comparing.error:
            return f"▲ {comparing.error}"
        if "form" in vars(self) and not self.form.valid:
            return f"▲ Settings: {self.form.problem}"
        if comparing.beginning:
            return "Beginning…"
        if comparing.asked is not None and comparing.asked == comparing.begun_as:
            return "Begun: it goes on below."
        return "" if comparing.proposal is not None else "Looking at models and cases…"

    # ------------------------------------------------------------------ ask

    def _choose(self) -> None:
        """Tell which models; one that is chosen twice changes places."""
        if self._showing:
            return
        baseline, new = self.baseline.currentData() or "", self.new.currentData() or ""
        before = (*self._comparing.chosen, "", "")
        if baseline == new:
            changed = baseline != before[0]
            baseline, new = (baseline, before[0]) if changed else (before[1], new)
        others = [path for path in self.others.ticked() if path not in (baseline, new)]
        self._comparing.choose([path for path in (baseline, new, *others) if path])

    def _choose_cases(self) -> None:
        if self._showing:
            return
        group = self.cases.currentData()
        picked = self._comparing.picked
        if group == "chosen" and self._comparing.group == "chosen":
            picked = tuple(self.picked.ticked())
        elif group == "chosen":
            picked = picked or self._of_group()
        self._comparing.choose_cases(group, picked if group == "chosen" else ())

    def _of_group(self) -> tuple[str, ...]:
        """Return the cases that were meant before: a person goes on from them."""
        groups, group = self._comparing.groups, self._comparing.group
        return tuple(getattr(groups, group, ())) if groups and group else ()

    def _set(self) -> None:
        if self._showing:
            return
        if self.form.valid:
            self._comparing.set(self.form.value() | self._device())
        self._show()

    def _device(self) -> dict[str, Any]:
        """Return the device in any case: what is usual depends on the machine."""
        return {"device": self.form.editor_value("device")}

    def _has_devices(self, devices: Any) -> None:
        names = [(device.name, device.title) for device in devices]
        self._showing = True
        self.form.set_choices("device", names)
        if names:
            self.form.set_defaults({"device": names[0][0]})
        self._showing = False
        self._set()


def _title(proposal: Any) -> str:
    if proposal is None:
        return BUTTON
    if proposal.idle:
        return SHOW
    if not any(arm.todo for arm in proposal.arms):
        return ONLY_COMPARE
    return BUTTON if proposal.labelled else ONLY_PREDICT


def _too_few(count: int) -> str:
    there = "There is one model only" if count else "There is no model yet"
    return f"{there}: fine-tune one in step 3, which compares it by itself, or adopt one there."
