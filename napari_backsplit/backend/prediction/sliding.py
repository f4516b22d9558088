"""nnU-Net's sliding window, finished slab by slab: the same numbers in bounded memory.

Worker-only: imports torch. nnU-Net orders its windows along the first axis. A plane that no later
window reaches is final, so only as many planes as a patch is deep are kept, for every fold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations, product
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)
from numpy.typing import NDArray

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.prediction.network import is_out_of_memory

TileReport = Callable[[int, int], None]
Feed = Callable[[NDArray[np.float16], int], None]

SLAB_BYTES = 32 * 2**20
"""About how much is handed on at once."""

Part = tuple[slice, slice]


class SlidingWindow:
    """Networks that predict an image window by window, as nnU-Net does.

    Parameters
    ----------
    networks : sequence of torch.nn.Module
        One a fold, in evaluation mode, on `device`.
    classes : int
        Channels of a network's output.
    patch : sequence of int
        Voxels of a window, (z, y, x), or (y, x) of a 2D network.
    step_size : float
        Step of the window as a share of the patch, above 0 and at most 1.
    mirror_axes : sequence of int
        Spatial axes to mirror a window along; none: no mirroring.
    device : torch.device

    Notes
    -----
    nnunetv2.inference.predict_from_raw_data, nnU-Net 2.8: weights, sums and divisions in half
    precision, in its order; a fold's sum is divided before the folds are averaged.
    """

    def __init__(
        self,
        networks: Sequence[torch.nn.Module],
        classes: int,
        patch: Sequence[int],
        step_size: float,
        mirror_axes: Sequence[int],
        device: torch.device,
    ) -> None:
        self.networks = list(networks)
        self.classes = classes
        self.patch = tuple(patch)
        self.step_size = step_size
        self.device = device
        axes = [axis + 2 for axis in mirror_axes]
        sizes = range(1, len(axes) + 1)
        self._mirrored = list(chain.from_iterable(combinations(axes, size) for size in sizes))
        if device.type == "cuda":
            torch.backends.cudnn.benchmark = True

    @property
    def depth(self) -> int:
        """Planes of the first axis that a window covers."""
        return self.patch[0] if len(self.patch) == 3 else 1

    @torch.inference_mode()
    def run(
        self,
        image: NDArray[np.float32],
        feed: Feed,
        tile: TileReport = lambda done, total: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Predict an image.

        Parameters
        ----------
        image : ndarray of float32, (channels, z, y, x)
            Preprocessed.
        feed : callable
            Takes logits, float16 (classes, planes, y, x), and the number of their first plane;
            in order, without gaps, each plane once.
        tile : callable
            Called before each window with (done, total); what it raises stops.
        note : callable
            Is told in a sentence where the memory of the device was too small.

        Raises
        ------
        JobError
            The sums leave the range of half precision.
        """
        padded, inside = pad_nd_image(
            torch.from_numpy(image), self.patch, "constant", {"value": 0}, True, None
        )
        Image(self, padded, inside[1:], feed, tile, note).run()

    def steps(self, shape: Sequence[int]) -> tuple[list[int], list[tuple[slice, slice]]]:
        """Return where windows begin along the first axis, and their places in the plane."""
        plane, size = shape[-len(self.patch) :], self.step_size
        steps = compute_steps_for_sliding_window(plane, self.patch, size)
        first = steps[0] if len(self.patch) == 3 else list(range(shape[0]))
        places = [
            (slice(y, y + self.patch[-2]), slice(x, x + self.patch[-1]))
            for y, x in product(*steps[-2:])
        ]
        return first, places

    def predict(self, network: torch.nn.Module, window: torch.Tensor) -> torch.Tensor:
        """Return the logits of a window (1, channels, ...), averaged over mirrored ones."""
        if self.device.type == "cuda":
            with torch.autocast("cuda"):
                return self._predict(network, window)
        return self._predict(network, window)

    def _predict(self, network: torch.nn.Module, window: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = network(window)
        for axes in self._mirrored:
            logits += torch.flip(network(torch.flip(window, axes)), axes)
        if self._mirrored:
            logits /= len(self._mirrored) + 1
        return logits[0]


class Image:
    """One image on its way through the window.

    Parameters
    ----------
    window : SlidingWindow
    data : Tensor of float32, (channels, z, y, x)
        At least as large as the patch.
    inside : sequence of slice
        Where the image lies in it, (z, y, x).
    feed, tile, note : callable
        As of `SlidingWindow.run`.
    """

    def __init__(
        self,
        window: SlidingWindow,
        data: torch.Tensor,
        inside: Sequence[slice],
        feed: Feed,
        tile: TileReport,
        note: Callable[[str], None],
    ) -> None:
        self.window, self.data = window, data
        self._tile, self._feed, self._note = tile, feed, note
        self._inside = [s.indices(n)[:2] for s, n in zip(inside, data.shape[1:], strict=True)]
        self._starts, self._places = window.steps(data.shape[1:])
        self._total = len(self._starts) * len(self._places)
        self._done = 0

    def run(self) -> None:
        """Predict it and feed its planes."""
        self._sums = self._make_sums()
        for start, following in zip(
            self._starts, [*self._starts[1:], self.data.shape[1]], strict=True
        ):
            for place in self._places:
                self._tile(self._done, self._total)
                self._add(start, place)
                self._done += 1
            self._emit(start, following)

    def _make_sums(self) -> Sums:
        window = self.window
        device = window.device if window.device.type == "cuda" else torch.device("cpu")
        shape = (window.classes, window.depth, *self.data.shape[2:])
        try:
            return Sums(len(window.networks), shape, window.patch, device)
        except RuntimeError as error:
            self._refuse_unless_full(error, device)
            return Sums(len(window.networks), shape, window.patch, torch.device("cpu"))

    def _refuse_unless_full(self, error: RuntimeError, device: torch.device) -> None:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise error
        torch.cuda.empty_cache()
        self._note(
            "The device has no memory for the sums of the sliding window; they are kept in the "
            "machine's memory, which is slower."
        )

    def _add(self, start: int, place: tuple[slice, slice]) -> None:
        depth: Any = slice(start, start + self.window.depth)
        depth = depth if len(self.window.patch) == 3 else start
        window = self._to_device(self.data[(slice(None), depth, *place)][None])
        for fold, network in enumerate(self.window.networks):
            logits = self._weighted(network, window)
            self._sums.add(fold, logits, start, place)
        self._sums.count(start, place)

    def _to_device(self, window: torch.Tensor) -> torch.Tensor:
        window = torch.clone(window, memory_format=torch.contiguous_format)
        if self.window.device.type == "cuda":
            return window.pin_memory().to(self.window.device, non_blocking=True)
        return window.to(self.window.device)

    def _weighted(self, network: torch.nn.Module, window: torch.Tensor) -> torch.Tensor:
        try:
            return self._sums.weighted(self.window.predict(network, window))
        except RuntimeError as error:
            self._refuse_unless_full(error, self._sums.device)
        self._sums.to(torch.device("cpu"))
        torch.cuda.empty_cache()
        return self._sums.weighted(self.window.predict(network, window))

    def _emit(self, start: int, stop: int) -> None:
        first, last = self._inside[0]
        rows, columns = (slice(*ends) for ends in self._inside[1:])
        for low, high in self._sums.chunks(start, stop):
            slab = self._sums.take(low, high)
            planes = slice(max(low, first) - low, max(min(high, last) - low, 0))
            if planes.stop > planes.start:
                wanted = slab[:, planes, rows, columns]
                self._feed(wanted.contiguous().numpy(), max(low, first) - first)


class Sums:
    """Weighted sums of the planes that windows still reach, for each fold.

    As many planes as a patch is deep, used in turn: plane z lies at z modulo that depth.

    Parameters
    ----------
    folds : int
    shape : tuple of int
        (classes, depth of the patch, y, x).
    patch : tuple of int
    device : torch.device
    """

    def __init__(
        self, folds: int, shape: tuple[int, ...], patch: tuple[int, ...], device: torch.device
    ) -> None:
        self._depth = shape[1]
        self._logits = [_zeros(shape, device) for _ in range(folds)]
        self._weights = _zeros(shape[1:], device)
        self._gaussian = compute_gaussian(patch, 1.0 / 8, 10, device=device)
        self._step = max(1, SLAB_BYTES // max(1, 2 * shape[0] * shape[2] * shape[3]))

    @property
    def device(self) -> torch.device:
        """Where the sums are."""
        return self._weights.device

    def to(self, device: torch.device) -> None:
        """Move the sums."""
        self._logits = [logits.to(device) for logits in self._logits]
        self._weights = self._weights.to(device)
        self._gaussian = self._gaussian.to(device)

    def weighted(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits (classes, ...) weighted, with three axes, where the sums are."""
        moved = logits.to(self.device)
        moved *= self._gaussian
        return moved if moved.ndim == 4 else moved[:, None]

    def add(self, fold: int, logits: torch.Tensor, start: int, place: tuple[slice, slice]) -> None:
        """Add the weighted logits of the window that begins at plane `start`."""
        for ring, part in self._parts(start, start + self._depth):
            self._logits[fold][(slice(None), ring, *place)] += logits[:, part]

    def count(self, start: int, place: tuple[slice, slice]) -> None:
        """Add the weights of that window."""
        gaussian = self._gaussian if self._gaussian.ndim == 3 else self._gaussian[None]
        for ring, part in self._parts(start, start + self._depth):
            self._weights[(ring, *place)] += gaussian[part]

    def chunks(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """Cut planes into slabs of about SLAB_BYTES."""
        for low in range(start, stop, self._step):
            yield low, min(stop, low + self._step)

    def take(self, start: int, stop: int) -> torch.Tensor:
        """Return the mean of the folds of final planes, half (classes, planes, y, x), on the CPU.

        Their place is then free for later planes.
        """
        mean: torch.Tensor | None = None
        for logits in self._logits:
            divided = self._divided(logits, start, stop).cpu()
            mean = divided if mean is None else mean.add_(divided)
        assert mean is not None
        if len(self._logits) > 1:
            mean /= len(self._logits)
        for ring, _ in self._parts(start, stop):
            self._weights[ring] = 0
            for logits in self._logits:
                logits[:, ring] = 0
        return mean

    def _divided(self, logits: torch.Tensor, start: int, stop: int) -> torch.Tensor:
        parts = [ring for ring, _ in self._parts(start, stop)]
        divided = [torch.div(logits[:, ring], self._weights[ring]) for ring in parts]
        whole = divided[0] if len(divided) == 1 else torch.cat(divided, 1)
        if torch.isinf(whole).any():
            raise JobError(
                "The network's output leaves the range of half precision.",
                "The model may be broken; train it again or use another checkpoint.",
            )
        return whole

    def _parts(self, start: int, stop: int) -> Iterator[Part]:
        """Where planes lie in the ring, and which of them: one part or two."""
        at, count = start % self._depth, stop - start
        before = min(count, self._depth - at)
        yield slice(at, at + before), slice(0, before)
        if before < count:
            yield slice(0, count - before), slice(before, count)


def _zeros(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.half, device=device)
