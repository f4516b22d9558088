"""What a new project is about: a small form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from platformdirs import user_documents_path
from qtpy.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QWidget,
)

from napari_backsplit.backend.errors import BackSplitError, InputError
from napari_backsplit.backend.project import Project, Structure
from napari_backsplit.backend.structures.vocabulary import neutral, structure_named
from napari_backsplit.widgets._layout import in_row
from napari_backsplit.widgets._starting import IMAGES


class NewProject(QDialog):
    """Asks for a folder, the channel, the lesion, the supports and the images."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("New project")
        self.folder = QLineEdit(str(user_documents_path() / "BackSplit" / "my-project"))
        self.channel = QComboBox()
        self.channel.setEditable(True)
        self.channel.addItems(["CT", "MR", "PET"])
        self.lesion = QLineEdit("lesion")
        self.supports = QLineEdit("kidney")
        self.supports.setToolTip("Organs and tissues around the lesion, with commas between")
        self.files: list[Path] = []
        self.chosen = QLabel("none yet")
        form = QFormLayout(self)
        form.addRow("Folder", _with_button(self.folder, "Choose…", self._choose_folder))
        form.addRow("Images show", self.channel)
        form.addRow("Lesion", self.lesion)
        form.addRow("Support structures", self.supports)
        form.addRow("Images", _with_button(self.chosen, "Choose…", self._choose_files))
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel
        )
        buttons.accepted.connect(self._check)
        buttons.rejected.connect(self.reject)
        self.said = QLabel()
        self.said.setWordWrap(True)
        form.addRow(self.said)
        form.addRow(buttons)
        self.resize(480, self.sizeHint().height())

    def make(self) -> Project:
        """Make the project of what was entered, with a case for each image.

        Raises
        ------
        InputError, ProjectError
            A name or an image cannot be used, or the folder is not empty.
        """
        target, supports = self._structures()
        folder = Path(self.folder.text()).expanduser()
        channel = self.channel.currentText().strip()
        project = Project.create(folder, folder.name, [channel], [target], supports)
        try:
            for file in self.files:
                project.add_case({channel: file}, name=file.name)
        except BaseException:
            project.close()
            raise
        return project

    def _structures(self) -> tuple[str, list[Structure]]:
        """Return the lesion's name and the supports."""
        target, supports = neutral(self.lesion.text()), list[Structure]()
        for text in filter(str.strip, re.split("[,;]", self.supports.text())):
            taken = [support.colour for support in supports]
            supports.append(structure_named(neutral(text), taken))
        names = [target, *(support.name for support in supports)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise InputError(f"{twice} is there twice.", "Give each structure a name of its own.")
        return target, supports

    def _check(self) -> None:
        """Close the form where it can be used; else say what to change."""
        try:
            self._structures()
            folder = self.folder.text().strip()
            if not folder or not self.channel.currentText().strip():
                raise InputError("The folder or the channel has no name.", "Fill it in.")
            place = Path(folder).expanduser()
            if place.exists() and (not place.is_dir() or any(place.iterdir())):
                raise InputError(f"{place} is not empty.", "Choose a new folder.")
        except (BackSplitError, OSError) as error:
            self.said.setText(f"▲ {error}")
        else:
            self.accept()

    def _choose_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "An empty folder for the project")
        if folder:
            self.folder.setText(folder)

    def _choose_files(self) -> None:
        files, _ = QFileDialog.getOpenFileNames(self, "Images", filter=IMAGES)
        self.files = [Path(file) for file in files]
        self.chosen.setText(f"{len(files)} chosen" if files else "none yet")


def _with_button(left: QWidget, title: str, action: Any) -> QWidget:
    button = QPushButton(title)
    button.clicked.connect(action)
    return in_row(left, button)
