"""Prediction with any checked nnU-Net model, in this process, voxel for voxel as nnU-Net.

Worker-only: imports torch and nnU-Net. Preprocessing is nnU-Net's own; network, sliding window
and export give its numbers without its process pools, and nothing is unpickled or imported
unchecked.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.prediction.export import (
    TargetExport,
    Wanted,
)
from napari_backsplit.backend.prediction.model_folder import OUR_KEY, ModelFolder
from napari_backsplit.backend.prediction.network import (
    STOCK,
    build_networks,
    is_out_of_memory,
    resolve_device,
)
from napari_backsplit.backend.prediction.network import available_devices as available_devices
from napari_backsplit.backend.prediction.network import stock_trainer as stock_trainer
from napari_backsplit.backend.prediction.preparation import Preparation, Prepared
from napari_backsplit.backend.prediction.shares import SharesNetwork
from napari_backsplit.backend.prediction.sliding import SlidingWindow, TileReport
from napari_backsplit.backend.prediction.wanted import Prediction as Prediction
from napari_backsplit.backend.prediction.wanted import Settings as Settings
from napari_backsplit.backend.prediction.wanted import check_settings, check_wanted


@dataclass(frozen=True, eq=False)
class Computed:
    """An image that the network has seen and that is not exported yet."""

    export: TargetExport
    prepared: Prepared
    notes: tuple[str, ...] = ()


class Predictor:
    """A loaded model, ready for many images.

    `predict` does it all; `prepare`, `compute` and `finish` are its three steps, which may run in
    three threads for three images at once.

    Parameters
    ----------
    model : ModelFolder
        A checked folder; all its `checkpoints` are averaged.
    settings : Settings
        How to predict.
    tile : callable, optional
        Called before each tile with (done, total) of the image; what it raises stops the
        prediction and passes through.

    Attributes
    ----------
    notes : list of str
        What a person should know about how the model is used.
    """

    def __init__(
        self, model: ModelFolder, settings: Settings | None = None, tile: TileReport | None = None
    ) -> None:
        self.model = model
        self.settings = settings or Settings()
        self.notes: list[str] = []
        self._tile: TileReport = tile or (lambda done, total: None)
        self._device = resolve_device(self.settings.device)
        check_settings(self.settings)
        torch.set_num_threads(self.settings.threads)
        self._plans = PlansManager(copy.deepcopy(model.plans))
        with self._memory_errors():
            self._load()
        self._preparation = Preparation(
            model, self._plans, self._configuration, len(model.checkpoints), self._on_cpu
        )

    def _load(self) -> None:
        loaded = [load_checkpoint(p, state=False) for p in self.model.checkpoints.values()]
        first = loaded[0]
        self._configuration = self._find_configuration(loaded)
        self._label_manager = self._plans.get_label_manager(self.model.dataset_json)
        trainer = self._trainer(first["trainer_name"], own=OUR_KEY in first or self.model.soft)
        networks = build_networks(
            trainer,
            self._plans,
            self._configuration,
            self.model.dataset_json,
            [checkpoint["network_weights"] for checkpoint in loaded],
            self._device,
        )
        if self.model.soft:
            networks = [SharesNetwork(network, self.model.activation) for network in networks]
        self._window = SlidingWindow(
            networks,
            self._label_manager.num_segmentation_heads,
            self._configuration.patch_size,
            self.settings.step_size,
            self._mirror_axes(first.get("inference_allowed_mirroring_axes")),
            self._device,
        )

    def _find_configuration(self, loaded: Sequence[dict[str, Any]]) -> Any:
        name = loaded[0]["init_args"]["configuration"]
        if any(other["init_args"]["configuration"] != name for other in loaded):
            raise InputError("The folds are of different configurations.", "Choose other folds.")
        if name not in self.model.plans["configurations"]:
            raise InputError(f"plans.json has no configuration {name!r}.", "Restore plans.json.")
        configuration = self._plans.get_configuration(name)
        if configuration.previous_stage_name is not None:
            raise InputError(
                f"{name} is the second stage of a cascade and needs the first one's result.",
                "Use the model's 3d_fullres or 3d_lowres configuration.",
            )
        return configuration

    def _mirror_axes(self, axes: Sequence[int] | None) -> tuple[int, ...]:
        if self.settings.mirroring and not axes:
            self.notes.append("The model was trained without mirroring, so none is used.")
        return tuple(axes) if axes and self.settings.mirroring is not False else ()

    def _trainer(self, name: str, own: bool) -> type[Any] | None:
        if name == STOCK:
            return None
        trainer = stock_trainer(name)
        if trainer is None and not own:
            self.notes.append(
                f"Trainer {name} is not part of nnU-Net; the network is built from plans.json, "
                "as nnUNetTrainer does."
            )
        return trainer

    @property
    def _on_cpu(self) -> bool:
        return self._device.type != "cuda"

    def check(self, wanted: Wanted) -> None:
        """Refuse what this model cannot give, before an image is read.

        Raises
        ------
        InputError
            No target, one that the model has not, or the gap of a model with two classes or of
            soft labels, or a rule that is not the model's.
        """
        check_wanted(self.model, wanted, (self._label_manager.num_segmentation_heads, 0, 0, 0))

    def predict(self, files: Sequence[Path], wanted: Wanted | None = None) -> Prediction:
        """Predict one image.

        Parameters
        ----------
        files : sequence of Path
            One file per channel, in the model's order.
        wanted : Wanted, optional
            What to give beside the mask; by default the mask of the model's targets only.

        Raises
        ------
        InputError
            The files cannot be read, or do not fit the model.
        JobError
            Out of memory.
        """
        wanted = wanted or Wanted(self.model.targets)
        self.check(wanted)
        return self.finish(self.compute(self.prepare(files, wanted), wanted))

    def prepare(self, files: Sequence[Path], wanted: Wanted | None = None) -> Prepared:
        """Read and preprocess an image; see `predict`.

        Raises
        ------
        MemoryTooSmall
            The machine has not the memory for it now.
        """
        with self._memory_errors():
            return self._preparation.prepare(files, wanted or Wanted(self.model.targets))

    def compute(self, prepared: Prepared, wanted: Wanted) -> Computed:
        """Let the network see an image; the preprocessed image is freed; see `predict`."""
        notes: list[str] = list(prepared.notes)
        export = TargetExport(
            prepared.shape(self._label_manager.num_segmentation_heads),
            np.float16,
            self.model,
            self._plans,
            self._configuration,
            self._label_manager,
            prepared.properties,
            wanted,
            threads=self.settings.threads,
        )
        feed = export.feed_shares if self.model.soft else export.feed
        with self._memory_errors():
            self._window.run(prepared.take_image(), feed, self._tile, notes.append)
        return Computed(export, prepared, tuple(notes))

    def finish(self, computed: Computed) -> Prediction:
        """Return what was wanted of an image, on its own grid; see `predict`."""
        with self._memory_errors():
            exported = computed.prepared.turn.back(computed.export.finish())
        return Prediction(exported, computed.prepared.grid, (*computed.notes, *exported.notes))

    @contextmanager
    def _memory_errors(self) -> Iterator[None]:
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise JobError(
                f"The prediction needs more memory than {self.settings.device} has left.",
                "Leave out probabilities, use one fold at a time, close other programs, or use "
                "another device (cpu).",
            ) from error
