from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from napari_backsplit.backend import improvement
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion import advisor, places
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import baseline, budget
from napari_backsplit.backend.training.budget import least_iterations
from napari_backsplit.backend.training.spec import FINETUNE, MANY_SUPPORTS, RunSpec
from napari_backsplit.backend.volume import Geometry, Volume, write_volume
from napari_backsplit.cli import app, console, models

runner = CliRunner()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The parameters of every job that would have been started."""
    params: list[dict[str, Any]] = []

    def job(project: Path, task: str, asked: dict[str, Any], *_: Any, **how: Any) -> dict[str, Any]:
        params.append(asked)
        return {}

    monkeypatch.setattr(models, "_job", job)
    monkeypatch.setattr(models, "_begin_training", lambda *given: None)
    return params


BASELINE = {"baseline": "jobs/0002-train/model", "plan_set": "own", "fold": 0}
LEARNT = {"optimiser": "adamw", "initial_lr": 3e-3, "weight_decay": 0.01}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> int:
    """Every model that is started from was trained for this many batches."""
    monkeypatch.setattr(baseline, "start_of", lambda folder, model: BASELINE)
    monkeypatch.setattr(improvement, "_called", lambda *given: ("model", ()))
    monkeypatch.setattr(baseline, "learning_of", lambda folder, model: LEARNT)
    monkeypatch.setattr(budget, "trained_iterations", lambda folder: 1)
    return 1


def test_what_is_said_wins_over_what_the_baseline_says(
    asked: list[dict[str, Any]], trained: int, tmp_path: Path
) -> None:
    for command in (["train"], ["finetune", "--supports", "kidney"]):
        runner.invoke(app, [*command, "--from", "2", "--fold", "1", "-p", str(tmp_path)])
    specs = [RunSpec.model_validate(each["run"]) for each in asked]
    assert [(spec.arm, spec.fold) for spec in specs] == [
        ("backsplit", 1),
        ("backsplit", 1),
        ("binary", 1),
    ]


def test_a_fine_tune_learns_as_its_baseline_did_unless_said_otherwise(
    asked: list[dict[str, Any]], trained: int, tmp_path: Path
) -> None:
    command = ["finetune", "--from", "2", "--supports", "kidney", "-p", str(tmp_path)]
    runner.invoke(app, command)
    runner.invoke(app, [*command, "--initial-lr", "1e-4", "--target-dice-share", "0.9"])
    default, _, said, _ = (RunSpec.model_validate(each["run"]) for each in asked)
    assert (default.optimiser, default.initial_lr, default.weight_decay) == ("adamw", 3e-3, 0.01)
    assert default.target_dice_share == FINETUNE["target_dice_share"]
    assert (said.optimiser, said.initial_lr, said.target_dice_share) == ("adamw", 1e-4, 0.9)


# ---------------------------------------------------------------------- fine-tunes

SHAPE = (4, 10, 12)
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
GRID = Geometry(SHAPE, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), AXES)
Make = Callable[..., Path]


def _box(left: int, right: int) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 2:8, left:right] = 1
    return mask


MASKS = {"lesion": _box(8, 10), "liver": _box(0, 4), "kidney": _box(6, 12)}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a project of some supports whose cases have these masks."""

    def folder(
        *cases: Mapping[str, np.ndarray],
        supports: tuple[str, ...] = ("liver", "kidney"),
        accepted: bool = True,
    ) -> Path:
        made = tmp_path / "project"
        with Project.create(made, "tuned", ["CT"], ["lesion"], supports) as project:
            for index, masks in enumerate(cases):
                file = tmp_path / f"image_{index}.nii.gz"
                write_volume(Volume(np.full(SHAPE, index, np.float32), GRID), file)
                case = project.add_case({"CT": file})
                for name, mask in masks.items():
                    project.set_mask(case.id, name, Volume(mask, GRID), {})
                    if accepted:
                        project.judge(case.id, "accepted", name)
        return made

    return folder


def _finetune(folder: Path, *options: str, epochs: int = least_iterations(1)) -> Result:
    length = ("--epochs", str(epochs), "--iterations", "1")
    return runner.invoke(app, ["finetune", "--from", "2", "-p", str(folder), *length, *options])


def _specs(asked: list[dict[str, Any]]) -> list[RunSpec]:
    return [RunSpec.model_validate(each["run"]) for each in asked]


def test_supports_are_chosen_by_where_the_lesions_lie_and_said_aside(
    asked: list[dict[str, Any]], trained: int, make: Make
) -> None:
    result = _finetune(make(MASKS, MASKS))
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    line = "Supports: kidney. Lesions that lie in each: kidney 100%, liver 0%.\n"
    assert result.stderr == line
    assert [(spec.arm, spec.supports) for spec in _specs(asked)] == [
        ("backsplit", ("kidney",)),
        ("binary", ("kidney",)),
    ]


def test_the_control_differs_in_its_arm_alone(
    asked: list[dict[str, Any]], trained: int, make: Make
) -> None:
    folder = make(MASKS)
    options = ("--head", "random", "--split-noise", "0.5", "--schedule", "cosine", "--seed", "3")
    _finetune(folder, *options)
    tuned, control = _specs(asked)
    assert control == tuned.model_copy(update={"arm": "binary"})
    assert (tuned.head, tuned.split_noise, tuned.schedule) == ("random", 0.5, "cosine")
    _finetune(folder, "--no-control")
    assert [spec.arm for spec in _specs(asked)[2:]] == ["backsplit"]


def test_the_control_of_hours_follows_the_fine_tune(
    asked: list[dict[str, Any]], trained: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(project: Path, task: str, params: dict[str, Any], *_: Any, **how: Any) -> Any:
        asked.append(params)
        return {"job": f"000{len(asked)}-train"}

    monkeypatch.setattr(models, "_job", job)
    command = ["finetune", "--from", "2", "-p", str(make(MASKS)), "--hours", "2"]
    assert runner.invoke(app, command).exit_code == 0
    _, control = _specs(asked)
    assert (control.hours, control.same_epochs_as) == (None, "jobs/0001-train/model")
    refused = runner.invoke(app, [*command, "--detach"])
    assert isinstance(refused.exception, InputError)
    assert len(asked) == 2


def test_supports_that_are_named_win_and_no_mask_is_read(
    asked: list[dict[str, Any]], trained: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(advisor, "advise")
    result = _finetune(make(MASKS), "--supports", "liver")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert {spec.supports for spec in _specs(asked)} == {("liver",)}


def test_of_many_cases_some_are_looked_at_and_that_is_said(
    asked: list[dict[str, Any]], trained: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "ENOUGH_CASES", 1)
    assert "liver 0% (1 of 3 cases)." in _finetune(make(MASKS, MASKS, MASKS)).stderr


@pytest.mark.parametrize(
    ("supports", "masks"),
    [((), ("lesion",)), (("liver", "kidney"), ("lesion",))],
    ids=["no support", "no mask of one"],
)
def test_a_project_without_supports_is_refused_with_the_remedy(
    asked: list[dict[str, Any]],
    trained: int,
    make: Make,
    supports: tuple[str, ...],
    masks: tuple[str, ...],
) -> None:
    folder = make({name: MASKS[name] for name in masks}, supports=supports)
    result = _finetune(folder)
    assert isinstance(result.exception, InputError)
    assert "Import or click a support first." in str(result.exception)
    assert "Supports:" not in result.stderr
    assert not asked


def test_supports_are_chosen_by_the_masks_that_enter_the_training(
    asked: list[dict[str, Any]], trained: int, make: Make
) -> None:
    folder = make(MASKS, accepted=False)
    refused = _finetune(folder)
    assert isinstance(refused.exception, InputError)
    assert "--masks unreviewed" in refused.exception.remedy
    with Project.open(folder) as project:
        project.judge(project.case_ids()[0], "accepted", "liver")
    _finetune(folder)
    _finetune(folder, "--masks", "unreviewed")
    assert [spec.supports for spec in _specs(asked)[::2]] == [("liver",), ("kidney",)]


def test_a_warning_comes_before_the_start_and_does_not_block_it(
    asked: list[dict[str, Any]], trained: int, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(console, "say_aside", lambda text, style="": told.append(len(asked)))
    many = ",".join(f"organ{index}" for index in range(MANY_SUPPORTS + 1))
    result = _finetune(make(MASKS), "--supports", many, epochs=least_iterations(trained) - 1)
    assert result.exit_code == 0, result.output
    assert told == [0, 0], "the length and the number, before any job"
    assert len(asked) == 2


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The titles of the jobs that were submitted; each of them succeeds at once."""
    from napari_backsplit.backend import jobs as backend

    titles: list[str] = []

    def submit(project: Path, task: str, params: dict[str, Any], title: str) -> Any:
        titles.append(title)
        return SimpleNamespace(id=f"000{len(titles)}-train")

    done = SimpleNamespace(result={"model": "jobs/x/model"})
    monkeypatch.setattr(backend, "submit", submit)
    monkeypatch.setattr(console, "follow_job", lambda job, **options: done)
    monkeypatch.setattr(models, "_begin_training", lambda *given: None)
    return titles


def test_json_stays_json_beside_choice_and_warning(
    submitted: list[str], trained: int, make: Make
) -> None:
    folder = make(MASKS)
    alone = _finetune(folder, "--json", "--no-control", epochs=1)
    assert json.loads(alone.stdout) == {"backsplit": {"job": "0001-train", "model": "jobs/x/model"}}
    assert "Supports: kidney." in alone.stderr
    assert "--epochs" in alone.stderr
    both = _finetune(folder, "--json", epochs=1)
    jobs = {arm: done["job"] for arm, done in json.loads(both.stdout).items()}
    assert jobs == {"backsplit": "0002-train", "binary": "0003-train"}
