"""The pictures of a training: a held-out slice with the prediction of the time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QLabel, QSizePolicy, QSlider, QToolButton, QVBoxLayout, QWidget

from napari_backsplit.backend.jobs.events import Picture
from napari_backsplit.widgets._layout import bold, fill_column
from napari_backsplit.widgets._threads import Hop, Lane

_THUMB = QSize(340, 150)


class Thumb(QWidget):
    """The newest picture, small; a click asks for it large.

    Attributes
    ----------
    wanted : Signal
        The picture was clicked.
    """

    wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.title = bold("Newest picture")
        self.title.setWordWrap(True)
        self.button = QToolButton()
        self.button.setToolTip("Look at it large, and at those of earlier epochs")
        self.button.setAccessibleName("Newest picture")
        self.button.setAutoRaise(True)
        self.button.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.button.clicked.connect(self.wanted)
        self._image: QImage | None = None
        fill_column(self, self.title, self.button)

    def show_picture(self, image: QImage | None, text: str) -> None:
        """Show a picture with its words; None hides all of it."""
        self.setVisible(image is not None)
        self.title.setText(f"Newest picture: {text}" if text else "Newest picture")
        if image is None or image is self._image:
            return
        self._image = image
        pixmap = QPixmap.fromImage(_fitted(image, _THUMB))
        self.button.setIcon(pixmap)
        self.button.setIconSize(pixmap.size())


class PictureWindow(QWidget):
    """A picture as large as its window, with a slider over the epochs.

    Parameters
    ----------
    folder : Path
        The job's folder.
    pictures : sequence of Picture
        By their step; the last is shown first.
    title : str
        Of the window.
    parent : QWidget, optional
        Whose style it has.
    """

    def __init__(
        self,
        folder: Path,
        pictures: Sequence[Picture],
        title: str,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent, Qt.WindowType.Window)
        self.setWindowTitle(title)
        self.resize(720, 560)
        self._folder, self._pictures = folder, list(pictures)
        self._image: QImage | None = None
        self._closed = False
        self._lane = Lane(Hop(self), lambda error: self.words.setText(str(error)), "pictures")
        self.shown = QLabel()
        self.shown.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.shown.setMinimumSize(160, 120)
        self.words = QLabel()
        self.words.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, max(0, len(self._pictures) - 1))
        self.slider.setValue(self.slider.maximum())
        self.slider.setToolTip("Epoch of the picture (arrow keys)")
        self.slider.setAccessibleName("Epoch of the picture")
        self.slider.setEnabled(len(self._pictures) > 1)
        self.slider.valueChanged.connect(self._choose)
        column = QVBoxLayout(self)
        column.addWidget(self.shown, 1)
        column.addWidget(self.words)
        column.addWidget(self.slider)
        self.slider.setFocus()
        self._choose(self.slider.value())

    def _choose(self, number: int) -> None:
        if not self._pictures or self._closed:
            return
        picture = self._pictures[number]
        path = self._folder / picture.file
        self._lane.do(lambda: QImage(str(path)), partial(self._show, number))

    def _show(self, number: int, image: QImage) -> None:
        if self._closed or number != self.slider.value():
            return
        picture = self._pictures[number]
        self.words.setText(said_of(picture))
        self._image = image
        self._fit()

    def _fit(self) -> None:
        if self._image is None or self._image.isNull():
            self.shown.setText("The picture cannot be read.")
            return
        self.shown.setPixmap(QPixmap.fromImage(_fitted(self._image, self.shown.size())))

    def resizeEvent(self, event: Any) -> None:
        """Fit the picture (called by Qt)."""
        super().resizeEvent(event)
        if self._image is not None:
            self._fit()

    def closeEvent(self, event: Any) -> None:
        """Read no more (called by Qt)."""
        self._closed = True
        self._lane.close(drop=True)
        super().closeEvent(event)
        self.deleteLater()


def said_of(picture: Picture) -> str:
    """Return a picture's words with its epoch."""
    epoch = f"epoch {picture.step + 1}"
    if re.search(rf"\b{epoch}\b", picture.text):
        return picture.text
    return f"{epoch}, {picture.text}" if picture.text else epoch


def _fitted(image: QImage, size: QSize) -> QImage:
    how = Qt.AspectRatioMode.KeepAspectRatio
    return image.scaled(size, how, Qt.TransformationMode.SmoothTransformation)
