"""The legend of the case on the image, with the volumes of its parts: counted in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from qtpy.QtCore import QObject

from napari_backsplit.widgets._compare_asking import CompareWays
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._parts import PartsBox
from napari_backsplit.widgets._threads import Lane


class Counted(QObject):
    """Keeps the legend in step with the case that is open, and with what is on its image.

    The two come in either order: each is kept until the other is there.
    """

    def __init__(self, desk: Desk, parts: PartsBox, ways: CompareWays) -> None:
        super().__init__(parts)
        self._parts, self._ways = parts, ways
        self._lane = Lane(desk.hop, desk.failed.emit, "counting")
        self._case = ""
        self._loaded: Any = None
        self._volumes: Mapping[int, float] = {}

    def close(self) -> None:
        """Take no more work."""
        self._lane.close(drop=True)

    def show_case(self, case: str) -> None:
        """Show another case; what is on its image may be there already."""
        self._case = case
        self._show()

    def show_loaded(self, loaded: Any) -> None:
        """Show what is on the image, and count it; None for nothing."""
        self._loaded, self._volumes = loaded, {}
        self._show()
        if loaded is not None:
            self._lane.do(partial(self._count, loaded), partial(self._has_volumes, loaded))

    def _count(self, loaded: Any) -> Any:
        """Return the volumes; None where another case is shown since. Called in a thread."""
        return self._ways.volumes_ml(loaded) if loaded is self._loaded else None

    def _has_volumes(self, loaded: Any, volumes: Any) -> None:
        if loaded is self._loaded and volumes is not None:
            self._volumes = volumes
            self._show()

    def _show(self) -> None:
        loaded = self._loaded
        if loaded is not None and loaded.overlay.case == self._case:
            self._parts.show_case(self._case, loaded, self._volumes)
        else:
            self._parts.show_case(self._case, None, {})
