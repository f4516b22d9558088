"""Whether the window freezes: a real napari window with a case of 200 x 512 x 512.

The event loop's latency of the idle viewer, against: while a prediction of 5 s runs, while
nnInteractive's server checks and loads its model, while an image is sent and clicked on. Then the
longest time that our own callbacks hold the window's thread in a scripted session; what napari
does inside of them, such as adding a layer, is counted apart.
"""

import argparse
import http.server
import inspect
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "tests" / "models" / "nninteractive-tiny"
ALLOWED_MS = 50.0
TICK_S = 0.005
RADIUS = 40


def on_a_display():
    """Run this program again on a virtual display, unless there is a display."""
    start = shutil.which("xvfb-run")
    if os.environ.get("DISPLAY") or start is None:
        return
    environment = {**os.environ, "QT_QPA_PLATFORM": "xcb"}
    screen = ["-a", "-s", "-screen 0 1600x1200x24", sys.executable, *sys.argv]
    os.execve(start, [start, *screen], environment)


# --- clocks ---------------------------------------------------------------------------------------


class Loop:
    """Measures how long an event waits for the window's thread: a timer that should fire often."""

    def __init__(self):
        from qtpy.QtCore import Qt, QTimer

        self.waits = defaultdict(list)
        self.seconds = defaultdict(float)
        self.phase = ""
        self.begun = time.perf_counter()
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.setInterval(round(TICK_S * 1e3))
        self._timer.timeout.connect(self._tick)
        self._timer.start()

    def _tick(self):
        now = time.perf_counter()
        late, self._last = max(0.0, now - self._last - TICK_S), now
        while late >= 0:  # as seen by events that come every tick, not by the one that was late
            self.waits[self.phase].append(late * 1e3)
            late -= TICK_S

    @contextmanager
    def during(self, phase):
        self._tick()
        begun, self.phase = time.perf_counter(), phase
        try:
            yield
        finally:
            self._tick()
            self.seconds[phase] += time.perf_counter() - begun
            self.phase = ""


class Own:
    """Times our functions on the window's thread, and napari's inside of them."""

    def __init__(self):
        self.thread = threading.get_ident()
        self.stack = []
        self.last = 0.0
        self.spent = {"ours": 0.0, "napari": 0.0}
        self.action = ""
        self.longest = {}

    def enter(self, kind):
        self._charge()
        self.stack.append(kind)

    def leave(self, name):
        self._charge()
        self.stack.pop()
        if not self.stack:
            ours, napari = self.spent["ours"] * 1e3, self.spent["napari"] * 1e3
            self.spent = {"ours": 0.0, "napari": 0.0}
            if ours > self.longest.get(self.action, (-1.0,))[0]:
                self.longest[self.action] = (ours, napari, name)

    def _charge(self):
        now = time.perf_counter()
        if self.stack:
            self.spent[self.stack[-1]] += now - self.last
        self.last = now

    def timed(self, function, name, kind="ours"):
        if inspect.isgeneratorfunction(function):
            return self._timed_steps(function, name, kind)

        @wraps(function)
        def call(*args, **options):
            if threading.get_ident() != self.thread or (kind == "napari" and not self.stack):
                return function(*args, **options)
            self.enter(kind)
            try:
                return function(*args, **options)
            finally:
                self.leave(name)

        return call

    def _timed_steps(self, function, name, kind):
        @wraps(function)
        def call(*args, **options):
            steps = function(*args, **options)
            step = self.timed(lambda: next(steps, steps), name, kind)
            while step() is not steps:
                yield

        return call

    def watch(self):
        """Wrap every function of our widgets, and what they ask napari to do."""
        from napari.components import Dims, LayerList, ViewerModel
        from napari.layers import Image, Labels, Layer, Points, Shapes
        from napari.utils.events.containers._selection import Selection

        from napari_backsplit.widgets import (
            _case_layers,
            _desk,
            _driver,
            _tools,
            structures,
            workflow,
        )

        for module in (_case_layers, _desk, _driver, _tools, structures, workflow):
            for kind in vars(module).values():
                if inspect.isclass(kind) and kind.__module__ == module.__name__:
                    self._wrap_own(kind)
        self._wrap_hop()
        for owner, names in {
            ViewerModel: ("add_layer", "reset_view"),
            LayerList: ("remove", "move", "insert"),
            Dims: ("set_point",),
            Layer: ("refresh",),
            Shapes: ("add",),
        }.items():
            for name in names:
                function = self.timed(getattr(owner, name), f"napari {name}", "napari")
                setattr(owner, name, function)
        Layer.create = self.timed(Layer.create, "Layer.create", "napari")
        self._wrap_setter(Selection, "active")
        for owner in (Image, Labels, Points, Shapes):
            for name in (
                "data",
                "visible",
                "editable",
                "mode",
                "size",
                "symbol",
                "face_color",
                "border_color",
                "colormap",
                "contrast_limits",
                "contrast_limits_range",
                "scale",
                "translate",
                "name",
                "metadata",
                "selected_data",
            ):
                self._wrap_setter(owner, name)

    def _wrap_own(self, kind):
        for name, function in list(vars(kind).items()):
            if inspect.isfunction(function) and not name.startswith("__") and name != "_call":
                setattr(kind, name, self.timed(function, f"{kind.__name__}.{name}"))

    def _wrap_hop(self):
        from napari_backsplit.widgets._threads import Hop

        call = Hop.call
        Hop.call = lambda hop, function: call(hop, self.timed(function, where(function)))

    def _wrap_setter(self, owner, name):
        prop = inspect.getattr_static(owner, name, None)
        if isinstance(prop, property) and prop.fset is not None:
            setter = self.timed(prop.fset, f"napari {name} =", "napari")
            setattr(owner, name, property(prop.fget, setter, prop.fdel, prop.__doc__))


def where(function):
    return f"hop: {getattr(function, '__qualname__', function)}".replace(".<locals>.<lambda>", "")


# --- engines --------------------------------------------------------------------------------------


class Waits(http.server.BaseHTTPRequestHandler):
    """Answers after as many seconds as the address says."""

    def do_GET(self):
        time.sleep(float(self.path.strip("/")))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *told):
        pass


def serve_waits():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Waits)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()  # until whoever started it is gone


def balls(port):
    """Return an engine that adds or takes a ball for any prompt, after a request over HTTP."""
    import httpx
    import numpy as np

    from napari_backsplit.backend.structures.engines import About, Answer, EngineState
    from napari_backsplit.backend.structures.prompts import slices

    class Balls:
        kinds = ("point", "box", "scribble", "lasso")
        wait_s = 0.0

        def __init__(self, settings=None):
            self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False)

        @staticmethod
        def look(settings):
            return EngineState("balls", "Balls", "ready")

        def start(self, tell):
            return About("balls", "model of balls", "CC0-1.0")

        def segment(self, request, cancelled):
            self.client.get(f"/{self.wait_s}", timeout=60)
            prompt, shape = request.prompts[-1], request.mask.shape
            middle = [(low + high) // 2 for low, high in prompt.bounds()]
            bounds = tuple(
                (max(0, c - RADIUS), min(n, c + RADIUS + 1))
                for c, n in zip(middle, shape, strict=True)
            )
            axes = np.ogrid[slices(bounds)]
            ball = sum((a - c) ** 2 for a, c in zip(axes, middle, strict=True)) <= RADIUS**2
            mask = request.mask[slices(bounds)].copy()
            mask[ball] = prompt.positive
            return Answer(bounds, mask)

        def close(self):
            self.client.close()

    return Balls


# --- the session ----------------------------------------------------------------------------------


def make_project(folder, shape, cases=2):
    import numpy as np

    from napari_backsplit.backend.geometry import Geometry
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.volume import Volume, write_volume

    rng = np.random.default_rng(0)
    direction = ((-1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, 1.0))
    geometry = Geometry(shape, (2.5, 0.8, 0.8), (5.0, 6.0, 7.0), direction)
    project = Project.create(
        folder / "project", "window", ["CT"], ["lesion"], ["kidney", "liver", "spleen"]
    )
    for number in range(cases):
        image = rng.normal(scale=12, size=shape).astype(np.int16)
        middle = tuple(n // 2 for n in shape)
        image[tuple(slice(c - 20, c + 20) for c in middle)] += 130
        file = folder / f"image_{number}.nii.gz"
        write_volume(Volume(image, geometry), file)
        project.add_case({"CT": file}, name=f"case {number}")
    project.close()
    return project.folder


def circle(shape, z, radius=60, count=20):
    import numpy as np

    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return [
        (z, shape[1] / 2 + radius * np.sin(a), shape[2] / 2 + radius * np.cos(a)) for a in angles
    ]


def session(screen, own, loop, shape):
    """Work as a person does; every action has a row in the table."""
    z = shape[0] // 2
    desk, tools = screen.desk, screen.dock.tools

    @contextmanager
    def action(name):
        own.action = name
        print(f"{time.perf_counter() - loop.begun:7.1f} s  {name}", file=sys.stderr)
        with loop.during("a scripted session"):
            yield
            screen.done()
            screen.rest(0.2)

    def cases():
        for case in ("case_002", "case_001", "case_002", "case_001"):
            desk.open_case(case)
            screen.opened(case)

    for n in range(8):
        with action("click, answer"):
            screen.click((z, shape[1] // 2 + 20 * (n - 4), shape[2] // 2 + 10 * (n % 3)))
    for tool in ("box", "scribble", "lasso"):
        tools.choose(tool)
        for n in range(3):
            with action(f"{tool}, answer"):
                screen.drag(circle(shape, z, 40 + 10 * n))
    for n in range(4):
        with action("lasso after 15 prompts, answer"):
            screen.drag(circle(shape, z, 30 + n))
    tools.choose("paint")
    for _ in range(3):
        with action("brush stroke"):
            screen.drag(circle(shape, z, 100))
    with action("fill"):
        screen.dock.layers.labels["kidney"].fill((z, 2, 2), 1)
    tools.choose("point")
    for way in ("undo",) * 8 + ("redo",) * 8:
        with action(way):
            desk.turn(way)
    for name in ("liver", "spleen", "lesion", "kidney") * 2:
        with action("take up another structure"):
            desk.select(name)
    with action("clear"):
        desk.clear()
    with action("add a structure"):
        desk.add_structure("pancreas")
    with action("accept"):
        desk.accept()
    with action("unlock"):
        desk.set_locked("pancreas", False)
    with action("switch cases"):
        cases()
    with action("hide, show a structure"):
        for on in (False, True):
            screen.dock.layers.labels["kidney"].visible = on
    with action("close the project, open it again"):
        folder = desk.project.folder
        desk.close_project()
        screen.rest(0.5)
        screen.dock.open_project(folder)
        screen.opened()


def measure(folder, shape, predict_s, real):
    from napari_backsplit.backend.structures import engines
    from napari_backsplit.backend.structures.settings import EngineSettings, write_settings

    write_settings(EngineSettings(model_folder=str(MODEL), device="cpu", threads=1))
    command = [sys.executable, __file__, "--serve-waits"]
    pipe = subprocess.PIPE
    waits = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    balls_class = balls(int(waits.stdout.readline()))
    engines.ENGINES = {"balls": "here:Balls", **engines.ENGINES}
    known = engines._class
    engines._class = lambda name: balls_class if name == "balls" else known(name)
    own = Own()
    own.watch()
    from tests.widgets.screen_support import Screen

    own.action = "open the dock"
    screen = Screen()
    loop = Loop()
    try:
        own.action = "open a project"
        screen.until(lambda: screen.desk.driver, what="engine")
        with loop.during("a project opens"):
            screen.dock.open_project(folder)
            screen.opened()
        own.action = "idle"
        with loop.during("idle"):
            screen.rest(8)
        with loop.during("idle, scrolled through slices"):
            for n in range(20):
                screen.look_at(shape[0] // 2 + n)
                screen.rest(0.05)
        session(screen, own, loop, shape)
        screen.desk.select("liver")
        screen.rest(5)
        own.action = "a prediction of 5 s"
        balls_class.wait_s = predict_s
        for n in range(2):
            with loop.during("a click is sent"):
                screen.click((shape[0] // 2, shape[1] // 2, shape[2] // 2 + 9 * n))
                screen.rest(0.1)
            with loop.during("a prediction runs"):
                screen.rest(predict_s - 0.5)
            with loop.during("its answer is shown"):
                screen.done()
        if real:
            with_server(screen, own, loop, shape)
        own.action = "idle"
        with loop.during("idle"):
            screen.rest(5)
    finally:
        screen.close()
        waits.kill()
    return loop, own


def with_server(screen, own, loop, shape):
    desk = screen.desk
    own.action = "the server starts"
    with loop.during("the server starts, checks and loads its model"):
        desk.use_engine("nninteractive")
        screen.until(lambda: desk.driver.light in ("ready", "failed"), 120, "server")
        assert desk.driver.light == "ready", desk.driver.words
    own.action = "nnInteractive"
    with loop.during("nnInteractive takes the image and a click"):
        screen.click((shape[0] // 2, shape[1] // 2, shape[2] // 2))
        screen.done()
    with loop.during("nnInteractive answers clicks"):
        for n in range(5):
            screen.click((shape[0] // 2, shape[1] // 2 + 3 * n, shape[2] // 2 + 30))
            screen.done()


def report(loop, own):
    import numpy as np

    print(f"{'event loop, while':50s} {'p50':>7s} {'p99':>7s} {'max':>8s} ms {'over':>6s} s")
    for phase, waits in loop.waits.items():
        if phase:
            p50, p99 = np.percentile(waits, (50, 99))
            seconds = loop.seconds[phase]
            print(f"{phase:50s} {p50:7.1f} {p99:7.1f} {max(waits):8.1f}    {seconds:6.1f}")
    print()
    print(f"{'longest callback of ours, at':36s} {'ours':>7s} {'napari':>8s} ms")
    for action, (ours, napari, name) in own.longest.items():
        print(f"{action:36s} {ours:7.1f} {napari:8.1f}    {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 512, 512))
    parser.add_argument("--predict-s", type=float, default=5.0)
    parser.add_argument("--no-server", action="store_true")
    parser.add_argument("--serve-waits", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve_waits:
        serve_waits()
        return
    on_a_display()
    sys.path[0] = str(ROOT)  # not this folder: it holds a click.py
    with TemporaryDirectory() as place:
        os.environ.update(BACKSPLIT_CONFIG_DIR=f"{place}/settings", XDG_DATA_HOME=f"{place}/data")
        os.environ.update(HOME=place, XDG_CONFIG_HOME=f"{place}/config")
        shape = tuple(options.shape)
        folder = make_project(Path(place), shape)
        loop, own = measure(folder, shape, options.predict_s, not options.no_server)
        report(loop, own)


if __name__ == "__main__":
    main()
