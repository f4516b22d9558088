"""How long the Compare step's panel takes from case to case, and how long it holds the thread.

The whole dock in a real window, on a project of synthetic cases that two models have predicted and
a comparison has measured. Cases are paged through as a person does it: with the keys for the next
case and the next disagreement, and with rows of the table that nobody could foresee. A case is
there when its image, the overlay of both predictions and its row are. Beside it the peer, napari
alone: the same files read into the same kinds of layers. Then the longest time that our own
callbacks hold the window's thread, in the thread's own seconds; what napari does inside of them is
counted apart.
"""

import argparse
import os
import sys
import time
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import comparison_window as layers_only
from comparison_window import ARMS, OWN_MS, PAGE_S, Took, draw
from review import holds, wait
from window import ROOT, on_a_display

COMPARE = 3


def make(folder, cases, shape):
    """A project with the predictions of two models, as jobs, and their comparison."""
    from napari_backsplit.backend.comparison.tasks import run_compare
    from napari_backsplit.backend.files import write_json
    from napari_backsplit.backend.jobs import JobContext, State, submit
    from napari_backsplit.backend.jobs.folder import JobFolder
    from napari_backsplit.backend.jobs.spec import Record, now
    from napari_backsplit.backend.project import Project

    layers_only.make(folder, cases, shape)
    with Project.open(folder, read_only=True) as project:
        ids = list(project.case_ids())
    begun = now() - timedelta(seconds=60)
    over = Record(state=State.SUCCEEDED, started=begun, ended=now(), result={})
    folders = {}
    for arm in ARMS:
        job = submit(folder, "predict", {"model": f"gone/{arm}", "cases": ids}, arm, start=False)
        inner = job.folder / "predictions"
        inner.mkdir(exist_ok=True)
        for file in (folder.parent / arm).iterdir():
            file.rename(inner / file.name)
        record = {
            "model": {"path": f"gone/{arm}", "folds": ["0"], "hashes": {}, "seen": {}},
            "targets": ["lesion"],
            "labels": {"lesion": 1},
            "settings": {},
            "cases": {case: {"seen": "verified", "role": "unseen"} for case in ids},
        }
        write_json(inner / "predictions.json", record)
        JobFolder(job.folder).write_record(over)
        folders[arm] = f"jobs/{job.id}"
    params = {"arms": folders, "baseline": ARMS[0], "title": "new against old"}
    job = submit(folder, "compare", params, "compare", start=False)
    run_compare(JobContext(JobFolder(job.folder)))
    JobFolder(job.folder).write_record(over)


class Session:
    """The dock on a project, in a real window."""

    def __init__(self, own):
        import napari

        from napari_backsplit.widgets.workflow import BackSplitWidget

        self.own = own
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1280, 960)
        self.dock = BackSplitWidget(self.viewer)
        self.viewer.window.add_dock_widget(self.dock, name="BackSplit", area="right")
        wait(lambda: self.dock.desk.driver is not None)

    def open(self, folder):
        self.dock.open_project(folder)
        wait(lambda: self.dock.desk.annotation is not None)
        self.rest()

    def step_in(self):
        """Open the step, and wait until a result is on the image."""
        self.dock.steps.button(COMPARE).click()
        self.panel = self.dock.comparison
        wait(lambda: self.panel.layers.loaded is not None)
        draw()

    @property
    def rows(self):
        return self.panel.table.model.ordered

    def page(self, step):
        """Do something that leads to a row, and wait until its case is there, and is drawn."""
        step()
        wait(self.is_there)
        draw()

    def is_there(self):
        row, opened, loaded = self.panel.table.here, self.dock.desk.annotation, self.loaded
        return opened and loaded and opened.case == loaded.overlay.case == row.case

    @property
    def loaded(self):
        return self.panel.layers.loaded

    def key(self, action):
        """Press a key of the canvas."""
        self.dock.tools.looking[action]()

    def rest(self):
        """Wait until nothing is under way: a person looks at the case."""
        panel = self.dock._comparison
        lanes = [self.dock.desk.files]
        if panel is not None:
            lanes += [
                panel._lane,
                panel.layers._lane,
                panel.counted._lane,
                panel.comparing._results,
            ]
        for lane in [*lanes, *lanes]:
            done = []
            lane.do(lambda: None, lambda _, done=done: done.append(True))
            wait(lambda done=done: done)
        end = time.perf_counter() + 0.1
        wait(lambda: time.perf_counter() > end)

    def close(self):
        self.dock.close_all()
        self.viewer.close()


def paging(session, own, cases):
    """Return the seconds of each page, by the way that led there."""
    table, took = session.panel.table, {}
    first = {}
    for row in session.rows:
        first.setdefault(row.case, row)
    unforeseen = [first[case] for case in cases[1:32:2]]
    ways = {
        "next case": [lambda: session.key("case")] * (len(cases) - 1),
        "next disagreement": [lambda: session.key("disagreement")] * len(cases),
        "rows of the table": [lambda row=row: table.go(row) for row in unforeseen],
    }
    for way, steps in ways.items():
        own.action, took[way] = f"paging, {way}", Took()
        session.page(lambda: table.go(session.rows[0]))
        session.rest()
        for step in steps:
            before = table.here
            took[way].measure(lambda step=step: session.page(step))
            if way != "rows of the table" and table.here.case == before.case:
                took[way].pop()  # of the same case: no page
                took[way].own.pop()
            session.rest()
    own.action, took["without a pause"] = "paging, without a pause", Took()
    session.page(lambda: table.go(session.rows[0]))
    for _ in cases[1:31]:
        took["without a pause"].measure(lambda: session.page(lambda: session.key("case")))
    session.rest()
    return took


def looking(session, own):
    """Use the panel's other parts; return how long each took, callbacks and drawing."""
    panel, took = session.panel, {}

    def do(what, *steps):
        own.action, took[what] = what, Took()
        for step in steps:
            took[what].measure(lambda step=step: (step(), draw()))

    from qtpy.QtCore import Qt

    orders = (Qt.SortOrder.AscendingOrder, Qt.SortOrder.DescendingOrder)
    table, parts = panel.table.table, panel.parts
    columns = range(panel.table.model.columnCount())
    do("sort", *[lambda c=c, o=o: table.sortByColumn(c, o) for c in columns for o in orders])
    do("filter", *[lambda n=n: panel.table.filter.setCurrentIndex(n) for n in (*range(1, 7), 0)])
    do("search", *[lambda t=t: panel.table.search.setText(t) for t in ("case_01", "kid", "")])
    do("rows of a case", *[lambda r=r: panel.table.go(r) for r in session.rows[:3]])
    do("figures", *[tab.click for tab in (*panel.figures.tabs.values(),)])
    do("parts", *[tick.toggle for tick in parts.parts.values() for _ in (0, 1)])
    do("outlines", parts.outlines.click, parts.outlines.click)
    parts.swipe.click()
    do("swipe", *[lambda n=n: parts.share.setValue(25 * n) for n in range(41)])
    parts.swipe.click()
    parts.blink.click()
    do("blink", *[panel.layers._turn for _ in range(10)])
    parts.blink.click()
    do("side by side, at first", parts.side.click, session.rest)
    do("side by side, off and on", parts.side.click, parts.side.click, parts.side.click)
    pairs = [session.panel.pair.new] * 3
    do("another pair", *[lambda new=new: panel._look_at(panel.target, new) for new in pairs])
    session.rest()
    do("leave the step", lambda: session.dock.show_step(0), session.rest)
    do("enter it again", lambda: session.dock.show_step(COMPARE), session.rest)
    return took


def watched():
    """Time our functions, those of the panel too."""
    import inspect

    from napari_backsplit.widgets import (
        _checks,
        _choosing,
        _comparing,
        _figures,
        _jobs,
        _lesion_table,
        _parts,
        _result,
        comparison,
    )

    own = layers_only.watched()
    modules = (comparison, _checks, _choosing, _comparing, _figures, _jobs, _lesion_table, _parts)
    for module in (*modules, _result):
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                own._wrap_own(kind)
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
        session, seconds = Session(own), {}
        session.open(folder)
        own.longest.clear()  # of opening the project: see window.py
        cases = list(session.dock.desk.standings)
        own.action = "opening the step"
        seconds["opening the step"] = Took()
        seconds["opening the step"].measure(session.step_in)
        session.rest()
        seconds |= paging(session, own, cases)
        took = looking(session, own)
        session.close()
        own.action = "napari alone"
        for arm, job in zip(ARMS, sorted((folder / "jobs").glob("*-predict")), strict=True):
            (folder.parent / arm).rmdir()
            (folder.parent / arm).symlink_to(job / "predictions")
        alone = layers_only.bare(folder, cases[:16])
    report(options, seconds, took, alone, own)


def report(options, seconds, took, alone, own):
    print(f"{options.cases} cases of {tuple(options.shape)}, two predictions each")
    print(f"napari alone, from files: {alone}")
    for what, times in seconds.items():
        print(f"{what}: {times}; {median(times) / median(alone):.2f}x")
    longest = max(*seconds["next case"], *seconds["next disagreement"])
    print(f"next case and next disagreement at most {PAGE_S} s: {holds(longest <= PAGE_S)}\n")
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
