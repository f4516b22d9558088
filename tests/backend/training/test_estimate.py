"""How long, how much memory and disk: arithmetic by hand, and a real probe of a tiny network."""

from __future__ import annotations

import shutil
import threading
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from napari_backsplit.backend.errors import BackSplitError, UntrustedModelError
from napari_backsplit.backend.files import read_json, write_json
from napari_backsplit.backend.jobs import Metric, submit
from napari_backsplit.backend.jobs.events import EventLog
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import estimate as estimating
from napari_backsplit.backend.training import measurement
from napari_backsplit.backend.training.architectures import monai_name, with_architecture
from napari_backsplit.backend.training.estimate import (
    Estimate,
    duration_text,
    epoch_seconds,
    estimate,
    probe,
    size_text,
)
from napari_backsplit.backend.training.measurement import Measurement, measure
from napari_backsplit.backend.training.space import (
    batch_bytes,
    image_bytes,
    label_bytes,
    resampled_voxels,
)
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.backend.training.workload import Workload, workload
from tests.backend.training.conftest import RUN
from tests.backend.training.preflight_support import CPU, GPU, Asked, make_model, make_project


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where measurements are kept; empty."""
    monkeypatch.setenv(measurement.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foreign model. Never written to."""
    return make_model(tmp_path_factory.mktemp("model") / "nnUNetTrainer__tinyPlans__3d_fullres")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four cases to train on, two held out. Never written to."""
    return make_project(tmp_path_factory.mktemp("good") / "project")


@pytest.fixture
def asked(foreign: Path) -> Asked:
    run = RunSpec(epochs=10, iterations=100, validation_iterations=20, supports=("kidney",))
    return Asked(str(foreign), run=run)


MEASURED = Measurement(
    seconds_per_iteration=0.5,
    seconds_per_validation=0.2,
    seconds_per_batch=0.1,
    seconds_per_validation_batch=0.05,
    seconds_per_checkpoint=2.0,
    peak_gpu_bytes=6 * 10**9,
    peak_rss_bytes=10**9,
    parameters=1000,
    checkpoint_bytes=10**8,
    iterations=30,
)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (59 * 60, "59 min"),
        (3599, "1 h"),
        (11400, "3 h 10 min"),
        (7200, "2 h"),
        (47 * 3600 + 3590, "2 days"),
        (60 * 3600, "2 days 12 h"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 kB"), (1500, "2 kB"), (6.2e9, "6.2 GB"), (340e6, "340 MB"), (999.9e6, "1.0 GB"),
     (3.4e12, "3.4 TB"), (128e9, "128 GB")],
)  # fmt: skip
def test_sizes_in_words(size: float, words: str) -> None:
    assert size_text(size) == words


def test_voxels_at_another_spacing_and_their_bytes() -> None:
    assert resampled_voxels((10, 20, 20), (2.0, 1.0, 1.0), (1.0, 2.0, 2.0)) == 20 * 10 * 10
    assert resampled_voxels((10, 20, 20), (2.0, 1.0, 1.0), (2.0, 2.0)) == 10 * 10 * 10
    assert resampled_voxels((3, 3, 3), (1.0, 1.0, 1.0), (99.0, 1.0, 1.0)) == 9
    assert image_bytes(1000, 2) == 4800
    assert label_bytes(1000) == 400
    assert batch_bytes((7, 1, 1), 2, 1) == 88  # 14 voxels: 4 bytes, and 16 / 7 of labels


def _load(folder: Path, asked: Asked) -> Workload:
    with Project.open(folder, read_only=True) as project:
        found = workload(project, asked)
    assert found is not None
    return found


def test_the_workload_is_the_models_with_the_runs_own_patch_and_batch(
    folder: Path, asked: Asked
) -> None:
    load = _load(folder, asked)
    assert (load.patch, load.batch, load.classes, load.channels) == ((16, 16, 16), 2, 3, 1)
    own = _load(folder, asked.but(batch_size=4, patch_size=(8, 8, 16)))
    assert (own.patch, own.batch) == ((8, 8, 16), 4)
    assert _load(folder, asked.but(arm="binary")).classes == 2
    assert _load(folder, asked.but(arm="virtual")).classes == 3
    again = Workload.from_json(load.as_json())
    assert again.key("cpu") == load.key("cpu")


def test_only_what_decides_time_and_memory_is_part_of_the_key(folder: Path, asked: Asked) -> None:
    key = _load(folder, asked).key("cpu")
    assert _load(folder, asked.but(epochs=99, seed=3, supports=("liver",))).key("cpu") == key
    for change in ({"batch_size": 4}, {"supports": ("kidney", "liver")}, {"optimiser": "adamw"},
                   {"precision": "bfloat16"}, {"patch_size": (8, 16, 16)},
                   {"deep_supervision": False}, {"loss": "focal"}):  # fmt: skip
        assert _load(folder, asked.but(**change)).key("cpu") != key, change
    assert _load(folder, asked).key("another") != key


def test_another_network_is_what_is_measured(folder: Path, asked: Asked) -> None:
    planned = _load(folder, asked)
    monai = _load(folder, asked.but(architecture="segresnet", width=8))
    assert monai_name(monai.configuration) == "segresnet"
    residual = _load(folder, asked.but(architecture="resenc-m", width=4))
    keys = {load.key("cpu") for load in (planned, monai, residual)}
    assert len(keys) == 3
    assert Workload.from_json(monai.as_json()).key("cpu") == monai.key("cpu")
    chosen = replace(residual, chosen=PlanSpec(gpu_memory_gb=4))
    assert chosen.key("cpu") not in keys
    assert residual.at_patch([24, 32, 32]).patch == (24, 32, 32)
    assert residual.at_patch(None) is residual


def test_the_probe_plans_a_residual_encoder_and_says_its_patch(
    folder: Path, asked: Asked, cache: Path
) -> None:
    wanted = asked.but(architecture="resenc-m", width=4)
    with Project.open(folder, read_only=True) as project:
        assert estimate(project, wanted, available=(CPU,)).seconds is None
        found = probe(project, wanted, available=(CPU,), limit_s=120)
    assert found is not None
    assert found.source == "probe"
    (file,) = (cache / "probes").iterdir()
    kept = Measurement(**read_json(file))
    plans = _load(folder, wanted)
    own, _ = with_architecture(plans.plans, "3d_fullres", wanted.run)
    assert kept.patch_size == own["configurations"]["3d_fullres"]["patch_size"]
    assert kept.patch_size != list(plans.patch), "not the plan set's"
    assert kept.parameters
    assert kept.parameters > 50_000, "the residual encoder, not the planned network"


def test_plans_that_name_a_foreign_class_are_never_built(folder: Path, asked: Asked) -> None:
    value = _load(folder, asked).as_json()
    configuration = dict(value["plans"]["configurations"]["3d_fullres"])
    configuration["architecture"] = {**configuration["architecture"], "network_class_name": "os.x"}
    value["plans"] = {**value["plans"], "configurations": {"3d_fullres": configuration}}
    with pytest.raises(UntrustedModelError, match=r"os\.x"):
        Workload.from_json(value)


def test_an_epoch_is_batches_after_one_another_or_side_by_side(
    folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimating, "cores", lambda: 8)

    def seconds(**run: Any) -> float | None:
        return epoch_seconds(_load(folder, asked.but(**run)), MEASURED)

    saved = 2.0 * 1.5
    assert seconds() == pytest.approx(100 * 0.6 + 20 * 0.25 + saved)
    assert seconds(workers=2) == pytest.approx(100 * 0.5 + 20 * 0.2 + saved)
    starved = replace(MEASURED, seconds_per_batch=2.0)
    load = _load(folder, asked.but(workers=2, device="cuda"))
    assert epoch_seconds(load, starved) == pytest.approx(100 * 1.0 + 20 * 0.2 + saved)
    assert seconds(checkpoint_every=10) == pytest.approx(100 * 0.6 + 20 * 0.25 + 2.0 * 0.6)
    assert epoch_seconds(load, Measurement()) is None
    monkeypatch.setattr(estimating, "cores", lambda: 1)
    assert seconds(workers=2) == pytest.approx(100 * 0.6 + 20 * 0.25 + saved), "one core for all"


def _estimate(folder: Path, asked: Asked, *devices: Any) -> Estimate:
    with Project.open(folder, read_only=True) as project:
        return estimate(project, asked, available=devices or (CPU,))


def _keep(folder: Path, asked: Asked, device: Any, measured: Measurement) -> None:
    write_json(measurement._cache_file(_load(folder, asked), device), asdict(measured))


def test_what_was_not_measured_is_not_said(folder: Path, asked: Asked) -> None:
    found = _estimate(folder, asked)
    assert (found.seconds, found.ram_bytes, found.parts, found.source) == (None, None, (), "")
    assert found.note.startswith("Measure it")
    assert found.disk_bytes > 0
    assert "not measured" in found.text


def test_a_kept_measurement_gives_the_chain_its_parts(folder: Path, asked: Asked) -> None:
    asked = asked.but(device="cuda")
    _keep(folder, asked, GPU, MEASURED)
    found = _estimate(folder, asked, GPU, CPU)
    assert [name for name, _ in found.parts] == [
        "plan", "fine-tune", "control", "predictions", "comparison",
    ]  # fmt: skip
    parts = dict(found.parts)
    assert parts["fine-tune"] == parts["control"]
    assert parts["fine-tune"] == pytest.approx(10 * (100 * 0.6 + 20 * 0.25 + 3.0) + 15)
    assert found.seconds == pytest.approx(sum(parts.values()))
    assert (found.gpu_bytes, found.gpu_total_bytes) == (6 * 10**9, 11 * 10**9)
    assert found.source == "probe"
    assert "6.0 GB of 11.0 GB" in found.text
    alone = replace(asked, control=False)
    assert "control" not in dict(_estimate(folder, alone, GPU).parts)
    folds = dict(_estimate(folder, replace(asked, folds=(0, 1, 2)), GPU).parts)
    assert folds["fine-tune"] == pytest.approx(3 * parts["fine-tune"])


def test_an_estimate_of_soft_labels_says_what_was_measured(folder: Path, asked: Asked) -> None:
    soft = asked.but(labels="soft", activation="sigmoid", loss="adaptive-wing")
    _keep(folder, soft, CPU, MEASURED)
    assert (
        "(measured with hard labels: soft ones take somewhat more)" in _estimate(folder, soft).text
    )
    assert "hard labels" not in _estimate(folder, soft.but(hours=3.0)).text, "which is kept"
    assert "hard labels" not in _estimate(folder, asked).text


def test_a_baseline_that_each_fold_trains_again_takes_its_time_and_disk(
    folder: Path, foreign: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(folder, tmp_path / "project"))
    model = Path(shutil.copytree(foreign, folder / "jobs" / "0001-train" / "model"))
    dataset = read_json(model / "dataset.json")
    run = {"epochs": 40, "iterations": 100, "validation_iterations": 20}
    write_json(model / "dataset.json", dataset | {"backsplit": {"run": run}})
    spec = RunSpec(epochs=10, iterations=100, validation_iterations=20, supports=("kidney",),
                   baseline="jobs/0001-train/model")  # fmt: skip
    asked = Asked("1", run=spec, folds=(0, 1))
    _keep(folder, asked, CPU, MEASURED)
    found = _estimate(folder, asked)
    parts = dict(found.parts)
    assert parts["baseline"] - 2 * 15 == pytest.approx(4 * (parts["fine-tune"] - 2 * 15))
    once = _estimate(folder, replace(asked, folds=()))
    assert "baseline" not in dict(once.parts)
    assert found.disk_bytes - once.disk_bytes == (6 - 2) * 3 * 10**8


def test_disk_counts_images_labels_and_the_checkpoints_of_both_runs(
    folder: Path, asked: Asked
) -> None:
    _keep(folder, asked, CPU, MEASURED)
    found = _estimate(folder, asked)
    voxels = 4 * 12 * 20 * 20  # four cases, at their own spacing
    assert found.disk_bytes == 6 * 10**8 + 2 * label_bytes(voxels) + image_bytes(voxels, 1)
    assert found.free_bytes == pytest.approx(psutil.disk_usage(str(folder)).free, rel=0.1)


def test_a_budget_of_hours_is_its_own_estimate(folder: Path, asked: Asked) -> None:
    found = dict(_estimate(folder, asked.but(hours=2.0)).parts)
    assert found["fine-tune"] == pytest.approx(7200, abs=30)
    until = datetime.now(UTC) + timedelta(hours=1)
    found = dict(_estimate(folder, asked.but(until=until)).parts)
    assert found["fine-tune"] == pytest.approx(3600, abs=30)


def test_more_workers_take_more_memory(folder: Path, asked: Asked) -> None:
    sizes = []
    for workers in (0, 1, 4):
        each = asked.but(workers=workers)
        _keep(folder, each, CPU, MEASURED)
        sizes.append(_estimate(folder, each).ram_bytes or 0)
    assert sizes[0] == MEASURED.peak_rss_bytes
    assert sizes == sorted(set(sizes))


def test_earlier_runs_of_the_same_pace_count_before_a_probe(planned: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(planned, tmp_path / "project"))
    run = RUN.model_copy(update={"supports": ("kidney",), "iterations": 10})
    job = submit(folder, "train", {"run": run.model_dump(mode="json")}, "t", start=False)
    log = EventLog(job.folder / "events.jsonl")
    for step, seconds in enumerate((99.0, 10.0, 12.0, 14.0)):  # the first starts the processes
        log.append(Metric(name="seconds: epoch", step=step, value=seconds))
    log.close()
    asked = Asked("", run=run.model_copy(update={"epochs": 100}), plan=None)
    found = _estimate(folder, asked)
    assert found.source == "earlier run"
    assert dict(found.parts)["fine-tune"] == pytest.approx(100 * 12 + 15)
    twice = asked.but(iterations=20, validation_iterations=4)
    assert dict(_estimate(folder, twice).parts)["fine-tune"] == pytest.approx(100 * 24 + 15)
    assert _estimate(folder, asked.but(batch_size=1)).source == ""


# ---------------------------------------------------------------------- the probe


def test_a_probe_measures_the_very_training_and_is_kept(
    folder: Path, asked: Asked, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Project.open(folder, read_only=True) as project:
        before = set(folder.rglob("*"))
        found = probe(project, asked, available=(CPU,), limit_s=120)
        assert set(folder.rglob("*")) == before
        assert found is not None
        assert found.source == "probe"
        assert found.ram_bytes
        assert 2e8 < found.ram_bytes < 1.5e9, "of the probe, not of what started it"
        (file,) = (cache / "probes").iterdir()
        kept = Measurement(**read_json(file))
        # convolutions and norms of 1 -> 8 -> 16 -> 8 channels, and a head of three classes
        assert kept.parameters == 240 + 3504 + 1032 + 3480 + 27
        assert kept.seconds_per_iteration
        assert kept.seconds_per_validation
        assert kept.seconds_per_iteration > kept.seconds_per_validation
        assert kept.checkpoint_bytes
        assert kept.checkpoint_bytes > 2 * 4 * kept.parameters  # weights and their momentum
        monkeypatch.setattr(measurement, "_run", None)
        again = probe(project, asked, available=(CPU,))
        assert again is not None
        assert replace(again, free_bytes=found.free_bytes) == found


def test_a_probe_that_takes_too_long_says_at_least(folder: Path, asked: Asked) -> None:
    stages = [{"parameters": 5}, {"stepping_since": 0.0}]
    found = measurement._measured(stages, None, "cpu", b"")
    assert found.problem == "slow"
    assert found.seconds_per_iteration
    assert found.seconds_per_iteration > 1e9
    timed = [*stages, {"seconds_per_iteration": 2.0, "iterations": 3}]
    assert measurement._measured(timed, None, "cpu", b"").seconds_per_iteration == 2.0
    _keep(folder, asked, CPU, found)
    assert "at least" in _estimate(folder, asked).text


@pytest.mark.parametrize(
    ("stages", "code", "problem"),
    [
        ([{"problem": "gpu memory", "text": "CUDA out of memory"}], 0, "gpu memory"),
        ([{"parameters": 1}], -9, "memory"),
        ([], 1, "failed"),
    ],
)
def test_what_went_wrong_is_a_result(stages: list[Any], code: int, problem: str) -> None:
    found = measurement._measured(stages, code, "cpu", b"Traceback\nValueError: odd")
    assert found.problem == problem
    assert found.text


def test_a_network_that_does_not_fit_is_an_estimate(
    folder: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Measurement(problem="gpu memory", text="out of memory")
    monkeypatch.setattr(measurement, "_run", lambda *given: full)
    with Project.open(folder, read_only=True) as project:
        found = probe(project, asked.but(device="cuda"), available=(GPU, CPU))
    assert found is not None
    assert (found.problem, found.seconds) == ("gpu memory", None)


def test_errors_of_memory_are_told_from_others() -> None:
    from napari_backsplit.backend.training.probe import _problem

    assert _problem(RuntimeError("CUDA out of memory. Tried to allocate")) == "gpu memory"
    assert _problem(MemoryError()) == "memory"
    assert _problem(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")) == (
        "memory"
    )
    assert _problem(ValueError("no")) == "failed"


def test_a_probe_can_be_stopped_and_leaves_no_process(folder: Path, asked: Asked) -> None:
    load, stop = _load(folder, asked), threading.Event()
    threading.Timer(1.0, stop.set).start()
    assert measure(load, CPU, stop=stop) is None
    own = psutil.Process().children(recursive=True)
    assert not [p for p in own if "training.probe" in " ".join(p.cmdline())]
    assert measurement.cached(load, CPU) is None


def test_a_model_that_is_not_there_cannot_be_measured(folder: Path) -> None:
    with (
        Project.open(folder, read_only=True) as project,
        pytest.raises(BackSplitError, match="nowhere"),
    ):
        probe(project, Asked("nowhere", plan=PlanSpec()), available=(CPU,))
