"""File > Open Sample: one synthetic case as napari layers."""

from __future__ import annotations

from napari_backsplit.backend.fusion.fuse import LabelScheme, fuse
from napari_backsplit.backend.phantom import LESION, SUPPORTS, PhantomSpec, draw
from napari_backsplit.widgets._layers import LayerData, image_layer, label_map_layer
from napari_backsplit.widgets._orientation import orient_current

SEED = (1, 0)


def synthetic_ct() -> list[LayerData]:
    """Return a SYNTHETIC abdominal CT and its fused label map, in the display convention."""
    phantom = draw(SEED, PhantomSpec(lesion_free=0.0))
    geometry = phantom.image.geometry
    scheme = LabelScheme((LESION,), tuple(SUPPORTS))
    masks = {LESION: phantom.masks[LESION]}
    masks |= {name: phantom.union(parts) for name, parts in SUPPORTS.items()}
    fused = fuse(masks, scheme, geometry.shape).label_map
    orient_current()
    return [
        image_layer(phantom.image, "SYNTHETIC CT", "CT"),
        label_map_layer(fused, geometry, "lesion and supports", labels=scheme.ids),
    ]
