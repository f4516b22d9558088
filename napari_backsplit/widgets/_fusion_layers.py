"""The review's layers: the fused label map, the conflicts, what is unlabelled, the cross-hair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels, Layer, Vectors
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QObject

from napari_backsplit.backend.fusion.fuse import Box
from napari_backsplit.widgets._case_layers import CaseLayers, move_layer, set_visible
from napari_backsplit.widgets._layers import TRANSPARENT, label_map_layer
from napari_backsplit.widgets._reviewing import Reviewing

FUSED, CONFLICTS, UNLABELLED, CROSS = "fused", "conflicts", "unlabelled", "cross-hair"
CONFLICT_COLOUR, UNLABELLED_COLOUR, CROSS_COLOUR = "#ff40d0", "#999999", "#f0e442"
CLAIMED = range(2, 256)


class FusionLayers(QObject):
    """Shows the fusion of the open case while the review is shown.

    The conflicts are the claims of `LiveFusion` from 2 on; what is unlabelled is the 0 of the label
    map: both show arrays that are there anyway. The masks of structures are hidden, but for the
    outline of the one that is edited.
    """

    def __init__(self, viewer: ViewerModel, reviewing: Reviewing, layers: CaseLayers) -> None:
        super().__init__(reviewing)
        self._viewer, self._reviewing, self._case = viewer, reviewing, layers
        self._layers: dict[str, Labels] = {}
        self._cross: Vectors | None = None
        self._colours_of: dict[str, dict[Any, Any]] = {}
        self._wanted = {FUSED: True, CONFLICTS: True, UNLABELLED: False, CROSS: False}
        reviewing.fused.connect(self._show)
        reviewing.desk.case_changed.connect(self._show_cross)
        reviewing.desk.project_changed.connect(self._show_project)
        viewer.layers.events.removed.connect(self._removed)
        viewer.dims.events.point.connect(self._move_cross)

    # ------------------------------------------------------------------ on and off

    def set_active(self, on: bool) -> None:
        """Show the fusion instead of the masks, or the masks again."""
        self._case.show_only_present(on)
        if on:
            self._show(None)
            self._show_cross()
        else:
            for layer in self._all():
                self._case.set_shown(layer, False)

    def show(self, what: str, on: bool) -> None:
        """Show or hide one of the layers: "fused", "conflicts", "unlabelled"."""
        self._wanted[what] = on
        if what in self._layers:
            self._case.set_shown(self._layers[what], on and self._reviewing.active)
        else:
            self._show(None)

    def show_cross(self, on: bool) -> None:
        """Show or hide lines through the point that all three planes go through."""
        self._wanted[CROSS] = on
        self._show_cross()

    def go_to(self, position_zyx: tuple[float, float, float], center: bool = True) -> None:
        """Bring all three planes to a canonical voxel, and the view's centre where asked."""
        if self._case.place is None:
            return
        world = self._case.place.to_world(position_zyx)
        first = self._viewer.dims.ndim - 3
        self._viewer.dims.set_point(range(first, first + 3), [float(v) for v in world])
        if center and self._viewer.dims.ndisplay == 2:
            camera, (down, right) = self._viewer.scene.camera, self._viewer.dims.displayed[-2:]
            shown_at = float(world[down - first]), float(world[right - first])
            camera.center = (*camera.center[:-2], *shown_at)

    def close(self) -> None:
        """Take the layers out of the viewer."""
        self._viewer.layers.events.removed.disconnect(self._removed)
        self._viewer.dims.events.point.disconnect(self._move_cross)
        self._take_away()

    # ------------------------------------------------------------------ what is shown

    def _show_project(self) -> None:
        if self._reviewing.desk.project is None:
            self._take_away()

    def _take_away(self) -> None:
        for layer in self._all():
            if layer in self._viewer.layers:
                self._viewer.layers.remove(layer)
        self._layers, self._cross = {}, None

    def _all(self) -> list[Layer]:
        cross = [self._cross] if self._cross is not None else []
        return [*self._layers.values(), *cross]

    def _show(self, box: Box | None) -> None:
        fusion, annotation = self._reviewing.fusion, self._reviewing.desk.annotation
        if annotation is None or not self._reviewing.active:
            return
        if fusion is None:
            for layer in self._layers.values():
                set_visible(layer, False)
            return
        if box is not None and (CONFLICTS in self._layers or not fusion.conflicts):
            for layer in self._layers.values():
                layer.refresh(thumbnail=False, highlight=False, extent=False)
            return
        colours = self._colours()
        self._put(FUSED, fusion.label_map, {None: TRANSPARENT, 0: TRANSPARENT, **colours}, 0.5)
        if UNLABELLED in self._layers or self._wanted[UNLABELLED]:
            self._put(UNLABELLED, fusion.label_map, {None: TRANSPARENT, 0: UNLABELLED_COLOUR}, 0.35)
        if CONFLICTS in self._layers or (self._wanted[CONFLICTS] and fusion.conflicts):
            claimed = dict.fromkeys(CLAIMED, CONFLICT_COLOUR)
            self._put(CONFLICTS, fusion.claims, {None: TRANSPARENT, 0: TRANSPARENT, **claimed}, 0.9)

    def _colours(self) -> dict[int, str]:
        project, fusion = self._reviewing.desk.project, self._reviewing.fusion
        if project is None or fusion is None:
            return {}
        schema = project.schema
        structures = (*schema.targets, *schema.fused_supports)
        ids = fusion.scheme.ids
        return {ids[s.name]: s.colour for s in structures if s.name in ids}

    def _put(self, what: str, array: Any, colours: Mapping[Any, Any], opacity: float) -> None:
        annotation = self._reviewing.desk.annotation
        assert annotation is not None
        layer = self._layers.get(what)
        data, look, _ = label_map_layer(array, annotation.grid, what, case=annotation.case)
        if layer is None or layer not in self._viewer.layers:
            colormap = DirectLabelColormap(color_dict=dict(colours))
            layer = Labels(data, **{**look, "colormap": colormap, "opacity": opacity})
            layer.editable = False
            self._layers[what] = self._add(layer)
        else:
            if np.shares_memory(layer.data, array):
                layer.refresh(thumbnail=False, highlight=False, extent=False)
            else:
                layer.data = data
            move_layer(layer, look["scale"], look["translate"])
            layer.metadata = look["metadata"]
            if self._colours_of.get(what) != colours:
                layer.colormap = DirectLabelColormap(color_dict=dict(colours))
        self._colours_of[what] = dict(colours)
        set_visible(layer, self._wanted[what])

    def _add(self, layer: Any) -> Any:
        selected = self._viewer.layers.selection.active
        self._case.guests.append(layer)
        self._viewer.add_layer(layer)
        self._viewer.layers.selection.active = selected
        return layer

    def _removed(self, event: Any) -> None:
        """Forget a layer that a person took away; it comes with the next case."""
        self._layers = {n: layer for n, layer in self._layers.items() if layer is not event.value}
        self._cross = None if self._cross is event.value else self._cross
        guests = self._case.guests
        guests[:] = [layer for layer in guests if layer is not event.value]

    def _show_cross(self) -> None:
        on, place = self._wanted[CROSS] and self._reviewing.active, self._case.place
        if on and self._cross is None and place is not None:
            self._cross = self._add(
                Vectors(
                    np.zeros((3, 2, 3)),
                    name=CROSS,
                    edge_color=CROSS_COLOUR,
                    edge_width=0.6,
                    vector_style="line",
                    opacity=0.6,
                    scale=place.scale,
                    translate=place.translate,
                    units=("mm", "mm", "mm"),
                    axis_labels=("z", "y", "x"),
                )
            )
        if self._cross is not None:
            self._case.set_shown(self._cross, on)
        self._move_cross()

    def _move_cross(self, event: Any = None) -> None:
        cross, place = self._cross, self._case.place
        if cross is None or place is None or not cross.visible:
            return
        first = self._viewer.dims.ndim - 3
        at = (np.asarray(self._viewer.dims.point[first:]) - place.translate) / place.scale
        lines = np.tile(np.rint(at), (3, 1))
        ends = np.zeros((3, 3))
        for axis in range(3):
            lines[axis, axis] = 0
            ends[axis, axis] = place.shape[axis] - 1
        cross.scale, cross.translate = place.scale, place.translate
        cross.data = np.stack([lines, ends], axis=1)
