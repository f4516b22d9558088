"""What the dock shows while there is no project."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qtpy.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

WORDS = (
    "No project yet.\n\nA project keeps your images together with the masks you click. "
    "Try the sample, open a project, or drop an image (NIfTI, NRRD, MHA, a DICOM folder) "
    "into the viewer."
)


class Welcome(QWidget):  # type: ignore[misc]
    """The ways to a first project.

    Parameters
    ----------
    ways : mapping of str to callable
        Title of a button -> what it does.

    Attributes
    ----------
    start : QPushButton
        Begins with an image that is open; shown where there is one.
    """

    def __init__(self, ways: Mapping[str, Callable[[], object]]) -> None:
        super().__init__()
        words = QLabel(WORDS)
        words.setWordWrap(True)
        self.start = QPushButton()
        column = QVBoxLayout(self)
        column.addWidget(words)
        column.addWidget(self.start)
        for title, action in ways.items():
            button = QPushButton(title)
            button.clicked.connect(lambda _=False, action=action: action())
            column.addWidget(button)
        column.addStretch(1)
