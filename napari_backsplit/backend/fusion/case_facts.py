"""What one case tells the advisor: its lesions and a model's errors, placed among its supports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.advice_inputs import CaseSources, ClassMaps, Predicted
from napari_backsplit.backend.fusion.cases import Admit
from napari_backsplit.backend.fusion.fuse import Mask
from napari_backsplit.backend.fusion.gap_estimate import GapEstimate, bands_of
from napari_backsplit.backend.fusion.information import class_shares
from napari_backsplit.backend.fusion.places import Cover, Part, cover_of, distances_mm, parts_of
from napari_backsplit.backend.fusion.review import CaseState, State, case_state
from napari_backsplit.backend.geometry import Geometry
from napari_backsplit.backend.project import ProjectReader

Standing = Literal["present", "absent", "part", "missing"]
"""Of a support in a case: there, known not to be there, known in part, or not known."""


@dataclass(frozen=True)
class Placed:
    """A lesion or a false positive.

    Attributes
    ----------
    ml : float
    covers : dict of str to Cover
        By support; those that are not known are left out.
    distance_mm : dict of str to float
        By support that has voxels; 0 where it touches. Of a lesion only.
    """

    ml: float
    covers: dict[str, Cover]
    distance_mm: dict[str, float]

    def share(self, support: str) -> float:
        """Return which share of it, or of its shell, a support has; 0 where that is not known."""
        return self.covers[support].share if support in self.covers else 0.0


@dataclass(frozen=True)
class CaseFacts:
    """What a case tells.

    Attributes
    ----------
    case : str
    lesions, wrong : tuple of Placed
        Its lesions, and the predicted components that meet none.
    gap, estimate : dict of str to float
        Share of each support in the information gap of a run; ESTIMATE without one.
    predicted, weighted : bool
        There is a prediction of the baseline; with its uncertainty, which weighs the estimate.
    standing : dict of str to Standing
        By support.
    review : dict of str to Counter
        Support -> how many masks of it are in which state of review.
    """

    case: str
    lesions: tuple[Placed, ...]
    wrong: tuple[Placed, ...]
    gap: dict[str, float]
    estimate: dict[str, float]
    predicted: bool
    weighted: bool
    standing: dict[str, Standing]
    review: dict[str, Counter[State]]


def facts_of(
    project: ProjectReader,
    case: str,
    admit: Admit,
    predicted: Predicted | None = None,
    run: ClassMaps | None = None,
) -> CaseFacts:
    """Look at a case. No support is read where there is no lesion and nothing predicted.

    Raises
    ------
    GeometryError, InputError
        A prediction does not fit the case.
    """
    grid = project.geometry(case)
    sources, state = CaseSources.of(project, case, admit), case_state(project, case)
    targets = sources.targets()
    lesion = np.logical_or.reduce([np.zeros(grid.shape, bool), *targets.values()])
    seen = None if predicted is None else predicted.mask()
    eta = None if predicted is None else predicted.probability()
    around = bands_of(lesion if seen is None else lesion | seen, grid.spacing_mm)
    estimate = GapEstimate(around, lesion, grid.spacing_mm, eta)
    parts, wrong = parts_of(lesion), [] if seen is None else _wrong(seen, lesion)
    placed, shares = _place(sources.supports(targets), parts, wrong, estimate, grid)
    names = [support.name for support in project.schema.fused_supports]
    return CaseFacts(
        case,
        tuple(placed[: len(parts)]),
        tuple(placed[len(parts) :]),
        {} if run is None or not parts else _gap(project.schema.target_names, run, lesion, grid),
        shares,
        predicted is not None,
        eta is not None,
        {name: _standing(sources, state, name) for name in names},
        {name: _review(sources, state, name) for name in names},
    )


def _wrong(seen: Mask, lesion: Mask) -> list[Part]:
    """Return the predicted components that meet no lesion."""
    return [part for part in parts_of(seen) if not (part.inside & lesion[part.box]).any()]


def _place(
    supports: Iterable[tuple[str, Mask]],
    lesions: Sequence[Part],
    wrong: Sequence[Part],
    estimate: GapEstimate,
    grid: Geometry,
) -> tuple[list[Placed], dict[str, float]]:
    """Place lesions and false positives among the supports; return the ESTIMATE of each too."""
    parts = [*lesions, *wrong]
    placed = [Placed(part.voxels * grid.voxel_ml, {}, {}) for part in parts]
    shares: dict[str, float] = {}
    for name, organ in supports if parts else ():
        for part, place in zip(parts, placed, strict=True):
            place.covers[name] = cover_of(organ, part)
        covers = [place.covers[name] for place in placed[: len(lesions)]]
        far = distances_mm(organ, lesions, covers, grid.spacing_mm)
        for place, mm in zip(placed, far, strict=False):
            place.distance_mm[name] = mm
        share = estimate.add(organ)
        if share is not None:
            shares[name] = share
    return placed, shares


def _gap(names: Sequence[str], run: ClassMaps, lesion: Mask, grid: Geometry) -> dict[str, float]:
    """Return the mean share of each class in the gap of a run, in and around the lesions.

    Several targets count as one: binary labels divide the background alone.
    """
    targets = [name for name in run.classes if name in names]
    others = [name for name in run.classes if name not in targets]
    _require_classes(targets, others)
    near = np.zeros(lesion.shape, bool)
    for band in bands_of(lesion, grid.spacing_mm):
        near[band.box] |= band.inside
    values = run.values(near)
    row = {name: values[number] for number, name in enumerate(run.classes)}
    merged = np.stack([sum(row[name] for name in targets), *(row[name] for name in others)])
    means = class_shares(merged, 0).mean(axis=1)[1:]
    return {name: float(mean) for name, mean in zip(others, means, strict=True)}


def _require_classes(targets: Sequence[str], others: Sequence[str]) -> None:
    if not targets:
        raise InputError(
            f"The run has no class of the project's targets; it has {', '.join(others)}.",
            "Give a run that was trained on this project's names.",
        )
    if len(others) < 2:
        raise InputError(
            "The run is binary: with one background class the information gap is zero for every "
            "model (BackSplit, Proposition 1).",
            "Give it as the baseline, for an estimate.",
        )


def _standing(sources: CaseSources, state: CaseState, name: str) -> Standing:
    """Return how a support stands; the sizes come from the records of its masks."""
    known = sources.known[name]
    own = [state.of(source) for source in sources.parts(name) if source in sources.entered]
    if known == "none" or all(mask.ml == 0 for mask in own):
        return "absent" if known == "whole" else "missing"
    return "present" if known == "whole" else "part"


def _review(sources: CaseSources, state: CaseState, name: str) -> Counter[State]:
    return Counter(state.of(source).state for source in sources.parts(name))
