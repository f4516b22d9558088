"""A session of a server: what it has been shown and told, and the shortest way to the next mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures import client
from napari_backsplit.backend.structures.engines import EngineCancelled, Request, Scene
from napari_backsplit.backend.structures.prompts import Bounds, Box, Lasso, Point, Scribble


class Lease:
    """A session of nnInteractive, and what it knows.

    Parameters
    ----------
    session : nnInteractiveRemoteInferenceSession
        Claimed and fresh.
    """

    def __init__(self, session: Any) -> None:
        self.session = session
        self.mask: NDArray[np.uint8] = np.zeros((0, 0, 0), np.uint8)
        self._scene: str | None = None
        self._run: str | None = None
        self._applied: tuple[Point | Box | Scribble | Lasso, ...] = ()
        self._can_undo = False

    def advance(self, request: Request, stopped: Callable[[], bool]) -> Bounds | None:
        """Bring the session to a request's prompts; `mask` is then what it answers.

        Only the prompts that are new to it are predicted, or all of the run after an undo that
        the server cannot take back, in their order: so the answer does not depend on the way.

        Returns
        -------
        Bounds, optional
            Where the last prompt wrote; None if nowhere.

        Raises
        ------
        EngineCancelled
            `stopped` came true between two prompts.
        """
        self._show(request.scene)
        self._rewind(request)
        changed = None
        for prompt in request.prompts[len(self._applied) :]:
            if stopped():
                raise EngineCancelled
            changed = self._add(prompt, request)
        return changed

    def forget(self) -> None:
        """Take nothing for granted about the prompts: the next request replays its run."""
        self._run, self._applied, self._can_undo = None, (), False

    def _show(self, scene: Scene) -> None:
        if self._scene == scene.key:
            return
        low, high = float(scene.image.min()), float(scene.image.max())
        if not np.isfinite(low + high) or low == high:
            raise InputError(
                f"The image has values from {low:g} to {high:g}: there is nothing to see in it.",
                "Choose another channel or image.",
            )
        self._scene = None
        self.forget()
        self.session.set_image(scene.image[None])
        self.mask = np.zeros(scene.image.shape, np.uint8)
        self.session.set_target_buffer(self.mask)
        self._scene = scene.key

    def _rewind(self, request: Request) -> None:
        """Take back what is not among the request's prompts; leave at least one to be added."""
        if self._run != request.run:
            self._start(request)
        elif self._leads_to(self._applied, request):
            return
        elif self._can_undo and self._leads_to(self._applied[:-1], request):
            self._undo(request)
        else:
            self._start(request)

    @staticmethod
    def _leads_to(applied: tuple[Any, ...], request: Request) -> bool:
        return len(applied) < len(request.prompts) and applied == request.prompts[: len(applied)]

    def _undo(self, request: Request) -> None:
        kept = self._applied[:-1]
        self.forget()
        if self.session.undo():
            self._run, self._applied = request.run, kept
        else:
            self._start(request)

    def _start(self, request: Request) -> None:
        self.forget()
        if request.start is None:
            self.session.reset_interactions()
        else:
            start = np.ascontiguousarray(request.start).view(np.uint8)
            self.session.add_initial_seg_interaction(start)
        self._run = request.run

    def _add(self, prompt: Point | Box | Scribble | Lasso, request: Request) -> Bounds | None:
        applied = self._applied
        self.forget()  # Half applied, if it fails.
        shape = request.mask.shape
        changed = client.apply(self.session, prompt, (shape[0], shape[1], shape[2]))
        self._run, self._applied, self._can_undo = request.run, (*applied, prompt), True
        return changed
