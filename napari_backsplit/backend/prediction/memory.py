"""How much memory a prediction needs, known from the header of an image. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.wanted import Wanted
from napari_backsplit.backend.training.architectures import features

GB = 1e9

# Bytes a voxel. Read: ITK's image, its array (both at most float32), nnU-Net's float32 array.
_ITK, _ARRAY = 4, 8
# nnU-Net resamples in float64: a channel is padded for the spline (a seventh more) and filtered.
_HALF, _FLOAT, _DOUBLE, _PADDED = 2, 4, 8, 8 * 8 / 7
# With separate z it holds three coordinates of each voxel, three times.
_COORDINATES = 72
# Slabs of the sliding window on their way: of 32 MB, or of one plane where that is more.
_SLABS, _SLAB = 4, 32 * 2**20
_CANDIDATES = 0.3 * GB


class MemoryTooSmall(JobError):
    """The machine has less free memory than an image needs."""


@dataclass(frozen=True)
class Need:
    """Bytes of the machine's memory that one image needs at most, stage by stage.

    Attributes
    ----------
    reading, preprocessing : float
        Before the network sees it.
    computing : float
        The preprocessed image, the rolling sums of the sliding window, and on the CPU the
        network's own.
    exporting : float
        From logits to mask.
    """

    reading: float
    preprocessing: float
    computing: float
    exporting: float

    @classmethod
    def of(
        cls,
        shape: Sequence[int],
        network_shape: Sequence[int],
        model: ModelFolder,
        wanted: Wanted,
        *,
        folds: int = 1,
        separate: bool = False,
        on_cpu: bool = True,
    ) -> Need:
        """Estimate the need of an image.

        Parameters
        ----------
        shape, network_shape : sequence of int
            Voxels of the image and of what the network sees of it, in the network's axes.
        separate : bool
            Whether nnU-Net resamples the thick axis on its own.
        on_cpu : bool
            Whether the sums and the network's own memory are the machine's.
        """
        voxels, seen = math.prod(shape), math.prod(network_shape)
        channels = len(model.channels)
        image = _FLOAT * channels * seen
        sums = _sums(model, network_shape, folds) + (_network(model) if on_cpu else 0)
        exporting = _exporting(shape, seen, model, wanted)
        return cls(
            voxels * (_ITK + _ARRAY * channels),
            _preprocessing(voxels, seen, channels, separate) if shape != network_shape else
            2 * _FLOAT * channels * voxels + 6 * voxels,
            image + sums + _slabs(model, network_shape) + exporting,
            exporting,
        )  # fmt: skip

    @property
    def peak(self) -> int:
        """The most at any time."""
        return int(max(self.reading, self.preprocessing, self.computing, self.exporting))


def _preprocessing(voxels: int, seen: int, channels: int, separate: bool) -> float:
    copies = (_FLOAT + _DOUBLE) * channels * voxels + _FLOAT * channels * seen
    if separate:
        return copies + _DOUBLE * max(voxels, seen) + _COORDINATES * seen
    return copies + 2 * _PADDED * voxels + _DOUBLE * seen


def _sums(model: ModelFolder, shape: Sequence[int], folds: int) -> float:
    patch = model.settings.get("patch_size", ())
    depth = patch[0] if len(patch) == 3 else 1
    sides = [max(n, p) for n, p in zip(shape[-2:], patch[-2:], strict=True)]
    return float(2 * depth * math.prod(sides) * (model.classes * folds + 1))


def _slabs(model: ModelFolder, shape: Sequence[int]) -> int:
    return _SLABS * max(_SLAB, 2 * model.classes * math.prod(shape[1:]))


def _network(model: ModelFolder) -> float:
    """Return about what a pass through the network holds: a few of its first, largest maps."""
    width = features(model.settings)[0]
    return float(4 * math.prod(model.patch_vox) * (6 * width + 3 * model.classes))


def _exporting(shape: Sequence[int], seen: int, model: ModelFolder, wanted: Wanted) -> float:
    """Return the need from logits to masks, all on the image's grid twice: as made, as written."""
    voxels, k = math.prod(shape), model.classes
    floats = len(wanted.targets) * wanted.probabilities + wanted.gap
    maps = 2 * voxels * (1 + wanted.labels + _FLOAT * floats)
    if not _by_nnunet(model):  # all classes of one plane at a time, if at all
        return maps + _CANDIDATES + 2 * _FLOAT * k * math.prod(shape[1:]) * bool(floats)
    softmax = floats or model.regions or wanted.rule != "argmax"
    resampling = k * (_DOUBLE * seen + _HALF * voxels)
    shares = k * voxels * (_HALF + 2 * _FLOAT) if softmax else 0
    return maps + _HALF * k * seen + max(resampling, shares) + 3 * _DOUBLE * voxels


def _by_nnunet(model: ModelFolder) -> bool:
    """Whether nnU-Net's own functions may resample all classes at once; see `export.obstacle`."""
    how = model.settings.get("resampling_fn_probabilities_kwargs", {})
    return (
        model.regions
        or model.settings.get("resampling_fn_probabilities") != "resample_data_or_seg_to_shape"
        or how.get("order", 3) != 1
        or how.get("order_z", 0) != 0
    )


def check_memory(need: Need, free: int) -> None:
    """Refuse an image that would not fit.

    Parameters
    ----------
    need : Need
    free : int
        Bytes that this process may still take.

    Raises
    ------
    MemoryTooSmall
        The image needs more.
    """
    if need.peak > free:
        raise MemoryTooSmall(
            f"Predicting the image needs about {need.peak / GB:.1f} GB of memory, "
            f"{free / GB:.1f} GB are free.",
            "Close other programs, leave out probability maps, predict on a machine with more "
            "memory, or crop the image.",
        )
