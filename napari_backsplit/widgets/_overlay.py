"""What one viewer shows of a comparison: the agreement, the outlines, a probability, the swipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.components.overlays import TextOverlay
from napari.layers import Image, Labels, Layer
from napari.utils.colormaps import Colormap, DirectLabelColormap
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.agreement import CLASSES, OUTLINE_COLOURS
from napari_backsplit.backend.comparison.overlays import Loaded
from napari_backsplit.widgets._case_layers import move_layer
from napari_backsplit.widgets._layers import (
    TRANSPARENT,
    Placement,
    label_map_layer,
    lock,
    placement,
    shown,
)
from napari_backsplit.widgets._look import Look
from napari_backsplit.widgets._outlines import Outlines
from napari_backsplit.widgets._swipe import BASELINE, NEW, SwipedMap, column_of

AGREEMENT, SWIPE, PROBABILITY = "agreement", "swipe", "probability"
OPACITY = 0.6
CAPTION = "backsplit_compared"
CERTAINTY = Colormap(
    [(0.35, 0.1, 0.6, 0.0), (0.6, 0.2, 0.6, 0.5), (0.95, 0.5, 0.25, 0.6), (1.0, 0.95, 0.4, 0.7)],
    name="certainty",
)
"""From nothing, where a model is sure that there is none, over violet to yellow."""


class OverlayLayers:
    """The layers of a comparison in one viewer; they stay from case to case.

    Parameters
    ----------
    add : callable
        Adds a layer to the viewer.
    set_shown : callable
        Shows or hides one.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        add: Callable[[Layer], None],
        set_shown: Callable[[Layer, bool], None],
    ) -> None:
        self._viewer, self._add, self._set_shown = viewer, add, set_shown
        self.outlines = Outlines(viewer, add, set_shown)
        self._layers: dict[str, Layer] = {}
        self._look = Look()
        self._opacity: dict[str, float] = {}  # of layers that are transparent for now
        self._coloured: frozenset[int] = frozenset()
        self._probable = False
        self._loaded: Loaded | None = None
        self._place: Placement | None = None

    @property
    def layers(self) -> list[Layer]:
        """All layers of ours in the viewer."""
        return [*self._layers.values(), *self.outlines.layers.values()]

    # ------------------------------------------------------------------ what is shown

    def show(self, loaded: Loaded | None, look: Look | None = None) -> None:
        """Show a case; None hides all, and lets go of the case before."""
        self._loaded, self._look = loaded, look or self._look
        self._probable = False
        self._fade(PROBABILITY)  # it is of the case before
        if loaded is None:
            self._place = None
            self._hide()
            return
        for name in (AGREEMENT, SWIPE):
            self._fade_in(name)
        self._place = placement(loaded.overlay.geometry)
        self._apply()

    def blank(self) -> None:
        """Show nothing for a while: napari takes long to hide layers, and to show them again."""
        self._loaded = None
        for name in self._layers:
            self._fade(name)
        self.outlines.clear()
        self._say("")

    def _hide(self) -> None:
        self.outlines.clear()
        for layer in self.layers:
            self._set_shown(layer, False)
        self.let_go()
        self._say("")

    def let_go(self) -> None:
        """Hold on to no array of a case."""
        for layer in self._layers.values():
            layer.data = np.zeros((1, 1, 1), np.uint8)

    def _fade(self, name: str) -> None:
        """Make a layer transparent."""
        layer = self._layers.get(name)
        if layer is not None and name not in self._opacity:
            self._opacity[name], layer.opacity = layer.opacity, 0.0

    def _fade_in(self, name: str) -> None:
        opacity, layer = self._opacity.pop(name, None), self._layers.get(name)
        if layer is not None and opacity is not None:
            layer.opacity = opacity

    def set_look(self, look: Look) -> None:
        """Show other parts and outlines of the same case."""
        if look != self._look:
            self._look = look
            self._apply()

    def show_probability(self, per_cent: NDArray[np.uint8] | None, arm: str = "") -> None:
        """Show a probability map of the case: (z, y, x), canonical; None for none."""
        self._probable = per_cent is not None and self._loaded is not None
        self._apply()
        if per_cent is None or self._loaded is None:
            if PROBABILITY in self._layers:
                self._set_shown(self._layers[PROBABILITY], False)
            return
        layer = self._exchange(PROBABILITY, per_cent, self._make_probability)
        layer.name = f"probability of {arm}, %"
        self._fade_in(PROBABILITY)
        self._set_shown(layer, True)

    def follow(self, event: Any = None) -> None:
        """Draw the slice that is shown now."""
        if self._loaded is not None:
            self._draw()

    def follow_zoom(self, event: Any = None) -> None:
        """Draw lines as wide as before, where the zoom changed, and keep the swipe in view."""
        if self._loaded is not None and (
            self.outlines.needs_zoom() or self._look.share is not None
        ):
            self._draw()

    def forget(self, layer: Layer) -> None:
        """Forget a layer that was taken out of the viewer; it is made again when it is needed."""
        for known in (self._layers, self.outlines.layers):
            for name in [n for n, other in known.items() if other is layer]:
                del known[name]  # type: ignore[attr-defined]
                self._opacity.pop(name, None)

    # ------------------------------------------------------------------ inside

    def _apply(self) -> None:
        if self._loaded is None:
            return
        look = self._look
        # A map that is seen through filled parts has colours that mean nothing.
        filled = look.share is None and look.alone is None and not self._probable
        self._show_agreement(bool(look.parts) and filled)
        self._draw()
        self._say(look.caption)

    def _show_agreement(self, on: bool) -> None:
        assert self._loaded is not None
        on = on and len(self._loaded.arms) == 2
        if AGREEMENT not in self._layers and not on:
            return
        layer = self._layers.get(AGREEMENT)
        if on:
            layer = self._exchange(AGREEMENT, self._loaded.agreement, self._make_agreement)
            if self._coloured != self._look.parts:
                self._coloured = self._look.parts
                layer.colormap = _colours(self._coloured)
        assert layer is not None
        self._set_shown(layer, on)

    def _draw(self) -> None:
        assert self._loaded is not None
        assert self._place is not None
        share, array = self._look.share, shown(self._loaded.agreement)
        found = None if share is None else column_of(self._viewer, self._place, share)
        column = None if found is None else found[1] - 0.5
        self._show_swipe(found or self._all_of_one())
        self.outlines.draw(array, self._place, self._look.outlines, column)

    def _all_of_one(self) -> tuple[int, int] | None:
        """Return the end of the last axis that leaves all of the map to one prediction."""
        alone = self._look.alone
        if alone is None or self._probable or self._loaded is None:
            return None
        return 2, self._loaded.agreement.shape[2] if alone == "baseline" else 0

    def _show_swipe(self, found: tuple[int, int] | None) -> None:
        layer = self._layers.get(SWIPE)
        if found is None or self._loaded is None or self._place is None:
            if layer is not None:
                self._set_shown(layer, False)
            return
        array, (axis, column) = shown(self._loaded.agreement), found
        known = layer.data if layer is not None else None
        if isinstance(known, SwipedMap) and np.shares_memory(known.agreement, array):
            changed = (known.axis, known.column) != (axis, column)
            known.axis, known.column = axis, column
            assert layer is not None
            if changed:
                layer.refresh(thumbnail=False, highlight=False, extent=False)
        else:
            layer = self._put_swipe(SwipedMap(array, axis, column))
        self._set_shown(layer, True)

    def _put_swipe(self, data: SwipedMap) -> Layer:
        assert self._loaded is not None
        assert self._place is not None
        layer = self._layers.get(SWIPE)
        if layer is None:
            colours: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT}
            colours |= {BASELINE: OUTLINE_COLOURS["baseline"], NEW: OUTLINE_COLOURS["new"]}
            layer = self._make_labels(SWIPE, data, DirectLabelColormap(color_dict=colours))
        else:
            layer.data = data
            move_layer(layer, self._place.scale, self._place.translate)
        return layer

    def _exchange(self, name: str, array: Any, make: Callable[[Any], Layer]) -> Any:
        assert self._place is not None
        layer = self._layers.get(name)
        if layer is None:
            return make(shown(array))
        if not np.shares_memory(layer.data, array):
            layer.data = shown(array)
            move_layer(layer, self._place.scale, self._place.translate)
        return layer

    def _make_agreement(self, data: Any) -> Layer:
        self._coloured = self._look.parts
        return self._make_labels(AGREEMENT, data, _colours(self._coloured))

    def _make_labels(self, name: str, data: Any, colormap: DirectLabelColormap) -> Layer:
        layer = Labels(data, colormap=colormap, **self._space(name), opacity=OPACITY)
        return self._keep(name, layer)

    def _make_probability(self, data: Any) -> Layer:
        look = {"colormap": CERTAINTY, "blending": "translucent", "contrast_limits": (0, 100)}
        return self._keep(PROBABILITY, Image(data, **self._space(PROBABILITY), **look))

    def _keep(self, name: str, layer: Layer) -> Layer:
        lock(layer)
        self._add(layer)
        self._layers[name] = layer
        return layer

    def _space(self, name: str) -> dict[str, Any]:
        assert self._loaded is not None
        overlay = self._loaded.overlay
        _, look, _ = label_map_layer(
            self._loaded.agreement, overlay.geometry.canonical(), name, case=overlay.case
        )
        return {key: value for key, value in look.items() if key != "opacity"}

    def _say(self, words: str) -> None:
        overlays = self._viewer.canvas.overlays
        if CAPTION not in overlays:
            if not words:
                return
            overlays[CAPTION] = TextOverlay(position="top_left", font_size=11, box=True)
        overlays[CAPTION].text = words
        overlays[CAPTION].visible = bool(words)

    def close(self) -> None:
        """Take everything of ours out of the viewer."""
        self._viewer.canvas.overlays.pop(CAPTION, None)
        for layer in self.layers:
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._layers, self.outlines.layers = {}, {}


def _colours(parts: frozenset[int]) -> DirectLabelColormap:
    """Return the colours of the agreement; parts that are hidden are transparent."""
    colours: dict[Any, Any] = {None: TRANSPARENT, 0: TRANSPARENT}
    for part in CLASSES:
        colours[part.number] = part.colour if part.number in parts else TRANSPARENT
    return DirectLabelColormap(color_dict=colours)
