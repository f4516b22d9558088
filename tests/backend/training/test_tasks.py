from __future__ import annotations

import shutil
from math import nan
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Note
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import prepare, recipes
from napari_backsplit.backend.training.arms import arm_scheme
from napari_backsplit.backend.training.card import licences
from napari_backsplit.backend.training.readiness import (
    require_ready,
    require_same_network,
    require_same_outputs,
)
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.training.tasks import (
    LEARNT,
    _name_unlearnt,
    _prepared,
    _told_background,
)
from napari_backsplit.backend.volume import Volume, read_label_map
from tests.backend.training.conftest import RUN

LABELS = {"background": 0, "lesion": 1, "kidney": 2, "liver": 3}


@pytest.mark.parametrize(
    ("kidney", "liver", "named"),
    [
        (LEARNT, 0.9, []),
        (0.04, 0.9, ["kidney 0.04"]),
        (0.04, 0.0, ["kidney 0.04, liver 0.00"]),
        (nan, 0.9, []),  # in no validation patch
    ],
)
def test_supports_that_were_not_learnt_are_named(
    kidney: float, liver: float, named: list[str]
) -> None:
    notes: list[Any] = []
    trainer = SimpleNamespace(
        logger=SimpleNamespace(get_value=lambda key, step: [0.1, kidney, liver]),
        dataset_json={"labels": LABELS, "backsplit": {"supports": ["kidney", "liver"]}},
    )
    _name_unlearnt(SimpleNamespace(report=notes.append), trainer)  # type: ignore[arg-type]
    assert [note.level for note in notes] == ["warning"] * len(named)
    assert all(f": {text}." in note.text for note, text in zip(notes, named, strict=True))


def test_of_a_support_told_to_be_background_no_dice_is_said() -> None:
    notes: list[Any] = []
    scheme = {"supports": ["kidney", "liver"], "told_background": ["kidney"]}
    trainer = SimpleNamespace(
        logger=SimpleNamespace(get_value=lambda key, step: [0.1, 0.04, 0.0]),
        dataset_json={"labels": LABELS, "backsplit": scheme},
    )
    _name_unlearnt(SimpleNamespace(report=notes.append), trainer)  # type: ignore[arg-type]
    (note,) = notes
    assert ": liver 0.00." in note.text, "what is rightly found counts as false in the kidney"


def test_the_card_says_which_supports_some_case_is_told_to_be_without(folder: Path) -> None:
    with Project.open(folder) as project:
        project.judge("case_004", "rejected", "kidney")
        for missing, told in (("background", ["kidney"]), ("label-set", [])):
            scheme = arm_scheme(
                project, "backsplit", ["kidney"], project.case_ids(), missing=missing
            )
            assert _told_background(project, scheme, project.case_ids()) == told


# ---------------------------------------------------------------- what a run reads

KIDNEY = RUN.model_copy(update={"arm": "backsplit", "supports": ("kidney",)})


@pytest.fixture
def folder(planned: Path, tmp_path: Path) -> Path:
    """A planned project that a test may change."""
    return Path(shutil.copytree(planned, tmp_path / "project"))


def context_of(folder: Path, attempt: int = 1, run: RunSpec = KIDNEY) -> Any:
    """Return what a task sees of its job; `notes` holds what it reported."""
    notes: list[Any] = []
    return SimpleNamespace(
        project_folder=folder,
        params={"run": run.model_dump(mode="json")},
        folder=folder / "jobs" / "job",
        attempt=attempt,
        notes=notes,
        report=lambda event: notes.append(event) if isinstance(event, Note) else None,
        checkpoint=lambda: None,
        spec=SimpleNamespace(versions={}),
    )


def kidney_told(folder: Path, dataset_json: dict[str, Any], case: str) -> np.ndarray:
    """Return where the network is told of the kidney in a case."""
    names = read_json(folder / "nnunet" / "plan_sets" / "own.json")["arms"].items()
    made_from = {
        name: read_json(folder / "nnunet" / "raw" / dataset / "sources.json")
        for name, dataset in names
    }
    (name,) = [n for n, made in made_from.items() if made == dataset_json["backsplit"]["masks"]]
    dataset = read_json(folder / "nnunet" / "plan_sets" / "own.json")["arms"][name]
    file = folder / "nnunet" / "raw" / dataset / "labelsTr" / f"{case}.nii.gz"
    return np.asarray(read_label_map(file).array == 2)


def empty_the_kidney(folder: Path, case: str, *, accept: bool = False) -> None:
    """Do what a person does who edits while a job runs."""
    with Project.open(folder) as project:
        nothing = Volume(np.zeros(project.geometry(case).shape, bool), project.geometry(case))
        project.set_mask(case, "kidney", nothing, {"engine": "test"}, replace=True)
        if accept:
            project.judge(case, "accepted", "kidney")


def test_a_run_keeps_the_masks_that_it_had_at_its_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Project.open(folder, read_only=True) as project:
        lesion = project.mask("case_003", "lesion")
        kidney = project.mask("case_003", "kidney") & ~lesion
    assert kidney.any()
    prepare_arm = prepare.prepare_arm

    def edited_meanwhile(*given: Any, **how: Any) -> Any:
        empty_the_kidney(folder, "case_003", accept=True)
        with Project.open(folder) as project:
            project.judge("case_004", "rejected", "kidney")
            project.add_recipe("subtract", "kidney", ["liver"])
        return prepare_arm(*given, **how)

    monkeypatch.setattr(prepare, "prepare_arm", edited_meanwhile)
    context = context_of(folder)
    _, dataset_json = _prepared(context, KIDNEY)
    assert np.array_equal(kidney_told(folder, dataset_json, "case_003"), kidney)
    assert kidney_told(folder, dataset_json, "case_004").any()
    assert dataset_json["backsplit"]["label_sets"] == []
    assert context.notes == []

    monkeypatch.setattr(prepare, "prepare_arm", prepare_arm)
    with Project.open(folder) as project:
        project.remove_recipe(0)
    later = context_of(folder, attempt=2)
    _, dataset_json = _prepared(later, KIDNEY)
    assert not kidney_told(folder, dataset_json, "case_003").any()
    assert not kidney_told(folder, dataset_json, "case_004").any()
    assert dataset_json["backsplit"]["label_sets"] == [[0, 2]]
    (note,) = later.notes
    assert note.level == "warning"
    assert note.text.startswith("kidney is not known in 1 of 6 cases")


def test_a_run_learns_nothing_from_masks_that_nobody_accepted(folder: Path) -> None:
    with Project.open(folder) as project:
        cases = project.training_cases()
        for case in cases:
            project.judge(case, "needs_work", "kidney")
    with pytest.raises(InputError, match="kidney: none of 6 training cases"):
        _prepared(context_of(folder), KIDNEY)
    anyway = RunSpec.model_validate({**KIDNEY.model_dump(), "masks": "unreviewed"})
    context = context_of(folder, attempt=2, run=anyway)
    _, dataset_json = _prepared(context, anyway)
    assert kidney_told(folder, dataset_json, cases[0]).any()
    assert dataset_json["backsplit"]["run"]["masks"] == "unreviewed"
    assert context.notes == []


def test_a_run_learns_nothing_from_masks_that_are_empty(folder: Path) -> None:
    with Project.open(folder, read_only=True) as project:
        cases = project.training_cases()
    for case in cases:
        empty_the_kidney(folder, case, accept=True)
    with pytest.raises(InputError, match="kidney are empty wherever they are known"):
        _prepared(context_of(folder), KIDNEY)
    with Project.open(folder, read_only=True) as project:
        with pytest.raises(InputError, match="kidney are empty wherever they are known"):
            require_ready(project, KIDNEY)
        require_ready(project, RUN.model_copy(update={"arm": "binary"}))


# ---------------------------------------------------------------- methods of the papers


def run_of(**changes: Any) -> RunSpec:
    return RunSpec.model_validate({**KIDNEY.model_dump(exclude={"recipe"}), **changes})


@pytest.mark.parametrize("missing", ["label-set", "background"])
def test_a_share_of_the_cases_is_told_of_the_support(folder: Path, missing: str) -> None:
    run = run_of(support_cases=0.5, missing=missing, seed=3)
    context = context_of(folder, run=run)
    _, dataset_json = _prepared(context, run)
    splits = read_json(folder / "nnunet" / "plan_sets" / "own.json")["splits"][0]
    told = {part: [kidney_told(folder, dataset_json, c).any() for c in splits[part]]
            for part in ("train", "val")}  # fmt: skip
    assert [sum(told[part]) for part in ("train", "val")] == [2, 1]
    assert [len(told[part]) for part in ("train", "val")] == [4, 2]
    assert dataset_json["backsplit"]["label_sets"] == ([[0, 2]] if missing == "label-set" else [])
    assert [note.level for note in context.notes] == ["warning"]
    assert "kidney is not known in 3 of 6 cases" in context.notes[0].text
    again = context_of(folder, attempt=2, run=run)
    assert _prepared(again, run)[1]["backsplit"]["masks"] == dataset_json["backsplit"]["masks"]


def test_the_card_keeps_the_recipes_and_what_was_other_than_planned(folder: Path) -> None:
    pytest.importorskip("monai")
    run = run_of(recipe=("swinunetr", "dice"), width=12, supports=("kidney", "bowel"),
                 support_count=1, optimiser="adamw", initial_lr=8e-4, weight_decay=0.01,
                 epsilon=1e-5, schedule="cosine", final_lr=1e-6, loss="dice",
                 architecture="swinunetr")  # fmt: skip
    context = context_of(folder, run=run)
    plans, dataset_json = _prepared(context, run)
    (configuration,) = plans["configurations"].values()
    assert "SwinUNETR" in configuration["architecture"]["network_class_name"]
    assert all(size % 32 == 0 for size in configuration["patch_size"])
    (note,) = context.notes
    assert (note.level, "The patch is" in note.text) == ("info", True)
    card = dataset_json["backsplit"]
    assert card["run"]["recipe"] == ["swinunetr", "dice"]
    assert card["supports"] == ["kidney"]
    assert RunSpec.model_validate(card["run"]) == run


def test_soft_labels_are_prepared_beside_the_codes(folder: Path) -> None:
    soft = {"labels": "soft", "activation": "sigmoid", "loss": "adaptive-wing"}
    context = context_of(folder, run=run_of(**soft))
    plans, _ = _prepared(context, run_of(**soft))
    assert plans["dataset_name"].endswith("-soft")
    arrays = folder / "nnunet" / "preprocessed" / plans["dataset_name"]
    assert len(list(arrays.rglob("*_soft.b2nd"))) == 6
    assert ["No case has a soft mask of lesion" in note.text for note in context.notes] == [True]
    assert context.notes[0].level == "info"
    partial = run_of(**soft, supports=("kidney", "liver"))
    with pytest.raises(InputError, match=r"liver in 1.*--missing background"):
        _prepared(context_of(folder, attempt=2, run=partial), partial)


def test_what_cannot_be_trained_is_refused_before_it_is_a_job(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft = {"labels": "soft", "activation": "sigmoid", "loss": "adaptive-wing"}
    with Project.open(folder, read_only=True) as project:
        for changes, reason in [
            ({"supports": ("kidney", "liver"), **soft}, "liver in 1"),
            ({"supports": (), "support_count": 9}, "first 9 supports"),
            ({"architecture": "swinunetr", "plan_set": "2d"}, "for volumes"),
            ({"patch_size": (15, 16, 16)}, r"\[15, 16, 16\] does not fit"),
        ]:
            plan = (
                PlanSpec(name="2d", configuration="2d", folds=3) if "plan_set" in changes else None
            )
            with pytest.raises(InputError, match=reason):
                require_ready(project, run_of(**changes), plan)
        require_ready(project, run_of(**soft))
        require_ready(project, run_of(**soft, arm="binary", support_cases=0.5, supports=()))
        with pytest.raises(ValidationError, match="add the recipe plain-partial"):
            run_of(**soft, support_cases=0.5)
        require_ready(project, run_of(**soft, missing="background", supports=("kidney", "liver")))
        monkeypatch.setattr(recipes, "find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"monai is not installed.*pip install"):
            require_ready(project, run_of(recipe=("segresnet",), architecture="segresnet"))


def test_a_fine_tune_keeps_the_network_of_its_baseline() -> None:
    card = {"plan_set": "own", "run": {"architecture": "segresnet", "width": 8}}
    require_same_network(run_of(architecture="segresnet", width=8), card)
    for changes in ({}, {"architecture": "segresnet"}, {"architecture": "swinunetr"}):
        with pytest.raises(InputError, match="of its baseline"):
            require_same_network(run_of(**changes), card)
    require_same_network(run_of(plan_set="adopted"), card)  # whose plans hold the network
    require_same_network(run_of(baseline="baselines/baseline-1"), card)  # the same, named alike
    with pytest.raises(InputError, match="of its baseline"):
        require_same_network(run_of(baseline="jobs/0001-train/model"), card)
    require_same_network(run_of(), {})
    with pytest.raises(InputError, match="that of its baseline planned"):
        require_same_network(run_of(architecture="resenc-m"), {})


SOFT = {"labels": "soft", "activation": "sigmoid", "loss": "adaptive-wing"}


def test_a_fine_tune_from_classes_to_shares_or_back_starts_its_output_layer_anew() -> None:
    hard, soft = (cast("ModelFolder", SimpleNamespace(soft=soft)) for soft in (False, True))
    for model, same, other in ((hard, {}, SOFT), (soft, SOFT, {})):
        require_same_outputs(run_of(**same), model)
        require_same_outputs(run_of(**other, head="random"), model)
        with pytest.raises(InputError, match=r"target is not kept.*--head random"):
            require_same_outputs(run_of(**other), model)
    with pytest.raises(ValueError, match="split_offset and split_noise"):
        run_of(**SOFT, split_noise=0.5)


def test_licences_are_of_the_masks_that_a_support_is_made_of(folder: Path) -> None:
    with Project.open(folder) as project:
        for case, name, licence in [
            ("case_001", "kidney", "CC-BY-4.0"),
            ("case_001", "liver", "CC-BY-NC-4.0"),
            ("case_003", "bowel", "MIT"),
        ]:
            volume = Volume(project.mask(case, name), project.geometry(case))
            project.set_mask(case, name, volume, {"licence": licence}, replace=True)
            project.judge(case, "accepted", name)
        project.judge("case_003", "needs_work", "bowel")
        project.add_recipe("merge", "organs", ["kidney", "bowel"])
        project.add_recipe("subtract", "organs", ["liver"])
        cases = project.training_cases()
        accepted = arm_scheme(project, "backsplit", ("organs",), cases)
        found = licences(project, accepted, cases)
        assert set(found["organs"]) >= {"CC-BY-4.0", "CC-BY-NC-4.0"}
        assert "MIT" not in found["organs"]  # it does not enter
        anyway = arm_scheme(project, "backsplit", ("organs",), cases, "unreviewed")
        assert "MIT" in licences(project, anyway, cases)["organs"]
