"""From image files to what a network takes: read, checked, turned, preprocessed by nnU-Net.

Worker-only: imports nnU-Net.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nnunetv2.preprocessing.resampling.default_resampling import determine_do_sep_z_and_axis
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.geometry import Geometry, axis_codes
from napari_backsplit.backend.jobs.devices import free_memory_bytes
from napari_backsplit.backend.prediction.images import (
    check_spacing,
    check_voxels,
    grid_of,
    slice_notes,
)
from napari_backsplit.backend.prediction.memory import Need, check_memory
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.network import is_out_of_memory
from napari_backsplit.backend.prediction.orientation import Turn, turn_between
from napari_backsplit.backend.prediction.trained_on import orientations_of
from napari_backsplit.backend.prediction.wanted import Wanted

VOLUME_READERS = ("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient")


@dataclass(eq=False)
class Prepared:
    """A preprocessed image.

    Attributes
    ----------
    properties : dict
        nnU-Net's, of the image as the network sees it.
    grid : dict
        What is needed to write on the image's own grid.
    turn : Turn
        How the image was turned for the network.
    notes : tuple of str
    coming : float
        Bytes of memory that it will take from here on, until it is exported.
    """

    image: NDArray[np.float32] | None
    properties: dict[str, Any]
    grid: dict[str, Any]
    turn: Turn = field(default_factory=Turn)
    notes: tuple[str, ...] = ()
    coming: float = 0.0

    def shape(self, classes: int) -> tuple[int, int, int, int]:
        """Return the shape (K, z, y, x) of the logits of the image, before it is taken."""
        assert self.image is not None
        z, y, x = self.image.shape[1:]
        return classes, z, y, x

    def take_image(self) -> NDArray[np.float32]:
        """Return the image, float32 (channels, z, y, x), which is then kept no longer here."""
        image, self.image = self.image, None
        if image is None:
            raise ValueError("The image was taken before.")
        return image


class Preparation:
    """Reads and preprocesses images for a model.

    Parameters
    ----------
    model : ModelFolder
    plans, configuration
        nnU-Net's managers.
    folds : int
        Networks that are averaged.
    on_cpu : bool
        Whether the network's own memory is the machine's.

    Raises
    ------
    InputError
        The model is for pictures, not for volumes.
    """

    def __init__(
        self,
        model: ModelFolder,
        plans: Any,
        configuration: Any,
        folds: int = 1,
        on_cpu: bool = True,
    ) -> None:
        self.model, self._plans, self._configuration = model, plans, configuration
        self._folds, self._on_cpu = folds, on_cpu
        self._under_way: WeakSet[Prepared] = WeakSet()
        name = str(plans.plans["image_reader_writer"])
        self._reorients = name.endswith("WithReorient")
        if name not in VOLUME_READERS:
            raise InputError(
                f"The model reads pictures ({name}), not volumes.",
                "Use a model whose images are NIfTI, NRRD or MHA, or nnUNetv2_predict.",
            )

    def prepare(self, files: Sequence[Path], wanted: Wanted) -> Prepared:
        """Read and preprocess one image; see `Predictor.predict`."""
        self._check_files(files)
        turn, notes, coming = Turn(), tuple[str, ...](), 0.0
        if geometry := grid_of(dict(zip(self.model.channels, files, strict=True))):
            turn, notes = self._turn(axis_codes(geometry))
            notes = (*notes, *slice_notes(geometry.shape, self.model.patch_vox))
            need = self.need(geometry, turn, wanted)
            check_memory(need, free_memory_bytes() - self._promised())
            coming = need.computing
        check_voxels(files)
        image, grid = self._read(files)
        self._check_array(image)
        held = [turn.turn(image)]
        del image  # and the view is popped, so that nnU-Net's copy is soon the only one
        data, _, properties = self._preprocessor().run_case_npy(
            held.pop(),
            None,
            grid | {"spacing": turn.spacing(grid["spacing"])},
            self._plans,
            _ImageOnly(self._configuration),
            self.model.dataset_json,
        )
        prepared = Prepared(data, properties, grid, turn, notes, max(coming - data.nbytes, 0))
        self._under_way.add(prepared)
        return prepared

    def _promised(self) -> int:
        """Return what the images that are computed or exported now will still take."""
        return int(sum(prepared.coming for prepared in self._under_way))

    def need(self, geometry: Geometry, turn: Turn, wanted: Wanted) -> Need:
        """Return what an image of this grid will need of the machine's memory."""
        forward = self._plans.transpose_forward
        shape = [geometry.shape[turn.order[axis]] for axis in forward]
        spacing = [geometry.spacing_mm[turn.order[axis]] for axis in forward]
        target = list(self._configuration.spacing)
        target = [*spacing[: 3 - len(target)], *target]
        check_spacing(spacing, target)
        separate, _ = determine_do_sep_z_and_axis(None, spacing, target)
        return Need.of(
            shape,
            [round(n * own / new) for n, own, new in zip(shape, spacing, target, strict=True)],
            self.model,
            wanted,
            folds=self._folds,
            separate=separate,
            on_cpu=self._on_cpu,
        )

    def _preprocessor(self) -> Any:
        return self._configuration.preprocessor_class(verbose=False)

    def _check_files(self, files: Sequence[Path]) -> None:
        if len(files) != len(self.model.channels):
            raise InputError(
                f"The model takes {len(self.model.channels)} channels "
                f"({', '.join(self.model.channels)}), {len(files)} files were given.",
                "Give one file per channel, in this order.",
            )
        for channel, file in zip(self.model.channels, files, strict=True):
            if file.is_dir():
                raise InputError(
                    f"The image of channel {channel} is a folder.",
                    "Give one file; a DICOM series can be predicted in a project: import it.",
                )
            if not file.is_file():
                raise InputError(f"The image of channel {channel} is missing.", "Restore it.")

    def _turn(self, axes: str) -> tuple[Turn, tuple[str, ...]]:
        trained = orientations_of(self.model)
        if self._reorients or axes in trained:
            return Turn(), ()
        if not trained:
            return Turn(), (
                f"It is not known which way the model's training images lie; the image is taken "
                f"as it lies (axes {axes}). Bring it to the orientation of its training images if "
                "they lie otherwise.",
            )
        model = max(trained, key=lambda name: trained[name])
        return turn_between(axes, model), (
            f"The image lies otherwise (axes {axes}) than the training images ({model}): it was "
            "turned for the network, exactly, and the result turned back.",
        )

    def _read(self, files: Sequence[Path]) -> tuple[NDArray[Any], dict[str, Any]]:
        reader: Any = self._plans.image_reader_writer_class
        try:
            image, grid = reader().read_images([str(file) for file in files])
        except (RuntimeError, AssertionError, EOFError, OSError, ImageFileError) as error:
            if is_out_of_memory(error):
                raise
            raise InputError(
                f"nnU-Net's reader {reader.__name__} cannot read the image, or its channels "
                "differ in grid.",
                "Check that all channels are readable 3D images on one grid.",
            ) from error
        return image, grid

    def _check_array(self, image: NDArray[Any]) -> None:
        if len(image) != len(self.model.channels):
            raise InputError(
                f"The files hold {len(image)} channels, the model takes "
                f"{len(self.model.channels)} ({', '.join(self.model.channels)}).",
                "Give one 3D file per channel.",
            )
        # One NaN would make all of a z-scored image NaN.
        if not all(np.isfinite(plane).all() for channel in image for plane in channel):
            raise InputError("The image holds NaN or infinite values.", "Repair the image.")


class _ImageOnly:
    """A configuration that resamples the image and not the empty segmentation beside it."""

    def __init__(self, configuration: Any) -> None:
        self._configuration = configuration

    def __getattr__(self, name: str) -> Any:
        return getattr(self._configuration, name)

    def resampling_fn_seg(self, segmentation: NDArray[Any], *_: Any) -> NDArray[Any]:
        return segmentation[:, :1, :1, :1]
