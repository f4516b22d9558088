"""Film the one button, for the README: a real window, a real fine-tune, synthetic cases.

    xvfb-run -a -s "-screen 0 1600x1200x24" python scripts/film.py PROJECT MODEL.zip docs/images

PROJECT is a copy of a synthetic project with reserved cases (`backsplit sample`), MODEL.zip a
binary model of it (`backsplit export`). The window is killed in the middle (-9) and opened again:
the second half is another process. Writes train.gif and the pictures train-*.png; look at them
before they are committed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = {"epochs": 12, "iterations": 100, "validation_iterations": 10, "picture_every": 2}
EVERY_S = 6.0
WAIT_S = 1800
SIZE = (1180, 860)
WIDTH = 900
FRAME_MS = 450
MOST = 60


class Film:
    """Frames of a window, and what is waited for between them."""

    def __init__(self, folder: Path) -> None:
        import napari
        from qtpy.QtWidgets import QApplication

        self.folder = folder
        self.process = QApplication.processEvents
        self.viewer = napari.Viewer()
        self.viewer.window.resize(*SIZE)
        _, self.dock = self.viewer.window.add_plugin_dock_widget("napari-backsplit", "BackSplit")
        self.began = time.monotonic()

    def wait(self, ready, film: bool = True) -> None:
        """Let the window work until something is so, filming meanwhile."""
        end, shot = time.monotonic() + WAIT_S, 0.0
        while not ready():
            if time.monotonic() > end:
                raise TimeoutError
            self.process()
            time.sleep(0.01)
            if film and time.monotonic() - shot > EVERY_S:
                self.shoot()
                shot = time.monotonic()

    def settle(self, seconds: float = 0.6) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process()
            time.sleep(0.01)

    def shoot(self, name: str = "", times: int = 1) -> None:
        """Take a frame, shown `times` as long; a name keeps it as a picture of its own."""
        self.settle(0.2)
        number = len(list(self.folder.glob("frame-*.png")))
        picture = self.viewer.window.screenshot(canvas_only=False, flash=False)
        for extra in range(times):
            _save(self.folder / f"frame-{number + extra:04d}.png", picture)
        if name:
            _save(self.folder / f"{name}.png", picture)

    def click(self, button) -> None:
        """Press a button with the mouse."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        QTest.mouseClick(button, Qt.MouseButton.LeftButton)

    def say(self, words: str) -> None:
        print(f"{time.monotonic() - self.began:7.1f} s  {words}", flush=True)

    def open(self, project: Path):
        """Open the project at its third step; return the panel."""
        self.click(self.dock.steps.button(2))
        self.dock.open_project(project)
        self.wait(lambda: self.dock.desk.project is not None, film=False)
        self.settle(2)
        return self.dock.training


def first(film: Film, project: Path, model: Path) -> None:
    """Press the button, go on clicking, pause, continue; then the window is killed."""
    panel = film.open(project)
    film.shoot(times=2)
    panel.improving.choose(str(model))
    panel.settings.set_value(SETTINGS)
    panel.settings.changed.emit()
    film.wait(panel.button.isEnabled)
    film.wait(lambda: not panel.improving.measuring)
    film.settle(1)
    film.say(f"ready: {panel.sentence.text()}")
    film.shoot("train-button", times=4)
    film.click(panel.button)
    film.wait(lambda: panel.running.monitor.view is not None)
    film.say("begun")
    monitor = panel.running.monitor
    film.wait(lambda: _epochs(project) >= 3)
    film.shoot("train-monitor", times=2)
    film.click(monitor.pause)
    film.wait(lambda: _state(monitor) == "PAUSED")
    film.say("paused")
    film.shoot("train-paused", times=3)
    film.click(monitor.pause)
    film.wait(lambda: _state(monitor) == "RUNNING")
    film.say("goes on")
    film.wait(lambda: _epochs(project) >= 5)
    film.say("killed: -9")
    os.kill(os.getpid(), signal.SIGKILL)


def second(film: Film, project: Path) -> None:
    """Open napari again, find the job, and see how it ends."""
    panel = film.open(project)
    film.wait(lambda: panel.running.monitor.view is not None)
    film.say("found again")
    film.shoot("train-again", times=2)
    film.wait(lambda: panel.running.answer.isVisible())
    film.settle(2)
    film.say("ended")
    film.shoot("train-answer", times=6)
    film.viewer.close()


def _state(monitor) -> str:
    view = monitor.view
    return str(view.status.state) if view is not None else ""


def _epochs(project: Path) -> int:
    """Return how many epochs of the fine-tune are done."""
    from napari_backsplit.backend.jobs import Metric, list_jobs

    trainings = [job for job in list_jobs(project) if job.spec.task == "train"]
    events = trainings[0].events()[0] if trainings else []
    steps = [e.step for e in events if isinstance(e, Metric) and e.name == "training loss"]
    return 1 + max(steps, default=-1)


def _save(file: Path, picture) -> None:
    import imageio.v3 as iio

    iio.imwrite(file, picture[..., :3])


def assemble(frames: Path, folder: Path) -> None:
    """Write the frames as one GIF, and the named pictures."""
    from PIL import Image

    pictures = []
    files = sorted(frames.glob("frame-*.png"))
    for file in [*files[:: 1 + len(files) // MOST], *files[-5:]]:
        picture = Image.open(file).convert("RGB")
        height = round(picture.height * WIDTH / picture.width)
        pictures.append(picture.resize((WIDTH, height), Image.LANCZOS).quantize(64))
    head, *rest = pictures
    head.save(folder / "train.gif", save_all=True, append_images=rest, duration=FRAME_MS, loop=0)
    for file in frames.glob("train-*.png"):
        Image.open(file).save(folder / file.name, optimize=True)


def main(project: Path, model: Path, folder: Path) -> None:
    frames = Path(tempfile.mkdtemp())
    home = tempfile.mkdtemp()
    os.environ.update(
        QT_QPA_PLATFORM="xcb", HOME=home, XDG_DATA_HOME=f"{home}/data", BACKSPLIT_CONFIG_DIR=home
    )
    for part in ("first", "second"):
        arguments = [part, str(frames), str(project), str(model)]
        subprocess.run([sys.executable, __file__, *arguments], check=part == "second")
    assemble(frames, folder)


if __name__ == "__main__":
    if sys.argv[1] in ("first", "second"):
        part, frames, project, model = sys.argv[1], *map(Path, sys.argv[2:])
        film = Film(frames)
        first(film, project.resolve(), model) if part == "first" else second(film, project)
    else:
        main(*map(Path, sys.argv[1:]))
