"""The dock: the project, the four steps, and the panel of the step."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error
from qtpy.QtCore import QSize
from qtpy.QtWidgets import (
    QApplication,
    QButtonGroup,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.consent import ConsentMissing, give_consent, server_of
from napari_backsplit.backend.structures.engines import EngineState, engine_states
from napari_backsplit.backend.structures.settings import EngineSettings
from napari_backsplit.widgets._case_layers import CaseLayers
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._following import Following
from napari_backsplit.widgets._keys import show_keys
from napari_backsplit.widgets._layout import bold, scrolling, short
from napari_backsplit.widgets._leaving import abandon
from napari_backsplit.widgets._message import MessageBar
from napari_backsplit.widgets._opening import warm_up, warm_up_later
from napari_backsplit.widgets._starting import (
    IMAGES,
    images_in,
    open_sample,
    project_from_layer,
    sample_folder,
    title_of,
)
from napari_backsplit.widgets._supervising import Supervising
from napari_backsplit.widgets._telling import Announcer
from napari_backsplit.widgets._threads import Lane
from napari_backsplit.widgets._tools import Tools
from napari_backsplit.widgets._welcome import Welcome
from napari_backsplit.widgets.structures import StructuresPanel

if TYPE_CHECKING:
    import napari

    from napari_backsplit.widgets.comparison import ComparisonPanel
    from napari_backsplit.widgets.review import ReviewPanel
    from napari_backsplit.widgets.training import TrainingPanel

STEPS = ("Structures", "Review", "Train", "Compare")
REVIEW, TRAIN, COMPARE = 1, 2, 3
_WIDE = (QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)


class BackSplitWidget(QWidget):  # type: ignore[misc]
    """Everything of BackSplit in one dock.

    Parameters
    ----------
    napari_viewer : napari.Viewer
    desk : Desk, optional
        The state behind it; made here by default.
    """

    def __init__(self, napari_viewer: napari.Viewer, desk: Desk | None = None) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self.desk = desk or Desk()
        self.layers = CaseLayers(napari_viewer, self.desk)
        self.tools = Tools(napari_viewer, self.desk, self.layers)
        self.panel = StructuresPanel(napari_viewer, self.desk, self.tools)
        self._review: ReviewPanel | None = None
        self._training: TrainingPanel | None = None
        self._comparison: ComparisonPanel | None = None
        self.following = Following(self.desk)
        self.announcer = Announcer(self.desk)
        self.supervising = Supervising(self.desk)
        self.setMinimumWidth(360)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        column = QVBoxLayout(self)
        column.setContentsMargins(6, 6, 6, 6)
        column.addLayout(self._build_header())
        column.addLayout(self._build_steps())
        column.addWidget(self._build_pages(), 1)
        self.message = MessageBar()
        self.said, self.remedy = self.message.said, self.message.remedy
        column.addWidget(self.message)
        column.addWidget(QLabel(NOTICE, enabled=False))
        self._connect()
        self._closed = False
        QApplication.instance().aboutToQuit.connect(self.close_all)
        # napari does not close the dock that it deletes with its window.
        self.destroyed.connect(partial(abandon, self.desk))
        self.desk.files.do(warm_up, lambda _: self._warm_up_later())
        self.desk.load_settings()
        self.look_for_engines()

    # ------------------------------------------------------------------ build

    def _build_header(self) -> QHBoxLayout:
        self.title = bold("No project")
        self.title.setMinimumWidth(40)
        self.menu = QPushButton("Project")
        menu = QMenu(self.menu)
        menu.addAction("Open…", self.choose_project)
        menu.addAction("New…", self.new_project)
        menu.addAction("Try the sample", self.open_sample)
        menu.addSeparator()
        self.add_images = menu.addAction("Add images…", self.choose_images)
        self.add_folder = menu.addAction("Add a DICOM folder…", self.choose_folder)
        self.adopt = menu.addAction("Lesion from a prediction…", self.adopt_prediction)
        self.close_action = menu.addAction("Close the project", self.desk.close_project)
        self.menu.setMenu(menu)
        row = QHBoxLayout()
        row.addWidget(self.title, 1)
        row.addWidget(self.menu)
        return row

    def _build_steps(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(2)
        self.steps = QButtonGroup(self)
        for number, step in enumerate(STEPS):
            button = QPushButton(f"{number + 1} {step}")
            button.setCheckable(True)
            button.setSizePolicy(*_WIDE)
            self.steps.addButton(button, number)
            row.addWidget(button)
        self.steps.button(0).setChecked(True)
        return row

    def _build_pages(self) -> QStackedWidget:
        self.pages = QStackedWidget()
        self.pages.addWidget(scrolling(self._build_welcome()))
        self.pages.addWidget(self.panel)
        for _ in (REVIEW, TRAIN, COMPARE):
            self.pages.addWidget(QWidget())  # made once it is asked for
        return self.pages

    def _build_welcome(self) -> QWidget:
        ways = {
            "Try the sample": self.open_sample,
            "Open a project…": self.choose_project,
            "New project…": self.new_project,
        }
        page = Welcome(ways)
        self.start = page.start
        self.start.clicked.connect(self.start_with_layer)
        return page

    def _connect(self) -> None:
        self.steps.idClicked.connect(lambda number: self._show_page())
        self.desk.project_changed.connect(self._show_project)
        self.desk.case_changed.connect(self._show_case)
        self.desk.failed.connect(self.show_error)
        self.desk.told.connect(self.message.say)
        self.following.freed.connect(self._offer_to_write)
        self.panel.settings.clicked.connect(self.choose_settings)
        self.panel.keys.clicked.connect(self.show_keys)
        for event in (self.viewer.layers.events.inserted, self.viewer.layers.events.removed):
            event.connect(self._show_start)
        self._show_project()

    def sizeHint(self) -> QSize:
        """Return the size the dock opens with (asked by Qt)."""
        return QSize(400, 640)

    # ------------------------------------------------------------------ what is shown

    def _show_project(self) -> None:
        self.message.hide()
        project = self.desk.project
        self.title.setText(title_of(project) if project else "No project")
        self.title.setToolTip(str(project.folder) if project else "")
        for action in (self.add_images, self.add_folder, self.adopt, self.close_action):
            action.setEnabled(project is not None)
        self._show_start()
        self._show_page()

    def _show_case(self) -> None:
        """Hide what was said of a case that is left; what goes wrong in leaving it stays."""
        if self.desk.annotation is None:
            self.message.hide()

    def _show_page(self) -> None:
        step = self.steps.checkedId()
        empty = self.desk.project is None
        shown = {REVIEW: "review", TRAIN: "training", COMPARE: "comparison"}.get(step, "")
        for name in ("review", "training", "comparison"):  # one leaves before another comes
            panel = getattr(self, f"_{name}")
            if panel is not None and (empty or name != shown):
                panel.set_active(False)
        if shown and not empty:
            getattr(self, shown).set_active(True)
        self.tools.active = step <= REVIEW
        self.pages.setCurrentIndex(0 if empty else step + 1)

    def _show_start(self, event: Any = None) -> None:
        images = images_in(self.viewer)
        self.start.setVisible(bool(images) and self.desk.project is None)
        if images:
            self.start.setText(f"Start a project with “{short(images[-1].name)}”")

    @property
    def review(self) -> ReviewPanel:
        """The panel of the review; made when it is first asked for, as it loads much."""
        if self._review is None:
            from napari_backsplit.widgets.review import ReviewPanel

            self._review = ReviewPanel(self.viewer, self.desk, self.tools)
            self._set_page(REVIEW, self._review)
        return self._review

    @property
    def training(self) -> TrainingPanel:
        """The panel of training; made when it is first asked for, as it loads much."""
        if self._training is None:
            from napari_backsplit.widgets.training import TrainingPanel

            self._training = TrainingPanel(self.viewer, self.desk)
            self._training.step_wanted.connect(self.show_step)
            self._set_page(TRAIN, self._training)
        return self._training

    @property
    def comparison(self) -> ComparisonPanel:
        """The panel of the comparison; made when it is first asked for, as it loads much."""
        if self._comparison is None:
            from napari_backsplit.widgets.comparison import ComparisonPanel

            self._comparison = ComparisonPanel(self.viewer, self.desk, self.tools)
            self._comparison.step_wanted.connect(self.show_step)
            self._set_page(COMPARE, self._comparison)
        return self._comparison

    def _set_page(self, step: int, panel: QWidget) -> None:
        page = self.pages.widget(step + 1)
        self.pages.insertWidget(step + 1, panel)
        self.pages.removeWidget(page)
        page.deleteLater()

    def show_step(self, step: int) -> None:
        """Show another step."""
        self.steps.button(step).setChecked(True)
        self._show_page()

    def show_error(self, error: BaseException) -> None:
        """Say what went wrong, with the remedy as a button where there is one."""
        if not isinstance(error, BackSplitError):
            show_error(f"{type(error).__name__}: {error}")
        self.message.keep(f"▲ {error}")
        project, driver = self.desk.project, self.desk.driver
        if isinstance(error, ConsentMissing) and project is not None and driver is not None:
            host = server_of(driver.name, driver.settings)
            self.message.offer("Agree for this project", partial(self.agree, project, host))

    def show_keys(self) -> None:
        """Show what the keys do, in a window of its own that may stay."""
        self.sheet = show_keys(self)

    # ------------------------------------------------------------------ projects

    def open_sample(self) -> None:
        """Open the sample project; it is made the first time."""
        if not self._is_open(sample_folder()):
            self.desk.open_project(open_sample, "opening the sample")

    def choose_project(self) -> None:
        """Ask for a project folder and open it."""
        folder = QFileDialog.getExistingDirectory(self, "Open a project")
        if folder:
            self.open_project(Path(folder))

    def open_project(self, folder: Path) -> None:
        """Open a project; where another window writes in it, to read only."""
        if not self._is_open(folder):
            self.desk.open_project(lambda: Project.open(folder, fall_back=True))

    def _offer_to_write(self) -> None:
        """Offer to write in a project that another window has closed."""
        project = self.desk.project
        if project is not None:
            self.message.say("No other window writes in this project any more.")
            folder = project.folder
            again = partial(Project.open, folder, fall_back=True)
            self.message.offer("Open it to write", lambda: self.desk.open_project(again))

    def _is_open(self, folder: Path) -> bool:
        return self.desk.project is not None and self.desk.project.folder == folder.resolve()

    def new_project(self) -> None:
        """Ask what a new project is about, and make it."""
        from napari_backsplit.widgets._new_project import NewProject

        dialog = NewProject(self)
        if dialog.exec():
            self.desk.open_project(dialog.make, "making the project")

    def start_with_layer(self) -> None:
        """Make a project of the image that was opened last, and show it in its place."""
        images = images_in(self.viewer)
        if images:
            layer = images[-1]
            layer.visible = False
            self.desk.open_project(lambda: project_from_layer(layer), "making the project")

    def choose_images(self) -> None:
        """Ask for images and add them as cases."""
        files, _ = QFileDialog.getOpenFileNames(self, "Add images", filter=IMAGES)
        if files:
            self.desk.add_images([Path(file) for file in files])

    def choose_folder(self) -> None:
        """Ask for the folder of a DICOM series and add it as a case."""
        folder = QFileDialog.getExistingDirectory(self, "Add a DICOM folder")
        if folder:
            self.desk.add_images([Path(folder)])

    def adopt_prediction(self) -> None:
        """Offer the predictions of the open case as the lesion's mask."""
        from napari_backsplit.widgets._adopting import adopt

        adopt(self, self.desk)

    # ------------------------------------------------------------------ engines

    def _warm_up_later(self) -> None:
        lane = Lane(self.desk.hop, self.desk.failed.emit, "warm-up")
        lane.do(warm_up_later)
        lane.close()

    def look_for_engines(self) -> None:
        """Look which engines can be used, away from the window's thread."""
        settings = self.desk.settings
        self.desk.files.do(lambda: engine_states(settings), self._has_engines)

    def _has_engines(self, states: tuple[EngineState, ...]) -> None:
        self.panel.show_engines(states)
        asked = self.desk.settings.model_folder or self.desk.settings.is_elsewhere
        for state in states if asked else ():
            if state.state == "needs":
                self.message.keep(f"▲ {state.title}: {state.reason} {state.remedy}")
        ready = [state.name for state in states if state.state == "ready"]
        present = self.desk.driver.name if self.desk.driver else ""
        if ready:
            self.desk.use_engine(present if present in ready else ready[0], self.desk.settings)

    def choose_settings(self) -> None:
        """Ask for model, device and server."""
        from napari_backsplit.widgets._engine_settings import EngineDialog

        dialog = EngineDialog(self.desk, self)
        if dialog.exec():
            self.take_settings(dialog.value())

    def take_settings(self, settings: EngineSettings) -> None:
        """Use other settings from now on."""
        self.desk.settings = settings
        self.look_for_engines()

    def agree(self, project: Project, host: str) -> None:
        """Record that the images of a project may be sent to a server."""
        try:
            give_consent(project, host)
        except BackSplitError as error:
            self.show_error(error)
        else:
            self.message.say(
                f"Recorded: images of this project may be sent to {host}. Click again."
            )

    def close_all(self) -> None:
        """Write what changed and end the engines; the dock is of no use after it."""
        if self._closed:
            return
        self._closed = True
        self.tools.close()
        for panel in (self._review, self._training, self._comparison):
            if panel is not None:
                panel.close_all()
        self.announcer.close_all()
        for part in (self.following, self.supervising, self.layers, self.desk):
            part.close()

    def closeEvent(self, event: Any) -> None:
        """Leave nothing running behind (called by Qt)."""
        self.close_all()
        super().closeEvent(event)
