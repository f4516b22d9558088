"""The folded settings of a training: a form of its spec, and a few switches of the button."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QCheckBox, QLabel, QVBoxLayout, QWidget

from napari_backsplit.backend.training.spec import MANY_SUPPORTS, RunSpec
from napari_backsplit.widgets._fields import Choices, Ticks
from napari_backsplit.widgets._folding import Folded
from napari_backsplit.widgets._forms import SpecForm
from napari_backsplit.widgets._layout import in_row, push_button
from napari_backsplit.widgets._recipe_box import RecipeBox, offered
from napari_backsplit.widgets._taken_recipes import TakenRecipes

BUDGET = {"epochs": "250", "hours": "for example 8", "until": "for example 18:00"}
"""Fields of which one says how long, each with an example."""
GROUPS: dict[str, tuple[str, ...]] = {
    "What": ("arm", "supports", "masks"),
    "How long": (*BUDGET, "patience"),
    "Network": (
        "architecture",
        "width",
        "deep_supervision",
        "head_lr_factor",
        "freeze_encoder_epochs",
    ),
    "Loss": ("loss", "inverse_weighting", "target_dice_share", "final_support_weight"),
    "Labels": (
        "labels",
        "activation",
        "round_labels",
        "missing",
        "support_count",
        "support_cases",
        "curriculum_epochs",
    ),
    "Training": (
        "fold",
        "batch_size",
        "patch_size",
        "initial_lr",
        "final_lr",
        "optimiser",
        "epsilon",
        "schedule",
        "warmup_epochs",
        "weight_decay",
        "iterations",
        "validation_iterations",
        "target_oversampling",
        "precision",
        "compile",
        "seed",
        "checkpoint_every",
        "picture_every",
    ),
    "Device": ("device", "workers", "threads", "yield_to_clicks"),
    "Trackers": ("tracker",),
}
OF_THE_BASELINE = ("architecture", "width")
"""What a fine-tune does not choose."""
TUNED = {
    title: tuple(name for name in names if name not in OF_THE_BASELINE)
    for title, names in GROUPS.items()
}
RECIPES = "Recipes"
METHODS = "Methods of the papers; what they set is shown below, and can be changed"


class RunSettings(QWidget):
    """What a person may set for a training; nothing needs to be.

    Attributes
    ----------
    changed : Signal
        What is set changed.
    advice_wanted : Signal
        The advisor's table is asked for.
    """

    changed = Signal()
    advice_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._names: list[str] = []
        self.form: SpecForm[RunSpec] = SpecForm(
            RunSpec, TUNED, choices={"supports": (), "device": ("cpu",)}, either=BUDGET
        )
        self.recipes = RecipeBox(offered("Loss", "Labels", "Controls"))
        self.taken = TakenRecipes(self.recipes, self.form)
        self.control = QCheckBox("Train the same without supports as well")
        self.control.setToolTip(
            "The same extra epochs without supports: without it nothing shows that it was the "
            "supports that helped"
        )
        self.unseen = QCheckBox("The model never saw the test cases")
        self.unseen.setToolTip(
            "You declare it; it is recorded and printed. Without it, and where no record shows it, "
            "there is no verdict"
        )
        self.many = QLabel()
        self.many.setWordWrap(True)
        self.many.hide()
        self.advise = push_button(
            "Which ones?", "The advisor: where the lesions lie, what the baseline mistakes for them"
        )
        self.reset = push_button("Reset to the recommended", "Forget all that was changed here")
        self.every = QCheckBox("Cross-validate: every fold in turn")
        self.every.setToolTip(
            "Each fold's network is measured on the cases that it was not trained on, so that all "
            "cases count. It starts from a model that has the same folds"
        )
        self.folds = Ticks(())
        self.sections: dict[str, Folded] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        self.sections[RECIPES] = Folded(RECIPES, self.recipes, METHODS)
        column.addWidget(self.sections[RECIPES])
        column.addWidget(self.form.top)
        for title, group in self.form.groups.items():
            self.sections[title] = Folded(title, group)
            column.addWidget(self.sections[title])
        self._fill_what()
        training = self.form.groups["Training"].layout()
        training.insertRow(0, self.every)
        training.insertRow(1, "Folds", self.folds.native)
        training.setRowVisible(1, False)
        self.every.toggled.connect(lambda on: training.setRowVisible(1, on))
        self.folds.changed.connect(self.changed.emit)
        column.addWidget(in_row(self.reset, stretch=False))
        self.control.setChecked(True)
        self.form.value_changed.connect(self._edited)
        self.taken.changed.connect(self._edited)
        for box in (self.control, self.unseen, self.every):
            box.toggled.connect(lambda _: self.changed.emit())
        self.advise.clicked.connect(self.advice_wanted)
        self.reset.clicked.connect(self.forget)

    def _fill_what(self) -> None:
        layout = self.form.groups["What"].layout()
        layout.addRow(self.many)
        layout.addRow(in_row(self.advise, stretch=False))
        layout.addRow(self.control)
        layout.addRow(self.unseen)

    # ------------------------------------------------------------------ value

    @property
    def problem(self) -> str:
        """What cannot be used of what is entered; "" where all can."""
        if self.every.isChecked() and not self.folds.raw():
            return "Choose at least one fold."
        return self.taken.problem or self.form.problem

    @property
    def valid(self) -> bool:
        """Whether what is entered can be trained."""
        return not self.problem

    def value(self) -> dict[str, Any]:
        """Return what differs from the recommended.

        Raises
        ------
        InputError
            Something that is entered cannot be used.
        """
        own: dict[str, Any] = {"control": False} if not self.control.isChecked() else {}
        own |= {"declare_unseen": True} if self.unseen.isChecked() else {}
        own |= {"folds": self._folds()} if self.every.isChecked() else {}
        return self.form.value() | own | self.taken.value()

    def set_value(self, value: Mapping[str, Any]) -> None:
        """Show what differs from the recommended."""
        self.control.setChecked(value.get("control", True))
        self.unseen.setChecked(value.get("declare_unseen", False))
        self.every.setChecked("folds" in value)
        self.recipes.set_value(value.get("recipe", ()))
        fields = RunSpec.model_fields.keys() - {"recipe"}
        self.form.set_value({name: value[name] for name in value if name in fields})

    def forget(self) -> None:
        """Show the recommended."""
        self.set_value({})

    def begin_anew(self) -> None:
        """Forget what was recommended too: it was for another project."""
        self.forget()
        self.taken.set_defaults({})

    def set_recommended(self, run: RunSpec) -> None:
        """Show what is recommended; what a person changed stays."""
        self.taken.set_defaults(dict(run))

    def set_supports(self, names: Sequence[str]) -> None:
        """Offer the supports of a project, in their order of priority."""
        self.form.set_choices("supports", names)

    def set_devices(self, devices: Choices) -> None:
        """Offer the devices of this machine, as names and titles."""
        self.form.set_choices("device", devices)

    def set_folds(self, count: int) -> None:
        """Offer the folds of the plan set, all of them ticked at first."""
        names = [str(fold) for fold in range(count)]
        if names != self._names:
            self._names = names
            self.folds.show(())
            self.folds.set_choices(names)
            self.folds.show(names)

    def _folds(self) -> tuple[int, ...]:
        return tuple(int(name) for name in self.folds.raw())

    def open_at(self, title: str) -> None:
        """Open a group, so that its fields are seen."""
        self.sections[title].set_open(True)

    def _edited(self) -> None:
        self.sections[RECIPES].set_title(self.taken.title(RECIPES))
        count = len(self.form.editor_value("supports"))
        self.many.setVisible(count > MANY_SUPPORTS)
        self.many.setText(f"▲ {count} supports are many for a fine-tune; one to three work best.")
        self.changed.emit()
