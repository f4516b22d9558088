"""Recipes in the window: what is ticked becomes the defaults of a run, and conflicts are said."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util
from typing import Any

import pytest
from pytestqt.qtbot import QtBot
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QComboBox, QLabel, QRadioButton

from napari_backsplit.backend.training import recipes
from napari_backsplit.backend.training.recipes import RECIPES
from napari_backsplit.backend.training.spec import FINETUNE, RunSpec
from napari_backsplit.widgets._from_scratch import ScratchDialog
from napari_backsplit.widgets._recipe_box import SECTIONS, RecipeBox, offered
from napari_backsplit.widgets._repeating import RepeatDialog
from napari_backsplit.widgets._run_settings import RunSettings

RECOMMENDED = RunSpec(**FINETUNE, baseline="jobs/0002-train/model", device="cuda:0")


@pytest.fixture
def box(qtbot: QtBot) -> RecipeBox:
    made = RecipeBox(offered(*SECTIONS))
    qtbot.addWidget(made)
    return made


@pytest.fixture
def settings(qtbot: QtBot) -> RunSettings:
    """The settings of a fine-tune, as they are recommended."""
    made = RunSettings()
    qtbot.addWidget(made)
    made.set_recommended(RECOMMENDED)
    return made


@pytest.fixture
def scratch(qtbot: QtBot) -> ScratchDialog:
    made = ScratchDialog(["kidney"], [("cuda:0", "NVIDIA A")], ["own"])
    qtbot.addWidget(made)
    return made


@pytest.fixture
def repeating(qtbot: QtBot) -> Callable[[RunSpec], RepeatDialog]:
    def ask(run: RunSpec) -> RepeatDialog:
        made = RepeatDialog("train", {"run": run.model_dump(mode="json")})
        qtbot.addWidget(made)
        return made

    return ask


# ---------------------------------------------------------------------- the box


def test_networks_and_losses_take_one_anothers_place_and_the_rest_is_ticked(
    box: RecipeBox,
) -> None:
    for name in ("segresnet", "resenc-m", "focal", "dice", "inverse-weighting", "batch-2"):
        box.buttons[name].click()
    assert box.value() == ("resenc-m", "dice", "inverse-weighting", "batch-2")
    box.plain["Network"].click()
    box.buttons["batch-2"].click()
    assert box.value() == ("dice", "inverse-weighting")


def test_it_shows_what_it_is_told_and_keeps_what_it_does_not_offer(qtbot: QtBot) -> None:
    box = RecipeBox(offered("Loss"))
    qtbot.addWidget(box)
    told: list[tuple[str, ...]] = []
    box.changed.connect(lambda: told.append(box.value()))
    box.set_value(("segresnet", "focal"))
    box.buttons["inverse-weighting"].click()
    assert told == [("segresnet", "focal"), ("segresnet", "focal", "inverse-weighting")]
    box.set_value(())
    assert box.value() == ()
    assert box.plain["Loss"].isChecked()


def test_a_click_on_the_line_of_a_recipe_ticks_it(qtbot: QtBot, box: RecipeBox) -> None:
    box.show()
    line = next(x for x in box.findChildren(QLabel) if x.text() == RECIPES["focal"].title)
    qtbot.mouseClick(line, Qt.MouseButton.LeftButton)
    assert box.value() == ("focal",)


def test_each_says_its_source_and_what_it_sets(box: RecipeBox) -> None:
    for name, button in box.buttons.items():
        assert RECIPES[name].source in button.toolTip()
        assert "Sets: " in button.toolTip()
    box.set_value(("swinunetr", "inverse-weighting"))
    assert "final learning rate 1e-06, inverse weighting on" in box.said.text()


def test_what_cannot_be_used_is_greyed_and_says_how_to_get_it(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recipes, "find_spec", lambda name: None if name == "monai" else util.find_spec(name)
    )
    box = RecipeBox(offered(*SECTIONS))
    qtbot.addWidget(box)
    assert not box.buttons["segresnet"].isEnabled()
    assert not box.buttons["swinunetr"].isEnabled()
    assert box.buttons["resenc-m"].isEnabled()
    assert recipes.MONAI_COMMAND in box.buttons["segresnet"].toolTip()
    assert list(box.missing) == ["Network"]
    said = box.missing["Network"].text()
    assert "segresnet and swinunetr: monai is not installed" in said
    assert recipes.MONAI_COMMAND in said


def test_no_window_offers_recipes_that_choose_the_arm(
    settings: RunSettings, scratch: ScratchDialog
) -> None:
    chosen = {name for name, recipe in RECIPES.items() if "arm" in recipe.run}
    assert chosen
    for box in (settings.recipes, scratch.recipes):
        assert not chosen.intersection(box.buttons)
    assert set(scratch.recipes.buttons) == set(RECIPES) - chosen
    assert "segresnet" not in settings.recipes.buttons, "a fine-tune keeps its network"


# ---------------------------------------------------------------------- the button


def test_fields_show_what_recipes_set_unless_a_person_changed_them(settings: RunSettings) -> None:
    form = settings.form
    settings.recipes.buttons["batch-4"].click()
    assert form.editor_value("batch_size") == "4"
    assert settings.value() == {"recipe": ("batch-4",)}
    form.editor("batch_size").setText("3")  # type: ignore[attr-defined]
    assert settings.value() == {"recipe": ("batch-4",), "batch_size": 3}
    settings.recipes.buttons["inverse-weighting"].click()
    assert form.editor_value("inverse_weighting") is True
    assert form.editor_value("batch_size") == "3", "what was typed stays"
    settings.reset.click()
    assert settings.value() == {}
    assert form.editor_value("inverse_weighting") is False


def test_recipes_that_do_not_combine_are_said_at_once(settings: RunSettings) -> None:
    settings.recipes.buttons["focal"].click()
    settings.recipes.buttons["softseg"].click()
    assert settings.problem == "The recipes focal and softseg do not combine: both set loss"
    assert settings.recipes.wrong.text() == f"▲ {settings.problem}"
    settings.recipes.plain["Loss"].click()
    assert settings.valid
    assert settings.recipes.wrong.isHidden()
    settings.recipes.buttons["inverse-weighting"].click()
    assert "takes no weights of voxels" in settings.problem, "the words of the spec"


def test_a_loss_that_is_no_mean_over_classes_has_no_share_of_it(settings: RunSettings) -> None:
    form = settings.form
    assert form.editor_value("target_dice_share") == "0.5"
    settings.recipes.buttons["focal"].click()
    assert settings.valid, settings.problem
    assert form.editor_value("target_dice_share") is None
    settings.recipes.plain["Loss"].click()
    assert form.editor_value("target_dice_share") == "0.5"
    loss = form.editor("loss")
    assert isinstance(loss, QComboBox)
    loss.setCurrentIndex(loss.findData("ce"))
    assert settings.valid, "a loss that is chosen by hand as well"
    assert settings.value() == {"loss": "ce"}


def test_recipes_stay_where_another_model_is_recommended(settings: RunSettings) -> None:
    settings.set_value({"recipe": ("focal",), "epochs": 7})
    settings.set_recommended(RECOMMENDED.model_copy(update={"initial_lr": 3e-3}))
    assert settings.value() == {"recipe": ("focal",), "epochs": 7}
    assert settings.form.spec().initial_lr == 3e-3
    assert settings.sections["Recipes"].head.text().startswith("Recipes: focal")
    settings.begin_anew()
    assert settings.value() == {}


# ---------------------------------------------------------------------- from scratch


def test_both_arms_get_the_same_recipes(scratch: ScratchDialog) -> None:
    for name in ("segresnet", "inverse-weighting"):
        scratch.recipes.buttons[name].click()
    runs = scratch.value(folds=3).runs
    for arm, run in runs.items():
        assert run.arm == arm
        assert run == RunSpec(
            arm=run.arm, recipe=("segresnet", "inverse-weighting"), device="cuda:0"
        )


def test_plans_that_a_recipe_needs_are_made_and_a_name_that_is_typed_stays(
    scratch: ScratchDialog,
) -> None:
    scratch.recipes.buttons["2d"].click()
    asked = scratch.value()
    assert asked.plan is not None
    assert (asked.plan.name, asked.plan.configuration) == ("2d", "2d")
    assert {run.plan_set for run in asked.runs.values()} == {"2d"}
    scratch.plan.editor("name").setText("slices")  # type: ignore[attr-defined]
    assert {run.plan_set for run in scratch.value().runs.values()} == {"slices"}
    scratch.recipes.buttons["swinunetr"].click()
    assert "is for volumes" in scratch.recipes.wrong.text()
    assert not scratch.ok.isEnabled()


def test_conflicts_keep_from_beginning(scratch: ScratchDialog) -> None:
    scratch.recipes.buttons["softseg"].click()
    assert scratch.ok.isEnabled()
    scratch.recipes.buttons["generalised-dice"].click()
    assert not scratch.ok.isEnabled()


# ---------------------------------------------------------------------- repeat with changes


def test_a_run_is_repeated_with_other_recipes(
    repeating: Callable[[RunSpec], RepeatDialog],
) -> None:
    run = RunSpec(arm="binary", recipe=("swinunetr",), epochs=30, initial_lr=1e-3)
    dialog = repeating(run)
    assert dialog.value() == {}
    dialog.recipes.buttons["segresnet"].click()
    changes = dialog.value()["run"]
    again = RunSpec.model_validate(run.model_dump(mode="json") | changes)
    assert again == RunSpec(arm="binary", recipe=("segresnet",), epochs=30, initial_lr=1e-3)
    dialog.recipes.buttons["softseg"].click()
    dialog.recipes.buttons["dice"].click()
    assert not dialog.ok.isEnabled()
    assert "both set loss" in dialog.recipes.wrong.text()


def test_a_fine_tune_is_repeated_with_another_loss(
    repeating: Callable[[RunSpec], RepeatDialog],
) -> None:
    run = RunSpec(**FINETUNE, arm="backsplit", baseline="baselines/one", plan_set="one")
    dialog = repeating(run)
    assert "segresnet" not in dialog.recipes.buttons
    dialog.recipes.buttons["focal"].click()
    assert dialog.ok.isEnabled()
    assert dialog.value() == {
        "run": {"recipe": ["focal"], "loss": "focal", "target_dice_share": None}
    }


def test_every_field_of_a_run_can_be_changed_or_is_left_alone_on_purpose(
    repeating: Callable[[RunSpec], RepeatDialog],
) -> None:
    from napari_backsplit.widgets._repeating import KEPT

    form: Any = repeating(RunSpec()).forms["run"]
    edited = {name for name in RunSpec.model_fields if name in form._editors}
    assert edited == set(RunSpec.model_fields) - set(KEPT) - {"recipe"}


def test_the_kinds_of_buttons(box: RecipeBox) -> None:
    """Radio buttons where one takes another's place, so that nobody has to try it out."""
    alone = {name for name, button in box.buttons.items() if isinstance(button, QRadioButton)}
    ticks = {name for name, button in box.buttons.items() if isinstance(button, QCheckBox)}
    assert {"2d", "segresnet", "focal"} <= alone
    assert {"inverse-weighting", "target-half", "softseg", "batch-2"} <= ticks
