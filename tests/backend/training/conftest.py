"""A small project of synthetic cases, planned once for all tests of this room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

PLAN = PlanSpec(features=(4, 8), patch_size=(16, 16, 16), batch_size=2, batch_dice=True, folds=3)
RUN = RunSpec(epochs=3, iterations=4, validation_iterations=2, seed=7)


@pytest.fixture(scope="session")
def small_sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of six training cases and two held out; read it, or copy it."""
    folder = tmp_path_factory.mktemp("sample") / "project"
    spec = PhantomSpec(shape=(20, 30, 30), lesion_radius_mm=(14.0, 22.0))
    with sample_project(folder, 3, train=6, test=2, spec=spec) as project:
        project.mask_path("case_002", "liver").unlink()  # type: ignore[union-attr]
    return folder


@pytest.fixture
def sample(small_sample: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the small project that a test may change."""
    folder = tmp_path / "project"
    shutil.copytree(small_sample, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def planned(small_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small project with a plan set; read it, or copy it."""
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.training.prepare import make_plan_set

    folder = tmp_path_factory.mktemp("planned") / "project"
    shutil.copytree(small_sample, folder)
    with Project.open(folder, read_only=True) as project:
        make_plan_set(project, PLAN, lambda what, done, total: None)
    return folder
