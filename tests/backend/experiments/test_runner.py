from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from experiment_support import BINARY, FAKE, OURS, arm, jobs_in, plan_of, until
from filelock import FileLock

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.forecast import forecast
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.runner import jobs_of, results_of, run_experiment
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.jobs import State
from napari_backsplit.backend.phantom import PhantomSpec, sample_project

ONE = {"draws": [1]}


def run(plan: ExperimentPlan, folder: Path, **how: Any) -> list[DrawResult]:
    return run_experiment(plan, folder, **FAKE, **how)


def texts(result: DrawResult) -> dict[str, str]:
    return {name: outcome.text for name, outcome in result.outcomes.items()}


def arms_compared(result: DrawResult) -> list[str]:
    return [entry["arm"] for entry in (result.summary or {})["summaries"]]


def test_every_draw_has_its_project_its_seed_and_its_jobs(folder: Path) -> None:
    told: list[str] = []
    plan = plan_of(BINARY, OURS, arm("longer", "binary", arm="binary"), controls=["longer"])
    results = run(plan, folder, tell=lambda name, status: told.append(f"{name} {status.state}"))
    assert [arms_compared(r) for r in results] == [["binary", "ours", "longer"]] * 2
    assert results[0].outcomes["ours"].state == "done"
    assert 0 <= results[0].outcomes["ours"].hours < 0.1
    tasks = ["plan", *["train"] * 3, *["predict"] * 3, "compare"]
    jobs = sorted(f"draw-{seed} {task} 1" for seed in (1, 2) for task in tasks)
    assert sorted(jobs_in(folder)) == jobs
    named = jobs_of(plan, folder)
    assert named["draw 2: ours"].spec.params["run"]["seed"] == 2
    start = named["draw 2: longer"].spec.params["run"]["baseline"]
    assert start == f"jobs/{named['draw 2: binary'].id}/model"
    assert "draw 2: compare SUCCEEDED" in told
    again: list[str] = []
    run(plan, folder, tell=lambda name, status: again.append(status.state))
    assert set(again) == {State.SUCCEEDED}
    assert sorted(jobs_in(folder)) == jobs, "what is done is not done again"


def test_a_run_that_diverges_ends_only_what_needs_it_and_is_an_outcome(folder: Path) -> None:
    plan = plan_of(
        BINARY, arm("hot", initial_lr=7), arm("from hot", "hot"), OURS, controls=["hot"], data=ONE
    )
    (result,) = run(plan, folder)
    assert texts(result) == {
        "binary": "done",
        "hot": "diverged (epoch 3)",
        "from hot": "not run (hot failed)",
        "ours": "done",
    }
    assert arms_compared(result) == ["binary", "ours"]
    assert (result.summary or {})["controls"] == []
    before = jobs_in(folder)
    assert run(plan, folder) == [result]
    assert jobs_in(folder) == before, "a failed run is not run again"
    (folder / "draw-1" / "mended").touch()
    (result,) = run(plan, folder, retry=True)
    assert set(texts(result).values()) == {"done"}
    assert arms_compared(result) == ["binary", "hot", "from hot", "ours"]
    assert jobs_of(plan, folder)["draw 1: hot"].status().attempt == 2


def test_a_draw_whose_baseline_failed_is_kept_as_failed(folder: Path) -> None:
    failing = arm("binary", arm="binary", initial_lr=8)
    (result,) = run(plan_of(failing, OURS, data=ONE), folder)
    assert result.summary is None
    assert result.reason == "binary failed (ValueError: a | bad value)"
    assert result.outcomes["ours"].state == "done"


def test_a_baseline_alone_is_not_compared(folder: Path) -> None:
    (result,) = run(plan_of(BINARY, arm("hot", initial_lr=7), data=ONE), folder)
    assert (result.summary, result.reason) == (None, "no other arm is done")


def test_a_plan_that_fails_ends_its_draws(folder: Path) -> None:
    (result,) = run(plan_of(plan={"batch_size": 7}, data=ONE), folder)
    assert set(texts(result).values()) == {"not run (the plan failed: The plan is bad)"}


def test_what_was_broken_off_goes_on(folder: Path) -> None:
    plan = plan_of(BINARY, arm("slow", initial_lr=9), data=ONE)
    ended: list[DrawResult] = []
    runner = threading.Thread(target=lambda: ended.extend(run(plan, folder)))
    runner.start()
    until(lambda: "draw 1: slow" in jobs_of(plan, folder))
    slow = jobs_of(plan, folder)["draw 1: slow"]
    until(lambda: slow.status().state is State.RUNNING)
    assert texts(results_of(plan, folder)[0])["slow"] == "running"
    slow.cancel()
    runner.join(60)
    assert texts(ended[0])["slow"] == "broken off"
    assert ended[0].outcomes["binary"].state == "done"
    (folder / "draw-1" / "go").touch()
    (result,) = run(plan, folder)
    assert texts(result)["slow"] == "done"
    assert slow.status().attempt == 2


def test_a_job_from_before_a_field_existed_is_recognised(folder: Path) -> None:
    plan = plan_of(data=ONE)
    run(plan, folder)
    for job in jobs_of(plan, folder).values():
        spec = read_json(job.folder / "job.json")
        spec["params"].get("run", {}).pop("device", None)
        spec["params"].get("plan", {}).pop("workers", None)
        write_json(job.folder / "job.json", spec)
    before = jobs_in(folder)
    run(plan, folder)
    assert jobs_in(folder) == before
    other = plan_of(BINARY, arm("ours", epochs=3), data=ONE)
    assert "draw 1: ours" not in jobs_of(other, folder)


def test_a_project_that_was_broken_off_is_made_anew(folder: Path) -> None:
    torn = folder / ".making-draw-1"
    torn.mkdir(parents=True)
    (torn / "project.json").touch()
    said: list[str] = []
    run(plan_of(data=ONE), folder, say=said.append)
    assert said == ["Making draw-1."]
    assert not torn.exists()


def test_a_folder_keeps_its_data(folder: Path) -> None:
    run(plan_of(data=ONE), folder)
    run(plan_of(data={"draws": [1]}), folder)
    other = {"kind": "labels", "folder": "x", "channel": "MR", "ids": {1: "a"}, "targets": ["a"]}
    values = {**plan_of().model_dump(), "data": {**other, "test": 1}}
    for plan in (
        plan_of(data={"draws": [1], "train": 3}),
        ExperimentPlan.model_validate(values),
    ):
        with pytest.raises(InputError, match="holds an experiment on other data"):
            run(plan, folder)


def test_data_that_made_no_draw_may_change(folder: Path) -> None:
    write_json(folder / "data.json", {"kind": "labels"})
    assert run(plan_of(data=ONE), folder)[0].outcomes["ours"].state == "done"


def test_a_changed_run_is_trained_and_the_old_one_kept(folder: Path) -> None:
    run(plan_of(data=ONE), folder)
    before = jobs_in(folder)
    (result,) = run(plan_of(data=ONE, run={"epochs": 3}), folder)
    assert set(texts(result).values()) == {"done"}
    assert len(jobs_in(folder)) == len(before) + 5, "all but the plan"
    assert run(plan_of(data=ONE), folder)[0].summary is not None
    assert len(jobs_in(folder)) == len(before) + 5


def test_a_lost_summary_is_said(folder: Path) -> None:
    plan = plan_of(data=ONE)
    run(plan, folder)
    for file in folder.rglob("summary.json"):
        file.unlink()
    (result,) = run(plan, folder)
    assert result.summary is None
    assert result.reason.endswith("summary.json does not exist")


def test_files_that_cannot_be_imported_are_not_left_out(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "my data"
    for name in ("images", "labels"):
        (source / name).mkdir(parents=True)
        (source / name / "a.nii.gz").write_bytes(b"torn")
    data = {"kind": "labels", "folder": "x", "channel": "MR", "ids": {1: "a"}, "targets": ["a"]}
    values = {**plan_of().model_dump(), "data": {**data, "test": 1}}
    with pytest.raises(InputError, match=r"file\(s\) cannot be used: a.nii.gz"):
        run(ExperimentPlan.model_validate(values), folder, source=source)
    assert not (folder / "draw-0").exists()


def test_one_experiment_at_a_time_in_a_folder(folder: Path) -> None:
    folder.mkdir()
    with FileLock(folder / ".lock"), pytest.raises(InputError, match=r"runs in .* already"):
        run(plan_of(data=ONE), folder)


def test_a_project_of_ones_own(folder: Path, tmp_path: Path) -> None:
    project = tmp_path / "own"
    spec = PhantomSpec(shape=(8, 10, 10))
    sample_project(project, 3, train=2, test=1, spec=spec).close()
    plan = plan_of().on_project(project)
    results = run(plan, folder)
    assert [arms_compared(r) for r in results] == [["binary", "ours"]] * 2
    assert not list(folder.glob("draw-*"))
    plans = [job for job in jobs_in(tmp_path) if " plan " in job]
    assert plans == ["own plan 1"], "the draws share the plan set"
    assert jobs_of(plan, folder)["draw 1: plan"].spec.params["plan"]["name"] == "tiny"
    unfit = plan_of(BINARY, arm("ours", supports=["spleen"])).on_project(project)
    with pytest.raises(InputError, match="spleen"):
        run(unfit, folder)


def test_a_project_without_a_test_set_is_refused(folder: Path, tmp_path: Path) -> None:
    project = tmp_path / "own"
    spec = PhantomSpec(shape=(8, 10, 10))
    sample_project(project, 3, train=2, test=0, spec=spec).close()
    with pytest.raises(InputError, match="no held-out case"):
        run(plan_of().on_project(project), folder)
    with pytest.raises(InputError, match="is no project"):
        run(plan_of().on_project(tmp_path / "nowhere"), folder)


def test_data_that_is_not_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BACKSPLIT_TEST_DATA", raising=False)
    data = {"kind": "labels", "folder": "brain", "channel": "MR", "ids": {1: "a"}, "test": 1}
    values = {**plan_of().model_dump(), "data": {**data, "targets": ["a"]}}
    with pytest.raises(InputError, match="'brain' is not here"):
        run(ExperimentPlan.model_validate(values), folder)


def test_a_forecast_writes_nothing(folder: Path) -> None:
    plan = plan_of(BINARY, arm("hot", initial_lr=7), data=ONE, run={"epochs": 2, "iterations": 5})
    new = forecast(plan, folder)
    assert (new.to_do, new.iterations) == (2, 20)
    assert new.hours != new.hours
    assert not folder.exists()
    run(plan, folder)
    more = plan.with_draws((1, 2))
    later, again = forecast(more, folder), forecast(more, folder, retry=True)
    assert [run.outcome.state for run in later.runs] == ["done", "diverged", "to do", "to do"]
    assert (later.to_do, later.iterations) == (2, 20)
    assert (again.to_do, again.iterations) == (3, 30)
    done = jobs_of(more, folder)["draw 1: binary"].status()
    assert done.started
    assert done.ended
    pace_h = (done.ended - done.started).total_seconds() / 3600 / 10
    assert later.hours == pytest.approx(20 * pace_h / 2)
    assert not (folder / "draw-2").exists()
