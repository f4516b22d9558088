"""Which model to start from: one of the project's, or a folder or zip that is chosen or dropped."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QComboBox, QFileDialog, QLabel, QMenu, QWidget

from napari_backsplit.widgets._fields import settle
from napari_backsplit.widgets._improving import Improving
from napari_backsplit.widgets._layout import Wheel, fill_column, in_row, narrow, push_button, short

LETTERS = 24
NONE = (
    "No binary lesion model yet. Choose the folder or the zip of one, drop it here, or train one "
    "from scratch."
)


class BaselineBox(QWidget):
    """The models to start from.

    Parameters
    ----------
    improving : Improving
        It knows them, and is told which one.

    Attributes
    ----------
    scratch_wanted : Signal
        There is none: one is to be trained.
    """

    scratch_wanted = Signal()

    def __init__(self, improving: Improving) -> None:
        super().__init__()
        self._improving = improving
        self.choice = narrow(QComboBox())
        self.choice.setAccessibleName("Baseline")
        self.choice.setToolTip("The binary lesion model that is fine-tuned; it stays as it is")
        self.choice.setPlaceholderText("none chosen")
        self.choice.installEventFilter(Wheel(self))
        settle(self.choice)
        self.open = push_button("Open", "A model that is not in the list; or drop it here")
        menu = QMenu(self.open)
        menu.addAction("Results folder of nnU-Net…", self.choose_folder)
        menu.addAction("Zip that nnU-Net exported…", self.choose_zip)
        self.open.setMenu(menu)
        self.none = QLabel(NONE)
        self.none.setWordWrap(True)
        self.folder = push_button("Choose a folder…", "A results folder, with plans.json in it")
        self.zip = push_button("Choose a zip…", "A model that nnU-Net exported as one zip")
        self.scratch = push_button("Train one…", "A binary model from scratch, with its plans")
        self.ways = in_row(self.folder, self.zip, self.scratch)
        fill_column(self, in_row(QLabel("Baseline"), self.choice, self.open), self.none, self.ways)
        self.folder.clicked.connect(self.choose_folder)
        self.zip.clicked.connect(self.choose_zip)
        self.scratch.clicked.connect(self.scratch_wanted)
        self.choice.activated.connect(lambda _: improving.choose(self.choice.currentData()))
        improving.starts_changed.connect(self._fill)
        improving.changed.connect(self._mark)
        self._fill()

    def choose_folder(self) -> None:
        """Ask for the folder of a model."""
        folder = QFileDialog.getExistingDirectory(self, "Folder of a binary lesion model")
        if folder:
            self._improving.choose(folder)

    def choose_zip(self) -> None:
        """Ask for the zip of a model."""
        file, _ = QFileDialog.getOpenFileName(self, "Model as a zip", filter="nnU-Net zip (*.zip)")
        if file:
            self._improving.choose(file)

    def _fill(self) -> None:
        self.choice.clear()
        for start in self._improving.starts:
            self._add(start.words, start.model)
        self._mark()

    def _mark(self) -> None:
        model, known = self._improving.model, bool(self._improving.starts)
        if model and self.choice.findData(model) < 0:
            self._add(Path(model).name, model)
        self.choice.setCurrentIndex(self.choice.findData(model))
        self.choice.setEnabled(bool(self.choice.count()))
        for part in (self.none, self.ways):
            part.setVisible(not known and not model and self._improving.looked)

    def _add(self, words: str, model: str) -> None:
        self.choice.addItem(short(words, LETTERS), model)
        self.choice.setItemData(self.choice.count() - 1, words, Qt.ItemDataRole.ToolTipRole)


def drag(event: QDragEnterEvent) -> None:
    """Take a model that is dragged over the panel."""
    if dropped(event):
        event.acceptProposedAction()


def dropped(event: QDropEvent) -> str:
    """Return the folder or zip that is dropped; "" for anything else."""
    paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
    able = [path for path in paths if path.is_dir() or path.suffix == ".zip"]
    return str(able[0]) if len(able) == len(paths) == 1 else ""
