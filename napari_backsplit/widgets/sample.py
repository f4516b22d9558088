"""File > Open Sample: one synthetic case as napari layers."""

from __future__ import annotations

from typing import Any

from napari_backsplit.backend.fusion.fuse import LabelScheme, fuse
from napari_backsplit.backend.phantom import LESION, SUPPORTS, PhantomSpec, draw

LayerData = tuple[Any, dict[str, Any], str]
SEED = (1, 0)
WINDOW_HU = (-150.0, 250.0)


def synthetic_ct() -> list[LayerData]:
    """Return a SYNTHETIC abdominal CT and its fused label map, (z, y, x), spacing in mm."""
    phantom = draw(SEED, PhantomSpec(lesion_free=0.0))
    image = phantom.image
    scheme = LabelScheme((LESION,), tuple(SUPPORTS))
    masks = {LESION: phantom.masks[LESION]}
    masks |= {name: phantom.union(parts) for name, parts in SUPPORTS.items()}
    fused = fuse(masks, scheme, image.geometry.shape)
    place = {"scale": image.spacing_mm, "metadata": {"labels": scheme.ids}}
    return [
        (image.array, {"name": "SYNTHETIC CT", "contrast_limits": WINDOW_HU, **place}, "image"),
        (fused.label_map, {"name": "lesion and supports", "opacity": 0.5, **place}, "labels"),
    ]
