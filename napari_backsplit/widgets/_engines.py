"""The engines of a window: the one in use, and those that still have prompts to answer."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QObject, Signal

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.engines import Engine, make_engine
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.widgets._driver import EngineDriver, Order
from napari_backsplit.widgets._threads import Hop

Make = Callable[[str, EngineSettings], Engine]


class Engines(QObject):
    """Makes engines when they are chosen, and again when their settings change.

    Attributes
    ----------
    driver : EngineDriver, optional
        The engine in use.
    answered, failed : Signal
        As those of `EngineDriver`, of any engine.
    """

    changed = Signal()
    answered = Signal(object, object)
    failed = Signal(object, object)

    def __init__(self, hop: Hop, make: Make = make_engine, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.driver: EngineDriver | None = None
        self._hop, self._make = hop, make
        self._drivers: dict[str, EngineDriver] = {}
        self._retired: list[EngineDriver] = []

    def use(self, name: str, settings: EngineSettings) -> int:
        """Choose an engine; return how many prompts were dropped with the one it replaces."""
        dropped = 0
        known = self._drivers.get(name)
        if known is not None and not known.settings.same_engine(settings):
            dropped = len(known.orders)
            self._retire(self._drivers.pop(name))
        elif known is not None:
            known.settings = settings
        if name not in self._drivers:
            self._drivers[name] = self._made(name, settings)
        self.driver = self._drivers[name]
        self.changed.emit()
        return dropped

    def orders(self) -> list[Order]:
        """Return the prompts that wait for an answer, the first given first."""
        drivers = (*self._retired, *self._drivers.values())
        return sorted((o for d in drivers for o in d.orders), key=lambda order: order.since)

    def orders_for(self, annotation: Annotation, structure: str) -> list[Order]:
        """Return those for one structure."""
        return [order for order in self.orders() if order.goes_to(annotation, structure)]

    def at_work_on(self, project: Project, case: str) -> Annotation | None:
        """Return the annotation of a case that prompts are still to be answered for."""
        for order in self.orders():
            if order.annotation.project is project and order.annotation.case == case:
                return order.annotation
        return None

    def cancel(self) -> None:
        """Drop every prompt that has no answer yet."""
        for order in self.orders():
            order.stop.set()

    def close(self) -> None:
        """Cancel everything and free the engines; it does not wait."""
        for driver in self._drivers.values():
            driver.close()
        self._drivers.clear()
        self.driver = None

    def _made(self, name: str, settings: EngineSettings) -> EngineDriver:
        driver = EngineDriver(name, settings, self._hop, self._make)
        driver.changed.connect(self.changed)
        driver.answered.connect(self.answered)
        driver.failed.connect(self.failed)
        return driver

    def _retire(self, driver: EngineDriver) -> None:
        driver.close()
        self._retired = [d for d in (*self._retired, driver) if d.orders]
