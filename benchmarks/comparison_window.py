"""How long the Compare step takes from case to case, and how long it holds the window's thread.

A real window on a project of synthetic cases, each with a reference and the predictions of two
models. A case is there when its image and the overlay of both predictions are on the canvas. The
peer is napari alone: the same image, masks and predictions, read from their files and given to the
same kinds of layers; and our own window without an overlay. Then the longest time that our own
callbacks hold the window's thread; what napari does inside of them is counted apart. It is counted
in the thread's own seconds: on a machine that does other things at the same time, the clock's say
little of the program. Of what is asked for case by case, both are printed.
"""

import argparse
import os
import sys
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from review import holds, wait
from window import ROOT, Own, on_a_display

PAGE_S, OWN_MS = 0.5, 50.0
ARMS = ("baseline", "BackSplit")


class OwnSeconds(Own):
    """Times in seconds of the window's thread, not of the clock."""

    def _charge(self):
        now = time.thread_time()
        if self.stack:
            self.spent[self.stack[-1]] += now - self.last
        self.last = now


class Took(list):
    """Seconds of some steps, by the clock and of the window's thread."""

    def __init__(self):
        super().__init__()
        self.own = []

    def measure(self, step):
        begun, own = time.perf_counter(), time.thread_time()
        step()
        self.append(time.perf_counter() - begun)
        self.own.append(time.thread_time() - own)

    def __str__(self):
        return (
            f"median {median(self):.3f} s, longest {max(self):.3f} s; "
            f"of the thread {median(self.own):.3f} s, longest {max(self.own):.3f} s"
        )


def make(folder, cases, shape):
    """A project of noisy ellipsoids with three lesions each, and what two models would find."""
    from napari_backsplit.backend.geometry import from_parts
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.volume import Volume, write_volume

    rng = np.random.default_rng(0)
    spacing = (3.0, 0.8, 0.8)
    geometry = from_parts(shape, spacing, (0.0, 0.0, 0.0), np.eye(3))
    body = ball(shape, [n / 2 for n in shape], [0.45 * n for n in shape])
    base = np.where(body, 40, -1000).astype(np.int16)
    for arm in ARMS:
        (folder.parent / arm).mkdir()
    with Project.create(folder, "pages", ["CT"], ["lesion"], ["kidney", "liver"]) as project:
        for number in range(cases):
            noise = rng.integers(-20, 20, shape[1:], dtype=np.int16)
            file = folder.parent / "image.nii.gz"
            write_volume(Volume(base + np.roll(noise, number, 0), geometry), file)
            case = project.add_case({"CT": file}, name=f"case {number}").id
            lesions, found = lesions_of(shape, rng)
            for name, mask in (("lesion", lesions), ("kidney", body), ("liver", body)):
                volume = Volume(mask.astype(np.uint8), geometry)
                project.set_mask(case, name, volume, {"engine": "benchmark"})
            for arm, mask in zip(ARMS, found, strict=True):
                volume = Volume(mask.astype(np.uint8), geometry)
                write_volume(volume, folder.parent / arm / f"{case}.nii.gz")
                per_cent = Volume(mask.astype(np.float32) * np.float32(0.9), geometry)
                write_volume(per_cent, folder.parent / arm / f"{case}_probability.nii.gz")


def lesions_of(shape, rng):
    """Return three lesions, and what each of two models finds of them and beside them."""
    masks = [np.zeros(shape, bool) for _ in range(3)]
    for _ in range(3):
        centre = [n * rng.uniform(0.3, 0.7) for n in shape]
        radius = max(shape) * rng.uniform(0.03, 0.06)
        size = [max(2.0, radius * 0.27), radius, radius]
        for number, mask in enumerate(masks):
            if number and rng.uniform() < 0.2:  # this model misses it
                continue
            moved = [c + number * rng.uniform(-0.3, 0.3) * s for c, s in zip(centre, size)]  # noqa: B905
            mask |= ball(shape, moved, size)
    return masks[0], masks[1:]


def ball(shape, centre, size):
    z, y, x = np.ogrid[tuple(slice(n) for n in shape)]
    far = sum(((i - c) / s) ** 2 for i, c, s in zip((z, y, x), centre, size, strict=True))
    return far <= 1


class Session:
    """The Compare step's layers on a project, in a real window."""

    def __init__(self, folder):
        import napari

        from napari_backsplit.widgets._comparison_layers import ComparisonLayers
        from napari_backsplit.widgets.workflow import BackSplitWidget

        self.viewer = napari.Viewer()
        self.dock = BackSplitWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="BackSplit", area="right")
        self.desk = self.dock.desk
        self.folders = {arm: (folder.parent / arm,) for arm in ARMS}
        self.layers = ComparisonLayers(self.viewer, self.desk, self.dock.layers)
        self.layers.failed.connect(print)
        wait(lambda: self.desk.driver is not None)
        self.dock.open_project(folder)
        wait(lambda: self.desk.annotation is not None)
        self.dock.tools.active = False
        self.layers.set_active(True)
        self.rest()

    def overlay(self, case):
        from napari_backsplit.backend.comparison.overlays import overlay_of

        return overlay_of(self.desk.project, self.folders, case, "lesion", *ARMS)

    def page(self, case):
        """Ask for a case, and wait until it is there, and is drawn."""
        self.desk.open_case(case)
        self.layers.show(self.overlay(case))
        wait(lambda: self.is_there(case))
        draw()

    def page_without(self, case):
        """Ask for a case without an overlay."""
        self.desk.open_case(case)
        wait(lambda: self.desk.annotation and self.desk.annotation.case == case)
        draw()

    def is_there(self, case):
        opened, loaded = self.desk.annotation, self.layers.loaded
        return opened and opened.case == case and loaded and loaded.overlay.case == case

    def read_ahead(self, case):
        self.desk.look_ahead(case)
        self.layers.look_ahead(self.overlay(case))
        self.rest()

    def rest(self):
        for lane in (self.desk.files, self.layers._lane):
            done = []
            lane.do(lambda: None, lambda _, done=done: done.append(True))
            wait(lambda done=done: done)
        end = time.perf_counter() + 0.1
        wait(lambda: time.perf_counter() > end)

    def close(self):
        self.layers.close()
        self.dock.close_all()
        self.viewer.close()


def draw():
    """Let everything be drawn that is to be."""
    from qtpy.QtWidgets import QApplication

    for _ in range(3):
        QApplication.processEvents()


def paging(session, own, cases):
    """Return the seconds of each page: read ahead, not so, and without an overlay."""
    took = {"read ahead": Took(), "not read ahead": Took(), "without an overlay": Took()}
    session.page(cases[0])
    session.rest()
    own.action = "paging, read ahead"
    for case in cases[1:]:
        session.read_ahead(case)
        took["read ahead"].measure(lambda case=case: session.page(case))
    own.action = "paging, not read ahead"
    for case in cases[1:16:2]:
        took["not read ahead"].measure(lambda case=case: session.page(case))
        session.rest()
    own.action = "paging, without an overlay"
    session.layers.show(None)
    for case in cases[:16]:
        session.read_ahead(case)
        took["without an overlay"].measure(lambda case=case: session.page_without(case))
    session.page(cases[0])
    session.rest()
    return took


def looking(session, own):
    """Use everything once or more; return how long each took, callbacks and drawing."""
    layers, viewer = session.layers, session.viewer
    took = {}

    def do(what, *steps):
        own.action = what
        took[what] = Took()
        for step in steps:
            took[what].measure(lambda step=step: (step(), draw()))

    from napari_backsplit.widgets._orientation import PLANES, show_plane

    shape, place = layers.loaded.agreement.shape, session.dock.layers.place
    z = shape[0] // 2

    def slice_(n):
        return lambda: viewer.dims.set_point(0, place.to_world((n, 0, 0))[0])

    do("slices", *[slice_(n) for n in range(z - 10, z + 10)])
    do("zoom", *[lambda n=n: zoomed(session, 1.15**n) for n in range(10)])
    marked = np.argwhere(layers.loaded.agreement)
    layers.go_to(tuple(marked[len(marked) // 2]))  # where there is something to draw
    do("parts", *[lambda n=n, on=on: layers.set_part(n, on) for on in (0, 1) for n in range(1, 8)])
    do("outlines", *[lambda on=on: layers.set_outlines(on) for on in (False, True)])
    layers.set_swipe(0.5)
    do("swipe", *[lambda n=n: layers.set_swipe(n / 40) for n in range(41)])
    do("swipe, slices", *[slice_(n) for n in range(z, z + 10)])
    layers.set_swipe(None)
    layers.set_blink(True)
    do("blink", *[layers._turn for _ in range(10)])
    layers.set_blink(False)
    do("probability", lambda: layers.set_probability(ARMS[1]), session.rest)
    do("no probability", lambda: layers.set_probability(None))
    do("planes", *[lambda p=p: show_plane(viewer, p) for p in (*PLANES, "axial")])
    do("jumps", *[lambda n=n: layers.go_to((n, shape[1] // 2, n)) for n in range(z, z + 10)])
    do("side by side, at first", lambda: layers.set_side_by_side(True), session.rest)
    do("side by side, slices", *[slice_(n) for n in range(z)])
    do("side by side, off and on", *[lambda on=on: layers.set_side_by_side(on) for on in (0, 1, 0)])
    return took


def zoomed(session, zoom):
    session.viewer.scene.camera.zoom = zoom
    session.layers._zoomed()


def arrays_of(folder, project, case):
    from napari_backsplit.backend.volume import read_label_map, read_volume

    arrays = [read_volume(project.image_paths(case)[0]).array]
    arrays.append(project.mask(case, "lesion").view(np.uint8))
    return arrays + [read_label_map(folder.parent / arm / f"{case}.nii.gz").array for arm in ARMS]


def show_again(layers, folder, project, case):
    for layer, array in zip(layers, arrays_of(folder, project, case), strict=True):
        layer.data = array
    draw()


def bare(folder, cases):
    """Return the seconds napari alone takes for each further case, its files read."""
    import napari

    from napari_backsplit.backend.project import Project

    viewer, seconds, layers = napari.Viewer(), Took(), []
    with Project.open(folder, read_only=True) as project:
        for case in cases:
            if layers:
                seconds.measure(partial(show_again, layers, folder, project, case))
            else:
                first, *others = arrays_of(folder, project, case)
                layers = [viewer.add_image(first), *map(viewer.add_labels, others)]
            end = time.perf_counter() + 0.2
            wait(lambda end=end: time.perf_counter() > end)
    viewer.close()
    return seconds


def watched():
    """Time our functions, those of the comparison too."""
    import inspect

    from napari.components import Camera, Dims, ViewerModel
    from napari.layers import Image, Labels, Vectors
    from napari.qt import QtViewer, Window
    from napari.utils.colormaps import DirectLabelColormap
    from qtpy.QtWidgets import QDockWidget, QMainWindow

    from napari_backsplit.widgets import (
        _comparison_layers,
        _outlines,
        _overlay,
        _side_by_side,
        _swipe,
    )

    own = OwnSeconds()
    own.watch()
    for module in (_comparison_layers, _overlay, _outlines, _side_by_side, _swipe):
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                own._wrap_own(kind)
    for name in ("data", "visible", "scale", "translate", "edge_width"):
        own._wrap_setter(Vectors, name)
    for owner in (Camera, Dims):
        name = f"napari {owner.__name__}"
        owner.__setattr__ = own.timed(owner.__setattr__, name, "napari")
    for name in ("show", "hide"):
        setattr(QDockWidget, name, own.timed(getattr(QDockWidget, name), f"Qt {name}", "napari"))
    QMainWindow.splitDockWidget = own.timed(QMainWindow.splitDockWidget, "Qt split", "napari")
    Window.add_dock_widget = own.timed(Window.add_dock_widget, "napari dock", "napari")
    for owner in (Image, Labels, Vectors, ViewerModel, QtViewer, DirectLabelColormap):
        owner.__init__ = own.timed(owner.__init__, f"napari {owner.__name__}", "napari")
    return own


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 96, 96))
    options = parser.parse_args()
    on_a_display()
    with TemporaryDirectory() as home:
        os.environ.update(HOME=home, XDG_DATA_HOME=home, BACKSPLIT_CONFIG_DIR=home)
        folder = Path(home) / "project"
        making = get_context("spawn").Process(  # nothing of it is left in the window's process
            target=make, args=(folder, options.cases, tuple(options.shape))
        )
        making.start()
        making.join()
        assert making.exitcode == 0, "the project could not be made"
        sys.path[0] = str(ROOT)  # not this folder: it holds a click.py
        own = watched()
        session = Session(folder)
        own.longest.clear()  # of opening the project: see window.py
        cases = list(session.desk.standings)
        seconds = paging(session, own, cases)
        took = looking(session, own)
        session.close()
        own.action = "napari alone"
        alone = bare(folder, cases[:16])
    report(options, seconds, took, alone, own)


def report(options, seconds, took, alone, own):
    print(f"{options.cases} cases of {tuple(options.shape)}, two predictions each")
    for what, times in (*seconds.items(), ("napari alone, from files", alone)):
        print(f"a case, {what}: {times}; {median(times) / median(alone):.2f}x")
    longest = max(seconds["read ahead"])
    print(f"read ahead at most {PAGE_S} s: {holds(longest <= PAGE_S)}\n")
    print("with all that is drawn:")
    for what, times in took.items():
        print(f"{what:28s} {times}")
    print(f"\n{'longest callback of ours':28s} {'ours':>8s} {'napari':>8s} ms")
    for action, (ours, napari, name) in own.longest.items():
        print(f"{action:28s} {ours:8.1f} {napari:8.1f}    {name}")
    most = max(ours for ours, _, _ in own.longest.values())
    print(f"ours at most {OWN_MS:g} ms: {holds(most <= OWN_MS)}")


if __name__ == "__main__":
    main()
