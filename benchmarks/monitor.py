"""Whether following a job slows the window: a real napari window, and a job that says very much.

A child process writes 1,000 events a second into a job's folder while the monitor shows it. The
event loop's latency meanwhile is set against the idle viewer's, in the same run; and the longest
time that our own callbacks hold the window's thread is told.
"""

import argparse
import inspect
import os
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from window import ROOT, Loop, Own, on_a_display

OWN_MS, P99_MS = 50.0, 50.0
NAMES = (
    *("training loss", "validation loss", "target Dice", "learning rate"),
    *(f"Dice of support {n}" for n in range(3)),
    *(f"seconds: {part}" for part in ("data", "forward", "backward", "validation", "checkpoint")),
)


def write_events(file, rate):
    """Write events at a rate until standard input ends."""
    import select

    from napari_backsplit.backend.jobs import Metric, Note, Progress
    from napari_backsplit.backend.jobs.events import EventLog

    log, begun, count, epoch = EventLog(Path(file)), time.perf_counter(), 0, 0
    for turn in cycle(range(len(NAMES) + 1)):
        if turn < len(NAMES):
            log.append(Metric(NAMES[turn], epoch, 0.5 + (epoch * 7919 + turn) % 101 / 300))
        else:
            epoch += 1
            log.append(Progress(epoch, 100_000, f"epoch {epoch} of 100000", 3600.0))
            if epoch % 50 == 0:
                log.append(Note("info", f"Epoch {epoch} was no better than the one before it."))
        count += 1
        wait = begun + count / rate - time.perf_counter()
        if wait > 0.005:
            time.sleep(wait)
            if select.select([sys.stdin], [], [], 0)[0]:
                break
    print(count, time.perf_counter() - begun)


def make_job(project):
    from napari_backsplit.backend.jobs.folder import JobFolder
    from napari_backsplit.backend.jobs.processes import mark
    from napari_backsplit.backend.jobs.queue import make
    from napari_backsplit.backend.jobs.spec import Record, State, now

    params = {"run": {"device": "cuda:0", "workers": 1}}
    job = make(project, "train", params, "fine-tune", device="cuda:0")
    files = JobFolder(job.folder)
    files.write_record(Record(state=State.RUNNING, started=now(), worker=mark()))
    return job, files


def watch_own():
    """Wrap every function of the monitor."""
    from napari_backsplit.widgets import (
        _curves,
        _diagnosis,
        _gauges,
        _jobs,
        _log,
        _snapshots,
        _watch,
    )

    own = Own()
    for module in (_curves, _diagnosis, _gauges, _jobs, _log, _snapshots, _watch):
        for kind in vars(module).values():
            if inspect.isclass(kind) and kind.__module__ == module.__name__:
                own._wrap_own(kind)
    own._wrap_hop()
    return own


def spend(seconds, files=None):
    from qtpy.QtWidgets import QApplication

    until = beat = time.perf_counter()
    until += seconds
    while (now := time.perf_counter()) < until:
        if files is not None and now > beat:
            files.heartbeat_file.touch()  # as the job's worker would
            beat = now + 1.0
        QApplication.processEvents()
        time.sleep(0.0005)


def measure(project, options):
    import napari

    own = watch_own()
    from napari_backsplit.widgets._jobs import JobMonitor
    from napari_backsplit.widgets._layout import scrolling

    viewer = napari.Viewer()
    monitor = JobMonitor(viewer)
    viewer.window.add_dock_widget(scrolling(monitor), name="BackSplit", area="right")
    viewer.window._qt_window.resize(1280, 1100)
    job, files = make_job(project)
    files.heartbeat_file.touch()
    spend(3.0)
    loop = Loop()
    with loop.during("idle"):
        spend(options.seconds)
    argv = [sys.executable, __file__, "--write", str(files.events_file), "--rate", options.rate]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writer = subprocess.Popen([str(a) for a in argv], **pipes)
    own.action = "flood"
    monitor.show_chain(project, job.id)
    spend(2.0, files)
    with loop.during("flood"):
        spend(options.seconds, files)
    told, _ = writer.communicate("\n")
    spend(1.5, files)
    count, took = (float(word) for word in told.split())
    read, _ = job.events()
    shown = monitor.curves.losses.values("training")[0]
    monitor.close_all()
    viewer.close()
    return loop, own, (int(count), took, len(read), len(shown), int(shown[-1]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_events(options.write, options.rate)
        return 0
    on_a_display()
    import numpy as np

    sys.path[0] = str(ROOT)  # not this folder: it holds a click.py
    with TemporaryDirectory() as place:
        os.environ.update(BACKSPLIT_CONFIG_DIR=f"{place}/settings", HOME=place)
        os.environ.update(XDG_DATA_HOME=f"{place}/data", XDG_CONFIG_HOME=f"{place}/config")
        loop, own, (count, took, read, points, last) = measure(Path(place), options)
    print(f"{count} events in {took:.1f} s: {count / took:.0f} a second; {read} read back")
    print(f"a curve is drawn with {points} points, up to epoch {last}")
    p99 = {}
    for phase in ("idle", "flood"):
        p50, p99[phase] = np.percentile(loop.waits[phase], (50, 99))
        worst = max(loop.waits[phase])
        print(f"event loop, {phase:6s} p50 {p50:6.1f}  p99 {p99[phase]:6.1f}  max {worst:6.1f} ms")
    ours, _, name = own.longest.get("flood", (0.0, 0.0, "none"))
    added = p99["flood"] - p99["idle"]
    print(f"p99 added by following the job: {added:.1f} ms (at most {P99_MS:.0f})")
    print(f"longest callback of ours: {ours:.1f} ms, {name} (at most {OWN_MS:.0f})")
    return int(ours > OWN_MS or added > P99_MS or count / took < 0.95 * options.rate)


if __name__ == "__main__":
    sys.exit(main())
