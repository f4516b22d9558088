"""An engine at work for the window: its thread, its light, its queue of prompts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from qtpy.QtCore import QObject, Signal

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.jobs.courtesy import claim
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.engines import (
    About,
    Engine,
    EngineCancelled,
    make_engine,
)
from napari_backsplit.backend.structures.history import AnyPrompt
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.backend.structures.sheet import Outcome
from napari_backsplit.widgets._threads import Hop, Lane

Light = Literal["off", "starting", "ready", "failed"]


@dataclass(eq=False)
class Order:
    """A prompt that waits for its answer, or is being answered."""

    annotation: Annotation
    structure: str
    prompt: AnyPrompt
    channel: str
    since: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)

    def goes_to(self, annotation: Annotation, structure: str) -> bool:
        """Whether its answer belongs to a structure."""
        return self.annotation is annotation and self.structure == structure


class EngineDriver(QObject):
    """One engine and its thread.

    Attributes
    ----------
    changed : Signal
        The light, its words or the queue changed.
    answered : Signal
        Emits (Order, Outcome).
    failed : Signal
        Emits (Order or None, error).
    """

    changed = Signal()
    answered = Signal(object, object)
    failed = Signal(object, object)

    def __init__(
        self,
        name: str,
        settings: EngineSettings,
        hop: Hop,
        make: Callable[[str, EngineSettings], Engine] = make_engine,
    ) -> None:
        super().__init__()
        self.name, self.settings = name, settings
        self.light: Light = "off"
        self.words = ""
        self.about = About(name)
        self.orders: list[Order] = []
        self._make, self._hop = make, hop
        self._engine: Engine | None = None
        self._lane = Lane(hop, lambda error: self._fell(None, error), name)
        self._closed = self._was_ready = False

    def warm_up(self) -> None:
        """Start the engine before the first prompt asks for it."""
        self._show("starting", "starting")
        self._lane.do(self._ready, lambda about: self._show("ready", ""))

    def ask(self, order: Order) -> None:
        """Queue a prompt."""
        self.orders.append(order)
        self._lane.do(
            lambda: self._work(order),
            lambda outcome: self._came(order, outcome),
            lambda error: self._fell(order, error),
        )
        self.changed.emit()

    def cancel(self) -> None:
        """Drop the prompt that is being answered and those that wait."""
        for order in self.orders:
            order.stop.set()

    def close(self) -> None:
        """Cancel everything and free the engine; it does not wait."""
        self._closed = True
        self.cancel()
        self._lane.do(self._free)
        self._lane.close()

    # ------------------------------------------------------------------ in the engine's thread

    def _ready(self) -> About:
        if self._engine is None:
            self._engine = self._make(self.name, self.settings)
        self.about = self._engine.start(self._tell)
        self._was_ready = True
        return self.about

    def _work(self, order: Order) -> Outcome:
        if order.stop.is_set():
            raise EngineCancelled
        about = self._ready()
        assert self._engine is not None
        device = self._claims()
        with claim(device, free_cache=device.startswith("cuda")):
            return order.annotation.prompt(
                order.structure,
                order.prompt,
                self._engine,
                about,
                channel=order.channel,
                cancelled=order.stop.is_set,
            )

    def _claims(self) -> str:
        """Return the device that training leaves to the engine while it answers, "" for none."""
        device: str = getattr(self._engine, "device", "")
        return device if self.settings.training_waits else ""

    def _free(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def _tell(self, words: str) -> None:
        self._hop.call(lambda: self._show("starting", words))

    # ------------------------------------------------------------------ in the window's thread

    def _came(self, order: Order, outcome: Outcome) -> None:
        self.orders.remove(order)
        self._show("ready", "")
        self.answered.emit(order, outcome)

    def _fell(self, order: Order | None, error: BaseException) -> None:
        if order is not None and order in self.orders:
            self.orders.remove(order)
        if self._closed:
            return
        if isinstance(error, EngineCancelled):
            self._show("ready", "")
        elif isinstance(error, BackSplitError) and not _is_the_engines(error):
            # Where it never was ready, what is wrong is its own: a model folder, a device.
            self._show(
                "ready" if self._was_ready else "failed", "" if self._was_ready else str(error)
            )
        else:
            self._show("failed", str(error) or type(error).__name__)
        self.failed.emit(order, error)

    def _show(self, light: Light, words: str) -> None:
        self.light, self.words = light, words
        self.changed.emit()


def _is_the_engines(error: BackSplitError) -> bool:
    from napari_backsplit.backend.errors import UntrustedModelError
    from napari_backsplit.backend.structures.engines import EngineError

    return isinstance(error, EngineError | UntrustedModelError)
