"""Prediction with any checked nnU-Net model, in this process, voxel for voxel as nnU-Net.

Worker-only: imports torch and nnU-Net. Network, preprocessing, sliding window and export are
nnU-Net's own pieces; what differs is that nothing is unpickled or imported unchecked, that no
process pools are started, and that only targets are kept.
"""

from __future__ import annotations

import copy
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import nibabel
import nnunetv2
import numpy as np
import SimpleITK as sitk
import torch
from nibabel.filebasedimages import ImageFileError
from nnunetv2.inference.export_prediction import (
    convert_predicted_logits_to_segmentation_with_correct_shape,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError, JobError
from napari_backsplit.backend.files import atomic_path
from napari_backsplit.backend.prediction.checkpoint import load_checkpoint
from napari_backsplit.backend.prediction.model_folder import OUR_KEY, ModelFolder
from napari_backsplit.backend.prediction.trust import check_trainer

TileReport = Callable[[int, int], None]


@dataclass(frozen=True)
class Settings:
    """How to predict.

    Attributes
    ----------
    device : str
        cpu, mps, cuda or cuda:N.
    threads : int
        CPU threads of torch.
    mirroring : bool, optional
        Average over mirrored tiles: None and True follow the checkpoint, as nnU-Net does.
    step_size : float
        Step of the sliding window as a share of the patch, above 0 and at most 1.
    """

    device: str = "cpu"
    threads: int = 1
    mirroring: bool | None = None
    step_size: float = 0.5


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one image.

    Attributes
    ----------
    label_map : ndarray of int, (z, y, x)
        Ids as the model's dataset.json gives them, on the grid that nnU-Net's reader sees.
    probabilities : dict of str to ndarray of float32, (z, y, x)
        Per asked label name, 0 to 1; 0 outside nnU-Net's crop.
    grid : dict
        What the reader needs to write on the image's own grid.
    """

    label_map: NDArray[np.integer[Any]]
    probabilities: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)


class Predictor:
    """A loaded model, ready for many images.

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
        device = resolve_device(self.settings.device)
        _check_settings(self.settings)
        torch.set_num_threads(self.settings.threads)
        self._plans = PlansManager(copy.deepcopy(model.plans))
        self._nnunet = _Tiles(self.settings, device, tile)
        with _memory_errors(self.settings):
            self._load()

    def _load(self) -> None:
        loaded = [load_checkpoint(p, state=False) for p in self.model.checkpoints.values()]
        first = loaded[0]
        name = first["init_args"]["configuration"]
        if any(other["init_args"]["configuration"] != name for other in loaded):
            raise InputError("The folds are of different configurations.", "Choose other folds.")
        if name not in self.model.plans["configurations"]:
            raise InputError(f"plans.json has no configuration {name!r}.", "Restore plans.json.")
        weights = [checkpoint["network_weights"] for checkpoint in loaded]
        configuration = self._plans.get_configuration(name)
        if configuration.previous_stage_name is not None:
            raise InputError(
                f"{name} is the second stage of a cascade and needs the first one's result.",
                "Use the model's 3d_fullres or 3d_lowres configuration.",
            )
        trainer = self._trainer(first["trainer_name"], own=OUR_KEY in first)
        network = _build(trainer, self._plans, configuration, self.model.dataset_json)
        _fit(network, weights)
        axes = first.get("inference_allowed_mirroring_axes")
        if self.settings.mirroring and not axes:
            self.notes.append("The model was trained without mirroring, so none is used.")
        self._nnunet.manual_initialization(
            network,
            self._plans,
            configuration,
            weights,
            self.model.dataset_json,
            first["trainer_name"],
            tuple(axes) if axes else None,
        )

    def _trainer(self, name: str, own: bool) -> type[nnUNetTrainer]:
        trainer = stock_trainer(name)
        if trainer is None and not own:
            self.notes.append(
                f"Trainer {name} is not part of nnU-Net; the network is built from plans.json, "
                "as nnUNetTrainer does."
            )
        return trainer or nnUNetTrainer

    def predict(self, files: Sequence[Path], probabilities: Sequence[str] = ()) -> Prediction:
        """Predict one image.

        Parameters
        ----------
        files : sequence of Path
            One file per channel, in the model's order.
        probabilities : sequence of str
            Labels whose probability map is wanted. nnU-Net then resamples all classes in
            full: needs (number of labels) x 8 bytes a voxel.

        Raises
        ------
        InputError
            The files cannot be read, or do not fit the model.
        JobError
            Out of memory.
        """
        if len(files) != len(self.model.channels):
            raise InputError(
                f"The model takes {len(self.model.channels)} channels "
                f"({', '.join(self.model.channels)}), {len(files)} files were given.",
                "Give one file per channel, in this order.",
            )
        for channel, file in zip(self.model.channels, files, strict=True):
            if not file.is_file():
                raise InputError(f"The image of channel {channel} is missing.", "Restore it.")
        with _memory_errors(self.settings):
            data, properties = self._preprocess(files)
            logits = self._nnunet.predict_logits_from_preprocessed_data(torch.from_numpy(data))
            return self._export(logits.cpu(), properties, probabilities)

    def _preprocess(self, files: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
        configuration = self._nnunet.configuration_manager
        image, properties = self._read(files)
        # One NaN would make all of a z-scored image NaN. (ITK reads NaN in NIfTI as 0.)
        if not np.isfinite(image).all():
            raise InputError("The image holds NaN or infinite values.", "Repair the image.")
        data, _, properties = configuration.preprocessor_class(verbose=False).run_case_npy(
            image, None, properties, self._plans, configuration, self.model.dataset_json
        )
        return data, properties

    def _read(self, files: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
        reader = self._plans.image_reader_writer_class
        try:
            image, properties = reader().read_images([str(file) for file in files])
        except (RuntimeError, AssertionError, EOFError, OSError, ImageFileError) as error:
            if _is_out_of_memory(error):
                raise
            raise InputError(
                f"nnU-Net's reader {reader.__name__} cannot read the image, or its channels "
                "differ in grid.",
                "Check that all channels are readable 3D images on one grid.",
            ) from error
        return image, properties

    def _export(
        self, logits: torch.Tensor, properties: dict[str, Any], wanted: Sequence[str]
    ) -> Prediction:
        channels = {name: self.model.head(name) for name in wanted}
        result = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            self._plans,
            self._nnunet.configuration_manager,
            self._nnunet.label_manager,
            properties,
            return_probabilities=bool(wanted),
            num_threads_torch=self.settings.threads,
        )
        if not wanted:
            return Prediction(result, {}, properties)
        maps = {name: np.array(result[1][index], np.float32) for name, index in channels.items()}
        return Prediction(result[0], maps, properties)


class _Tiles(nnUNetPredictor):  # type: ignore[misc]
    """nnU-Net's predictor that says where it is before each tile."""

    def __init__(self, settings: Settings, device: torch.device, tile: TileReport | None) -> None:
        super().__init__(
            tile_step_size=settings.step_size,
            use_mirroring=settings.mirroring is not False,
            perform_everything_on_device=device.type == "cuda",
            device=device,
            allow_tqdm=False,
        )
        self._tile = tile or (lambda done, total: None)
        self._done = self._total = 0

    def predict_logits_from_preprocessed_data(self, data: torch.Tensor) -> torch.Tensor:
        self._done = 0
        logits: torch.Tensor = super().predict_logits_from_preprocessed_data(data)
        return logits

    def _internal_get_sliding_window_slicers(self, image_size: tuple[int, ...]) -> list[Any]:
        slicers: list[Any] = super()._internal_get_sliding_window_slicers(image_size)
        self._total = len(slicers) * len(self.list_of_parameters)
        return slicers

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        self._tile(self._done, self._total)
        logits: torch.Tensor = super()._internal_maybe_mirror_and_predict(x)
        self._done += 1
        return logits


def available_devices() -> list[str]:
    """Return the devices of this machine: cpu always, then cuda:N and mps."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def resolve_device(name: str) -> torch.device:
    """Return the device of this name.

    Raises
    ------
    InputError
        This machine has none of that name.
    """
    available = available_devices()
    if name not in available and not (name == "cuda" and "cuda:0" in available):
        raise InputError(
            f"This machine has no device {name!r}.", f"Choose from: {', '.join(available)}."
        )
    return torch.device(name)


def _check_settings(settings: Settings) -> None:
    if not 0 < settings.step_size <= 1:
        raise InputError(f"Step size {settings.step_size} is not in (0, 1].", "Use 0.5.")
    if settings.threads < 1:
        raise InputError(f"{settings.threads} threads cannot work.", "Use 1 or more.")


def stock_trainer(name: str) -> type[nnUNetTrainer] | None:
    """Return the trainer class of nnU-Net's own package with this name, None if it has none.

    Only the one module whose source defines the class is imported; folders that the
    environment names (nnUNet_extTrainer) are never searched.
    """
    check_trainer(name)
    if name == "nnUNetTrainer":
        return cast("type[nnUNetTrainer]", nnUNetTrainer)
    root = Path(nnunetv2.__path__[0])
    for file in sorted((root / "training" / "nnUNetTrainer").rglob("*.py")):
        if re.search(rf"^class {name}\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            module = ".".join(("nnunetv2", *file.relative_to(root).with_suffix("").parts))
            found: object = getattr(importlib.import_module(module), name)
            if isinstance(found, type) and issubclass(found, nnUNetTrainer):
                return found
    return None


def _build(
    trainer: type[nnUNetTrainer], plans: Any, configuration: Any, dataset_json: dict[str, Any]
) -> torch.nn.Module:
    network: torch.nn.Module = trainer.build_network_architecture(
        plans,
        configuration,
        determine_num_input_channels(plans, configuration, dataset_json),
        plans.get_label_manager(dataset_json).num_segmentation_heads,
        enable_deep_supervision=False,
    )
    return network


def _fit(network: torch.nn.Module, weights: Sequence[dict[str, Any]]) -> None:
    try:
        for parameters in reversed(weights):
            network.load_state_dict(parameters)
    except RuntimeError as error:
        if _is_out_of_memory(error):
            raise
        lines = str(error).strip().splitlines()
        raise InputError(
            f"The weights do not fit the network of plans.json: {lines[-1].strip()}",
            "Use the plans.json and dataset.json that belong to this checkpoint.",
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    said = str(error).casefold()
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        words in said for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


@contextmanager
def _memory_errors(settings: Settings) -> Iterator[None]:
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise JobError(
            f"The prediction needs more memory than {settings.device} has left.",
            "Leave out probabilities, use one fold at a time, close other programs, or use "
            "another device (cpu).",
        ) from error


def write_array(array: NDArray[Any], path: Path, grid: dict[str, Any]) -> None:
    """Write an array of a prediction as NIfTI on the image's own grid, atomically.

    As the reader's write_seg does, but for any type.
    """
    with atomic_path(path) as temporary:
        if "sitk_stuff" in grid:
            sitk.WriteImage(_itk_image(array, grid["sitk_stuff"]), str(temporary), True)
        elif "nibabel_stuff" in grid:
            nibabel.save(_nibabel_image(array, grid["nibabel_stuff"]), str(temporary))
        else:
            raise InputError("The model is for 2D or TIFF images.", "Use a model for volumes.")


def _itk_image(array: NDArray[Any], grid: dict[str, Any]) -> sitk.Image:
    dimension = len(grid["spacing"])
    image = sitk.GetImageFromArray(array if dimension == 3 else array[0])
    image.SetSpacing(grid["spacing"])
    image.SetOrigin(grid["origin"])
    image.SetDirection(grid["direction"])
    orientation = grid.get("original_orientation")
    return sitk.DICOMOrient(image, orientation) if orientation else image


def _nibabel_image(array: NDArray[Any], grid: dict[str, Any]) -> Any:
    transposed = array.transpose((2, 1, 0))
    if "reoriented_affine" not in grid:
        return nibabel.Nifti1Image(transposed, grid["original_affine"])
    image = nibabel.Nifti1Image(transposed, grid["reoriented_affine"])
    own = nibabel.orientations.io_orientation(grid["original_affine"])
    ras = nibabel.orientations.axcodes2ornt("RAS")
    return image.as_reoriented(nibabel.orientations.ornt_transform(ras, own))
