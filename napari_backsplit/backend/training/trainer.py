"""nnU-Net's trainer with the target first: sampling, selection, label sets, safe checkpoints.

Worker only. Every arm trains with this class, so that two arms differ in their labels alone.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import atomic_path
from napari_backsplit.backend.training.head_split import HEAD
from napari_backsplit.backend.training.losses import StagedLoss, membership_table
from napari_backsplit.backend.training.schedule import (
    joined_supports,
    lr_factor,
    support_weight,
)
from napari_backsplit.backend.training.spec import RunSpec

LATEST = "checkpoint_latest.pth"
REPORT_SECONDS = 1.0
VALIDATION_STREAM = 2**31 - 1
"""Stream of random numbers that draws the validation patches: the same after every epoch."""


@dataclass(frozen=True)
class Run:
    """What a training needs beside its data.

    Attributes
    ----------
    spec : RunSpec
    folder : Path
        Model folder; checkpoints go to its fold_<k>/.
    check : callable
        Called between iterations; raises to cancel, blocks to pause.
    metric : callable
        (name, epoch, value) of a figure to show.
    progress : callable
        (iterations done, iterations in all, text).
    """

    spec: RunSpec
    folder: Path
    check: Callable[[], None] = lambda: None
    metric: Callable[[str, int, float], None] = lambda name, epoch, value: None
    progress: Callable[[int, int, str], None] = lambda done, total, text: None


class BackSplitTrainer(nnUNetTrainer):  # type: ignore[misc]
    """Dice + cross-entropy over label sets, target-selected best checkpoint, atomic checkpoints.

    Make one with `trainer_for`: nnU-Net fixes the arguments of `__init__`.
    """

    run: Run
    network: Any
    optimizer: Any
    grad_scaler: Any
    _best_ema: float | None

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> None:
        spec = self.run.spec
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = spec.initial_lr
        self.weight_decay = spec.weight_decay
        self.oversample_foreground_percent = spec.target_oversampling
        self.num_iterations_per_epoch = spec.iterations
        self.num_val_iterations_per_epoch = spec.validation_iterations
        self.num_epochs = spec.epochs
        self.save_every = spec.checkpoint_every
        scheme = dataset_json["backsplit"]
        self.targets = [dataset_json["labels"][name] for name in scheme["targets"]]
        self.label_sets: list[list[int]] = scheme["label_sets"]
        self._reported = 0.0
        self._iteration = 0

    # nnU-Net derives its output folder from environment and names; a job's folder is fixed.
    @property
    def output_folder_base(self) -> str:
        """The model folder of the job."""
        return str(self.run.folder)

    @output_folder_base.setter
    def output_folder_base(self, value: str | None) -> None:
        """Ignore the folder that nnU-Net would choose."""

    @property
    def output_folder(self) -> str:
        """The fold's folder."""
        return str(self.run.folder / f"fold_{self.fold}")

    @output_folder.setter
    def output_folder(self, value: str | None) -> None:
        """Ignore the folder that nnU-Net would choose."""

    # ------------------------------------------------------------------ what is trained

    def _build_loss(self) -> torch.nn.Module:
        table = membership_table(self.label_manager.num_segmentation_heads, self.label_sets)
        loss = self.staged_loss = StagedLoss(
            table,
            self.configuration_manager.batch_dice,
            len(self.targets),
            self.run.spec.target_dice_share,
        ).to(self.device)
        if not self.enable_deep_supervision:
            return loss
        scales = np.array([1 / 2**i for i in range(len(self._get_deep_supervision_scales()))])
        scales[-1] = 0 if len(scales) > 1 else 1
        wrapped: torch.nn.Module = DeepSupervisionWrapper(loss, scales / scales.sum())
        return wrapped

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> BasicTransform:
        """Return nnU-Net's augmentation with nearest-neighbour labels, whose cost is flat in K."""
        pipeline = nnUNetTrainer.get_training_transforms(*args, **kwargs)
        for transform in pipeline.transforms:
            if isinstance(transform, SpatialTransform):
                transform.mode_seg = "nearest"
        return pipeline

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Return the spec's optimiser and schedule; the output layers may learn at another rate."""
        spec = self.run.spec
        groups = [{"params": list(self.network.parameters())}]
        if spec.head_lr_factor != 1:
            named = list(self.network.named_parameters())
            groups = [
                {"params": [value for name, value in named if (HEAD in name) == head]}
                for head in (False, True)
            ]
        lr, decay = spec.initial_lr, spec.weight_decay
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr, weight_decay=decay)
        if spec.optimiser == "sgd":
            optimizer = torch.optim.SGD(
                groups, lr, weight_decay=decay, momentum=0.99, nesterov=True
            )
        return optimizer, _Schedule(optimizer, spec)

    def _do_i_compile(self) -> bool:
        return self.run.spec.compile and self.device.type == "cuda" and os.name != "nt"

    # ------------------------------------------------------------------ steps

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train on a batch, unless the job is to stop or to wait."""
        self.run.check()
        self._report_progress()
        with self._precision():
            step: dict[str, Any] = super().train_step(batch)
        if not np.isfinite(step["loss"]):
            raise FloatingPointError(
                f"The loss became {step['loss']} in epoch {self.current_epoch + 1}. "
                "Lower the learning rate."
            )
        self._iteration += 1
        return step

    def _precision(self) -> torch.autocast:
        bfloat16 = self.device.type == "cpu" and self.run.spec.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count the foreground classes' voxels of a batch, where they are known."""
        self.run.check()
        data = batch["data"].to(self.device, non_blocking=True)
        target = batch["target"]
        levels = target if isinstance(target, list) else [target]
        levels = [level.to(self.device, non_blocking=True) for level in levels]
        with self._precision(), torch.autocast("cuda", enabled=self.device.type == "cuda"):
            output = self.network(data)
            loss = self.loss(output, levels if isinstance(target, list) else levels[0])
        logits = output[0] if isinstance(output, list | tuple) else output
        counts = class_counts(logits, levels[0][:, 0], self.label_sets)
        return {"loss": loss.detach().cpu().numpy(), **counts}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log the pooled Dice of each class; the targets' mean selects the best checkpoint."""
        tp, fp, fn = (sum(step[key] for step in val_outputs) for key in ("tp", "fp", "fn"))
        voxels = 2 * tp + fp + fn
        dice = [2 * t / v if v else float("nan") for t, v in zip(tp, voxels, strict=True)]
        targets = [dice[target - 1] for target in self.targets]
        defined = [value for value in targets if np.isfinite(value)]
        loss = float(np.mean([step["loss"] for step in val_outputs]))
        for name, value in (
            ("mean_fg_dice", float(np.mean(defined)) if defined else 0.0),
            ("dice_per_class_or_region", dice),
            ("val_losses", loss),
        ):
            self.logger.log(name, value, self.current_epoch)

    # ------------------------------------------------------------------ epochs

    def on_train_start(self) -> None:
        """Start or resume, writing what a reader of the model folder needs."""
        super().on_train_start()
        self._iteration = self.current_epoch * self.num_iterations_per_epoch

    def plot_network_architecture(self) -> None:
        """Draw nothing: the drawing needs a package that no longer works."""

    def _save_debug_information(self) -> None:
        """Write nothing: nnU-Net's file names the machine."""

    def on_train_epoch_start(self) -> None:
        """Seed the epoch by its number, so that a resumed run goes on as if never stopped."""
        seed_everything(self.run.spec.seed, self.current_epoch)
        epoch, spec = self.current_epoch, self.run.spec
        self.staged_loss.joined = joined_supports(spec, epoch, self.staged_loss.supports)
        self.staged_loss.weight = support_weight(spec, epoch)
        if spec.freeze_encoder_epochs:
            network = getattr(self.network, "_orig_mod", self.network)
            network.encoder.requires_grad_(epoch >= spec.freeze_encoder_epochs)
        super().on_train_epoch_start()

    def on_validation_epoch_start(self) -> None:
        """Draw the same patches after every epoch."""
        seed_everything(self.run.spec.seed, VALIDATION_STREAM)
        super().on_validation_epoch_start()

    def on_epoch_end(self) -> None:
        """Report the epoch and write its checkpoints."""
        epoch = self.current_epoch
        self.logger.log("epoch_end_timestamps", time.time(), epoch)
        for name, key in (
            ("training loss", "train_losses"),
            ("validation loss", "val_losses"),
            ("target Dice", "mean_fg_dice"),
            ("learning rate", "lrs"),
        ):
            self.run.metric(name, epoch, float(self.logger.get_value(key, step=-1)))
        dice = self.logger.get_value("dice_per_class_or_region", step=-1)
        for name, label in self.dataset_json["labels"].items():
            if label not in (0, *self.targets):
                self.run.metric(f"Dice of {name}", epoch, float(dice[label - 1]))
        ema = self.logger.get_value("ema_fg_dice", step=-1)
        if self._best_ema is None or ema > self._best_ema:
            self._best_ema = ema
            self.save_checkpoint(self._path("checkpoint_best.pth"))
        last = epoch == self.num_epochs - 1
        if (epoch + 1) % self.save_every == 0 or last:
            self.save_checkpoint(self._path(LATEST))
        self.current_epoch += 1

    def on_train_end(self) -> None:
        """Write the final checkpoint and the curves."""
        self._report_progress(force=True)
        super().on_train_end()
        self.logger.plot_progress_png(self.output_folder)

    def _report_progress(self, force: bool = False) -> None:
        if force or time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            total = self.num_epochs * self.num_iterations_per_epoch
            text = f"epoch {min(self.current_epoch + 1, self.num_epochs)} of {self.num_epochs}"
            self.run.progress(self._iteration, total, text)

    # ------------------------------------------------------------------ checkpoints

    def _path(self, name: str) -> str:
        return str(Path(self.output_folder) / name)

    def save_checkpoint(self, filename: str) -> None:
        """Replace a checkpoint atomically, after a look at the free space.

        trainer_name is nnUNetTrainer: the architecture is nnU-Net's own, and stock nnU-Net loads
        the file without this package.

        Raises
        ------
        OSError
            ENOSPC: the disk has no room for it; earlier checkpoints are as they were.
        """
        network = getattr(self.network, "_orig_mod", self.network)
        scaler = self.grad_scaler
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": scaler.state_dict() if scaler is not None else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": self.current_epoch + 1,
            "init_args": {**self.my_init_kwargs, "device": str(self.device)},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "backsplit": {"run": self.run.spec.model_dump(mode="json")},
        }
        path = Path(filename)
        _require_space(path.parent, _size(checkpoint))
        with atomic_path(path) as temporary:
            torch.save(checkpoint, temporary)

    def start_from(self, weights: dict[str, Tensor]) -> None:
        """Start from a baseline's weights, its head already split to this run's classes.

        Raises
        ------
        InputError
            The weights belong to another network.
        """
        network = getattr(self.network, "_orig_mod", self.network)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            raise InputError(
                f"The baseline's weights do not fit the planned network: {error}",
                "Adopt the baseline's own plans: `backsplit plan --adopt MODEL`.",
            ) from error

    def resume(self, checkpoint: dict[str, Any]) -> None:
        """Go on from a checkpoint of this run, as the safe loader gives it."""
        network = getattr(self.network, "_orig_mod", self.network)
        network.load_state_dict(checkpoint["network_weights"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        self.logger.load_checkpoint(checkpoint["logging"])
        self.current_epoch = checkpoint["current_epoch"]
        self._best_ema = checkpoint["_best_ema"]


def trainer_for(
    run: Run, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]
) -> BackSplitTrainer:
    """Return an initialised trainer of a run, its weights drawn from the run's seed."""
    spec = run.spec
    bound = type("BackSplitTrainer", (BackSplitTrainer,), {"run": run})
    seed_everything(spec.seed, VALIDATION_STREAM - 1)
    plans = {"continue_training": False, **plans}
    trainer: BackSplitTrainer = bound(
        plans, configuration, spec.fold, dataset_json, torch.device(spec.device.split(":")[0])
    )
    trainer.initialize()
    return trainer


def seed_everything(seed: int, stream: int) -> None:
    """Seed NumPy, torch and random from a seed and the number of a stream."""
    state = np.random.SeedSequence([seed, stream]).generate_state(3)
    np.random.seed(state[0])  # noqa: NPY002  nnU-Net draws from the global generators
    torch.manual_seed(int(state[1]))
    random.seed(int(state[2]))


def class_counts(
    logits: Tensor, codes: Tensor, label_sets: Sequence[Sequence[int]] = ()
) -> dict[str, Any]:
    """Count true positive, false positive and false negative voxels of each foreground class.

    Parameters
    ----------
    logits : Tensor
        (b, K, ...); the prediction is the argmax.
    codes : Tensor
        (b, ...) reference codes.
    label_sets : sequence of sequences of int
        Classes of code K, K + 1, ...; a class is not counted in voxels that may hold it.

    Returns
    -------
    dict
        tp, fp, fn: int64 arrays (K - 1,).
    """
    classes = logits.shape[1]
    prediction = logits.argmax(1)
    counts: dict[str, list[int]] = {"tp": [], "fp": [], "fn": []}
    for label in range(1, classes):
        unknown = [classes + n for n, members in enumerate(label_sets) if label in members]
        known = ~torch.isin(codes, codes.new_tensor(unknown)) if unknown else True
        found, true = (prediction == label) & known, codes == label
        counts["tp"].append(int((found & true).sum()))
        counts["fp"].append(int((found & ~true).sum()))
        counts["fn"].append(int((~found & true).sum()))
    return {key: np.array(values) for key, values in counts.items()}


class _Schedule:
    """Sets the learning rate of an epoch; nnU-Net calls `step` when the epoch starts."""

    def __init__(self, optimizer: torch.optim.Optimizer, spec: RunSpec) -> None:
        self.optimizer, self.spec = optimizer, spec

    def step(self, epoch: int) -> None:
        lr = self.spec.initial_lr * lr_factor(self.spec, epoch)
        body, *heads = self.optimizer.param_groups
        body["lr"] = lr
        for group in heads:
            group["lr"] = lr * self.spec.head_lr_factor


def _size(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(_size(item) for item in value.values())
    return 0


def _require_space(folder: Path, size: int) -> None:
    needed = int(size * 1.1) + 2**20
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            errno.ENOSPC,
            f"A checkpoint needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free",
        )
