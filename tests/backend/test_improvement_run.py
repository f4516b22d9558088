"""The whole thing for real: tiny networks, real processes, a supervisor that starts them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_backsplit.backend.answer import answer
from napari_backsplit.backend.cross_validation import cross_validate
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.improvement import begin, propose
from napari_backsplit.backend.jobs import Chain, State, chains
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import StudyArm
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from tests.backend.improvement_support import write_foreign

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]

PHANTOM = PhantomSpec(shape=(20, 30, 30), lesion_radius_mm=(14.0, 22.0), lesion_free=0.0)
TINY = {"epochs": 1, "iterations": 2, "validation_iterations": 1, "picture_every": 0}
LIMIT_S = 840.0


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A synthetic project of four training cases and two held out."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "project"
    with sample_project(folder, 3, train=4, test=2, spec=PHANTOM):
        pass
    yield folder
    for chain in chains(folder):
        if chain.status().state is not State.SUCCEEDED:
            chain.cancel()


def ended(project: Path, name: str) -> Chain:
    """Wait until a chain is over, well or not, and return it."""
    (chain,) = [chain for chain in chains(project) if chain.name == name]
    deadline = time.monotonic() + LIMIT_S
    while (status := chain.status()).state not in (State.SUCCEEDED, State.FAILED, State.CANCELLED):
        assert time.monotonic() < deadline, status
        time.sleep(0.2)
    log = status.current.log_tail() if status.current else ""
    assert status.state is State.SUCCEEDED, f"{status.message}\n{log}"
    return chain


def test_a_foreign_model_is_improved_and_answered_for(project: Path, tmp_path: Path) -> None:
    foreign = write_foreign(tmp_path / "Dr_X_Y" / "nnUNetTrainer__tiny__3d_fullres")
    plans = read_json(foreign / "plans.json")
    plans["configurations"]["3d_fullres"]["spacing"] = [9.6, 9.6, 9.6]
    write_json(foreign / "plans.json", plans)
    proposed = propose(project, str(foreign), {**TINY, "declare_unseen": True})
    name = begin(project, proposed)
    assert answer(project, name) is None
    chain = ended(project, name)
    assert [job.spec.task for job in chain.jobs] == [
        *("plan", "train", "train"),
        *("predict", "predict", "predict", "compare"),
    ]
    assert chain.title == f"fine-tune with {proposed.run.supports[0]}"
    found = answer(project, name)
    assert found is not None
    assert (found.better, found.cases) == (None, 2), "two cases are too few to judge"
    assert "2 of them by your word alone" in found.text
    assert found.report.exists()
    assert "the fine-tune with supports" in found.report.read_text()
    card = read_json(chain.jobs[1].folder / "model" / "dataset.json")["backsplit"]
    assert card["supports"] == list(proposed.run.supports)
    assert card["baseline"]["model"] == "baselines/baseline-1"
    for file in (*project.glob("jobs/*/*.json*"), *project.glob("comparisons/*/*")):
        if file.is_file():
            assert b"Dr_X_Y" not in file.read_bytes(), file


@pytest.mark.soak
def test_two_folds_of_two_arms_are_pooled_into_one_comparison(project: Path) -> None:
    plan = PlanSpec(features=(4, 8), patch_size=(16, 16, 16), batch_size=2, folds=2)
    runs = [
        StudyArm("binary", RunSpec(arm="binary", **TINY)),
        StudyArm("backsplit", RunSpec(supports=("kidney",), **TINY), start="binary"),
    ]
    name = cross_validate(project, runs, plan, (0, 1))
    chain = ended(project, name)
    assert len(chain.jobs) == 10
    result = chain.jobs[-1].status().result or {}
    summary = read_json(project / result["folder"] / "summary.json")
    with Project.open(project, read_only=True) as opened:
        held_out = sorted(opened.training_cases())
    assert summary["cases"] == dict.fromkeys(held_out, "verified")
    assert "Cross-validation: 4 of 4 cases" in (project / result["report"]).read_text()
    roles = {
        entry["role"]
        for file in project.glob("jobs/*-predict/predictions/predictions.json")
        for entry in read_json(file)["cases"].values()
    }
    assert roles == {"held out"}
    found = answer(project, name)
    assert found is not None
    assert found.cases == 4
