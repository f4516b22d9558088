"""Several plan sets, folds, clicks and noisy supports, with tasks that only act as trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from experiment_support import BINARY, DATA, FAKE, OURS, arm, plan_of

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.draws import Draw, draws_of, facts_of
from napari_backsplit.backend.experiments.footprint import footprint_gb, unet_parameters
from napari_backsplit.backend.experiments.forecast import forecast
from napari_backsplit.backend.experiments.masks import moved_border, source_quality
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.runner import jobs_of, run_experiment
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.prediction.roles import FINAL
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import StudyArm, study_steps
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

ONE = {"draws": [1]}


def run(plan: ExperimentPlan, folder: Path) -> list[DrawResult]:
    return run_experiment(plan, folder, **FAKE)


def test_each_arm_trains_in_its_plan_set(folder: Path) -> None:
    flat = {"configuration": "2d", "patch_size": [16, 16]}
    plan = plan_of(BINARY, {**OURS, "plan": "flat"}, plans={"flat": flat}, data=ONE)
    (result,) = run(plan, folder)
    assert {outcome.state for outcome in result.outcomes.values()} == {"done"}
    jobs = jobs_of(plan, folder)
    assert jobs["draw 1: plan flat"].spec.params["plan"]["configuration"] == "2d"
    assert jobs["draw 1: ours"].spec.params["run"]["plan_set"] == "flat"
    assert jobs["draw 1: binary"].spec.params["run"]["plan_set"] == "own"


def test_a_plan_set_that_fails_ends_its_own_arms_only(folder: Path) -> None:
    plan = plan_of(
        BINARY, OURS, {**arm("flat"), "plan": "bad"}, plans={"bad": {"batch_size": 7}}, data=ONE
    )
    (result,) = run(plan, folder)
    states = {name: outcome.state for name, outcome in result.outcomes.items()}
    assert states["ours"] == "done"
    assert result.outcomes["flat"].text == "not run (the plan bad failed: The plan is bad)"
    assert result.summary is not None


def test_five_folds_predict_what_they_were_not_taught_and_are_pooled(
    folder: Path, tmp_path: Path
) -> None:
    spec = PhantomSpec(shape=(8, 10, 10))
    sample_project(tmp_path / "mine", 3, 4, 1, spec).close()
    chosen = plan_of(BINARY, OURS, arm("longer", "binary", arm="binary"), folds=[0, 1])
    plan = chosen.on_project(tmp_path / "mine").with_draws((0,))
    (result,) = run(plan, folder)
    assert {outcome.state for outcome in result.outcomes.values()} == {"done"}
    held_out = facts_of(plan, Draw(0, tmp_path / "mine")).folds
    assert sorted(case for cases in held_out.values() for case in cases) == sorted(result.fold_of)
    jobs = jobs_of(plan, folder)
    for fold in (0, 1):
        trained = jobs[f"draw 0: ours, fold {fold}"]
        predicted = jobs[f"draw 0: predict ours, fold {fold}"].spec.params
        assert trained.spec.params["run"]["fold"] == fold
        assert (predicted["folds"], predicted["checkpoint"]) == ([fold], FINAL)
        assert tuple(predicted["cases"]) == tuple(held_out[fold])
    start = jobs["draw 0: longer, fold 1"].spec.params["run"]["baseline"]
    assert start == f"jobs/{jobs['draw 0: binary, fold 1'].id}/model"
    pooled = jobs["draw 0: compare"].spec.params["arms"]["ours"]
    assert len(pooled) == 2
    assert forecast(plan, folder).to_do == 0


def test_clicks_are_made_first_and_become_supports_of_their_own(folder: Path) -> None:
    plan = plan_of(BINARY, OURS, {**arm("clicked"), "clicks": 7}, clicks=[7], data=ONE)
    (result,) = run(plan, folder)
    assert {outcome.state for outcome in result.outcomes.values()} == {"done"}
    assert result.quality == {"7 clicks": {"kidney": 0.5, "liver": 0.5, "bowel": 0.5}}
    jobs = jobs_of(plan, folder)
    assert jobs["draw 1: ours"].spec.params["run"]["supports"] == ["kidney", "liver", "bowel"]
    learnt = jobs["draw 1: clicked"].spec.params["run"]["supports"]
    assert learnt == [f"{name}-7-clicks" for name in ("kidney", "liver", "bowel")]
    with Project.open(folder / "draw-1") as project:
        case = project.training_cases()[0]
        for name in learnt:
            record = project.provenance(case, name)
            assert record is not None
            assert record.review == "accepted"
        assert record.notes == ("It is not there.",), "as no bowel was clicked, none is learnt"
        assert project.mask_path(project.test_cases()[0], "kidney-7-clicks") is None
        project.judge(case, "rejected", "kidney-7-clicks")
    again = run(plan, folder)
    assert again[0].outcomes == result.outcomes, "what is done is not done again"
    with Project.open(folder / "draw-1", read_only=True) as project:
        judged = project.provenance(case, "kidney-7-clicks")
        assert judged is not None
        assert judged.review == "rejected", "a person's word stays"


def test_what_one_plan_clicked_no_other_one_learns(folder: Path) -> None:
    clicked = plan_of(BINARY, OURS, {**arm("clicked"), "clicks": 7}, clicks=[7], data=ONE)
    run(clicked, folder)
    for other in (plan_of(BINARY, OURS), clicked):
        plan = other.on_project(folder / "draw-1").with_draws((0,))
        (draw,) = draws_of(plan, folder)
        facts = facts_of(plan, draw)
        assert "kidney-7-clicks" in facts.supports
        ours = plan.study_arms(0, facts.supports)[1]
        assert ours.run.supports == ("kidney", "liver", "bowel")


def test_sources_that_a_project_lacks_are_refused(folder: Path, tmp_path: Path) -> None:
    spec = PhantomSpec(shape=(8, 10, 10))
    sample_project(tmp_path / "mine", 3, 4, 1, spec).close()
    plan = ExperimentPlan.model_validate(
        {"name": "tiny", "title": "T", "data": DATA, "quality": {"ts": "TS"}}
    ).on_project(tmp_path / "mine")
    with pytest.raises(InputError, match="no support of the source 'ts', as kidney-ts"):
        run(plan, folder)


def test_noisy_supports_are_measured_and_nothing_is_trained(folder: Path) -> None:
    data = {**DATA, **ONE, "noisy": {"ts": 1.0, "vs": 4.0}, "phantom": {"shape": [20, 30, 30]}}
    plan = ExperimentPlan.model_validate(
        {"name": "tiny", "title": "T", "data": data, "plan": {"folds": 2}}
        | {"quality": {"ts": "TS", "vs": "VS"}}
    )
    (result,) = run(plan, folder)
    assert set(result.quality) == {"TS", "VS"}
    for name, near in result.quality["TS"].items():
        assert result.quality["VS"][name] < near < 1
    with Project.open(folder / "draw-1", read_only=True) as project:
        assert source_quality(project, "ts") == result.quality["TS"]
        assert source_quality(project, "nobody") == {}
    assert jobs_of(plan, folder) == {}


@pytest.mark.parametrize("voxels", [0.5, 2.0])
def test_a_border_moves_about_as_far_as_asked(voxels: float) -> None:
    mask = np.zeros((24, 24, 24), bool)
    mask[6:18, 6:18, 6:18] = True
    moved = moved_border(mask, voxels, np.random.default_rng(1))
    assert moved[11:13, 11:13, 11:13].all()
    assert 0 < np.count_nonzero(moved != mask) < voxels * 6 * 12**2 * 2
    empty = np.zeros_like(mask)
    assert not moved_border(empty, voxels, np.random.default_rng(1)).any()


def test_a_dry_run_knows_the_space_before_anything_was_run(tmp_path: Path) -> None:
    plan = plan_of(BINARY, OURS, plan={"features": [8, 16, 32, 64]}, data=ONE)
    expected = forecast(plan, tmp_path / "nowhere")
    assert expected.hours != expected.hours
    assert not expected.measured
    assert expected.unknown == 2
    draws = draws_of(plan, tmp_path / "nowhere")
    assert expected.needed_gb == pytest.approx(footprint_gb(plan, draws))
    wide = plan_of(BINARY, OURS, data=ONE)
    assert footprint_gb(wide, draws) > 0.5, "nnU-Net's own U-Net: 31 million parameters"
    kernels = 27 * (1 * 2 + 2 * 2 + 2 * 4 + 4 * 4 + 3 * 2 * 2) + 8 * 4 * 2
    assert unet_parameters((2, 4)) == kernels


def test_steps_of_a_study_need_the_plan_set_of_their_arm() -> None:
    flat = PlanSpec(name="flat", configuration="2d")
    arms = [
        StudyArm("binary", RunSpec(arm="binary")),
        StudyArm("slices", RunSpec(), None, flat, "7 clicks"),
    ]
    steps: dict[str, Any] = {step.name: step for step in study_steps(PlanSpec(), arms, {}, {})}
    assert list(steps)[:2] == ["plan", "plan flat"]
    assert steps["binary"].needs == ("plan",)
    assert steps["slices"].needs == ("plan flat", "7 clicks")
