from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.plan_files import built_in_plans, read_plan
from napari_backsplit.backend.experiments.published import published
from napari_backsplit.backend.project.copies import own_supports
from napari_backsplit.cli.demo import PLAN, PREDICTION, demo_arms

HEAD = """
name = "mine"
title = "Mine"
"""
DATA = """
[data]
kind = "synthetic"
"""
ARMS = """
[[arms]]
name = "binary"
run = { arm = "binary" }
[[arms]]
name = "ours"
start = "binary"
run = { arm = "backsplit" }
"""
OTHER = '[[arms]]\nname = "other"\n'


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.toml").write_text(text)
    return str(tmp_path / "mine.toml")


def test_a_plan_of_ones_own(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, HEAD + DATA + "draws = [4, 2]\n[run]\nepochs = 3\n" + ARMS))
    assert plan.baseline == "binary"
    binary, ours = plan.study_arms(4)
    assert (binary.run.arm, binary.run.epochs, binary.run.seed) == ("binary", 3, 4)
    assert (ours.start, ours.run.arm) == ("binary", "backsplit")
    assert plan.with_draws((7,)).data.draws == (7,)
    own = plan.with_draws((7,)).on_project(tmp_path)
    assert (own.data.kind, own.data.draws, own.plan.name) == ("project", (7,), "mine")


ERRORS = {
    "an unknown start": (
        HEAD + DATA + ARMS + OTHER + 'start = "bynary"',
        "'other' starts from 'bynary', none of the arms binary, ours, other.",
    ),
    "a late start": (
        HEAD + DATA + ARMS.replace('start = "binary"', 'start = "other"') + OTHER,
        "'ours' starts from 'other', which has to stand above it",
    ),
    "itself": (
        HEAD + DATA + ARMS + OTHER + 'start = "other"',
        "'other' starts from 'other', which has to stand above it",
    ),
    "compared with no arm": (
        HEAD + DATA + ARMS + OTHER + 'against = "bynary"',
        "'other' is compared with 'bynary', none of the arms binary, ours.",
    ),
    "compared with itself": (
        HEAD + DATA + ARMS + OTHER + 'against = "other"',
        "'other' is compared with 'other', none of the arms binary, ours.",
    ),
    "an unknown control": (HEAD + 'controls = ["x"]' + DATA + ARMS, "the control 'x' is none of"),
    "a control twice": (
        HEAD + 'controls = ["ours", "ours"]' + DATA + ARMS,
        "the control 'ours' is there twice",
    ),
    "the baseline as control": (
        HEAD + 'controls = ["binary"]' + DATA + ARMS,
        "the control 'binary' is none of the arms ours",
    ),
    "twice the same name": (HEAD + DATA + ARMS + ARMS, "the arm 'binary' is there twice"),
    "one arm": (HEAD + DATA + OTHER, "arms: there should be at least 2 items"),
    "a step's name": (HEAD + DATA + ARMS + '[[arms]]\nname = "plan"', "cannot be named 'plan'"),
    "a bad field of a run": (
        HEAD + DATA + ARMS + OTHER + "run = { epochs = 0 }",
        "the run of the arm 'other': epochs 0: input should be greater than or equal to 1",
    ),
    "an unknown field of a run": (
        HEAD + DATA + ARMS + OTHER + "run = { epoch = 3 }",
        "the run of the arm 'other': epoch: there is no such field",
    ),
    "a seed": (HEAD + DATA + "[run]\nseed = 3" + ARMS, "seed cannot be set for a run: the draw's"),
    "a bad plan": (HEAD + DATA + "[plan]\nfolds = 1" + ARMS, "plan.folds 1: input should be"),
    "an unknown field": (HEAD + "drawz = 3" + DATA + ARMS, "drawz: there is no such field"),
    "no data": (HEAD + ARMS, "data: is missing"),
    "unknown data": (HEAD + '[data]\nkind = "real"' + ARMS, "data .*'real'"),
    "a draw twice": (HEAD + DATA + "draws = [1, 1]" + ARMS, "draw 1 is named twice"),
    "a phantom's field": (HEAD + DATA + "phantom = { size = 3 }" + ARMS, "phantom has no 'size'"),
    "a phantom's value": (HEAD + DATA + 'phantom = { noise_hu = "x" }' + ARMS, "noise_hu"),
    "a tiny phantom": (HEAD + DATA + "phantom = { shape = [2, 9, 9] }" + ARMS, "is too small"),
    "a structure": (HEAD + DATA + 'supports = { a = ["heart"] }' + ARMS, "has no 'heart', only"),
    "arms that differ by name alone": (
        HEAD + DATA + ARMS + OTHER + 'start = "binary"',
        "the arms 'ours' and 'other' are the same run",
    ),
    "a misspelt prediction": (
        HEAD + DATA + "[prediction]\nprobabilites = true" + ARMS,
        "prediction has no 'probabilites', only",
    ),
    "a plan set that is not there": (
        HEAD + DATA + ARMS + OTHER + 'plan = "flat"',
        "the arm 'other' is of the plan 'flat', none of",
    ),
    "clicks that nobody makes": (
        HEAD + DATA + ARMS + OTHER + "clicks = 7",
        "the arm 'other' has 7 clicks, which clicks lacks",
    ),
    "two sources": (
        HEAD + "clicks = [7]" + DATA + ARMS + OTHER + "clicks = 7\nsource = 'ts'",
        "the arm 'other' has both clicks and a source",
    ),
    "recipes that exclude one another": (
        HEAD + DATA + ARMS + OTHER + 'run = { recipe = ["dice", "ce"] }',
        "the run of the arm 'other': the recipes dice and ce do not combine",
    ),
    "guided folds": (
        HEAD + "folds = [0, 1]" + DATA + ARMS + OTHER + "run = { patience = 3 }",
        "patience cannot be set for a run in a cross-validation",
    ),
    "a fold's name": (HEAD + DATA + ARMS + '[[arms]]\nname = "a, fold 1"', "cannot be named"),
    "a misspelt comparison": (
        HEAD + DATA + "[comparison]\ntolerance = 1" + ARMS,
        "comparison has no 'tolerance', only",
    ),
    "an unknown base": (HEAD + 'base = "x"' + DATA + ARMS, "there is no base 'x', only paper"),
    "no TOML": (HEAD + "[", "is not TOML"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_what_cannot_be_is_said(tmp_path: Path, case: str) -> None:
    text, words = ERRORS[case]
    with pytest.raises(InputError, match=words) as error:
        read_plan(write(tmp_path, text))
    assert error.value.problem.endswith(".")
    assert "\n" not in error.value.problem


def test_a_plan_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"no plan 'nowhere'.*hippocampus.*phantom"):
        read_plan("nowhere")


@pytest.mark.parametrize("plan", built_in_plans(), ids=lambda plan: plan.name)
def test_the_built_in_plans(plan: Any) -> None:
    assert read_plan(plan.name) == plan
    assert len(plan.study_arms(1)) == len(plan.arms)


@pytest.mark.parametrize("plan", built_in_plans(), ids=lambda plan: plan.name)
def test_every_built_in_plan_runs_on_a_project_too(plan: Any, tmp_path: Path) -> None:
    own = plan.on_project(tmp_path).with_draws((5,)).with_run(epochs=30)
    assert (own.data.kind, own.data.draws, own.project) == ("project", (5,), None)
    assert {arm.name for arm in own.arms} == {arm.name for arm in plan.arms}
    if plan.layout and plan.layout.published:
        assert list(published(plan.layout.published).numbers())
    if plan.project:
        assert own.plan.features is None, "the paper's network, not the small one"
        for arm in own.arms:
            assert own.spec(arm, 5).epochs == arm.run.get("epochs", 30)


def test_there_is_a_plan_for_each_table_and_figure_of_the_paper() -> None:
    names = {plan.name for plan in built_in_plans()}
    assert names >= {f"table-{number}" for number in range(1, 13)}
    assert names >= {"figure-3-left", "figure-3-right", "figure-4", "figure-5", "figure-6"}
    assert names >= {"inverse-weighting", "softseg", "controls"}


def test_the_trainings_behind_the_pages_are_what_was_run() -> None:
    """What a plan says of layout and project changes no finished run of its phantoms."""
    plan = read_plan("controls")
    assert plan.data.draws == (301, 302, 303, 304, 305)
    assert plan.comparison == {}
    assert plan.plan.name == "own"
    assert all(arm.plan is None and not arm.after for arm in plan.study_arms(301))


def test_tables_share_their_runs_on_a_project(tmp_path: Path) -> None:
    eight, nine = (read_plan(name).on_project(tmp_path) for name in ("table-8", "table-9"))
    assert eight.plan == nine.plan
    assert eight.study_arms(0)[0].run == nine.study_arms(0)[0].run


def test_plan_sets_of_arms(tmp_path: Path) -> None:
    plans = "[plans.flat]\nconfiguration = '2d'\npatch_size = [32, 32]\n"
    other = OTHER + "plan = 'flat'\n[[arms]]\nname = 'slices'\nrun = { recipe = ['2d'] }"
    plan = read_plan(write(tmp_path, HEAD + DATA + "[plan]\nfolds = 3\n" + plans + ARMS + other))
    binary, _, flat, slices = plan.study_arms(1)
    assert binary.plan is None
    assert flat.plan is not None
    assert (flat.plan.name, flat.plan.patch_size, flat.plan.folds) == ("flat", (32, 32), 3)
    assert slices.plan is not None
    assert (slices.plan.name, slices.plan.configuration) == ("2d", "2d")
    own = plan.on_project(tmp_path)
    assert [arm.plan.name for arm in own.study_arms(1)[2:] if arm.plan] == ["mine-flat", "mine-2d"]


def test_arms_learn_the_supports_of_their_source(tmp_path: Path) -> None:
    arms = "[[arms]]\nname = '7'\nclicks = 7\n[[arms]]\nname = 'ts'\nsource = 'ts'\n"
    plan = read_plan(write(tmp_path, HEAD + "clicks = [7]\n" + DATA + ARMS + arms))
    known = ("kidney", "liver", "kidney-ts", "liver-ts", "kidney-7-clicks")
    _, ours, clicked, ts = plan.study_arms(1, known)
    assert ours.run.supports == ("kidney", "liver")
    assert (clicked.run.supports, clicked.after) == (
        ("kidney-7-clicks", "liver-7-clicks"),
        "7 clicks",
    )
    assert ts.run.supports == ("kidney-ts", "liver-ts")


def test_a_copy_is_told_from_a_support_by_its_original() -> None:
    known = ("kidney", "lung-ts", "kidney-ts", "kidney-10-clicks", "liver-7-clicks", "kidney-left")
    own = ("kidney", "lung-ts", "liver-7-clicks", "kidney-left")
    assert own_supports(known) == own
    assert own_supports(known, ["left"]) == own[:3]


def test_arms_that_ask_for_more_supports_than_there_are_can_be_left_out() -> None:
    kept, left_out = read_plan("figure-4").for_supports(2)
    assert "1 support" in {arm.name for arm in kept.arms}
    assert "7 supports" in left_out
    assert not {arm.name for arm in kept.arms} & set(left_out)


def test_the_phantom_begins_as_the_demo() -> None:
    plan = read_plan("phantom")
    assert plan.study_arms(5)[:2] == demo_arms(5)[:2]
    assert (plan.plan, plan.prediction) == (PLAN, PREDICTION)
