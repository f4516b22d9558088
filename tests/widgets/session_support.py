"""What a person does first, by mouse in a real window; each program prints what came of it."""

from __future__ import annotations

import ipaddress
import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.backend.structures import ellipsoid

MODEL = Path(__file__).parents[1] / "models" / "nninteractive-tiny"


def tell(**facts: Any) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


# --- opening the dock -----------------------------------------------------------------------------


def close_sockets() -> list[str]:
    """Let no connection leave this machine; return where to look for those that were tried."""
    tried: list[str] = []

    def refuse(made: socket.socket, address: Any) -> Any:
        if made.family == socket.AF_UNIX or ipaddress.ip_address(address[0]).is_loopback:
            return connect(made, address)
        tried.append(str(address))
        raise OSError("sockets are closed")

    def refuse_name(host: Any, *rest: Any, **options: Any) -> Any:
        if host not in (None, "", "localhost", "127.0.0.1", "::1"):
            tried.append(str(host))
            raise socket.gaierror("sockets are closed")
        return look_up(host, *rest, **options)

    connect, look_up = socket.socket.connect, socket.getaddrinfo
    socket.socket.connect = socket.socket.connect_ex = refuse  # type: ignore[method-assign]
    socket.getaddrinfo = refuse_name
    return tried


def open_the_dock() -> None:
    """Tell how long napari takes to start, how much longer our dock, and whom it called."""
    tried = close_sockets()
    begun = time.process_time(), time.perf_counter()
    import napari
    from qtpy.QtTest import QTest

    viewer = napari.Viewer()
    QTest.qWait(200)
    started = time.process_time(), time.perf_counter()
    from napari_backsplit.widgets.workflow import BackSplitWidget

    dock = BackSplitWidget(viewer)
    viewer.window.add_dock_widget(dock, name="BackSplit", area="right")
    opened = time.process_time(), time.perf_counter()
    end = time.monotonic() + 30
    while not dock.panel.engine.count() and time.monotonic() < end:
        QTest.qWait(10)
    tell(
        napari_s=[b - a for a, b in zip(begun, started, strict=True)],
        dock_s=[b - a for a, b in zip(started, opened, strict=True)],
        tried=tried,
        engines=dock.panel.engine.count(),
        heavy=sorted({"torch", "nnunetv2", "httpx"} & set(sys.modules)),
    )
    dock.close_all()
    viewer.close()


# --- the first session ---------------------------------------------------------------------------


def truth(structure: str) -> Any:
    """Return a structure of the sample's first case as it was drawn: bool, canonical."""
    from napari_backsplit.backend.phantom import PhantomSpec
    from napari_backsplit.backend.phantom.sample import sample_cases
    from napari_backsplit.backend.volume import Volume

    spec = PhantomSpec(shape=(64, 96, 96), lesion_free=0.0)
    drawn = sample_cases(1, 4, 0, spec)[0].draw()
    mask = Volume(drawn.masks[structure], drawn.image.geometry).canonical().array
    return mask.astype(bool)


def innermost(mask: Any) -> list[tuple[int, int, int]]:
    """Return the innermost voxel of each part of a mask that is larger than a speck."""
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    found = []
    for number in range(1, count + 1):
        if (parts == number).sum() >= 200:
            depth = ndimage.distance_transform_edt(parts == number)
            z, y, x = np.unravel_index(depth.argmax(), depth.shape)
            found.append((int(z), int(y), int(x)))
    return found


def plain_phantom(folder: Path) -> Path:
    """Make a project of one noisy image with an organ that stands out; return its folder."""
    from napari_backsplit.backend.geometry import from_parts
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.volume import Volume, write_volume

    scene = ellipsoid.organ(radii=ellipsoid.LARGE).scene
    grid = from_parts(ellipsoid.SHAPE, scene.spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
    file = folder.with_name("plain.nii.gz")
    write_volume(Volume(scene.image, grid), file)
    with Project.create(folder, "plain", ["CT"], ["lesion"], ["kidney"]) as project:
        project.add_case({"CT": file}, name="plain")
    return folder


def first_session() -> None:
    """Open the sample and click; tell what each step did."""
    import psutil

    from napari_backsplit.backend.structures.journal import fingerprint
    from napari_backsplit.backend.structures.settings import EngineSettings, write_settings
    from tests.widgets.screen_support import Screen

    write_settings(EngineSettings(model_folder=str(MODEL), device="cpu", threads=1))
    screen = Screen()

    def masks() -> dict[str, str]:
        work = screen.work
        return {name: fingerprint(work.mask(name).view(bool)) for name in work.structures()}

    def now(step: str, **more: Any) -> None:
        screen.done()
        layer = screen.dock.layers.labels[screen.desk.structure]
        shown = bool(np.array_equal(layer.data[::-1], screen.work.mask(screen.desk.structure)))
        tell(step=step, masks=masks(), shown=shown, **more)

    screen.until(lambda: screen.desk.driver, what="engine")
    screen.dock.open_sample()
    screen.opened()
    case, folder = screen.work.case, screen.desk.project.folder
    now("opened", light=screen.desk.driver.light, engine=screen.desk.driver.name)
    kidney = truth("kidney")
    for at in innermost(kidney):
        screen.look_at(at[0])
        screen.click(at)
        now("kidney")
    screen.desk.select("liver")
    middle = innermost(truth("liver"))[0]
    screen.look_at(middle[0])
    z, y, x = middle
    for tool, path in {
        "box": [(z, y - 8, x - 8), (z, y, x), (z, y + 8, x + 8)],
        "scribble": [(z, y - 6, x + 4), (z, y, x + 6), (z, y + 6, x + 8)],
        "lasso": [(z, y - 12, x), (z, y - 4, x + 9), (z, y + 5, x + 5), (z, y + 4, x - 6)],
    }.items():
        screen.dock.tools.choose(tool)
        screen.drag(path)
        screen.done()
        now(tool, prompts=len(screen.work.steps("liver")))
    for way in ("undo", "undo", "redo", "redo"):
        screen.desk.turn(way)
        now(way)
    canvas = np.asarray(screen.viewer.screenshot(canvas_only=True, flash=False))
    tell(step="screenshot", grey=float(canvas[..., :3].mean()), colours=len(np.unique(canvas)))
    other = next(c for c in screen.desk.standings if c != case)
    for name in ("kidney", "spleen", "liver"):
        screen.desk.select(name)
    for name in (other, case):
        screen.desk.open_case(name)
        screen.opened(name)
    now("back from another case")
    screen.desk.close_project()
    screen.rest(0.2)
    screen.dock.open_project(folder)
    screen.opened(case)
    now("opened again")
    screen.dock.open_project(plain_phantom(folder.parent / "plain"))
    screen.until(lambda: screen.desk.project.folder != folder, what="phantom")
    screen.opened()
    (z, y, x), organ = ellipsoid.CENTRE, ellipsoid.organ(radii=ellipsoid.LARGE).mask
    screen.look_at(z)
    for at in ((z, y, x - 4), (z, y, x + 4)):
        screen.click(at)
        screen.done()
        found = screen.work.mask("kidney").view(bool)
        tell(step="two clicks", dice=ellipsoid.dice(found, organ))
    tell(step="servers", pids=[child.pid for child in psutil.Process().children(recursive=True)])
    screen.close()


if __name__ == "__main__":
    {"dock": open_the_dock, "session": first_session}[sys.argv[1]]()
