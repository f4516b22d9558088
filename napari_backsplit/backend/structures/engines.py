"""What turns prompts into masks: one protocol, one registry.

An engine is asked with everything it needs to answer from nothing (`Request`), so an engine that
died, expired or was exchanged is asked again and answers the same. What it remembers between
requests only makes it faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.structures.prompts import Bounds, Box, Lasso, Point, Scribble
from napari_backsplit.backend.structures.settings import EngineSettings

Mask = NDArray[np.bool_]


class EngineError(BackSplitError):
    """An engine that could not answer."""


class EngineCancelled(Exception):
    """The request was cancelled by the user; nothing changed."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image that is segmented.

    Attributes
    ----------
    key : str
        Names the image: another image has another key.
    image : ndarray of float32
        (z, y, x), canonical, finite, in the image's own unit.
    spacing_mm : tuple of float
        Along (z, y, x).
    """

    key: str
    image: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Request:
    """A structure as it stands, and the prompt that shall change it.

    Attributes
    ----------
    run : str
        Names the mask that the prompts start from: the same run has the same `start`. An edit by
        hand, an accepted mask or another engine begins a new run.
    start : ndarray of bool, optional
        (z, y, x): the mask before the first of `prompts`; None where it was empty.
    prompts : tuple of Prompt
        All of the run that were not undone, the new one last.
    mask : ndarray of bool
        (z, y, x): the mask as it stands, before the new prompt. Not to be changed.
    forbidden : ndarray of bool, optional
        (z, y, x): finished structures; no voxel of them is in the answer.
    """

    scene: Scene
    run: str
    start: Mask | None
    prompts: tuple[Point | Box | Scribble | Lasso, ...]
    mask: Mask
    forbidden: Mask | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """The new mask within bounds; outside of them it is as it was.

    Attributes
    ----------
    bounds : Bounds
    mask : ndarray of bool
        (z, y, x), of the bounds' size.
    """

    bounds: Bounds
    mask: Mask


@dataclass(frozen=True)
class About:
    """What is recorded with every mask that an engine made: kept in its provenance."""

    engine: str
    model: str = ""
    licence: str = ""


class Engine(Protocol):
    """What turns prompts into masks. It is used by one thread at a time."""

    kinds: tuple[str, ...]

    def start(self, tell: Callable[[str], None]) -> About:
        """Get ready: start a server, load a model. Called before the first request.

        `tell` takes a few words about what is going on, such as "starting the server". A second
        call on a ready engine returns at once; on one that died, it starts it again.

        Raises
        ------
        EngineError, InputError, UntrustedModelError
            It cannot; the remedy says what to do.
        """

    def segment(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        """Answer a request.

        Raises
        ------
        EngineCancelled
            `cancelled` came true; looked at several times a second.
        EngineError
            It could not answer, although it started again what had died.
        """

    def close(self) -> None:
        """Free what it holds. Closing twice is no error."""


State = Literal["ready", "needs", "missing"]


@dataclass(frozen=True)
class EngineState:
    """An engine, and whether it can be used here.

    Attributes
    ----------
    state : {"ready", "needs", "missing"}
        "needs": something must be chosen first; "missing": a package is not there.
    reason, remedy : str
        Why it is not ready, and what to do.
    """

    name: str
    title: str
    state: State
    reason: str = ""
    remedy: str = ""
    model: str = ""
    licence: str = ""


ENGINES: Mapping[str, str] = {
    "nninteractive": "napari_backsplit.backend.structures.nninteractive:NNInteractive",
    "seeded": "napari_backsplit.backend.structures.seeded:Seeded",
}
"""Name -> "module:Class". The class has `look(settings) -> EngineState` and is made with settings.

Painting needs no engine: its strokes are edits.
"""


def engine_states(settings: EngineSettings) -> tuple[EngineState, ...]:
    """Return every engine and whether it can be used. Nothing is started or downloaded."""
    return tuple(_look(name, settings) for name in ENGINES)


def _look(name: str, settings: EngineSettings) -> EngineState:
    try:
        state: EngineState = _class(name).look(settings)
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        return EngineState(
            name,
            name,
            "missing",
            f"The package {package} is not installed.",
            f"Install it: pip install {package}",
        )
    return state


def make_engine(name: str, settings: EngineSettings) -> Engine:
    """Make an engine; it is not started yet.

    Raises
    ------
    InputError
        There is no engine of that name, or a package it needs is missing.
    """
    if name not in ENGINES:
        raise InputError(f"There is no engine {name!r}.", f"Engines: {', '.join(ENGINES)}.")
    state = _look(name, settings)
    if state.state == "missing":
        raise InputError(state.reason, state.remedy)
    engine: Engine = _class(name)(settings)
    return engine


def _class(name: str) -> Any:
    module, _, attribute = ENGINES[name].partition(":")
    return getattr(import_module(module), attribute)
