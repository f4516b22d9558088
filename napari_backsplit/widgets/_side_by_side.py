"""A second view beside the first: the same image, with another prediction, at the same place.

napari's grid would give each layer a cell, hidden ones and a person's own among them; a second
viewer leaves the first as it is. It shows the same arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

from napari_backsplit.widgets._case_layers import CaseLayers, move_layer, set_visible
from napari_backsplit.widgets._orientation import orient
from napari_backsplit.widgets._overlay import OverlayLayers

TITLE = "New model"
SETTLED_MS = 100
_CAMERA = ("center", "zoom", "angles")
_DIMS = ("order", "ndisplay", "point")


class SideBySide(QObject):
    """A second view that follows the first, and the first it.

    Attributes
    ----------
    model : ViewerModel
        What the second view shows.
    overlay : OverlayLayers
        The comparison in it.
    """

    closed = Signal()

    def __init__(self, viewer: ViewerModel, layers: CaseLayers, parent: QObject) -> None:
        super().__init__(parent)
        self._viewer, self._case = viewer, layers
        self._image: Image | None = None
        self._source: Layer | None = None
        self._dock: QDockWidget | None = None
        self._canvas: QWidget | None = None
        self._widths: dict[QDockWidget, int] = {}  # of the docks beside it, before it was shown
        self._following = False
        self._linked: list[tuple[Any, Callable[..., None]]] = []
        self.is_open = False

    @cached_property
    def model(self) -> ViewerModel:
        """Made when it is first asked for, as it takes long."""
        return ViewerModel(title=TITLE)

    @cached_property
    def overlay(self) -> OverlayLayers:
        """Of the model."""
        return OverlayLayers(self.model, self._add, set_visible)

    def open(self) -> None:
        """Show the second view."""
        if self.is_open:
            return
        self.is_open = True
        self.show_image()
        orient(self.model)
        self.model.theme = self._viewer.theme
        self._link()
        self._show_dock()
        self._follow(self._viewer, self.model)

    def leave(self) -> None:
        """Hide the second view; it stays for the next time."""
        if not self.is_open:
            return
        self.is_open = False
        for event, told in self._linked:
            event.disconnect(told)
        self._linked = []
        self._unlink_image()
        self.overlay.blank()
        if self._image is not None:  # no array of a case stays behind
            self._image.data = np.zeros((1, 1, 1), np.uint8)
        self.overlay.let_go()
        if self._dock is not None:
            self._dock.hide()
            _set_widths(self._dock.parent(), self._widths)

    def close(self) -> None:
        """Take it away for good."""
        self.leave()
        if "overlay" in vars(self):
            self.overlay.close()
        if self._dock is not None:
            self._dock.removeEventFilter(self)
            self._viewer.window.remove_dock_widget(self._dock)
        if self._canvas is not None:
            self._canvas.close()
        self._dock = self._canvas = None

    def blank(self) -> None:
        """Show nothing until the next case is there."""
        self._unlink_image()
        if "overlay" in vars(self):
            self.overlay.blank()
        if self._image is not None:
            set_visible(self._image, False)

    def show_image(self) -> None:
        """Show the channel that the first view shows."""
        if not self.is_open:
            return
        source = next((layer for layer in self._case.images if layer.visible), None)
        self._unlink_image()
        if source is None:
            if self._image is not None:
                set_visible(self._image, False)
            return
        if self._image is None:
            self._image = _same_image(source)
            self.model.add_layer(self._image)
            self.model.layers.move(len(self.model.layers) - 1, 0)
        elif self._image.data is not source.data:
            self._image.data = source.data
            move_layer(self._image, source.scale, source.translate)
            self._image.metadata = source.metadata
        self._link_image(source)
        set_visible(self._image, True)

    # ------------------------------------------------------------------ the same image

    def _link_image(self, source: Layer) -> None:
        self._source = source
        for event in (source.events.contrast_limits, source.events.colormap, source.events.gamma):
            event.connect(self._copy_look)
        self._copy_look()

    def _unlink_image(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            for name in ("contrast_limits", "colormap", "gamma"):
                getattr(source.events, name).disconnect(self._copy_look)

    def _copy_look(self, event: Any = None) -> None:
        image, source = self._image, self._source
        if image is not None and source is not None:
            image.contrast_limits_range = source.contrast_limits_range
            image.contrast_limits = source.contrast_limits
            image.colormap, image.gamma = source.colormap, source.gamma

    def _add(self, layer: Layer) -> None:
        self.model.add_layer(layer)

    # ------------------------------------------------------------------ the same place

    def _link(self) -> None:
        for one, other in ((self._viewer, self.model), (self.model, self._viewer)):

            def told(event: Any = None, one: Any = one, other: Any = other) -> None:
                self._follow(one, other)

            events = [getattr(one.dims.events, name) for name in _DIMS]
            events += [getattr(one.scene.camera.events, name) for name in _CAMERA]
            for event in events:
                event.connect(told, position="last")
                self._linked.append((event, told))

    def _follow(self, one: ViewerModel, other: ViewerModel) -> None:
        """Bring a view to where the other is."""
        if self._following or one.dims.ndim != other.dims.ndim:
            return
        with self._alone():
            for name in _DIMS:
                _copy(one.dims, other.dims, name)
            for name in _CAMERA:
                _copy(one.scene.camera, other.scene.camera, name)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._following = True
        try:
            yield
        finally:
            self._following = False

    # ------------------------------------------------------------------ its place in the window

    def _show_dock(self) -> None:
        window = bare(getattr(self._viewer, "window", None))
        if window is None:  # a model without a window
            return
        if self._canvas is None:
            from napari.qt import QtViewer

            self._canvas = QtViewer(self.model)
        main = getattr(window, "_qt_window", None)
        self._widths = {dock: dock.width() for dock in _beside(main, self._dock)}
        if self._dock is None:
            dock = window.add_dock_widget(self._canvas, name=TITLE, area="right", tabify=False)
            dock.installEventFilter(self)
            self._dock = dock
            _put_first(dock)
        self._dock.show()
        # As wide as the canvas, once the window has made room for it.
        QTimer.singleShot(SETTLED_MS, partial(_share_width, self._dock, self._widths))

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Note that a person hid the view, or closed it, which deletes its dock (called by Qt)."""
        kind = event.type()
        if watched is self._dock and kind in (event.Type.Close, event.Type.DeferredDelete):
            if kind == event.Type.DeferredDelete:
                self._dock = None
            if self.is_open:
                self.closed.emit()
        return False


def bare(held: Any) -> Any:
    """Return what napari gave a plugin without its wrapper: Qt does not take that for a widget."""
    return getattr(held, "__wrapped__", held)


def _same_image(source: Layer) -> Image:
    return Image(
        source.data,
        name="image",
        colormap=source.colormap,
        contrast_limits=source.contrast_limits,
        scale=source.scale,
        translate=source.translate,
        units=source.units,
        axis_labels=source.axis_labels,
        metadata=source.metadata,
    )


def _copy(one: Any, other: Any, name: str) -> None:
    value = getattr(one, name)
    if getattr(other, name) != value:
        setattr(other, name, value)


def _put_first(dock: QDockWidget) -> None:
    """Put a dock between the canvas and the other docks."""
    window = dock.parent()
    if isinstance(window, QMainWindow):
        for other in _beside(window, dock):
            window.splitDockWidget(dock, other, Qt.Orientation.Horizontal)


def _share_width(dock: QDockWidget, widths: Mapping[QDockWidget, int]) -> None:
    """Make a dock as wide as the canvas beside it; the others stay as wide as they were."""
    with suppress(RuntimeError):  # it was deleted meanwhile
        window = dock.parent()
        if not isinstance(window, QMainWindow) or not dock.isVisible():
            return
        now = {other: other.width() for other in _beside(window, dock)}
        freed = sum(now[other] - widths.get(other, now[other]) for other in now)
        share = (window.centralWidget().width() + dock.width() + freed) // 2
        _set_widths(window, {dock: share, **{o: widths.get(o, now[o]) for o in now}})


def _set_widths(window: Any, widths: Mapping[QDockWidget, int]) -> None:
    """Give docks a width, those that are still there."""
    with suppress(RuntimeError):
        there = {dock: width for dock, width in widths.items() if dock.isVisible()}
        if isinstance(window, QMainWindow) and there:
            horizontal = Qt.Orientation.Horizontal
            window.resizeDocks(list(there), list(there.values()), horizontal)


def _beside(window: Any, dock: QDockWidget | None) -> list[QDockWidget]:
    """Return the docks right of the canvas, but one."""
    if not isinstance(window, QMainWindow):
        return []
    right = Qt.DockWidgetArea.RightDockWidgetArea
    return [
        other
        for other in window.findChildren(QDockWidget)
        if other is not dock
        and other.isVisible()
        and not other.isFloating()
        and window.dockWidgetArea(other) == right
    ]
