"""nnU-Net's trainer with the target first: sampling, selection, label sets, safe checkpoints.

Worker only. Every arm trains with this class, so that two arms differ in their labels alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
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
from napari_backsplit.backend.training.architectures import has_levels
from napari_backsplit.backend.training.checkpointing import restore, state_of, write_checkpoint
from napari_backsplit.backend.training.class_counts import class_counts, pooled_dice
from napari_backsplit.backend.training.course import Course
from napari_backsplit.backend.training.loading import patch_loaders, to_device, wanted_extra
from napari_backsplit.backend.training.losses import deciding, make_loss, membership_table
from napari_backsplit.backend.training.optimisers import Schedule, descend, make_optimiser
from napari_backsplit.backend.training.run import Run, write_end
from napari_backsplit.backend.training.schedule import joined_supports, support_weight
from napari_backsplit.backend.training.seeds import (
    VALIDATION_STREAM,
    WEIGHTS_STREAM,
    seed_everything,
)
from napari_backsplit.backend.training.snapshot import Album
from napari_backsplit.backend.training.soft_labels import ENDING
from napari_backsplit.backend.training.stopwatch import WAITING

LATEST = "checkpoint_latest.pth"
REPORT_SECONDS = 1.0


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
        self.enable_deep_supervision = self._levels and spec.deep_supervision is not False
        scheme = dataset_json["backsplit"]
        self.targets = [dataset_json["labels"][name] for name in scheme["targets"]]
        self.label_sets: list[list[int]] = scheme["label_sets"]
        self.course = Course(spec, device.type)
        self._reported = 0.0
        self._album: Album | None = None

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

    @property
    def _levels(self) -> bool:
        """Whether the network has coarser outputs to train."""
        return has_levels(self.configuration_manager.configuration)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch the coarser outputs of a network that has them."""
        if self._levels:
            super().set_deep_supervision_enabled(enabled)

    def _build_loss(self) -> torch.nn.Module:
        table = membership_table(self.label_manager.num_segmentation_heads, self.label_sets)
        batch_dice = self.configuration_manager.batch_dice
        loss = make_loss(self.run.spec, table, batch_dice, len(self.targets)).to(self.device)
        self.staged_loss = loss
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

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return the cases to train on and those held out; a case's soft labels are no case."""
        training, held_out = super().do_split()
        return [c for c in training if not c.endswith(ENDING)], [
            c for c in held_out if not c.endswith(ENDING)
        ]

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return what draws training and validation batches: nnU-Net's own, where that will do."""
        extra = wanted_extra(self)
        if extra is not None:
            return patch_loaders(self, extra)
        loaders: tuple[Any, Any] = super().get_dataloaders()
        return loaders

    def configure_optimizers(self) -> tuple[Any, Any]:
        """Return the spec's optimiser and schedule; the output layers may learn at another rate."""
        optimiser = make_optimiser(self.network, self.run.spec)
        return optimiser, Schedule(optimiser, self.run.spec, lambda: self.course.used)

    def _do_i_compile(self) -> bool:
        return self.run.spec.compile and self.device.type == "cuda" and os.name != "nt"

    # ------------------------------------------------------------------ the loop

    def run_training(self) -> None:
        """Train epoch by epoch until the budget is used."""
        self.on_train_start()
        while self._goes_on():
            self.on_epoch_start()
            self.on_train_epoch_start()
            batches = range(self.num_iterations_per_epoch)
            self.on_train_epoch_end([self._train_next() for _ in batches])
            with torch.no_grad():
                self.on_validation_epoch_start()
                batches = range(self.num_val_iterations_per_epoch)
                self.on_validation_epoch_end([self._validate_next() for _ in batches])
            self.on_epoch_end()
        self.on_train_end()

    def _goes_on(self) -> bool:
        smoothed = self.logger.get_value("ema_fg_dice", step=None)
        return self.course.another(self.current_epoch, smoothed)

    def _train_next(self) -> dict[str, Any]:
        self._wait()
        with self.course.iteration():
            with self.course.watch.part("data"):
                batch = next(self.dataloader_train)
            return self.train_step(batch)

    def _validate_next(self) -> dict[str, Any]:
        self._wait()
        with self.course.watch.part("validation"):
            return self.validation_step(next(self.dataloader_val))

    def _wait(self) -> None:
        """Hold where the job is to wait; end it where it is to stop."""
        with self.course.watch.part(WAITING):
            self.run.check()
        self._report_progress()

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Train on a batch, in nnU-Net's own arithmetic, with the passes timed."""
        with self.precision():
            with self.course.watch.part("forward"):
                data, target, *extra = to_device(batch, self.device)
                self.optimizer.zero_grad(set_to_none=True)
                with torch.autocast("cuda", enabled=self.device.type == "cuda"):
                    loss = self.loss(self.network(data), target, *extra)
            with self.course.watch.part("backward"):
                descend(loss, self.network, self.optimizer, self.grad_scaler)
                value = loss.detach().cpu().numpy()
        if not np.isfinite(value):
            raise FloatingPointError(
                f"The loss became {value} in epoch {self.current_epoch + 1}. "
                "Lower the learning rate."
            )
        return {"loss": value}

    def precision(self) -> torch.autocast:
        """Return the context in which a CPU computes as the spec says."""
        bfloat16 = self.device.type == "cpu" and self.run.spec.precision == "bfloat16"
        return torch.autocast("cpu", torch.bfloat16, enabled=bfloat16)

    def decisive(self, logits: Tensor) -> Tensor:
        """Return outputs (b, K, ...) whose argmax is the decision; with soft labels, the shares."""
        spec = self.run.spec
        if spec.labels != "soft":
            return logits
        return deciding(logits, spec.activation, len(self.targets))

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Count the foreground classes' voxels of a batch, where they are known."""
        data, target, *extra = to_device(batch, self.device)
        with self.precision(), torch.autocast("cuda", enabled=self.device.type == "cuda"):
            output = self.network(data)
            loss = self.loss(output, target, *extra)
        logits = output[0] if isinstance(output, list | tuple) else output
        codes = target[0] if isinstance(target, list) else target
        counts = class_counts(self.decisive(logits), codes[:, 0], self.label_sets)
        return {"loss": loss.detach().cpu().numpy(), **counts}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Log the pooled Dice of each class; the targets' mean selects the best checkpoint."""
        dice = pooled_dice(val_outputs)
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
        self.course.iterations = self.current_epoch * self.num_iterations_per_epoch

    def plot_network_architecture(self) -> None:
        """Draw nothing: the drawing needs a package that no longer works."""

    def _save_debug_information(self) -> None:
        """Write nothing: nnU-Net's file names the machine."""

    def on_train_epoch_start(self) -> None:
        """Seed the epoch by its number, so that a resumed run goes on as if never stopped."""
        seed_everything(self.run.spec.seed, self.current_epoch)
        epoch, spec = self.current_epoch, self.run.spec
        self.staged_loss.joined = joined_supports(spec, epoch, self.staged_loss.supports)
        self.staged_loss.weight = support_weight(spec, epoch, self.course.used)
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
        self.course.end_of_work()
        self.logger.log("epoch_end_timestamps", time.time(), epoch)
        for name, value in self._figures():
            self.run.metric(name, epoch, value)
        ema = self.logger.get_value("ema_fg_dice", step=-1)
        if self._best_ema is None or ema > self._best_ema:
            self._best_ema = ema
            self.save_checkpoint(self._path("checkpoint_best.pth"))
        last = epoch == self.num_epochs - 1 and not self.run.spec.by_the_clock
        if (epoch + 1) % self.save_every == 0 or last:
            self.save_checkpoint(self._path(LATEST))
        every = self.run.spec.picture_every
        if every and (epoch + 1) % every == 0:
            self._take_picture(epoch)
        for name, seconds in self.course.end_of_epoch().items():
            if name != "picture":
                self.run.metric(f"seconds: {name}", epoch, seconds)
        self.current_epoch += 1

    def _figures(self) -> Iterator[tuple[str, float]]:
        for name, key in (
            ("training loss", "train_losses"),
            ("validation loss", "val_losses"),
            ("target Dice", "mean_fg_dice"),
            ("learning rate", "lrs"),
        ):
            yield name, float(self.logger.get_value(key, step=-1))
        dice = self.logger.get_value("dice_per_class_or_region", step=-1)
        for name, label in self.dataset_json["labels"].items():
            if label not in (0, *self.targets):
                yield f"Dice of {name}", float(dice[label - 1])

    def _take_picture(self, epoch: int) -> None:
        if self._album is None:
            self._album = Album(self)
        with self.course.watch.part("picture"):
            self._album.add(epoch)

    def on_train_end(self) -> None:
        """Write the card, the final checkpoint and the curves; say why a run ended early."""
        self._report_progress(force=True)
        every, last = self.run.spec.picture_every, self.current_epoch - 1
        if every and (last + 1) % every:
            self._take_picture(last)
        if self.course.ended:
            self.run.note("info", self.course.ended)
        dice = self.logger.get_value("mean_fg_dice", step=-1)
        parameters = sum(weights.numel() for weights in self.network.parameters())
        write_end(self.run.folder, self.current_epoch, self.course, dice, parameters)
        super().on_train_end()
        self.logger.plot_progress_png(self.output_folder)

    def _report_progress(self, force: bool = False) -> None:
        if force or time.monotonic() - self._reported > REPORT_SECONDS:
            self._reported = time.monotonic()
            self.run.progress(*self.course.told(self.current_epoch))

    # ------------------------------------------------------------------ checkpoints

    def _path(self, name: str) -> str:
        return str(Path(self.output_folder) / name)

    def save_checkpoint(self, filename: str) -> None:
        """Replace a checkpoint atomically, after a look at the free space.

        Raises
        ------
        OSError
            ENOSPC: the disk has no room for it; earlier checkpoints are as they were.
        """
        with self.course.watch.part("checkpoint"):
            write_checkpoint(Path(filename), state_of(self))

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
        restore(self, checkpoint)


def trainer_for(
    run: Run, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]
) -> BackSplitTrainer:
    """Return an initialised trainer of a run, its weights drawn from the run's seed."""
    spec = run.spec
    bound = type("BackSplitTrainer", (BackSplitTrainer,), {"run": run})
    seed_everything(spec.seed, WEIGHTS_STREAM)
    plans = {"continue_training": False, **plans}
    trainer: BackSplitTrainer = bound(
        plans, configuration, spec.fold, dataset_json, torch.device(spec.device.split(":")[0])
    )
    trainer.initialize()
    return trainer
