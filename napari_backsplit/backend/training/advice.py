"""Which supports to fine-tune with: where the lesions lie, and where a model is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.spec import MANY_SUPPORTS

HOLDS = 0.25
"""Share of a lesion and its shell that the organ around it has at least: half of a lesion that
bulges out of the organ's surface is outside."""

FREQUENT = 0.2
"""Share of the lesions that a support must hold to be chosen."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """A support, and what lies in it.

    Attributes
    ----------
    support : str
    holds : float
        Share of the lesions, 0..1, that lie in it: of all supports it has most of the lesion and
        of the shell one voxel around it, and `HOLDS` at least. So an organ's mask may contain its
        lesions or leave them out.
    touches : float
        Share of the lesions that meet it or are one voxel away.
    false_positives : int
        Predicted components without a lesion that `holds` would count here.
    """

    support: str
    holds: float
    touches: float
    false_positives: int = 0


def places(
    project: Project, cases: Sequence[str], predicted: Mapping[str, Mask] | None = None
) -> list[Place]:
    """Return where the lesions of some cases lie, the support that holds most first.

    Parameters
    ----------
    project : Project
    cases : sequence of str
    predicted : mapping of str to bool array, optional
        Case -> a model's prediction of the targets on the image's grid, (z, y, x), to say where
        its false positives lie.
    """
    supports = project.schema.support_names
    held, touched, false = Counter[str](), Counter[str](), Counter[str]()
    lesions = 0
    for case in cases:
        masks = project.masks(case)
        organs = {name: masks[name] for name in supports if name in masks}
        lesion = _union(masks[name] for name in project.schema.target_names if name in masks)
        for covered in _covers(lesion, organs):
            lesions += 1
            held.update(_holder(covered))
            touched.update(name for name, share in covered.items() if share)
        if predicted and case in predicted:
            wrong = _without(predicted[case], lesion)
            false.update(name for covered in _covers(wrong, organs) for name in _holder(covered))
    found = [
        Place(name, held[name] / max(lesions, 1), touched[name] / max(lesions, 1), false[name])
        for name in supports
    ]
    return sorted(found, key=lambda place: (-place.holds, -place.touches))


def choose_supports(found: Sequence[Place]) -> tuple[str, ...]:
    """Return the supports that hold the lesions; where none does, those they touch most.

    At most `MANY_SUPPORTS`, and one at least.
    """
    holding = [place.support for place in found if place.holds >= FREQUENT]
    return tuple((holding or [place.support for place in found])[:MANY_SUPPORTS])


def _union(masks: Iterator[Mask]) -> Mask:
    return np.asarray(np.logical_or.reduce(list(masks)))


def _covers(mask: Mask, organs: Mapping[str, Mask]) -> Iterator[dict[str, float]]:
    """Yield for each component which share of it and its shell each organ has."""
    cube = np.ones((3,) * mask.ndim, bool)
    components, _ = ndimage.label(mask, cube)
    for number, box in enumerate(ndimage.find_objects(components), start=1):
        wide = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        region = ndimage.binary_dilation(components[wide] == number, cube)
        yield {
            name: float((organ[wide] & region).sum() / region.sum())
            for name, organ in organs.items()
        }


def _holder(covered: Mapping[str, float]) -> list[str]:
    most = max(covered, key=lambda name: covered[name], default=None)
    return [most] if most is not None and covered[most] >= HOLDS else []


def _without(predicted: Mask, lesion: Mask) -> Mask:
    """Return the components of a prediction that meet no lesion."""
    components, count = ndimage.label(predicted, np.ones((3,) * predicted.ndim, bool))
    kept = np.ones(count + 1, bool)
    kept[np.unique(components[lesion])] = False
    kept[0] = False
    return np.asarray(kept[components])
