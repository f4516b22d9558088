from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.plan import built_in_plans, read_plan
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
    "one arm": (HEAD + DATA + OTHER, "arms .*at least 2 items"),
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


def test_the_phantom_begins_as_the_demo() -> None:
    plan = read_plan("phantom")
    assert plan.study_arms(5)[:2] == demo_arms(5)[:2]
    assert (plan.plan, plan.prediction) == (PLAN, PREDICTION)
