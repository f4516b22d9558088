"""Real train jobs that end by the clock, follow another's epochs, and tell trackers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job, Metric, Note, Picture, Progress, State, submit
from napari_backsplit.backend.jobs.runner import run_here
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.training.card import trained_epochs
from napari_backsplit.backend.training.spec import RunSpec
from tests.backend.training.conftest import RUN
from tests.backend.training.test_trackers import shown

pytestmark = pytest.mark.training
LIMIT_S = 120.0
FAKES = Path(__file__).parent / "fake_trackers"
ENV = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(FAKES)}
Train = Callable[..., Job]


@pytest.fixture(scope="module")
def train(planned: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Submit a training in a project that the tests of this file share."""
    folder = tmp_path_factory.mktemp("budgets") / "project"
    shutil.copytree(planned, folder)

    def start(**changes: Any) -> Job:
        spec = RunSpec.model_validate(RUN.model_dump() | {"arm": "binary"} | changes)
        return submit(folder, "train", {"run": spec.model_dump(mode="json")}, env=ENV)

    return start


@pytest.fixture(scope="module")
def by_the_clock(train: Train) -> Job:
    """A training of some seconds, with pictures and a tracker."""
    job = train(hours=6 / 3600, picture_every=2, tracker="mlflow")
    status = job.wait(LIMIT_S)
    assert status.state is State.SUCCEEDED, (status, job.log_tail())
    return job


def _events(job: Job, kind: type) -> list[Any]:
    return [event for event in job.events()[0] if isinstance(event, kind)]


def _curve(job: Job, name: str) -> dict[int, float]:
    return {metric.step: metric.value for metric in _events(job, Metric) if metric.name == name}


def test_a_training_ends_by_the_clock(by_the_clock: Job) -> None:
    rates = list(_curve(by_the_clock, "learning rate").values())
    card = read_json(by_the_clock.folder / "model" / "dataset.json")["backsplit"]["trained"]
    assert rates[0] == RUN.initial_lr
    assert all(later < earlier for earlier, later in pairwise(rates))
    assert card["epochs"] == len(rates) > 1
    assert card["ended"] == f"{len(rates)} epochs fitted into 0.00167 hours."
    assert card["ended"] in [note.text for note in _events(by_the_clock, Note)]
    assert sum(_curve(by_the_clock, "seconds: epoch").values()) < 6 + 3
    last = _events(by_the_clock, Progress)[-1]
    assert last.done == last.total == len(rates) * RUN.iterations
    assert last.eta_s == 0
    final = by_the_clock.folder / "model/fold_0/checkpoint_final.pth"
    assert load_checkpoint(final)["current_epoch"] == len(rates)


def test_a_control_is_trained_for_as_many_epochs(by_the_clock: Job, train: Train) -> None:
    model = f"jobs/{by_the_clock.id}/model"
    epochs = len(_curve(by_the_clock, "learning rate"))
    control = train(same_epochs_as=model, iterations=1, validation_iterations=1)
    assert control.wait(LIMIT_S).state is State.SUCCEEDED, control.log_tail()
    assert list(_curve(control, "learning rate")) == list(range(epochs))
    run = read_json(control.folder / "model" / "dataset.json")["backsplit"]["run"]
    assert (run["same_epochs_as"], run["epochs"]) == (model, epochs), "another decided its length"
    folder = by_the_clock.folder / "model"
    assert trained_epochs(folder) == epochs
    card = read_json(folder / "dataset.json")
    del card["backsplit"]["trained"]
    bare = shutil.copytree(folder, folder.with_name("bare"))
    (bare / "dataset.json").write_text(json.dumps(card))
    assert trained_epochs(bare) == epochs, "a model without such a card"


def test_pictures_are_kept_and_told(by_the_clock: Job) -> None:
    epochs = len(_curve(by_the_clock, "learning rate"))
    pictures = _events(by_the_clock, Picture)
    every = [*range(1, epochs, 2), *([epochs - 1] if epochs % 2 else [])]
    assert [picture.step for picture in pictures] == every
    for picture in pictures:
        assert picture.file == f"pictures/epoch_{picture.step + 1:04d}.png"
        assert (by_the_clock.folder / picture.file).read_bytes().startswith(b"\x89PNG")
        assert picture.text.startswith("case_")


def test_trackers_get_the_same_points(by_the_clock: Job) -> None:
    metrics = _events(by_the_clock, Metric)
    told = {(metric.name.replace(": ", "/"), metric.step) for metric in metrics}
    curves = shown(by_the_clock.folder / "tensorboard")
    assert {(name, step) for name, points in curves.items() for step in points} == told
    assert curves["learning rate"] == pytest.approx(_curve(by_the_clock, "learning rate"))

    sent = [json.loads(line) for line in (by_the_clock.folder / "sent.jsonl").open()]
    assert sent[0] == {"run_name": by_the_clock.id}
    assert sent[-1] == {"ended": True}
    assert {(point["name"], point["step"]) for point in sent[1:-1]} == told
    assert all(point.keys() == {"name", "step", "value"} for point in sent[1:-1])


@pytest.mark.parametrize(
    ("changes", "sentence", "remedy"),
    [
        ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, "which is past", "Choose a later time"),
        ({"tracker": "wandb"}, "Weights & Biases is not installed", "pip install wandb"),
        ({"same_epochs_as": "jobs/0999-train/model"}, "jobs/0999-train/model", ""),
    ],
)
def test_what_cannot_be_is_refused_before_the_start(
    planned: Path, tmp_path: Path, changes: dict[str, Any], sentence: str, remedy: str
) -> None:
    folder = Path(shutil.copytree(planned, tmp_path / "project"))
    spec = RunSpec.model_validate(RUN.model_dump() | {"arm": "binary"} | changes)
    job = submit(folder, "train", {"run": spec.model_dump(mode="json")}, start=False)
    run_here(job)
    status = job.status()
    assert (status.state, status.cause) == (State.FAILED, "refused")
    assert sentence in status.error
    assert remedy in status.remedy
    assert not (job.folder / "model").exists()
