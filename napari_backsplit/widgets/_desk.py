"""What is open in the window: a project, a case, its structures, an engine. It draws nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from weakref import WeakSet, ref

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.project.schema import Structure
from napari_backsplit.backend.structures.annotation import Annotation
from napari_backsplit.backend.structures.consent import allows_elsewhere
from napari_backsplit.backend.structures.engines import Engine, EngineCancelled, make_engine
from napari_backsplit.backend.structures.history import AnyPrompt
from napari_backsplit.backend.structures.prompts import Bounds
from napari_backsplit.backend.structures.settings import EngineSettings, read_settings
from napari_backsplit.backend.structures.sheet import Outcome
from napari_backsplit.backend.structures.vocabulary import neutral
from napari_backsplit.widgets._driver import EngineDriver, Order
from napari_backsplit.widgets._engines import Engines
from napari_backsplit.widgets._opening import (
    Ahead,
    Standings,
    add_support,
    load_case,
    opened,
    reload,
    survey,
    with_masks,
)
from napari_backsplit.widgets._threads import Hop, Lane

SAVE_AFTER_MS = 4000
ASSUMED = "assumed"
"""The word in a case's notes where its orientation, or spacing, was not in the file."""
SHORT_S, LONG_S = 0.3, 3.0
"""What takes longer than these is shown to be going on, and for how long."""


class Desk(QObject):
    """The state of the window; panels show it and ask it.

    Nothing that takes long runs in the window's thread: `files` opens and writes, `scribe` keeps
    strokes and undo, and each engine has a thread of its own.

    Attributes
    ----------
    project : Project, optional
    annotation : Annotation, optional
        The case that is open.
    structure : str
        The one that prompts and strokes go to, "" for none.
    standings : dict
        Case -> structure -> how far it is.
    prepare : callable
        Called with a case that is being opened, in the thread that opens it.
    """

    project_changed = Signal()
    case_changed = Signal()
    structure_selected = Signal(str)
    structure_changed = Signal(str, object)
    standings_changed = Signal()
    engine_changed = Signal()
    busy_changed = Signal()
    told = Signal(str)
    failed = Signal(object)

    def __init__(
        self,
        make: Callable[[str, EngineSettings], Engine] = make_engine,
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.project: Project | None = None
        self.annotation: Annotation | None = None
        self.structure = ""
        self.channel = ""
        self.standings: Standings = {}
        self.opening = ""
        self.settings = EngineSettings()
        self.hop = Hop(self)
        self.engines = Engines(self.hop, make, self)
        self.files = Lane(self.hop, self.failed.emit, "files")
        self.scribe = Lane(self.hop, self.failed.emit, "scribe")
        self._generation = 0
        self._opening_project = self._closed = False
        self._accepting: set[tuple[str, str]] = set()
        self._heard: WeakSet[Annotation] = WeakSet()
        self._ahead = Ahead()
        self.prepare: Callable[[Annotation], object] = lambda annotation: None
        for signal in (self.engine_changed, self.busy_changed):
            self.engines.changed.connect(signal)
        self.engines.answered.connect(self._answered)
        self.engines.failed.connect(self._failed)
        self._idle = QTimer(self)
        self._idle.setSingleShot(True)
        self._idle.setInterval(SAVE_AFTER_MS)
        self._idle.timeout.connect(self.save)

    @property
    def closed(self) -> bool:
        """Whether the desk takes no more work."""
        return self._closed

    @property
    def driver(self) -> EngineDriver | None:
        """The engine in use."""
        return self.engines.driver

    # ------------------------------------------------------------------ project

    def open_project(self, make: Callable[[], Project], words: str = "opening the project") -> None:
        """Open what `make` returns; it takes the place of the present project once it is there."""
        if self._opening_project:
            self.told.emit("A project is being opened already.")
            return
        self._opening_project = True
        self._busy(words)
        self.files.do(lambda: opened(make()), self._has_project, self._could_not)

    def close_project(self) -> None:
        """Write what changed and let another writer in."""
        self.close_case()
        if self.project is not None and (dropped := self._dropped(self.project)):
            self.told.emit(f"{dropped} prompts without an answer were dropped with the project.")
        project, self.project = self.project, None
        self.standings, self.structure = {}, ""
        if project is not None:
            self._after_strokes(project.close)
            self.project_changed.emit()

    def add_images(self, paths: list[Path]) -> None:
        """Add a case for each image file or DICOM folder; errors are told one by one."""
        project = self.project
        if project is None:
            return
        channel = project.schema.channel_names[0]
        self._busy(f"adding {len(paths)} image{'s' * (len(paths) != 1)}")
        for path in paths:
            add = partial(project.add_case, {channel: path}, name=path.name)
            self.files.do(add, None, self._could_not)
        self.files.do(lambda: survey(project), self._has_images, self._could_not)

    def add_structure(self, text: str) -> None:
        """Add a support to the project, by a name of the vocabulary or free text.

        Raises
        ------
        InputError
            Nothing of the text can be used as a name.
        """
        project, annotation, name = self.project, self.annotation, neutral(text)
        if project is None:
            return
        if name in (s.name for s in project.schema.structures):
            self.select(name)
        else:
            add = partial(add_support, project, name, annotation)
            self.files.do(add, lambda _: self._has_structure(name))

    def structures(self) -> tuple[Structure, ...]:
        """Return the project's structures, supports first: those are what is clicked most."""
        if self.project is None:
            return ()
        return (*self.project.schema.supports, *self.project.schema.targets)

    def survey(self) -> None:
        """Look how far every structure of every case is."""
        if (project := self.project) is not None:
            self.files.do(lambda: survey(project), self._has_standings)

    # ------------------------------------------------------------------ case

    def open_case(self, case: str) -> None:
        """Leave the present case and open another."""
        project = self.project
        if project is None:
            return
        self.close_case()
        generation = self._generation
        self._busy(f"opening {case}")
        # One case has one annotation: what is still to be answered for it is answered there.
        known = self.engines.at_work_on(project, case)

        def work() -> Annotation | None:
            if generation != self._generation:  # another one was asked for since
                return None
            ready = known or self._ahead.take(project, case)
            return with_masks(ready) if ready else self._load(project, case)

        self.files.do(
            work, lambda annotation: self._has_case(annotation, generation), self._could_not
        )

    def close_case(self) -> None:
        """Leave the case: its masks are written; prompts on their way are filed when they come."""
        self.hop.flush()  # the last stroke
        self._generation += 1
        annotation, self.annotation = self.annotation, None
        if self.opening and not self._opening_project:
            self._busy("")
        if annotation is not None:
            self._after_strokes(annotation.save_all)
            self.case_changed.emit()

    def follow(self, names: set[str]) -> None:
        """Show again what another window changed: cases by name, "" for the project's own file."""
        project, annotation = self.project, self.annotation
        if project is None:
            return
        if "" in names:
            work = partial(reload, project, annotation)
            self.files.do(work, lambda _: self.project_changed.emit())
        for case in names & project.schema.cases.keys():
            project.changed.emit(case)
        if annotation is not None and ("" in names or annotation.case in names):
            generation, case = self._generation, annotation.case
            self.files.do(
                lambda: self._load(project, case),
                lambda annotation: self._has_case(annotation, generation),
                self._could_not,
            )
        self.survey()

    def look_ahead(self, case: str) -> None:
        """Read a case that is likely to be opened next, "" for none; unless another one is."""
        project, generation = self.project, self._generation

        def work() -> None:
            if project is not None and generation == self._generation:
                self._ahead.read(project, case, self._load)

        if project is not None and case and self.engines.at_work_on(project, case) is None:
            self.files.do(work)

    def next_undone(self) -> str | None:
        """Return the next case after the present one with an unfinished structure."""
        cases = list(self.standings)
        here = cases.index(self.annotation.case) + 1 if self.annotation else 0
        order = (*cases[here:], *cases[:here])
        return next((case for case in order if not self._is_done(case)), None)

    # ------------------------------------------------------------------ structures

    def select(self, structure: str) -> None:
        """Take a structure up; the one that is left is written."""
        if structure == self.structure:
            return
        self.save()
        self.structure = structure
        self.structure_selected.emit(structure)

    def save(self) -> None:
        """Write the mask of the present structure."""
        annotation, structure = self.annotation, self.structure
        if annotation is not None and structure and not annotation.project.read_only:
            self.files.do(lambda: annotation.save(structure))

    def ask(self, prompt: AnyPrompt) -> None:
        """Send a prompt for the present structure to the engine."""
        if self.annotation is None or self.driver is None:
            raise InputError("No case is open.", "Open a case from the list.")
        if not self.structure:
            raise InputError("No structure is chosen.", "Choose one in the list, or add one.")
        if self.annotation.locked(self.structure):
            raise InputError(f"{self.structure} is locked.", "Unlock it in the list first.")
        allows_elsewhere(self.annotation.project, self.driver.name, self.driver.settings)
        self.driver.ask(Order(self.annotation, self.structure, prompt, self.channel))

    def record(self, structure: str, bounds: Bounds, difference: NDArray[np.bool_]) -> None:
        """Keep a stroke that the layer, and so the mask, shows already."""
        if (annotation := self.annotation) is not None:
            self.scribe.do(lambda: annotation.edit(structure, bounds, difference, painted=True))

    def turn(self, way: str) -> None:
        """Undo or redo the last step of the present structure."""
        annotation, structure = self.annotation, self.structure
        if annotation is None or not structure:
            return
        waiting = self.engines.orders_for(annotation, structure)
        if way == "undo" and waiting:
            waiting[-1].stop.set()
            return
        step = annotation.undo if way == "undo" else annotation.redo
        nothing = f"Nothing to {way} in {structure}."
        self.scribe.do(lambda: step(structure), lambda did: did or self.told.emit(nothing))

    def clear(self) -> None:
        """Empty the present structure, as one step that can be undone."""
        annotation, structure = self.annotation, self.structure
        if annotation is not None and structure:
            self.scribe.do(lambda: annotation.clear(structure))

    def accept(self) -> None:
        """Finish the present structure and take up the next unfinished one of the case."""
        annotation, structure = self.annotation, self.structure
        if annotation is None or not structure:
            return
        if self.engines.orders_for(annotation, structure):
            self.told.emit(f"A prompt for {structure} is on its way: wait for it, or cancel it.")
            return
        what = annotation.case, structure
        self._accepting.add(what)
        self.structure_changed.emit(structure, None)
        self.scribe.do(
            lambda: annotation.accept(structure),
            lambda _: self._accepted(annotation, structure),
            lambda error: self._not_accepted(annotation, structure, error),
        )

    def can_change(self, structure: str) -> bool:
        """Whether prompts and strokes may change a structure of the open case."""
        annotation = self.annotation
        if annotation is None or annotation.project.read_only:
            return False
        if (annotation.case, structure) in self._accepting:
            return False
        return not annotation.locked(structure)

    def set_locked(self, structure: str, locked: bool) -> None:
        """Lock a structure or unlock it."""
        annotation = self.annotation
        if annotation is not None:
            change = annotation.lock if locked else annotation.unlock
            self.scribe.do(lambda: change(structure))

    # ------------------------------------------------------------------ engine

    def use_engine(self, name: str, settings: EngineSettings | None = None) -> None:
        """Choose an engine; one with other settings is made anew."""
        self.settings = settings or self.settings
        dropped = self.engines.use(name, self.settings)
        if dropped:
            self.told.emit(f"{dropped} prompts were dropped with the engine's old settings.")
        if self.annotation is not None:
            self._warm_up()

    def load_settings(self) -> None:
        """Read this user's settings; told where they do not fit."""
        try:
            self.settings = read_settings()
        except InputError as error:
            self.failed.emit(error)

    def cancel(self) -> None:
        """Drop every prompt that has no answer yet."""
        self.engines.cancel()

    def close(self) -> None:
        """Write what changed, end the engines, let another writer in. It does not wait."""
        self._idle.stop()
        self.close_project()
        self._closed = True
        self.engines.close()
        for lane in (self.scribe, self.files):
            lane.close()

    def busy(self) -> tuple[str, str, bool]:
        """Return what is going on, for how long, and whether that is worth showing.

        What is going on is "" for nothing.
        """
        orders = self.engines.orders()
        if not orders:
            return (f"{self.opening}…", "", True) if self.opening else ("", "", False)
        seconds = time.monotonic() - orders[0].since
        long = f" {seconds:.0f} s" if seconds >= LONG_S else ""
        more = f", {len(orders) - 1} waiting" if len(orders) > 1 else ""
        return f"{orders[0].structure}…", f"{long}{more}", seconds > SHORT_S

    # ------------------------------------------------------------------ inside

    def _is_done(self, case: str) -> bool:
        """Whether every support was judged and every lesion has a reference mask."""
        targets = self.project.schema.target_names if self.project else ()
        open_for = {
            name: ("none",) if name in targets else ("none", "editing")
            for name in self.standings[case]
        }
        return all(state not in open_for[name] for name, state in self.standings[case].items())

    def _load(self, project: Project, case: str) -> Annotation:
        annotation = load_case(project, case)
        self.prepare(annotation)
        return annotation

    def _busy(self, words: str) -> None:
        self.opening = words
        self.busy_changed.emit()

    def _after_strokes(self, work: Callable[[], object]) -> None:
        """Do some work with files once every stroke that was made is kept."""
        kept = self.scribe.do(lambda: None)
        self.files.do(lambda: (kept.result(), work()))

    def _has_structure(self, name: str) -> None:
        self.project_changed.emit()
        self.select(name)
        self.survey()

    def _dropped(self, project: Project) -> int:
        """Drop the prompts of a project that is closed; return how many."""
        orders = [o for o in self.engines.orders() if o.annotation.project is project]
        for order in orders:
            order.stop.set()
        return len(orders)

    def _has_project(self, found: tuple[Project, Standings]) -> None:
        self._opening_project = False
        if self._closed:
            found[0].close()
            return
        self.close_project()
        self.project, self.standings = found
        self._busy("")
        self.project_changed.emit()
        if self.project.notice:
            self.told.emit(self.project.notice)
        if self.standings:
            self.open_case(self.next_undone() or next(iter(self.standings)))

    def _has_images(self, standings: Standings) -> None:
        self._has_standings(standings)
        self.project_changed.emit()

    def _has_standings(self, standings: Standings) -> None:
        first = not self.standings and standings
        self.standings = standings
        self._busy("")
        self.standings_changed.emit()
        if first and self.annotation is None:
            self.open_case(next(iter(standings)))

    def _has_case(self, annotation: Annotation | None, generation: int) -> None:
        if annotation is None or generation != self._generation:
            return
        if self.project is None or annotation.project is not self.project:
            return
        self.annotation = annotation
        self.channel = self.channel if self.channel in annotation.channels() else ""
        self._hear(annotation)
        self._note_standings(annotation)
        names = [s.name for s in self.structures()]
        if self.structure not in names:
            undone = [n for n in names if annotation.standing(n) != "accepted"]
            self.structure = next(iter(undone or names), "")
        self._busy("")
        self.case_changed.emit()
        self.structure_selected.emit(self.structure)
        assumed = [note for note in self.project.case(annotation.case).notes if ASSUMED in note]
        if assumed:
            self.told.emit(f"Check left and right. {' '.join(assumed)}")
        for error in annotation.unreadable.values():
            self.failed.emit(error)
        self._warm_up()

    def _hear(self, annotation: Annotation) -> None:
        if annotation not in self._heard:
            self._heard.add(annotation)
            hop, known = self.hop.call, ref(annotation)  # it holds on to what it tells

            def moved(name: str, bounds: Bounds | None) -> None:
                if (annotation := known()) is not None:
                    hop(lambda: self._moved(annotation, name, bounds))

            annotation.changed.connect(moved)

    def _note_standings(self, annotation: Annotation) -> None:
        """Note how far a case is; after a crash its journal may be ahead of its files."""
        now = {name: annotation.standing(name) for name in annotation.structures()}
        if self.standings.get(annotation.case, now) != now:
            self.standings[annotation.case] = now
            self.standings_changed.emit()

    def _moved(self, annotation: Annotation, structure: str, bounds: Bounds | None) -> None:
        if self._closed:
            return
        state = annotation.standing(structure)
        case = self.standings.get(annotation.case)
        if case is not None and case.get(structure) != state:
            case[structure] = state
            self.standings_changed.emit()
        if annotation is self.annotation:
            self._idle.start()
            self.structure_changed.emit(structure, bounds)
        elif bounds is not None:  # an answer that came late: its case was left
            self.files.do(lambda: annotation.save(structure))

    def _accepted(self, annotation: Annotation, structure: str) -> None:
        """Go on to the next structure, where the person has not gone on already."""
        self._accepting.discard((annotation.case, structure))
        self.structure_changed.emit(structure, None)
        if annotation is not self.annotation or structure != self.structure:
            return
        rest = [s.name for s in self.structures() if annotation.standing(s.name) != "accepted"]
        supports = [n for n in rest if n in annotation.project.schema.support_names]
        if supports:
            self.select(supports[0])
        words = "Take up the next structure." if supports else "All supports are done: next case."
        self.told.emit(f"{structure} is accepted and locked. {words}")

    def _not_accepted(self, annotation: Annotation, structure: str, error: BaseException) -> None:
        self._accepting.discard((annotation.case, structure))
        self.structure_changed.emit(structure, None)
        self.failed.emit(error)

    def _warm_up(self) -> None:
        driver, annotation = self.driver, self.annotation
        if driver is None or annotation is None or driver.light not in ("off", "failed"):
            return
        try:
            allows_elsewhere(annotation.project, driver.name, driver.settings)
        except BackSplitError as error:
            self.failed.emit(error)
            return
        driver.warm_up()

    def _answered(self, order: Order, outcome: Outcome) -> None:
        elsewhere = order.annotation is not self.annotation or order.structure != self.structure
        where = f"{order.structure} of {order.annotation.case}: " if elsewhere else ""
        self.told.emit(f"{where}{outcome.warning}" if outcome.warning or where else "")

    def _failed(self, order: Order | None, error: BaseException) -> None:
        if isinstance(error, EngineCancelled):
            self.told.emit("The prompt was cancelled; nothing changed.")
        else:
            self.failed.emit(error)

    def _could_not(self, error: BaseException) -> None:
        self._opening_project = False
        self._busy("")
        self.failed.emit(error)
