"""Asks what to train from scratch: both arms, their plans and their length."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.training.recipes import plan_settings
from napari_backsplit.backend.training.spec import Arm, PlanSpec, RunSpec
from napari_backsplit.widgets._asking import Scratch
from napari_backsplit.widgets._fields import Choices
from napari_backsplit.widgets._folding import Folded
from napari_backsplit.widgets._forms import SpecForm
from napari_backsplit.widgets._layout import in_column, scrolling
from napari_backsplit.widgets._recipe_box import SECTIONS, RecipeBox, offered
from napari_backsplit.widgets._run_settings import BUDGET, GROUPS, METHODS, RECIPES
from napari_backsplit.widgets._taken_recipes import TakenRecipes

PLAN = ("name", "configuration", "preset", "folds", "gpu_memory_gb", "patch_size", "batch_size",
        "spacing_mm", "intensities", "workers")  # fmt: skip
RUN = GROUPS | {"What": ("supports", "masks")}
ARMS: dict[Arm, str] = {
    "binary": "Without supports: the lesion alone",
    "backsplit": "With supports",
}
AS_IT_IS = "Plan set {} is there and is used as it is."


class ScratchDialog(QDialog):
    """Two arms from scratch, with a plan set of their own or one that is there.

    Parameters
    ----------
    supports : sequence of str
        In the project's order of priority.
    devices : sequence
        Names and titles of the devices, the fastest first.
    plan_sets : sequence of str
        Those that are ready.
    every_fold : bool
        Propose a cross-validation.
    """

    def __init__(
        self,
        supports: Sequence[str],
        devices: Choices,
        plan_sets: Sequence[str],
        every_fold: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._plan_sets = plan_sets
        self.setWindowTitle("Cross-validate" if every_fold else "Train from scratch")
        self.arms = {arm: QCheckBox(words) for arm, words in ARMS.items()}
        for box in self.arms.values():
            box.setChecked(True)
        self.every = QCheckBox("Every fold in turn (cross-validation)")
        self.every.setChecked(every_fold)
        chosen = {"device": devices[0][0]} if devices and devices[0][0] else {}
        self.run: SpecForm[RunSpec] = SpecForm(
            RunSpec,
            RUN,
            chosen,
            choices={"supports": supports, "device": devices or ("cpu",)},
            either=BUDGET | {"epochs": "1000"},
        )
        self.plan: SpecForm[PlanSpec] = SpecForm(PlanSpec, PLAN)
        self.recipes = RecipeBox(offered(*SECTIONS))
        self.taken = TakenRecipes(self.recipes, self.run)
        self.taken.set_defaults(chosen)
        self.known = QLabel()
        self.known.setWordWrap(True)
        self._build()
        for box in (*self.arms.values(), self.every):
            box.toggled.connect(lambda _: self._show())
        for form in (self.run, self.plan):
            form.value_changed.connect(self._show)
        self.taken.changed.connect(self._take_plans)
        self.resize(440, 620)
        self._show()

    def _build(self) -> None:
        self.recipes_part = Folded(RECIPES, self.recipes, METHODS)
        parts: list[QWidget] = [
            *self.arms.values(), self.every, self.recipes_part, self.run.top
        ]  # fmt: skip
        for title, group in self.run.groups.items():
            folded = Folded(title, group)
            folded.set_open(title in ("What", "How long"))
            parts.append(folded)
        plans = in_column(self.plan, self.known)
        parts.append(Folded("Plans", plans, "nnU-Net's plans: spacing, patch, network"))
        inside = in_column(*parts)
        inside.layout().addStretch(1)
        kinds = QDialogButtonBox.StandardButton
        buttons = QDialogButtonBox(kinds.Ok | kinds.Cancel)
        self.ok = buttons.button(kinds.Ok)
        self.ok.setText("Begin")
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        column = QVBoxLayout(self)
        column.addWidget(scrolling(inside), 1)
        column.addWidget(buttons)

    def value(self, folds: int = 0, where: str = "") -> Scratch:
        """Return what is to be trained.

        Parameters
        ----------
        folds : int
            Folds of a plan set that is there.
        where : str
            Address of the scheduler that runs it.
        """
        plan, run = self.plan.spec(), self.run.spec()
        made = plan.name in self._plan_sets
        runs: dict[str, RunSpec] = {
            arm: run.model_copy(update={"arm": arm, "plan_set": plan.name})
            for arm, box in self.arms.items()
            if box.isChecked()
        }
        count = folds if made else plan.folds
        every = tuple(range(count)) if self.every.isChecked() else ()
        return Scratch(runs, None if made else plan, every, where)

    @property
    def plan_set(self) -> str:
        """The name of the plan set that is entered."""
        return str(self.plan.editor_value("name"))

    def _take_plans(self) -> None:
        """Show the plans that the recipes need."""
        if not self.taken.problem:
            self.plan.set_defaults(plan_settings(self.recipes.value()))
        self._show()

    def _show(self) -> None:
        some = any(box.isChecked() for box in self.arms.values()) and not self.taken.problem
        self.ok.setEnabled(some and self.run.valid and self.plan.valid)
        self.recipes_part.set_title(self.taken.title(RECIPES))
        known = self.plan_set in self._plan_sets
        self.known.setText(AS_IT_IS.format(self.plan_set))
        self.known.setVisible(known)
        for name in PLAN[1:]:
            self.plan.editor(name).setEnabled(not known)
