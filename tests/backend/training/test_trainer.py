from __future__ import annotations

import copy
import errno
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training import snapshot
from napari_backsplit.backend.training import trainer as module
from napari_backsplit.backend.training.arms import arm_scheme
from napari_backsplit.backend.training.class_counts import class_counts
from napari_backsplit.backend.training.prepare import open_plan_set, prepare_arm
from napari_backsplit.backend.training.run import Run
from napari_backsplit.backend.training.spec import RunSpec
from napari_backsplit.backend.training.stopwatch import PARTS
from napari_backsplit.backend.training.trainer import LATEST, BackSplitTrainer, trainer_for
from tests.backend.training.conftest import RUN
from tests.backend.training.interrupting import Stopped, stop_after

pytestmark = pytest.mark.training


@pytest.fixture
def start(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., BackSplitTrainer]:
    """Make a trainer of an arm on the small project."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    torch.set_num_threads(1)
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(planned / "nnunet" / kind))

    def make(spec: RunSpec = RUN, folder: str = "model", **run: Any) -> BackSplitTrainer:
        with Project.open(planned, read_only=True) as project:
            plan_set = open_plan_set(project, "own")
            scheme = arm_scheme(project, spec.arm, spec.supports, plan_set.cases)
            plan_set, name = prepare_arm(project, plan_set, scheme, lambda what, done, total: None)
        dataset_json = read_json(plan_set.preprocessed(name) / "dataset.json")
        made = Run(spec, tmp_path / folder, **run)
        return trainer_for(made, plan_set.plans(name), "3d_fullres", dataset_json)

    return make


def _spec(**changes: Any) -> RunSpec:
    return RunSpec.model_validate(RUN.model_dump() | changes)


def _weights(trainer: BackSplitTrainer) -> dict[str, torch.Tensor]:
    path = Path(trainer.output_folder) / "checkpoint_final.pth"
    return load_checkpoint(path)["network_weights"]


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param(RUN, id="as by default"),
        pytest.param(
            _spec(
                schedule="cosine",
                warmup_epochs=1,
                head_lr_factor=3,
                freeze_encoder_epochs=2,
                curriculum_epochs=1,
                final_support_weight=0.5,
                precision="bfloat16",
            ),
            id="amid each schedule",
        ),
        pytest.param(
            _spec(optimiser="adamw", freeze_encoder_epochs=1), id="AdamW, as the encoder thaws"
        ),
    ],
)
def test_a_resumed_run_ends_with_the_same_weights(
    start: Callable[..., BackSplitTrainer], spec: RunSpec
) -> None:
    whole = start(spec, folder="whole")
    whole.run_training()

    broken = start(spec, folder="broken", check=stop_after(9))  # in the second epoch
    with pytest.raises(Stopped):
        broken.run_training()
    again = start(spec, folder="broken")
    again.resume(load_checkpoint(Path(again.output_folder) / LATEST))
    assert again.current_epoch == 1
    again.run_training()

    for key, value in _weights(whole).items():
        torch.testing.assert_close(_weights(again)[key], value, rtol=0, atol=0)
    assert not (Path(again.output_folder) / LATEST).exists()


def test_every_batch_looks_whether_to_wait(start: Callable[..., BackSplitTrainer]) -> None:
    """Those of the validation too: a pause or a cancel takes hold within one batch."""
    asked: list[str] = []
    run = start(_spec(epochs=1), check=lambda: asked.append("check"))
    for name in ("train_step", "validation_step"):
        step = getattr(run, name)
        setattr(run, name, lambda batch, name=name, step=step: (asked.append(name), step(batch))[1])
    run.run_training()
    assert asked == ["check", "train_step"] * 4 + ["check", "validation_step"] * 2


def test_figures_and_progress_are_reported(start: Callable[..., BackSplitTrainer]) -> None:
    figures: dict[str, dict[int, float]] = {}
    progress: list[tuple[Any, ...]] = []
    run = start(
        metric=lambda name, epoch, value: figures.setdefault(name, {}).update({epoch: value}),
        progress=lambda *told: progress.append(told),
    )
    run.run_training()

    supports = {f"Dice of {name}" for name in run.dataset_json["backsplit"]["supports"]}
    assert "Dice of kidney" in supports
    assert figures.keys() == supports | {
        "training loss", "validation loss", "target Dice", "learning rate",
        "seconds: data", "seconds: forward", "seconds: backward", "seconds: validation",
        "seconds: checkpoint", "seconds: epoch",
    }  # fmt: skip
    assert all(list(values) == [0, 1, 2] for values in figures.values())
    assert [figures["learning rate"][epoch] for epoch in range(3)] == [
        0.01 * (1 - epoch / 3) ** 0.9 for epoch in range(3)
    ]
    assert progress[-1] == (12, 12, "epoch 3 of 3", 0.0)
    for epoch in range(3):
        parts = [figures[f"seconds: {part}"][epoch] for part in PARTS if part != "picture"]
        assert min(parts) > 0, parts
        assert sum(parts) < figures["seconds: epoch"][epoch] < 1.5 * sum(parts)
    card = read_json(Path(run.run.folder) / "dataset.json")["backsplit"]
    trained = card["trained"]
    memory, gpu = trained.pop("peak_memory_bytes"), trained.pop("peak_gpu_bytes")
    assert (memory > 10**8, gpu) == (True, None)
    assert trained.pop("parameters") == sum(p.numel() for p in run.network.parameters())
    assert trained == {"epochs": 3, "seconds": round(run.course.seconds), "ended": ""}
    assert run.course.seconds >= sum(figures["seconds: epoch"].values())


def test_pictures_change_nothing(start: Callable[..., BackSplitTrainer]) -> None:
    """Two runs, one that is looked at after every epoch: the same weights, to the last bit."""
    pictures: list[tuple[int, str]] = []
    weights = []
    for every in (0, 1, 2):
        run = start(
            _spec(picture_every=every),
            f"every {every}",
            picture=lambda png, epoch, text: pictures.append((epoch, text)),
            note=lambda level, text: pytest.fail(text),
        )
        run.run_training()
        weights.append(_weights(run))
    assert [epoch for epoch, _ in pictures] == [0, 1, 2, 1, 2], "and after the last"
    assert all(
        re.fullmatch(rf"case_\d+, after epoch {epoch + 1}, slice \d+ of \d+ across z", text)
        for epoch, text in pictures
    )
    for other in weights[1:]:
        for key, value in weights[0].items():
            assert torch.equal(other[key], value), key


def test_a_picture_that_fails_is_said_once(
    start: Callable[..., BackSplitTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "draw", lambda *given: 1 / 0)
    notes: list[tuple[str, str]] = []
    run = start(_spec(picture_every=1), note=lambda *note: notes.append(note))
    run.run_training()
    assert notes == [("warning", "No pictures are taken of this run (ZeroDivisionError).")]
    assert (Path(run.output_folder) / "checkpoint_final.pth").exists()


def test_patience_ends_well(
    start: Callable[..., BackSplitTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    dice = iter([0.5, 0.4, 0.3, 0.2, 0.1])

    def judged(run: BackSplitTrainer, steps: Any) -> None:
        run.logger.log("mean_fg_dice", next(dice), run.current_epoch)
        run.logger.log("dice_per_class_or_region", [0.0] * 9, run.current_epoch)
        run.logger.log("val_losses", 0.0, run.current_epoch)

    monkeypatch.setattr(BackSplitTrainer, "on_validation_epoch_end", judged)
    notes: list[str] = []
    progress: list[Any] = []
    run = start(
        _spec(epochs=9, patience=2, checkpoint_every=2),
        note=lambda level, text: notes.append(text),
        progress=lambda *told: progress.append(told),
    )
    run.run_training()
    said = "The targets' Dice has not risen since epoch 1: the training ended early, after epoch 3."
    assert notes == [said]
    card = read_json(run.run.folder / "dataset.json")["backsplit"]["trained"]
    assert (card["epochs"], card["ended"]) == (3, said)
    final = load_checkpoint(Path(run.output_folder) / "checkpoint_final.pth")
    assert final["current_epoch"] == 3
    assert progress[-1] == (12, 12, "epoch 3 of 3", 0.0)
    assert not (Path(run.output_folder) / LATEST).exists()


def test_a_full_disk_keeps_the_last_checkpoint(
    start: Callable[..., BackSplitTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    run.run_training()
    path = Path(run.output_folder) / "checkpoint_final.pth"
    before = path.read_bytes()

    def full(checkpoint: Any, file: Any) -> None:
        Path(file).write_bytes(b"half a checkpoint")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run.save_checkpoint(str(path))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.glob(".tmp*")] == []

    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10)
    )
    with pytest.raises(OSError, match=r"needs .* MB and 0 MB are free"):
        run.save_checkpoint(str(path))
    assert path.read_bytes() == before


def test_checkpoints_name_no_machine_and_load_without_this_package(
    start: Callable[..., BackSplitTrainer],
) -> None:
    run = start(RUN.model_copy(update={"epochs": 1}))
    run.run_training()
    folder = Path(run.output_folder)

    checkpoint = load_checkpoint(folder / "checkpoint_final.pth")
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] == "3d_fullres"
    assert not (folder / "debug.json").exists()
    assert read_json(folder.parent / "dataset.json")["labels"]["kidney"] == 2


def test_a_diverging_run_says_what_to_lower(start: Callable[..., BackSplitTrainer]) -> None:
    run = start(RUN.model_copy(update={"initial_lr": 1e12, "iterations": 30}))
    with pytest.raises(FloatingPointError, match="Lower the learning rate"):
        run.run_training()


def test_weights_of_another_network_are_refused(start: Callable[..., BackSplitTrainer]) -> None:
    with pytest.raises(InputError, match="do not fit the planned network"):
        start().start_from({"encoder.weight": torch.zeros(3)})


def test_every_arm_draws_the_same_patches(start: Callable[..., BackSplitTrainer]) -> None:
    """Same seed, same images, same places: two arms differ in their labels alone."""
    batches = []
    for arm in ("binary", "backsplit"):
        run = start(RUN.model_copy(update={"arm": arm}), folder=arm)
        run.on_train_start()
        run.on_epoch_start()
        run.on_train_epoch_start()
        batches.append([next(run.dataloader_train) for _ in range(3)])
    for binary, backsplit in zip(*batches, strict=True):
        torch.testing.assert_close(binary["data"], backsplit["data"], rtol=0, atol=0)
        assert (binary["keys"] == backsplit["keys"]).all()
        for ours, theirs in zip(binary["target"], backsplit["target"], strict=True):
            assert torch.equal(ours == 1, theirs == 1)


def test_class_counts_by_hand() -> None:
    found = [1, 1, 2, 0, 2, 3, 3, 2, 1]
    codes = [1, 0, 1, 4, 4, 4, 5, 5, 3]  # 4: background or 2; 5: background or 2 or 3
    logits = torch.nn.functional.one_hot(torch.tensor([[found]]), 4).movedim(-1, 1).float()

    counts = class_counts(logits, torch.tensor([[codes]]), [[0, 2], [0, 2, 3]])

    np.testing.assert_array_equal(counts["tp"], [1, 0, 0])
    np.testing.assert_array_equal(counts["fp"], [2, 1, 1])
    np.testing.assert_array_equal(counts["fn"], [1, 0, 1])


def test_supports_are_reported_and_do_not_select(start: Callable[..., BackSplitTrainer]) -> None:
    run = start()
    supports = len(run.dataset_json["labels"]) - 2
    step = {
        "tp": np.array([1] + [5] * supports),
        "fp": np.array([1] + [0] * supports),
        "fn": np.array([0] + [0] * supports),
        "loss": np.array(0.0),
    }
    last = {**step, "tp": np.array([2] + [0] * supports), "fn": np.array([1] + [0] * supports)}

    run.on_validation_epoch_end([step, last])

    assert run.logger.get_value("mean_fg_dice", -1) == pytest.approx(2 * 3 / (2 * 3 + 2 + 1))
    dice = run.logger.get_value("dice_per_class_or_region", -1)
    assert dice == pytest.approx([2 * 3 / (2 * 3 + 2 + 1)] + [1] * supports)


# ---------------------------------------------------------------------- as nnU-Net by default


def _stock_step(run: BackSplitTrainer, batch: dict[str, Any]) -> dict[str, Any]:
    """Train on a batch with nnU-Net's own step."""
    with run.precision():
        step: dict[str, Any] = nnUNetTrainer.train_step(run, batch)
    return step


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_step_is_nnunets(
    start: Callable[..., BackSplitTrainer], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last bit: the weights and the losses of two epochs."""
    losses, weights = [], []
    for name in ("ours", "theirs"):
        spec = _spec(epochs=2, precision=precision)
        run = start(
            spec, name, metric=lambda name, epoch, value: losses.append((name, epoch, value))
        )
        if name == "theirs":
            monkeypatch.setattr(BackSplitTrainer, "train_step", _stock_step)
        run.run_training()
        weights.append(_weights(run))
    told = [str(entry) for entry in losses if not entry[0].startswith("seconds")]
    assert told[: len(told) // 2] == told[len(told) // 2 :]
    for key, value in weights[0].items():
        assert torch.equal(weights[1][key], value), key


def _outputs(
    run: BackSplitTrainer, sizes: Sequence[int]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return random logits and fully labelled codes at some resolutions."""
    classes = len(run.dataset_json["labels"])
    logits = [torch.randn(2, classes, n, n, n, requires_grad=True) for n in sizes]
    return logits, [torch.randint(0, classes, (2, 1, n, n, n)) for n in sizes]


def test_the_default_optimiser_is_nnunets(start: Callable[..., BackSplitTrainer]) -> None:
    run = start()
    theirs = SimpleNamespace(
        network=copy.deepcopy(run.network),
        initial_lr=RUN.initial_lr,
        weight_decay=RUN.weight_decay,
        num_epochs=RUN.epochs,
    )
    theirs.optimizer, schedule = nnUNetTrainer.configure_optimizers(theirs)
    for epoch in range(RUN.epochs):
        run.lr_scheduler.step(epoch)
        schedule.step(epoch)
        for _ in range(2):
            pairs = zip(run.network.parameters(), theirs.network.parameters(), strict=True)
            for ours, other in pairs:
                ours.grad = torch.randn(ours.shape)
                other.grad = ours.grad.clone()
            run.optimizer.step()
            theirs.optimizer.step()
    other = theirs.network.state_dict()
    for name, value in run.network.state_dict().items():
        assert torch.equal(value, other[name]), name


def test_the_default_loss_is_nnunets(start: Callable[..., BackSplitTrainer]) -> None:
    run = start()
    run._get_deep_supervision_scales = lambda: [[1] * 3, [0.5] * 3, [0.25] * 3]
    outputs, targets = _outputs(run, (8, 4, 2))

    values = [
        loss(outputs, targets) for loss in (run._build_loss(), nnUNetTrainer._build_loss(run))
    ]

    torch.testing.assert_close(*values)
    ours, theirs = (torch.autograd.grad(value, outputs[:2]) for value in values)
    torch.testing.assert_close(ours, theirs)


# ---------------------------------------------------------------------- what the options change


def _step(run: BackSplitTrainer, epoch: int = 0) -> float:
    """Train one batch of an epoch."""
    if epoch == 0:
        run.on_train_start()
        run.on_epoch_start()
    run.current_epoch = epoch
    run.on_train_epoch_start()
    return float(run.train_step(next(run.dataloader_train))["loss"])


def _state(run: BackSplitTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.network.named_parameters()}


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_the_output_layers_learn_at_their_own_rate(
    start: Callable[..., BackSplitTrainer], optimiser: str
) -> None:
    moves = {}
    for factor in (1, 4):
        run = start(_spec(head_lr_factor=factor, optimiser=optimiser, weight_decay=0))
        before = _state(run)
        _step(run)
        moves[factor] = {name: value - before[name] for name, value in _state(run).items()}
    heads = [name for name in moves[1] if "seg_layers" in name]
    assert len(heads) == 2 * len(run.network.decoder.seg_layers)
    for name, move in moves[1].items():
        factor = 4 if name in heads else 1
        torch.testing.assert_close(moves[4][name], factor * move, rtol=1e-3, atol=1e-6)
    assert any(move.abs().max() > 1e-4 for name, move in moves[1].items() if name in heads)


def test_a_frozen_encoder_stays_as_it_is_and_then_learns(
    start: Callable[..., BackSplitTrainer],
) -> None:
    run = start(_spec(freeze_encoder_epochs=2))
    states = [_state(run)]
    for epoch in range(3):
        _step(run, epoch)
        states.append(_state(run))
    names = [name for name in states[0] if name.startswith("encoder.")]
    assert names
    for frozen in (1, 2):
        assert all(torch.equal(states[frozen][name], states[0][name]) for name in names)
    assert not any(torch.equal(states[3][n], states[0][n]) for n in names if n.endswith("weight"))
    rest = [name for name in states[0] if name not in names and "seg_layers" not in name]
    assert not all(torch.equal(states[1][name], states[0][name]) for name in rest)


def test_a_support_joins_in_its_epoch_in_the_order_of_priority(
    start: Callable[..., BackSplitTrainer],
) -> None:
    run = start(_spec(epochs=9, curriculum_epochs=2, final_support_weight=0.5))
    classes = len(run.dataset_json["labels"])
    (outputs, (target,)) = _outputs(run, [8])
    run.on_train_start()
    run.on_epoch_start()
    for epoch in range(0, 9, 2):
        run.current_epoch = epoch
        run.on_train_epoch_start()
        loss = run.loss(outputs, [target])
        for support in range(2, classes):
            unseen = run.loss(outputs, [torch.where(target == support, 0, target)])
            joined = support - 2 <= epoch // 2
            assert bool(unseen != loss) is joined, (epoch, support)
        assert run.staged_loss.weight == pytest.approx(1 - 0.5 * epoch / 8)


def test_bfloat16_gives_about_the_same_loss_and_float32_weights(
    start: Callable[..., BackSplitTrainer],
) -> None:
    losses = {}
    for precision in ("float32", "bfloat16"):
        run = start(_spec(precision=precision))
        kinds = []
        head = run.network.decoder.seg_layers[-1]
        head.register_forward_hook(lambda module, given, out, kinds=kinds: kinds.append(out.dtype))
        losses[precision] = _step(run)
        validation = run.validation_step(next(run.dataloader_val))
        assert kinds == [getattr(torch, precision)] * 2
        assert np.isfinite(validation["loss"])
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)
    assert losses["bfloat16"] != losses["float32"]

    path = Path(run.output_folder) / LATEST
    run.save_checkpoint(str(path))
    checkpoint = load_checkpoint(path)
    kept = checkpoint["network_weights"].values()
    assert {value.dtype for value in kept} == {torch.float32}
    states = checkpoint["optimizer_state"]["state"].values()
    assert {state["momentum_buffer"].dtype for state in states} == {torch.float32}
