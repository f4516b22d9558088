"""What a job takes of its machine, and what its epochs' time goes to."""

from __future__ import annotations

from collections.abc import Mapping

from qtpy.QtCore import QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent
from qtpy.QtWidgets import QGridLayout, QLabel, QProgressBar, QSizePolicy, QWidget

from napari_backsplit.backend.jobs.digest import data_share
from napari_backsplit.backend.jobs.gauges import Gauges, GpuGauge
from napari_backsplit.widgets._colours import Colours
from napari_backsplit.widgets._layout import bold, fill_column, in_row, push_button
from napari_backsplit.widgets._numbers import duration, of_bytes
from napari_backsplit.widgets._painted import Entry, PaintedLegend, Words, set_bar

TOO_LONG = 0.3
"""Share of the time that waits for data from which on the person is told."""

MOST_WORKERS = 8


class GaugeBars(QWidget):
    """A bar each for the GPU, its memory, the memory and the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: dict[str, QProgressBar] = {}
        self.words: dict[str, Words] = {}
        self._names: dict[str, QLabel] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 4)
        grid.setVerticalSpacing(2)
        grid.setColumnStretch(1, 1)
        tips = {
            "GPU": "Share of the time in which the GPU worked, %, for whatever program",
            "GPU memory": "Memory of the GPU that is taken, GB, by whatever program",
            "Memory": "Memory that this job takes, of what it may take, GB",
            "CPU": "Processor cores that this job keeps busy, of those it may use",
        }
        for row, (name, tip) in enumerate(tips.items()):
            self._add(grid, row, name, tip)

    def _add(self, grid: QGridLayout, row: int, name: str, tip: str) -> None:
        self._names[name], self.words[name] = QLabel(name), Words("999.9 of 999 cores")
        bar = self.bars[name] = QProgressBar()
        bar.setRange(0, 100)
        bar.setTextVisible(False)
        bar.setFixedHeight(10)
        bar.setMinimumWidth(60)
        bar.setAccessibleName(name)
        for column, part in enumerate((self._names[name], bar, self.words[name])):
            part.setToolTip(tip)
            grid.addWidget(part, row, column)

    def show_gauges(self, gauges: Gauges | None, device: str) -> None:
        """Show what was measured; a job that uses no GPU has no bars for one."""
        self.setVisible(gauges is not None)
        if gauges is None:
            return
        gpu = gpu_of(gauges, device)
        for name in ("GPU", "GPU memory"):
            for part in (self._names[name], self.bars[name], self.words[name]):
                part.setVisible(gpu is not None)
        if gpu is not None:
            self._show_gpu(gpu)
        self._set("Memory", gauges.used_bytes / max(1, gauges.total_bytes),
                  of_bytes(gauges.used_bytes, gauges.total_bytes))  # fmt: skip
        busy = gauges.cpu_percent / 100
        self._set("CPU", busy / gauges.cores, f"{busy:.1f} of {_counted(gauges.cores)}")

    def _show_gpu(self, gpu: GpuGauge) -> None:
        if gpu.utilisation is None:
            self._set("GPU", 0.0, "not told")
        else:
            self._set("GPU", gpu.utilisation / 100, f"{gpu.utilisation:.0f} %")
        if gpu.used_bytes is None or not gpu.total_bytes:
            self._set("GPU memory", 0.0, "not told")
        else:
            share = gpu.used_bytes / gpu.total_bytes
            self._set("GPU memory", share, of_bytes(gpu.used_bytes, gpu.total_bytes))
        self.words["GPU"].setToolTip(gpu.title)

    def _set(self, name: str, share: float, words: str) -> None:
        set_bar(self.bars[name], round(100 * min(1.0, max(0.0, share))))
        self.words[name].setText(words)


def gpu_of(gauges: Gauges, device: str) -> GpuGauge | None:
    """Return the GPU that a job on `device` uses; None where it uses none, or it is unknown."""
    if not device.startswith("cuda"):
        return None
    name = "cuda:0" if device == "cuda" else device
    return next((gpu for gpu in gauges.gpus if gpu.name == name), None)


def _counted(cores: int) -> str:
    return f"{cores} core{'s' * (cores != 1)}"


class EpochTime(QWidget):
    """What the time of an epoch goes to, and whether the GPU waits for data.

    Attributes
    ----------
    workers_wanted : Signal
        Emits the number of workers that may help.
    """

    workers_wanted = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.title = Words()
        self.title.setFont(bold("").font())
        self.bar = _Stack()
        self.words = PaintedLegend("100 %")
        self.light = QLabel()
        self.light.setWordWrap(True)
        self.more = push_button("", "Start this training anew, with more processes for its data")
        self._workers = 0
        self._seconds: dict[str, float] = {}
        self.more.clicked.connect(lambda: self.workers_wanted.emit(self._workers))
        self._row = in_row(self.light, self.more)
        self._row.layout().setStretch(0, 1)
        fill_column(self, self.title, self.bar, self.words, self._row)

    def show_seconds(
        self, seconds: Mapping[str, float], device: str, workers: int, live: bool
    ) -> None:
        """Show the seconds of an epoch by what they go to, and what to change while it is live.

        Parameters
        ----------
        seconds : mapping
        device : str
            Of the job: a CPU that waits for data waits for itself.
        workers : int
            How many processes prepare the data now.
        live : bool
            Whether the job goes on.
        """
        total = sum(seconds.values())
        self.setVisible(total > 0)
        if total <= 0:
            return
        self.title.setText(f"Time of an epoch: {duration(total)}")
        self.bar.show_shares({name: value / total for name, value in seconds.items()})
        self._seconds = dict(seconds)
        self._write_words()
        self._show_light(data_share(seconds), workers)
        self._row.setVisible(live and device.startswith("cuda"))

    def set_colours(self, colours: Colours) -> None:
        """Take the colours of a theme."""
        self.bar.set_colours(colours)
        self._write_words()

    def _write_words(self) -> None:
        total = sum(self._seconds.values())
        self.words.show_entries(
            [
                Entry(
                    self.bar.colour(number), Qt.PenStyle.NoPen, name, f"{100 * value / total:.0f} %"
                )
                for number, (name, value) in enumerate(self._seconds.items())
            ]
        )

    def _show_light(self, share: float, workers: int) -> None:
        waits = share > TOO_LONG
        percent = f"{100 * share:.0f} %"
        words = (
            f"▲ The GPU waits for data {percent} of the time: raise workers"
            if waits
            else f"✓ The GPU is kept busy: it waits for data {percent} of the time"
        )
        if words != self.light.text():
            self.light.setText(words)
        self._workers = min(MOST_WORKERS, max(2, 2 * workers))
        self.more.setVisible(waits and self._workers > workers)
        self.more.setText(f"Anew with {self._workers} workers")


class _Stack(QWidget):
    """One bar, divided by shares; the words are written into those that have room."""

    def __init__(self) -> None:
        super().__init__()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._shares: dict[str, float] = {}
        self._colours: Colours | None = None

    def show_shares(self, shares: Mapping[str, float]) -> None:
        self._shares = dict(shares)
        self.setToolTip("\n".join(f"{n}: {100 * s:.1f} %" for n, s in self._shares.items()))
        self.setAccessibleName("Time of an epoch: " + self.toolTip().replace("\n", ", "))
        self.update()

    def set_colours(self, colours: Colours) -> None:
        self._colours = colours
        self.update()

    def colour(self, number: int) -> str:
        """Return the colour of a part."""
        lines = self._colours.lines if self._colours else ("#888888",)
        return lines[number % len(lines)]

    def sizeHint(self) -> QSize:
        """Return its size (asked by Qt)."""
        return QSize(200, self.fontMetrics().height() + 4)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the bar (called by Qt)."""
        painter = QPainter(self)
        begin = 0.0
        for number, (name, share) in enumerate(self._shares.items()):
            left, right = round(begin * self.width()), round((begin + share) * self.width())
            begin += share
            self._draw(painter, number, name, QRect(left, 0, right - left, self.height()))
        painter.end()

    def _draw(self, painter: QPainter, number: int, name: str, box: QRect) -> None:
        colour = QColor(self.colour(number))
        painter.fillRect(box.adjusted(0, 0, -1, 0), colour)
        if painter.fontMetrics().horizontalAdvance(name) + 6 <= box.width():
            painter.setPen(QColor("black" if _is_bright(colour) else "white"))
            painter.drawText(box, Qt.AlignmentFlag.AlignCenter, name)


def _is_bright(colour: QColor) -> bool:
    return bool(0.3 * colour.red() + 0.59 * colour.green() + 0.11 * colour.blue() > 120)
