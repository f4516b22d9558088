"""Model, device and server of nnInteractive: a form, a connection test, a download on request."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QRadioButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_backsplit.backend.structures.settings import EngineSettings, write_settings
from napari_backsplit.widgets._desk import Desk
from napari_backsplit.widgets._layout import in_row
from napari_backsplit.widgets._threads import Lane

DEVICES = ("auto", "cpu", "cuda", "mps")
FREE = "The newest one downloaded"


class EngineDialog(QDialog):
    """Asks where nnInteractive runs, and with which model.

    Nothing is sent, and nothing downloaded, before its button is pressed.
    """

    def __init__(self, desk: Desk, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("nnInteractive")
        self._desk = desk
        self._stop = threading.Event()
        self._lane = Lane(desk.hop, desk.failed.emit, "network")
        column = QVBoxLayout(self)
        self.here = QRadioButton("Run on this machine")
        self.elsewhere = QRadioButton("Use a server elsewhere")
        column.addWidget(self.here)
        column.addWidget(self._build_here())
        column.addWidget(self.elsewhere)
        column.addWidget(self._build_elsewhere())
        self.notify = QCheckBox("Tell me on the desktop when a training ends")
        self.notify.setToolTip(EngineSettings.model_fields["notify"].description)
        column.addWidget(self.notify)
        self.said = QLabel()
        self.said.setWordWrap(True)
        column.addWidget(self.said)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        buttons.accepted.connect(self._keep)
        buttons.rejected.connect(self.reject)
        column.addWidget(buttons)
        self.resize(520, self.sizeHint().height())
        self.set_value(desk.settings)
        self.here.toggled.connect(self._show)
        self._show()

    def value(self) -> EngineSettings:
        """Return what is entered."""
        device = self.device.currentText().strip()
        return EngineSettings(
            where="here" if self.here.isChecked() else "elsewhere",
            model_folder=self.folder.text().strip(),
            device=device if device else "auto",
            threads=self.threads.value(),
            training_waits=self.waits.isChecked(),
            notify=self.notify.isChecked(),
            url=self.url.text().strip(),
            key=self.key.text().strip(),
            insecure=self.insecure.isChecked(),
        )

    def set_value(self, settings: EngineSettings) -> None:
        """Show other settings."""
        (self.here if settings.where == "here" else self.elsewhere).setChecked(True)
        self.folder.setText(settings.model_folder)
        self.device.setCurrentText(settings.device)
        self.threads.setValue(settings.threads)
        self.waits.setChecked(settings.training_waits)
        self.notify.setChecked(settings.notify)
        self.url.setText(settings.url)
        self.key.setText(settings.key)
        self.insecure.setChecked(settings.insecure)

    # ------------------------------------------------------------------ build

    def _build_here(self) -> QWidget:
        self.folder = QLineEdit()
        self.folder.setPlaceholderText(FREE)
        choose = QPushButton("Choose…")
        choose.clicked.connect(self._choose)
        self.download = QPushButton("Download…")
        self.download.setToolTip("Shows size and licence first")
        self.download.clicked.connect(self._ask_offers)
        self.device = QComboBox()
        self.device.setEditable(True)
        self.device.addItems(DEVICES)
        self.threads = QSpinBox()
        self.threads.setRange(0, 256)
        self.threads.setSpecialValueText("all but one")
        self.here_part, form = _form()
        form.addRow("Model folder", in_row(self.folder, choose, self.download))
        form.addRow("Device", self.device)
        form.addRow("CPU threads", self.threads)
        self.waits = QCheckBox("Training waits for my clicks")
        self.waits.setToolTip(EngineSettings.model_fields["training_waits"].description)
        form.addRow("", self.waits)
        _help(form, {"Device": "device", "CPU threads": "threads"})
        return self.here_part

    def _build_elsewhere(self) -> QWidget:
        self.url = QLineEdit()
        self.url.setPlaceholderText("https://host:1527")
        self.key = QLineEdit()
        self.key.setEchoMode(QLineEdit.EchoMode.Password)
        self.insecure = QCheckBox("Allow it without HTTPS: images go unprotected")
        self.test = QPushButton("Test connection")
        self.test.clicked.connect(self._test)
        self.elsewhere_part, form = _form()
        form.addRow("Address", self.url)
        form.addRow("Key", self.key)
        form.addRow("", self.insecure)
        form.addRow("", self.test)
        return self.elsewhere_part

    def _show(self) -> None:
        self.here_part.setEnabled(self.here.isChecked())
        self.elsewhere_part.setEnabled(self.elsewhere.isChecked())

    # ------------------------------------------------------------------ act

    def _keep(self) -> None:
        try:
            write_settings(self.value())
        except (ValueError, OSError) as error:
            self.said.setText(f"▲ {error}")
            return
        self.accept()

    def _choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder of an nnInteractive model")
        if folder:
            self.folder.setText(folder)

    def _test(self) -> None:
        from napari_backsplit.backend.structures.connection import test_connection

        try:
            settings = self.value()
        except ValueError as error:
            self._say(self.test, f"▲ {error}")
            return
        self._wait(self.test, "Connecting…")
        self._lane.do(
            partial(test_connection, settings),
            self._reached,
            lambda error: self._say(self.test, f"▲ {error}"),
        )

    def _reached(self, reached: Any) -> None:
        version, licence = reached.version, reached.licence
        self._say(self.test, f"● Connected: nnInteractive {version}, licence {licence}")

    def _ask_offers(self) -> None:
        from napari_backsplit.backend.structures.model_store import offered

        self._wait(self.download, "Asking what is offered…")
        self._lane.do(
            partial(offered, self._stop.is_set),
            self._offer,
            lambda error: self._say(self.download, f"▲ {error}"),
        )

    def _offer(self, offers: tuple[Any, ...]) -> None:
        """Show size and licence; download only what a person agrees to."""
        self._say(self.download, "")
        if not offers:
            self._say(self.download, "▲ Nothing is offered.")
            return
        offer = offers[0]
        question = (
            f"Download {offer.title}, {offer.size / 1e6:.0f} MB?\n\nLicence: {offer.licence}\n"
            "Masks that you make with it record this licence."
        )
        answer = QMessageBox.question(self, "Download", question)
        if answer == QMessageBox.StandardButton.Yes:
            self._fetch(offer)

    def _fetch(self, offer: Any) -> None:
        from napari_backsplit.backend.structures.model_store import download

        self._wait(self.download, "Downloading…")
        tell = lambda words: self._desk.hop.call(lambda: self.said.setText(words))  # noqa: E731
        self._lane.do(
            partial(download, offer, tell, self._stop.is_set),
            self._fetched,
            lambda error: self._say(self.download, f"▲ {error}"),
        )

    def _fetched(self, folder: Any) -> None:
        self.folder.setText(str(folder))
        self._say(self.download, "● Downloaded and checked.")

    def _wait(self, button: QPushButton, words: str) -> None:
        button.setEnabled(False)
        self.said.setText(words)

    def _say(self, button: QPushButton, words: str) -> None:
        button.setEnabled(True)
        self.said.setText(words)
        self.adjustSize()

    def done(self, result: int) -> None:
        """End what is on its way (called by Qt)."""
        self._stop.set()
        self._lane.close(drop=True)
        super().done(result)


def _form() -> tuple[QWidget, QFormLayout]:
    part = QWidget()
    form = QFormLayout(part)
    form.setContentsMargins(20, 0, 0, 8)
    return part, form


def _help(form: QFormLayout, names: dict[str, str]) -> None:
    """Take tool tips from the settings' own descriptions."""
    for row in range(form.rowCount()):
        label = form.itemAt(row, QFormLayout.ItemRole.LabelRole)
        name = names.get(label.widget().text()) if label else None
        if name:
            tip = EngineSettings.model_fields[name].description
            form.itemAt(row, QFormLayout.ItemRole.FieldRole).widget().setToolTip(tip)
