"""What is compared and what is looked at: worked out away from the window, seen by the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer, Signal

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.project import Project
from napari_backsplit.widgets._compare_asking import Asked, CompareWays
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._threads import Lane

if TYPE_CHECKING:
    from napari_backsplit.backend.comparing import Proposal
    from napari_backsplit.backend.model_choices import CaseGroups, ModelChoice
    from napari_backsplit.backend.shown import Listed, Shown

LOOK_AFTER_MS = 250
GROUPS = ("test", "unseen", "unlabelled", "chosen")
"""Which cases: held out, not seen by a model, without a reference, or chosen one by one."""


@dataclass(frozen=True)
class Looked:
    """What was found of what is chosen."""

    groups: CaseGroups
    group: str
    asked: Asked | None
    proposal: Proposal | None
    error: BackSplitError | None


class Comparing(QObject):
    """What would be compared for the project on the desk, and the result that is looked at.

    Every change asks anew, a moment after it; an answer that comes late is dropped.

    Attributes
    ----------
    choices : tuple of ModelChoice
        The project's models; `looked` tells whether they were looked for.
    chosen : tuple of str
        Paths of the models that are compared, the baseline first; "" for none.
    group : str
        Of `GROUPS`; "" until it is chosen for the person.
    picked : tuple of str
        Cases that were chosen one by one.
    settings : dict
        What the person set.
    groups : CaseGroups, optional
    proposal : Proposal, optional
        None until it is worked out.
    error : str
        Why there is no proposal.
    begun_as : Asked, optional
        What was begun last and is not over.
    results : tuple of Listed
        What can be looked at, the newest first.
    shown : Shown, optional
        What is looked at.
    """

    choices_changed = Signal()
    changed = Signal()
    devices_changed = Signal(object)
    begun = Signal(str)
    results_changed = Signal()
    shown_changed = Signal()

    def __init__(self, desk: Desk, ways: CompareWays | None = None) -> None:
        super().__init__(desk)
        self._desk, self._ways = desk, ways or CompareWays()
        self._lane = Lane(desk.hop, desk.failed.emit, "comparing")
        self._results = Lane(desk.hop, desk.failed.emit, "results")
        self._generation = 0
        self._wanted = ""
        self._forget()
        self._late = QTimer(self)
        self._late.setSingleShot(True)
        self._late.setInterval(LOOK_AFTER_MS)
        self._late.timeout.connect(self._look)

    def _forget(self) -> None:
        self.choices: tuple[ModelChoice, ...] = ()
        self.looked = self.beginning = False
        self.chosen: tuple[str, ...] = ()
        self.group, self.picked = "", tuple[str, ...]()
        self.settings: dict[str, Any] = {}
        self.groups: CaseGroups | None = None
        self.asked: Asked | None = None
        self.proposal: Proposal | None = None
        self.error = ""
        self.begun_as: Asked | None = None
        self.results: tuple[Listed, ...] = ()
        self.shown: Shown | None = None
        self._wanted = ""

    @property
    def project(self) -> Project | None:
        """The project on the desk."""
        return self._desk.project

    # ------------------------------------------------------------------ what is compared

    def open(self) -> None:
        """Look at the project on the desk; what was worked out for another is forgotten."""
        self._generation += 1
        self._late.stop()
        self._forget()
        for signal in (self.choices_changed, self.changed, self.results_changed):
            signal.emit()
        self.shown_changed.emit()
        if self.project is not None:
            self._lane.do(self._ways.devices, self.devices_changed.emit)
            self.again()
            self.look_for_results()

    def again(self) -> None:
        """Ask again for the models and cases: they may be others by now."""
        project = self.project
        if project is not None:
            work = partial(self._ways.models, project.folder)
            self._lane.do(work, partial(self._has_choices, project))

    def choose(self, chosen: Sequence[str]) -> None:
        """Compare other models, the baseline first."""
        if tuple(chosen) != self.chosen:
            self.chosen = tuple(chosen)
            self._ask_again()

    def choose_cases(self, group: str, picked: Sequence[str] = ()) -> None:
        """Compare on other cases."""
        if (group, tuple(picked)) != (self.group, self.picked):
            self.group, self.picked = group, tuple(picked)
            self._ask_again()

    def set(self, settings: Mapping[str, Any]) -> None:
        """Set what differs from the usual."""
        if dict(settings) != self.settings:
            self.settings = dict(settings)
            self._ask_again()

    def begin(self) -> None:
        """Begin what is proposed, once; where all of it is there already, show it."""
        project, asked, proposal = self.project, self.asked, self.proposal
        if project is None or asked is None or proposal is None or self.beginning:
            return
        if proposal.idle:
            work = partial(self._ways.predicted, project, asked)
            self._results.do(work, partial(self._has_shown, project))
            return
        self.beginning = True
        self.changed.emit()
        self._desk.save()
        self._desk.files.do(
            lambda: self._ways.begin(project, asked),
            partial(self._has_begun, project, asked),
            partial(self._not_begun, project),
        )

    def let_begin_again(self) -> None:
        """Forget what was begun: it is over."""
        self.begun_as = None
        self.again()

    def close(self) -> None:
        """Take no more work; what was begun goes on."""
        self._generation += 1
        self._late.stop()
        for lane in (self._lane, self._results):
            lane.close(drop=True)

    # ------------------------------------------------------------------ what is looked at

    def look_for_results(self, newest: bool = False) -> None:
        """Look what can be looked at; with `newest` the newest of it is opened."""
        project = self.project
        if project is not None:
            work = partial(self._ways.listed, project.folder)
            self._results.do(work, partial(self._has_results, project, newest))

    def show(self, name: str) -> None:
        """Look at a result."""
        project = self.project
        if project is not None and name and name != self._wanted:
            self._wanted = name
            work = partial(self._ways.open_shown, project, name)
            self._results.do(
                work, partial(self._has_shown, project), partial(self._not_shown, name)
            )

    # ------------------------------------------------------------------ inside

    def _ask_again(self) -> None:
        self._generation += 1
        self.proposal = self.asked = None
        self.error = ""
        self._late.start()
        self.changed.emit()

    def _has_choices(self, project: Project, choices: Sequence[ModelChoice]) -> None:
        if project is not self.project:
            return
        self.choices, self.looked = tuple(choices), True
        paths = {choice.path for choice in choices}
        kept = tuple(path for path in self.chosen if path in paths)
        self.chosen = kept if len(kept) >= 2 else tuple(self._ways.suggested(choices))
        self.choices_changed.emit()
        self._ask_again()

    def _look(self) -> None:
        project = self.project
        if project is None:
            return
        self._generation += 1
        work = partial(self._worked_out, project, self._generation, self._of_chosen())
        self._lane.do(work, partial(self._has_looked, self._generation))

    def _of_chosen(self) -> tuple[ModelChoice, ...]:
        known = {choice.path: choice for choice in self.choices}
        return tuple(known[path] for path in self.chosen if path in known)

    def _worked_out(
        self, project: Project, generation: int, chosen: tuple[ModelChoice, ...]
    ) -> Looked | None:
        """Return what comparing the chosen takes; called in a thread."""
        if generation != self._generation:
            return None
        groups = self._ways.groups(project, chosen)
        group = self.group or ("test" if groups.test or not groups.unseen else "unseen")
        cases = self.picked if group == "chosen" else getattr(groups, group)
        if len(chosen) < 2:
            return Looked(groups, group, None, None, None)
        models = {choice.name: choice.path for choice in chosen}
        asked = Asked(models, chosen[0].name, tuple(cases), dict(self.settings))
        try:
            return Looked(groups, group, asked, self._ways.propose(project, asked), None)
        except BackSplitError as error:
            return Looked(groups, group, asked, None, error)

    def _has_looked(self, generation: int, looked: Looked | None) -> None:
        if generation != self._generation or looked is None:
            return
        self.groups, self.group = looked.groups, looked.group
        self.asked, self.proposal = looked.asked, looked.proposal
        self.error = str(looked.error) if looked.error else ""
        self.changed.emit()

    def _has_begun(self, project: Project, asked: Asked, chain: str) -> None:
        if project is self.project:
            self.beginning, self.begun_as = False, asked
            self.changed.emit()
            self.begun.emit(chain)

    def _not_begun(self, project: Project, error: BaseException) -> None:
        if project is self.project:
            self.beginning = False
            self.changed.emit()
        self._desk.failed.emit(error)

    def _has_results(self, project: Project, newest: bool, results: Sequence[Listed]) -> None:
        if project is not self.project:
            return
        known = {each.id for each in self.results}
        fresh = bool(results) and results[0].id not in known
        self.results = tuple(results)
        self.results_changed.emit()
        if results and (newest or fresh):
            self.show(results[0].id)

    def _has_shown(self, project: Project, shown: Shown) -> None:
        if project is self.project and shown.id in (self._wanted, ""):
            self.shown, self._wanted = shown, shown.id
            self.shown_changed.emit()

    def _not_shown(self, name: str, error: BaseException) -> None:
        if name == self._wanted:
            self._wanted = self.shown.id if self.shown else ""
            self.results_changed.emit()
        self._desk.failed.emit(error)
