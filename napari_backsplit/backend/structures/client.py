"""nnInteractive's official client, without torch, and our prompts in its words."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.structures.connection import is_loopback
from napari_backsplit.backend.structures.prompts import (
    Bounds,
    Box,
    Lasso,
    Point,
    Scribble,
    Shape,
    bounds_of,
    slices,
)

PREDICTION_S = 1800.0
"""Longest wait for a prediction: minutes pass on a CPU with a large model."""

CHUNK_BYTES = 2**19
"""What an image is cut into to be compressed and sent: some 3 ms each."""

Mask = NDArray[np.bool_]
_IMPORT = threading.Lock()


class _NoTorch:
    """Lets one thread find no torch: the client works without, and only would load it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Refuse torch to that thread; leave the rest to others."""
        if name == "torch" and threading.get_ident() == self._thread:
            raise ModuleNotFoundError("torch stays out of this process", name=name)
        return None


@contextmanager
def without_torch() -> Iterator[None]:
    """Keep torch from being loaded by imports of this thread; what is loaded stays."""
    finder = _NoTorch()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


def open_session(url: str, key: str, wait_s: float = PREDICTION_S) -> Any:
    """Claim a session of a server with the official client.

    Returns
    -------
    nnInteractiveRemoteInferenceSession

    Raises
    ------
    httpx.HTTPError, RuntimeError, ValueError, KeyError
        As the client does: see `connection.explain`.
    """
    import httpx

    trust = not is_loopback(url)  # A proxy of the environment cannot know our loopback.
    http = SimpleNamespace(Client=partial(httpx.Client, trust_env=trust), Timeout=httpx.Timeout)
    session_class = _session_class(http)
    return session_class(url, key, read_timeout=wait_s, set_image_read_timeout=wait_s)


def _session_class(http: Any) -> Any:
    """Return the official class; its constructor alone sees `http` in place of httpx.

    It makes its HTTP client and its first requests in one go, with no way to say how.
    """
    with _IMPORT, without_torch():
        official = import_module("nnInteractive.inference.remote.remote_session")
    # A chunk is compressed with Python's lock held, which stops every other thread, a window's too.
    serialization: Any = import_module("nnInteractive.inference.remote.serialization")
    serialization._CHUNK_SIZE = CHUNK_BYTES
    session_class = official.nnInteractiveRemoteInferenceSession
    constructor = session_class.__init__
    scope = {**vars(official), "httpx": http}
    ours = FunctionType(constructor.__code__, scope, "__init__", constructor.__defaults__)
    return type("Session", (session_class,), {"__init__": ours})


def apply(session: Any, prompt: Point | Box | Scribble | Lasso, shape: Shape) -> Bounds | None:
    """Give a prompt to a session, and let it predict.

    A box is given as its middle slice along its shortest axis: the models know flat boxes only.
    A scribble gets the thickness that the model wants.

    Returns
    -------
    Bounds, optional
        Where the mask was written; None if nowhere.
    """
    sign = prompt.positive
    if isinstance(prompt, Point):
        changed = session.add_point_interaction(prompt.at, sign)
    elif isinstance(prompt, Box):
        changed = session.add_bbox_interaction(flat(prompt.bounds()), sign)
    elif isinstance(prompt, Lasso):
        crop = prompt.mask().astype(np.uint8)
        changed = session.add_lasso_interaction(crop, sign, interaction_bbox=prompt.bounds())
    else:
        pen = session.preferred_scribble_thickness
        line, bounds = thick(prompt, pen, shape)
        crop = line.astype(np.uint8)
        changed = session.add_scribble_interaction(crop, sign, interaction_bbox=bounds)
    return _bounds(changed)


def _bounds(changed: Any) -> Bounds | None:
    if changed is None:
        return None
    z, y, x = ((int(low), int(high)) for low, high in changed)
    return z, y, x


def flat(box: Bounds) -> Bounds:
    """Return the middle slice of a box along the axis on which it has the fewest voxels."""
    sizes = [high - low for low, high in box]
    axis = int(np.argmin(sizes))
    middle = box[axis][0] + sizes[axis] // 2
    sides = [*box[:axis], (middle, middle + 1), *box[axis + 1 :]]
    return sides[0], sides[1], sides[2]


def thick(scribble: Scribble, pen: list[int], shape: Shape) -> tuple[Mask, Bounds]:
    """Draw a scribble with a pen of some voxels along (z, y, x), within its slice and the image.

    Returns
    -------
    tuple of ndarray and Bounds
        The voxels, cropped to the bounds.
    """
    widths = [1 if axis == scribble.axis else max(1, int(n)) for axis, n in enumerate(pen)]
    sides = [
        (max(0, low - width), min(size, high + width)) if width > 1 else (low, high)
        for (low, high), width, size in zip(scribble.bounds(), widths, shape, strict=True)
    ]
    room: Bounds = (sides[0], sides[1], sides[2])
    canvas = np.zeros([high - low for low, high in room], bool)
    canvas[_within(scribble.bounds(), room)] = scribble.mask()
    drawn = np.asarray(ndimage.binary_dilation(canvas, np.ones(widths)))
    used = bounds_of(drawn)
    assert used is not None, "a scribble has a voxel, and it lies in the image"
    return drawn[slices(used)], _shifted(used, room)


def _within(bounds: Bounds, room: Bounds) -> tuple[slice, ...]:
    pairs = zip(bounds, room, strict=True)
    return tuple(slice(low - start, high - start) for (low, high), (start, _) in pairs)


def _shifted(bounds: Bounds, room: Bounds) -> Bounds:
    pairs = zip(bounds, room, strict=True)
    z, y, x = ((low + start, high + start) for (low, high), (start, _) in pairs)
    return z, y, x
