"""The review's state behind the window: the live fusion, what was found, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal
from weakref import WeakKeyDictionary

from qtpy.QtCore import QObject, QTimer, Signal

from napari_backsplit.backend.fusion.cases import Admit
from napari_backsplit.backend.fusion.findings import Finding
from napari_backsplit.backend.fusion.fuse import Box, Mask
from napari_backsplit.backend.fusion.live import LiveFusion
from napari_backsplit.backend.fusion.open_case import findings_of
from napari_backsplit.backend.fusion.review import CaseState, case_state, survey
from napari_backsplit.backend.fusion.tidying import TOOLS
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.schema import Judgement
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.engines import About
from napari_backsplit.backend.structures.prompts import Bounds, slices
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._threads import Lane

EXAMINE_AFTER_MS = 1500
_NOT_REJECTED = ("accepted", "editing", "needs_work")


class Reviewing(QObject):
    """The open case as training will be told of it, and what people said of all cases.

    It works while `active`: while the review is what is shown. Fusing has a thread of its own, and
    so has the search for findings.

    Attributes
    ----------
    fusion : LiveFusion, optional
        Of the open case; None until it is there.
    findings : tuple of Finding
        Of the open case, the gravest first; positions are canonical.
    states : dict of str to CaseState
        Every case.
    searched : bool
        Whether the findings are those of the open case; False while they are looked for.
    admit : Admit
        Which masks are fused: all that none rejected, or the accepted ones, as training does.
    """

    fused = Signal(object)
    found = Signal()
    judged = Signal()

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.desk = desk
        self.active = False
        self.fusion: LiveFusion | None = None
        self.findings: tuple[Finding, ...] = ()
        self.states: dict[str, CaseState] = {}
        self.admit: Admit = "unreviewed"
        self.searched = False
        self._fusions: WeakKeyDictionary[Annotation, LiveFusion] = WeakKeyDictionary()
        self.fuser = Lane(desk.hop, desk.failed.emit, "fusion")
        self.examiner = Lane(desk.hop, desk.failed.emit, "findings")
        self._project: Project | None = None
        self._missed: list[tuple[str, Bounds | None]] = []  # edits while a case is fused at first
        self._newer: dict[str, CaseState] = {}  # told since the last survey was asked for
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(EXAMINE_AFTER_MS)
        self._late.timeout.connect(self._examine)
        desk.prepare = self._prepare
        desk.project_changed.connect(self._project_changed)
        desk.case_changed.connect(self._case_changed)
        desk.structure_changed.connect(self._moved)
        self._project_changed()

    def set_active(self, on: bool) -> None:
        """Begin or stop to follow the open case."""
        self.active = on
        if on:
            self._survey()
            self._case_changed()

    def close(self) -> None:
        """Take no more work."""
        self.active = False
        self._late.stop()
        for lane in (self.fuser, self.examiner):
            lane.close(drop=True)

    def supports(self) -> tuple[str, ...]:
        """Return the supports of the label map, the one that wins first."""
        project = self.desk.project
        return tuple(s.name for s in project.schema.fused_supports) if project else ()

    def set_admit(self, admit: Admit) -> None:
        """Fuse the masks that none rejected, or those that training takes."""
        self.admit = admit
        self._fuse_anew()

    # ------------------------------------------------------------------ priorities and recipes

    def set_priorities(self, names: Sequence[str]) -> None:
        """Set the order in which supports win."""
        self._change_project(lambda project: project.set_priorities(names))

    def add_recipe(
        self, kind: Literal["merge", "subtract", "grow"], support: str, sources: Sequence[str] = ()
    ) -> None:
        """Make or change a support by a recipe."""
        self._change_project(lambda project: project.add_recipe(kind, support, sources))

    def remove_recipe(self, number: int) -> None:
        """Take a recipe away."""
        self._change_project(lambda project: project.remove_recipe(number))

    def _change_project(self, change: Callable[[Project], None]) -> None:
        project = self.desk.project
        if project is not None:
            self.desk.files.do(
                lambda: change(project), lambda _: self._fuse_anew(), self._not_changed
            )

    def _not_changed(self, error: BaseException) -> None:
        self.fused.emit(None)  # a row that was dragged goes back
        self.desk.failed.emit(error)

    # ------------------------------------------------------------------ edits

    def tidy(self, tool: str, amount: float) -> None:
        """Use a tool of `tidying.TOOLS` on the mask of the present structure, as one step."""
        annotation, structure = self.desk.annotation, self.desk.structure
        if annotation is None or not structure:
            return
        name, function = TOOLS[tool].words.lower(), TOOLS[tool].apply

        def tidied(mask: Mask) -> Mask:
            return function(mask, annotation.grid.spacing_mm, amount)

        nothing = f"{structure} has nothing to change: {name}."
        work = partial(annotation.transform, structure, tidied, About(name))
        self.desk.scribe.do(work, lambda did: did or self.desk.told.emit(nothing))

    # ------------------------------------------------------------------ verdicts

    def judge(self, judgement: Judgement, structures: Sequence[str], comment: str = "") -> None:
        """Record a verdict on some masks of the open case, or, of none, on the case.

        Where a case is accepted, so is every mask of it that nobody has judged.
        """
        annotation = self.desk.annotation
        if annotation is None:
            return
        self.desk.scribe.do(
            lambda: _judge(annotation, judgement, structures, comment),
            lambda _: self._judged(annotation, judgement, structures),
        )

    def next_to_judge(self, cases: Sequence[str]) -> str | None:
        """Return the next of some cases, after the open one, without a verdict that holds."""
        annotation = self.desk.annotation
        here = cases.index(annotation.case) + 1 if annotation and annotation.case in cases else 0
        order = (*cases[here:], *cases[:here])
        waiting = (c for c in order if c in self.states and _is_open(self.states[c]))
        return next((c for c in waiting if annotation is None or c != annotation.case), None)

    def _judged(
        self, annotation: Annotation, judgement: Judgement, structures: Sequence[str]
    ) -> None:
        what = ", ".join(structures) or annotation.case
        words = {"needs_work": "needs work"}.get(judgement, judgement)
        self.desk.told.emit(f"{what}: {words}.")
        if annotation is self.desk.annotation:
            self._fuse_anew()

    # ------------------------------------------------------------------ states of all cases

    def _project_changed(self) -> None:
        project = self.desk.project
        if project is not self._project:
            self._project, self.states = project, {}
            if project is not None:
                project.changed.connect(self._heard)
        if self.active:
            self._survey()
            self._fuse_anew()

    def _heard(self, case: str) -> None:
        """Look at a case again; it is told in whatever thread changed it."""
        self.desk.hop.call(lambda: self._look_again(case))

    def _look_again(self, case: str) -> None:
        project = self.desk.project
        if project is None or not self.active or case not in project.schema.cases:
            return
        self.desk.files.do(
            lambda: case_state(project, case), lambda state: self._has_state(project, state)
        )

    def _survey(self) -> None:
        project, self._newer = self.desk.project, {}
        if project is not None:
            self.examiner.do(
                lambda: survey(project), lambda states: self._has_states(project, states)
            )

    def _has_states(self, project: Project, states: dict[str, CaseState]) -> None:
        if project is self.desk.project:
            self.states = {**states, **self._newer}
            self.judged.emit()

    def _has_state(self, project: Project, state: CaseState) -> None:
        if project is not self.desk.project:
            return
        self._newer[state.case] = state
        if state.case in self.states:
            self.states[state.case] = state
            self.judged.emit()

    # ------------------------------------------------------------------ the fusion of the open case

    def _case_changed(self) -> None:
        self.fusion, self.findings, self.searched, self._missed = None, (), False, []
        annotation = self.desk.annotation
        # What was fused ahead is of no use later: masks may change while it is not followed.
        ready = self._fusions.pop(annotation, None) if annotation is not None else None
        if annotation is None or not self.active:
            self.fused.emit(None)
            self.found.emit()
            return
        if ready is not None:
            self._has_fusion(annotation, ready)
            return
        self.fused.emit(None)
        masks = self._entering(annotation)
        self.fuser.do(
            lambda: _fusion_of(annotation, masks),
            lambda fusion: self._has_fusion(annotation, fusion),
        )

    def _prepare(self, annotation: Annotation) -> None:
        """Fuse a case that is being opened, in the thread that opens it."""
        if self.active:
            self._fusions[annotation] = _fusion_of(annotation, self._entering(annotation))

    def _has_fusion(self, annotation: Annotation, fusion: LiveFusion) -> None:
        if annotation is not self.desk.annotation or not self.active:
            return
        self.fusion, missed, self._missed = fusion, self._missed, []
        self.fused.emit(None)
        schema, entering = annotation.project.schema, frozenset(self._entering(annotation))
        if fusion.entered != entering or fusion.schema is not schema:
            self._fuse_anew()
        for structure, bounds in missed:
            self._moved(structure, bounds)
        self._examine()

    def _fuse_anew(self) -> None:
        annotation, fusion = self.desk.annotation, self.fusion
        if annotation is None or fusion is None:
            return
        masks, schema = self._entering(annotation), annotation.project.schema
        self.fuser.do(lambda: fusion.rearrange(schema, masks), lambda _: self._rearranged(fusion))

    def _rearranged(self, fusion: LiveFusion) -> None:
        if fusion is self.fusion:
            self.fused.emit(None)
            self._late.start()

    def _moved(self, structure: str, bounds: Bounds | None) -> None:
        """Follow an edit; a mask that now enters, or no more, changes more than a box."""
        annotation, fusion = self.desk.annotation, self.fusion
        if annotation is None or not self.active:
            return
        if fusion is None:
            self._missed.append((structure, bounds))
        elif (structure in self._entering(annotation)) != (structure in fusion.entered):
            self._fuse_anew()
        elif bounds is not None:
            box = slices(bounds)
            self.fuser.do(
                lambda: fusion.update(structure, box), lambda changed: self._fused(fusion, changed)
            )

    def _fused(self, fusion: LiveFusion, box: Box | None) -> None:
        if fusion is self.fusion and box is not None:
            self.fused.emit(box)
            self._late.start()

    def _entering(self, annotation: Annotation) -> dict[str, Mask]:
        """Return the masks of a case that are fused."""
        targets = annotation.project.schema.target_names
        known = self.desk.standings.get(annotation.case, {})
        supports = ("accepted",) if self.admit == "accepted" else _NOT_REJECTED
        return {
            name: annotation.kept(name)
            for name, standing in known.items()
            if name not in annotation.unreadable
            and standing in (_NOT_REJECTED if name in targets else supports)
        }

    # ------------------------------------------------------------------ findings

    def _examine(self) -> None:
        annotation = self.desk.annotation
        if annotation is None or not self.active:
            return
        states = dict(self.states)

        def work() -> tuple[Finding, ...] | None:
            is_left = annotation is not self.desk.annotation
            return None if is_left else findings_of(annotation, states)

        self.examiner.do(work, lambda found: self._has(annotation, found))

    def _has(self, annotation: Annotation, found: tuple[Finding, ...] | None) -> None:
        if annotation is self.desk.annotation and found is not None:
            self.findings, self.searched = found, True
            self.found.emit()


def _fusion_of(annotation: Annotation, masks: dict[str, Mask]) -> LiveFusion:
    grid = annotation.grid
    return LiveFusion(annotation.project.schema, masks, grid.shape, grid.spacing_mm)


def _is_open(state: CaseState) -> bool:
    """Whether a case waits for a verdict: it has none, or was edited since, or needs work."""
    return state.edited or state.state in ("none", "needs_work")


def _judge(
    annotation: Annotation, judgement: Judgement, structures: Sequence[str], comment: str
) -> None:
    for structure in structures:
        annotation.judge(structure, judgement, comment)
    if structures:
        return
    annotation.save_all()
    if judgement == "accepted":
        for structure in annotation.structures():
            if (
                annotation.standing(structure) == "editing"
                and structure not in annotation.unreadable
            ):
                annotation.judge(structure, "accepted")
    annotation.project.judge(annotation.case, judgement, comment=comment)
