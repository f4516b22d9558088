"""How far the review of a project is: verdicts and volumes of every case, from small files only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_backsplit.backend.project import Project, ProjectReader
from napari_backsplit.backend.project.masks import MaskFacts
from napari_backsplit.backend.project.verdicts import Verdict, last_of

State = Literal["none", "unreviewed", "accepted", "needs_work", "rejected"]
"""Of a mask: none is there, nobody judged it, or what was said of it last."""


@dataclass(frozen=True)
class MaskState:
    """How a structure of a case stands.

    Attributes
    ----------
    structure : str
    state : State
        Of the mask as it is now: a mask that was edited after its verdict is unreviewed.
    ml : float or None
        Volume; None where there is no mask, or its size was not kept.
    verdict : Verdict, optional
        The last one, also where the mask was edited since.
    edited : bool
        The mask is not the one that the last verdict was about.
    """

    structure: str
    state: State
    ml: float | None
    verdict: Verdict | None
    edited: bool


@dataclass(frozen=True)
class CaseState:
    """How a case stands.

    Attributes
    ----------
    case : str
    verdict : Verdict, optional
        The last one on the case as a whole.
    edited : bool
        A mask was edited, added or removed since that verdict.
    masks : tuple of MaskState
        Targets, then supports (sources, not what recipes make of them).
    """

    case: str
    verdict: Verdict | None
    edited: bool
    masks: tuple[MaskState, ...]

    @property
    def state(self) -> State:
        """What was said of the case last; "none" where nothing was."""
        return self.verdict.verdict if self.verdict else "none"

    def of(self, structure: str) -> MaskState:
        """Return how a structure stands; one that is new to the project has no mask."""
        found = (mask for mask in self.masks if mask.structure == structure)
        return next(found, MaskState(structure, "none", None, None, False))


def case_state(project: ProjectReader, case: str) -> CaseState:
    """Return how a case stands."""
    verdicts = project.verdicts(case)
    facts = {s.name: project.facts(case, s.name) for s in project.schema.structures}
    contents = {name: known.sha256 for name, known in facts.items() if known}
    last = last_of(verdicts, "")
    edited = last is not None and last.masks != contents
    voxel_ml = project.case(case).grid.voxel_ml
    masks = tuple(
        _mask_state(name, known, last_of(verdicts, name), voxel_ml) for name, known in facts.items()
    )
    return CaseState(case, last, edited, masks)


def accept_unjudged(project: Project, case: str, who: str = "") -> tuple[str, ...]:
    """Accept every mask of a case that nobody has judged; return their structures."""
    names = [m.structure for m in case_state(project, case).masks if m.state == "unreviewed"]
    for name in names:
        project.judge(case, "accepted", name, comment="Accepted with the case.", who=who)
    return tuple(names)


def survey(project: ProjectReader) -> dict[str, CaseState]:
    """Return how every case stands."""
    return {case: case_state(project, case) for case in project.case_ids()}


def _mask_state(
    structure: str, facts: MaskFacts | None, verdict: Verdict | None, voxel_ml: float
) -> MaskState:
    content = facts.sha256 if facts else None
    edited = verdict is not None and verdict.masks.get(structure) != content
    if facts is None:
        return MaskState(structure, "none", None, verdict, edited)
    ml = None if facts.voxels is None else facts.voxels * voxel_ml
    return MaskState(structure, facts.review, ml, verdict, edited)
