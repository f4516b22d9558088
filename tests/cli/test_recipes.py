"""Recipes on the command line: one line for a method, its plans first, and clear refusals."""

from __future__ import annotations

import json
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from napari_backsplit.backend import improvement
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json
from napari_backsplit.backend.jobs import submit
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import baseline, budget, recipes
from napari_backsplit.backend.training.recipe_defaults import require_installed
from napari_backsplit.backend.training.recipe_plans import plan_to_make
from napari_backsplit.backend.training.recipes import RECIPES
from napari_backsplit.backend.training.spec import FINETUNE, PlanSpec, RunSpec
from napari_backsplit.cli import app, console, models, repeating

runner = CliRunner()
START = {"baseline": "jobs/0002-train/model", "plan_set": "own", "fold": 0}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any], str]]:
    """Every job that would have been started: task, parameters and what it waits for."""
    jobs: list[tuple[str, dict[str, Any], str]] = []

    def job(
        project: Path, task: str, params: dict[str, Any], *_: Any, after: str = "", **how: Any
    ) -> dict[str, Any]:
        jobs.append((task, params, after))
        return {"job": f"{len(jobs):04}-{task}"}

    monkeypatch.setattr(models, "_job", job)
    monkeypatch.setattr(models, "_begin_training", lambda *given: None)
    return jobs


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the model that a fine-tune starts from says of itself; a test adds to it."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(baseline, "start_of", lambda folder, model: START | said)
    monkeypatch.setattr(baseline, "learning_of", lambda folder, model: {})
    monkeypatch.setattr(improvement, "_called", lambda *given: ("model", ()))
    monkeypatch.setattr(improvement, "_plan", lambda *given: (None, ()))
    monkeypatch.setattr(budget, "trained_iterations", lambda folder: 1)
    return said


def call(folder: Path, *command: str) -> Result:
    return runner.invoke(app, [*command, "-p", str(folder)])


def runs(asked: list[tuple[str, dict[str, Any], str]]) -> list[RunSpec]:
    return [RunSpec.model_validate(params["run"]) for task, params, _ in asked if task == "train"]


# ---------------------------------------------------------------------- the list


def test_all_are_listed_with_what_they_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.out, "width", 200)
    text = runner.invoke(app, ["recipes"]).stdout
    assert all(f"\n{name} " in text for name in RECIPES)
    assert "final learning rate 1e-06" in text
    listed = json.loads(runner.invoke(app, ["recipes", "--json"]).stdout)
    assert [recipe["name"] for recipe in listed] == list(RECIPES)


def test_what_is_not_installed_is_said_with_the_command_that_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        recipes, "find_spec", lambda name: None if name == "monai" else util.find_spec(name)
    )
    text = runner.invoke(app, ["recipes"]).stdout
    for name in ("segresnet", "swinunetr"):
        why = "monai is not installed. Install it with: pip install"
        assert f"{name} cannot be used here: {why}" in text
    for run in (RunSpec(recipe=("segresnet",)), RunSpec(architecture="swinunetr")):
        with pytest.raises(InputError, match="monai is not installed") as error:
            require_installed(run)
        assert error.value.remedy == f"Install it with: {recipes.MONAI_COMMAND}"
    require_installed(RunSpec(recipe=("resenc-m", "focal")))


# ---------------------------------------------------------------------- train


def test_one_line_trains_both_arms_alike(
    asked: list[tuple[str, dict[str, Any], str]], tmp_path: Path
) -> None:
    line = ("--recipe", "segresnet, inverse-weighting", "--initial-lr", "3e-4")
    for arm in ("binary", "backsplit"):
        result = call(tmp_path, "train", "--arm", arm, *line)
        assert result.exit_code == 0, result.output
    binary, ours = runs(asked)
    assert ours == binary.model_copy(update={"arm": "backsplit"})
    assert (ours.architecture, ours.optimiser, ours.inverse_weighting) == (
        "segresnet", "adam", True
    )  # fmt: skip
    assert ours.initial_lr == 3e-4, "what is said beside a recipe stays"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("segresent", "There is no recipe 'segresent'"),
        ("focal,dice", "The recipes focal and dice do not combine: both set loss."),
        ("focal,focal", "The recipe focal is named twice."),
        ("swinunetr,2d", "Swinunetr is for volumes"),
        ("softseg,inverse-weighting", "takes no weights of voxels"),
    ],
)
def test_recipes_that_do_not_work_are_refused_in_a_sentence(
    asked: list[tuple[str, dict[str, Any], str]],
    learnt: dict[str, Any],
    tmp_path: Path,
    names: str,
    words: str,
) -> None:
    for command in (["train"], ["finetune", "--from", "2", "--supports", "kidney"]):
        result = call(tmp_path, *command, "--recipe", names)
        assert isinstance(result.exception, InputError)
        assert words in str(result.exception)
        assert "\n" not in str(result.exception)
    assert not asked


def test_a_text_is_names_and_not_letters() -> None:
    assert RunSpec.model_validate({"recipe": "2d"}).recipe == ("2d",)
    assert RunSpec.model_validate({"recipe": "focal, batch-2"}).recipe == ("focal", "batch-2")
    assert RunSpec.model_validate({"recipe": ""}).recipe == ()
    with pytest.raises(ValueError, match="recipe"):
        RunSpec.model_validate({"recipe": 2})


def test_plans_that_a_recipe_needs_are_made_first_and_said(
    asked: list[tuple[str, dict[str, Any], str]], tmp_path: Path
) -> None:
    own = PlanSpec(folds=3, features=(4, 8), patch_size=(16, 16, 16), batch_size=7)
    _write_plans(tmp_path, own)
    result = call(tmp_path, "train", "--recipe", "2d", "--detach")
    assert "plan set 2d is made first" in result.stderr
    assert [(task, after) for task, _, after in asked] == [("plan", ""), ("train", "0001-plan")]
    plan = PlanSpec.model_validate(asked[0][1]["plan"])
    assert plan == PlanSpec(name="2d", configuration="2d", folds=3, features=(4, 8))
    assert runs(asked)[0].plan_set == "2d"
    asked.clear()
    _write_plans(tmp_path, plan)
    assert "made first" not in call(tmp_path, "train", "--recipe", "2d").stderr
    assert [task for task, _, _ in asked] == ["train"]
    call(tmp_path, "train", "--recipe", "3d-lowres", "--plan-set", "own")
    assert [task for task, _, _ in asked] == ["train", "train"], "--plan-set wins"
    assert runs(asked)[1].plan_set == "own"


def test_a_plan_set_that_only_has_the_name_is_not_taken(tmp_path: Path) -> None:
    _write_plans(tmp_path, PlanSpec(name="2d", configuration="3d_fullres"))
    with pytest.raises(InputError, match="of the configuration 3d_fullres, not 2d"):
        plan_to_make(tmp_path, RunSpec(recipe=("2d",)))


def _write_plans(folder: Path, spec: PlanSpec) -> None:
    file = folder / "nnunet" / "plan_sets" / f"{spec.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, {"spec": spec.model_dump(mode="json"), "ready": True, "splits": [{}, {}, {}]})


# ---------------------------------------------------------------------- fine-tunes


def test_a_fine_tune_takes_a_loss_that_is_no_mean_over_classes(
    asked: list[tuple[str, dict[str, Any], str]], learnt: dict[str, Any], tmp_path: Path
) -> None:
    line = ("finetune", "--from", "2", "--supports", "kidney")
    for said in (("--recipe", "focal"), ("--loss", "focal"), ("--recipe", "dice")):
        result = call(tmp_path, *line, *said)
        assert result.exit_code == 0, result.output
    focal, control, by_hand, _, dice, _ = runs(asked)
    assert (focal.loss, focal.target_dice_share, focal.epochs) == ("focal", None, 250)
    assert control == focal.model_copy(update={"arm": "binary"})
    assert by_hand.target_dice_share is None
    assert dice.target_dice_share == FINETUNE["target_dice_share"]
    refused = call(tmp_path, *line, "--recipe", "focal,target-half")
    assert "a mean over classes, which focal is not" in str(refused.exception)


def test_a_fine_tune_keeps_its_baselines_network_and_plans(
    asked: list[tuple[str, dict[str, Any], str]], learnt: dict[str, Any], tmp_path: Path
) -> None:
    line = ("finetune", "--from", "2", "--supports", "kidney", "--recipe")
    assert "keeps its baseline's network (planned)" in str(
        call(tmp_path, *line, "segresnet").exception
    )
    assert "keeps its baseline's plans" in str(call(tmp_path, *line, "2d").exception)
    learnt |= {"architecture": "segresnet", "optimiser": "adam"}
    assert call(tmp_path, *line, "batch-4").exit_code == 0
    assert call(tmp_path, *line, "segresnet").exit_code == 0, "its own may be said"
    assert {(run.architecture, run.optimiser) for run in runs(asked)} == {("segresnet", "adam")}


def test_a_recipe_does_not_choose_the_arm_where_the_command_does(
    asked: list[tuple[str, dict[str, Any], str]], learnt: dict[str, Any], tmp_path: Path
) -> None:
    with Project.create(tmp_path / "p", "arms", ["CT"], ["lesion"], ["kidney"]) as project:
        folder = project.folder
    for command in (["finetune", "--from", "2"], ["crossvalidate"], ["improve", "2"]):
        result = call(folder, *command, "--recipe", "virtual,focal")
        assert "The recipe virtual chooses the arm" in str(result.exception)


# ---------------------------------------------------------------------- again


def test_a_run_is_repeated_with_other_recipes(tmp_path: Path) -> None:
    run = RunSpec(recipe=("swinunetr",), arm="binary", epochs=9, initial_lr=1e-3)
    job = submit(tmp_path, "train", {"run": run.model_dump(mode="json")}, "t", start=False)
    wanted: dict[str, Any] = {"run": {"recipe": "segresnet", "seed": 4}}
    repeating._take_recipes(job, wanted)
    repeating._require_fit(job, wanted)
    again = RunSpec.model_validate(job.spec.params["run"] | wanted["run"])
    assert again == RunSpec(recipe=("segresnet",), arm="binary", epochs=9, initial_lr=1e-3, seed=4)
    assert json.loads(json.dumps(wanted)) == wanted, "a job holds plain values"
    with pytest.raises(InputError, match="needs plans of its own"):
        repeating._take_recipes(job, {"run": {"recipe": "2d"}})
