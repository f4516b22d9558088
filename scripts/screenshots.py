"""Take the screenshots of docs/structures.md and docs/review.md: a real window, synthetic cases.

    xvfb-run -a -s "-screen 0 1600x1200x24" python scripts/screenshots.py docs/images

Those of the comparison and of the recipes need a project in which a comparison has finished, and
with it a binary model; it is only looked at:

    xvfb-run -a -s "-screen 0 1600x1200x24" python scripts/screenshots.py docs/images PROJECT

Look at them before they are committed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

HOME = tempfile.mkdtemp()
os.environ.update(
    QT_QPA_PLATFORM="xcb", HOME=HOME, XDG_DATA_HOME=f"{HOME}/data", BACKSPLIT_CONFIG_DIR=HOME
)

import napari  # noqa: E402  the environment comes first
import numpy as np  # noqa: E402
from qtpy.QtWidgets import QApplication, QScrollArea  # noqa: E402

from napari_backsplit.backend.fusion.contact_sheet import make_tiles, sheet_pages  # noqa: E402
from napari_backsplit.backend.fusion.review import survey  # noqa: E402
from napari_backsplit.backend.phantom import PhantomSpec, sample_project  # noqa: E402
from napari_backsplit.backend.structures.prompts import Box, Point  # noqa: E402
from napari_backsplit.backend.volume import Volume  # noqa: E402
from napari_backsplit.widgets._orientation import show_plane  # noqa: E402
from napari_backsplit.widgets.workflow import BackSplitWidget  # noqa: E402

KIDNEYS = ((27, 57, 72), (30, 60, 24))
WAIT_S = 120
SUPPORTS = {"kidney": ("kidney",), "liver": ("liver",), "spleen": ("spleen",), "bowel": ("bowel",)}


def wait(ready) -> None:
    """Let the window work until something is so."""
    end = time.monotonic() + WAIT_S
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError
        QApplication.processEvents()
        time.sleep(0.01)


def shoot(viewer: napari.Viewer, file: Path) -> None:
    for _ in range(30):
        QApplication.processEvents()
        time.sleep(0.02)
    viewer.window.screenshot(str(file), canvas_only=False, flash=False)


def main(folder: Path) -> None:
    structures(folder)
    review(folder)


def review(folder: Path) -> None:
    """The review of cases of which some livers claim voxels of the kidneys."""
    project = Path(HOME) / "review"
    with sample_project(project, 3, 8, 0, PhantomSpec(shape=(64, 96, 96)), SUPPORTS) as made:
        for case in made.case_ids()[1::2]:
            masks, geometry = made.masks(case), made.geometry(case)
            leaks = masks["liver"] | np.roll(masks["kidney"], 4, axis=1)
            about = {"engine": "synthetic"}
            made.set_mask(case, "liver", Volume(leaks, geometry), about, replace=True)
        made.judge("case_001", "accepted", who="Dr. A")
        made.judge("case_003", "needs_work", comment="right kidney cut off", who="Dr. B")
        states = list(survey(made).values())
        pages = sheet_pages(make_tiles(made, states), made.schema, len(states))
        (folder / "contact-sheet.png").write_bytes(next(pages))
    viewer = napari.Viewer()
    viewer.window.resize(1280, 900)
    _, dock = viewer.window.add_plugin_dock_widget("napari-backsplit", "BackSplit")
    dock.steps.button(1).click()
    dock.open_project(project)
    wait(lambda: dock.desk.annotation and dock.desk.driver)
    dock.desk.open_case("case_002")
    wait(lambda: dock.desk.annotation and dock.desk.annotation.case == "case_002")
    wait(lambda: dock.review.reviewing.searched)
    dock.review.findings.jump()
    viewer.reset_view()
    shoot(viewer, folder / "review.png")
    viewer.close()


def comparison(folder: Path, project: Path) -> None:
    """The result of a finished comparison: its verdict, then a disagreement with the table."""
    viewer = napari.Viewer()
    viewer.window.resize(1440, 1160)
    _, dock = viewer.window.add_plugin_dock_widget("napari-backsplit", "BackSplit")
    dock.open_project(project)
    wait(lambda: dock.desk.annotation and dock.desk.driver)
    dock.steps.button(3).click()
    panel = dock.comparison
    wait(lambda: panel.layers.loaded and panel.comparing.proposal)
    viewer.reset_view()
    panel.table.jump("disagreement")
    case = panel.table.here.case
    wait(lambda: panel.layers.loaded and panel.layers.loaded.overlay.case == case)
    shoot(viewer, folder / "compare-panel.png")
    bar = panel.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(panel.looking.y())
    lesions = (row for row in panel.table.model.ordered if row.kind == "reference")
    row = max(lesions, key=lambda row: row.dice[panel.pair.new] - row.dice[panel.pair.baseline])
    panel.table.go(row)
    wait(lambda: panel.layers.loaded and panel.layers.loaded.overlay.case == row.case)
    viewer.scene.camera.zoom *= 2
    panel.parts.swipe.click()
    shoot(viewer, folder / "compare-swipe.png")
    viewer.close()


def recipes(folder: Path, project: Path) -> None:
    """The third step's recipes, two of them ticked, and the fields that they set."""
    viewer = napari.Viewer()
    viewer.window.resize(1280, 980)
    _, dock = viewer.window.add_plugin_dock_widget("napari-backsplit", "BackSplit")
    dock.open_project(project)
    wait(lambda: dock.desk.annotation and dock.desk.driver)
    dock.steps.button(2).click()
    panel = dock.training
    wait(lambda: panel.improving.checks is not None)
    panel.settings_part.set_open(True)
    for title in ("Recipes", "Loss"):
        panel.settings.open_at(title)
    for name in ("focal", "inverse-weighting"):
        panel.settings.recipes.buttons[name].click()
    wait(lambda: panel.improving.checks is not None)
    viewer.reset_view()
    shoot(viewer, folder / ".settled.png")
    (folder / ".settled.png").unlink()
    bar = panel.findChild(QScrollArea).verticalScrollBar()
    bar.setValue(panel.settings_part.y())
    shoot(viewer, folder / "train-recipes.png")
    viewer.close()


def structures(folder: Path) -> None:
    """Clicks in the sample, with the embedded engine."""
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    _, dock = viewer.window.add_plugin_dock_widget("napari-backsplit", "BackSplit")
    assert isinstance(dock, BackSplitWidget)
    dock.open_sample()
    wait(lambda: dock.desk.annotation and dock.desk.driver)
    wait(lambda: dock.desk.driver.light == "ready")
    viewer.reset_view()
    place = dock.layers.place
    viewer.dims.set_point(0, place.to_world(np.array(KIDNEYS[0]))[0])
    for at in KIDNEYS:
        dock.desk.ask(Point(at=(KIDNEYS[0][0], *at[1:])))
        wait(lambda: not dock.desk.driver.orders)
    shoot(viewer, folder / "structures.png")
    dock.desk.accept()
    wait(lambda: dock.desk.structure == "liver")
    dock.tools.choose("box")
    show_plane(viewer, "coronal")
    viewer.dims.set_point(1, place.to_world((55, 40, 28))[1])
    dock.desk.ask(Point(at=(55, 40, 28)))
    wait(lambda: not dock.desk.driver.orders)
    dock.desk.ask(Box(low=(20, 40, 10), high=(64, 41, 62)))
    wait(lambda: not dock.desk.driver.orders)
    shoot(viewer, folder / "coronal.png")
    viewer.close()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        comparison(Path(sys.argv[1]), Path(sys.argv[2]))
        recipes(Path(sys.argv[1]), Path(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
