"""Where a training runs: this machine, or others behind a Dask scheduler, with consent once."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QMessageBox, QRadioButton, QVBoxLayout, QWidget

from napari_backsplit.backend.cluster_settings import (
    ClusterSettings,
    read_settings,
    write_settings,
)
from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.structures.consent import give_consent, has_consent
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._forms import SpecForm
from napari_backsplit.widgets._layout import in_row, push_button
from napari_backsplit.widgets._threads import Lane

FIELDS = ("address", "tls_ca", "tls_cert", "tls_key", "allow_unencrypted", "path_map")
NEEDED = "The project's folder has to lie on a disk that those machines share."
NOT_YET = f"Trainings still run on this machine, until “Use it” is pressed. {NEEDED}"


class WhereBox(QWidget):
    """Chooses this machine, or a Dask scheduler and how far it is trusted.

    Parameters
    ----------
    desk : Desk
    test : callable
        Takes the settings and says in words what answers there; called in a thread.

    Attributes
    ----------
    changed : Signal
        Another place was chosen.
    """

    changed = Signal()

    def __init__(self, desk: Desk, test: Callable[[ClusterSettings], str]) -> None:
        super().__init__()
        self._desk, self._test = desk, test
        self._lane = Lane(desk.hop, desk.failed.emit, "cluster")
        self.here = QRadioButton("This machine")
        self.elsewhere = QRadioButton("Other machines, through Dask")
        self.form: SpecForm[ClusterSettings] = SpecForm(ClusterSettings, FIELDS, self._known())
        self.try_it = push_button("Test the connection", "Ask the scheduler who works for it")
        self.use = push_button("Use it", "Keep these settings for this user, and run there")
        self.said = QLabel(NOT_YET)
        self.said.setWordWrap(True)
        self.part = QWidget()
        inside = QVBoxLayout(self.part)
        inside.setContentsMargins(20, 0, 0, 0)
        for widget in (self.form, in_row(self.try_it, self.use), self.said):
            inside.addWidget(widget)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        for widget in (self.here, self.elsewhere, self.part):
            column.addWidget(widget)
        self.here.setChecked(True)
        self.address = ""
        self.here.toggled.connect(self._toggled)
        self.form.value_changed.connect(self._edited)
        self.try_it.clicked.connect(self.test)
        self.use.clicked.connect(self.take)
        self._edited()
        self.part.hide()

    def forget(self) -> None:
        """Choose this machine."""
        self.here.setChecked(True)

    def test(self) -> None:
        """Say what answers at the address."""
        self.try_it.setEnabled(False)
        self.said.setText("Connecting…")
        settings = self.form.spec()
        self._lane.do(
            lambda: self._test(settings),
            lambda words: self._say(f"● {words}"),
            lambda error: self._say(f"▲ {error}"),
        )

    def take(self) -> None:
        """Run at the address from now on, if the person agrees, once for each project."""
        project, settings = self._desk.project, self.form.spec()
        if project is None or not self._agreed(project, settings.address):
            return
        try:
            write_settings(settings)
        except OSError as error:
            self._say(f"▲ {error}")
            return
        self.address = settings.address
        self._say(f"● Runs at {self.address}. {NEEDED}")
        self.changed.emit()

    def close_all(self) -> None:
        """Take no more work."""
        self._lane.close(drop=True)

    # ------------------------------------------------------------------ inside

    def _known(self) -> dict[str, object]:
        try:
            return dict(read_settings())
        except BackSplitError as error:
            self._desk.failed.emit(error)
            return {}

    def _toggled(self, here: bool) -> None:
        self.part.setVisible(not here)
        self.said.setText(NOT_YET)
        if here and self.address:
            self.address = ""
            self.changed.emit()

    def _edited(self) -> None:
        usable = self.form.valid and bool(self.form.editor_value("address"))
        for button in (self.try_it, self.use):
            button.setEnabled(usable)

    def _agreed(self, project: Project, address: str) -> bool:
        """Ask whether the project's images may be read by other machines; once a project."""
        if has_consent(project, address):
            return True
        question = (
            f"The images and masks of this project will be read by the machines behind {address}."
            "\n\nIs that allowed? It is recorded in the project, with your name."
        )
        answer = QMessageBox.question(self, "Run on other machines", question)
        if answer != QMessageBox.StandardButton.Yes:
            return False
        try:
            give_consent(project, address)
        except BackSplitError as error:
            self._desk.failed.emit(error)
            return False
        return True

    def _say(self, words: str) -> None:
        self._edited()
        self.said.setText(words)
