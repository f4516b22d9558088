"""Which supports to fine-tune with: where the lesions lie, and where a model is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.components import components
from napari_backsplit.backend.fusion.fuse import Box
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.training.spec import MANY_SUPPORTS
from napari_backsplit.backend.volume import read_mask

HOLDS = 0.25
"""Share of a lesion, or of its shell, that the organ around it has at least: half of a lesion that
bulges out of the organ's surface is outside."""

FREQUENT = 0.2
"""Share of the lesions that a support must hold to be chosen."""

ENOUGH_CASES = 40
"""Cases that tell where the lesions lie; a mask of a whole-body CT takes about a second to read."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Place:
    """A support, and what lies in it.

    Attributes
    ----------
    support : str
    holds : float
        Share of the lesions, 0..1, that lie in it: of all supports it has most of the lesion or
        of the shell one voxel around it, whichever is more, and `HOLDS` at least. So an organ's
        mask may contain its lesions or leave them out, whatever their size.
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

    A support of which no case has a mask is left out; of two that are equal, the first in the
    project's order comes first. Masks are read one at a time, and a case's supports only where it
    has something to place.

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
        true, wrong = _parts_of(project, case, (predicted or {}).get(case))
        covers = _covers(_masks(project, case, supports), [*true, *wrong])
        lesions += len(true)
        for covered in covers[: len(true)]:
            held.update(_holder(covered))
            touched.update(name for name, share in covered.items() if share)
        false.update(name for covered in covers[len(true) :] for name in _holder(covered))
    found = [
        Place(name, held[name] / max(lesions, 1), touched[name] / max(lesions, 1), false[name])
        for name in supports
        if any(project.mask_path(case, name) for case in cases)
    ]
    return sorted(found, key=lambda place: (-place.holds, -place.touches))


def choose_supports(found: Sequence[Place]) -> tuple[str, ...]:
    """Return the supports that hold the lesions; where none does, those they touch most.

    At most `MANY_SUPPORTS`, and one at least: where the lesions touch none, the first ones.

    Raises
    ------
    InputError
        There is none to choose from.
    """
    if not found:
        raise InputError(
            "No training case has the mask of a support.", "Import or click a support first."
        )
    holding = [place.support for place in found if place.holds >= FREQUENT]
    nearest = sorted(found, key=lambda place: -place.touches)
    touching = [place.support for place in nearest if place.touches]
    return tuple((holding or touching or [place.support for place in found])[:MANY_SUPPORTS])


def enough_cases(cases: Sequence[str]) -> tuple[str, ...]:
    """Return some of the cases, `ENOUGH_CASES` at most, evenly spread over their order."""
    step = max(1, -(-len(cases) // ENOUGH_CASES))
    return tuple(cases[::step])


@dataclass(frozen=True, eq=False)
class _Part:
    """A component: it and its shell, one voxel around it, bool (z, y, x) in a box of the image."""

    box: Box
    inside: Mask
    shell: Mask

    def share(self, organ: Mask) -> float:
        """Return which share of it, or of its shell where that is more, an organ has."""
        here = organ[self.box]
        return max(_share(here, self.inside), _share(here, self.shell))


def _share(organ: Mask, region: Mask) -> float:
    return float((organ & region).sum() / max(region.sum(), 1))


def _masks(project: Project, case: str, names: Iterable[str]) -> Iterator[tuple[str, Mask]]:
    """Yield those masks that a case has, each read when it is asked for."""
    for name in names:
        path = project.mask_path(case, name)
        if path is not None:
            yield name, read_mask(path, project.geometry(case)).array


def _parts(mask: Mask) -> list[_Part]:
    parts = []
    for component, box in components(mask):
        sides = list(zip(box, mask.shape, strict=True))
        room = [(int(side.start > 0), int(side.stop < size)) for side, size in sides]
        z, y, x = (slice(s.start - b, s.stop + a) for s, (b, a) in zip(box, room, strict=True))
        inside = np.pad(component, room)
        grown = ndimage.binary_dilation(inside, np.ones((3, 3, 3), bool))
        parts.append(_Part((z, y, x), inside, grown & ~inside))
    return parts


def _parts_of(
    project: Project, case: str, predicted: Mask | None
) -> tuple[list[_Part], list[_Part]]:
    """Return a case's lesions, and the predicted components that meet none."""
    lesion = np.zeros(project.geometry(case).shape, bool)
    for _, mask in _masks(project, case, project.schema.target_names):
        lesion |= mask
    found = [] if predicted is None else _parts(predicted)
    return _parts(lesion), [part for part in found if not (part.inside & lesion[part.box]).any()]


def _covers(organs: Iterable[tuple[str, Mask]], parts: Sequence[_Part]) -> list[dict[str, float]]:
    """Return for each part which share of it each organ has; no organ is read for no part."""
    covers: list[dict[str, float]] = [{} for _ in parts]
    for name, organ in organs if parts else ():
        for part, covered in zip(parts, covers, strict=True):
            covered[name] = part.share(organ)
    return covers


def _holder(covered: Mapping[str, float]) -> list[str]:
    most = max(covered, key=lambda name: covered[name], default=None)
    return [most] if most is not None and covered[most] >= HOLDS else []
