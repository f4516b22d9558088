"""What a click waits for a training on the same device, and how soon a pause takes effect.

A real training and a person's click share one core of the CPU: it stands for the device. The click
is the same arithmetic each time. In each round, in random order: with the training paused (idle),
with a claim on the device (courtesy), and without one. A second of quiet before each lets the
training go on.

Two figures each: seconds on the clock, longer than on the idle device; and seconds of the core that
the training took while the click was answered, which other programs on the machine do not change.
Both against one iteration of that training, on the clock and of the core.
"""

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import random
import time
import timeit
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import psutil

from napari_backsplit.backend.jobs import Metric, State, submit
from napari_backsplit.backend.jobs.courtesy import claim, claimed
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

PLAN = PlanSpec(features=(8, 16), patch_size=(32, 32, 32), batch_size=2, folds=3)
RUN = RunSpec(arm="binary", epochs=100_000, iterations=20, validation_iterations=1, seed=7,
              picture_every=0, checkpoint_every=50)  # fmt: skip
PAUSE_S = 0.5
"""What a pause may take beside an iteration."""

PARTS = ("seconds: data", "seconds: forward", "seconds: backward")
WAYS = ("idle", "courtesy", "without")
NAMES = {"courtesy": "with courtesy", "row": "with courtesy, clicks in a row", "without": "without"}


class Training:
    """A training that goes on until it is told to end."""

    def __init__(self, folder):
        submit(folder, "plan", {"plan": PLAN.model_dump(mode="json")}).wait(600)
        self.job = submit(folder, "train", {"run": RUN.model_dump(mode="json")})
        until(lambda: len(self.epochs()) >= 2, 600)
        self.process = psutil.Process(self.job.status().task_pid)

    def epochs(self):
        """Return, per epoch that is over, the seconds of its iterations and of all of it."""
        values = {}
        for event in self.job.events()[0]:
            if isinstance(event, Metric) and event.name.startswith("seconds: "):
                values.setdefault(event.step, {})[event.name] = event.value
        whole = [v for v in values.values() if "seconds: epoch" in v and v.keys() >= set(PARTS)]
        return [(sum(v[part] for part in PARTS), v["seconds: epoch"]) for v in whole]

    def core_s(self):
        """Return the seconds of the core that it took so far."""
        times = self.process.cpu_times()
        return times.user + times.system

    def iteration(self, epochs):
        """Watch some epochs; return the seconds of an iteration, on the clock and of the core."""
        seen, core_s = len(self.epochs()), self.core_s()
        until(lambda: len(self.epochs()) >= seen + epochs, 600)
        core_s = self.core_s() - core_s
        watched = self.epochs()[seen:]
        iterations_s = sum(part for part, _ in watched)
        share = iterations_s / sum(whole for _, whole in watched)
        count = len(watched) * RUN.iterations
        return iterations_s / count, core_s * share / count

    def pause(self):
        """Let it hold; return the seconds until it does."""
        self.job.pause()
        return until(lambda: self.job.status().state is State.PAUSED)

    def unpause(self):
        """Let it go on."""
        self.job.unpause()
        until(lambda: self.job.status().state is State.RUNNING)

    def end(self):
        """End it."""
        self.job.cancel(grace_s=0)
        self.job.wait(60)


def until(condition, limit_s=120.0):
    """Wait for a condition, and return how long that took."""
    start = time.perf_counter()
    while not condition():
        assert time.perf_counter() - start < limit_s, "it never came"
        time.sleep(0.005)
    return time.perf_counter() - start


def work(size):
    """Compute what a click asks for."""
    values = np.linspace(0, 1, 200_000)
    for _ in range(size):
        values = np.sin(values)


def click(training, size, courtesy=True):
    """Return the seconds from the click to its answer, and those the training took of the core."""
    start, core_s = time.perf_counter(), training.core_s()
    with claim("cpu") if courtesy else nullcontext():
        work(size)
    return time.perf_counter() - start, training.core_s() - core_s


def play(training, rounds, size):
    """Click; return way -> what `click` returned, and the seconds of each pause."""
    found, pauses = {way: [] for way in WAYS}, []
    for _ in range(rounds):
        for way in random.sample(WAYS, len(WAYS)):
            if way == "idle":
                pauses.append(training.pause())
            time.sleep(1 + random.random())
            found[way].append(click(training, size, way == "courtesy"))
            if way == "idle":
                training.unpause()
    return found, pauses


def in_a_row(training, size, count=6, gap_s=0.1):
    """Return what `click` returned for clicks that follow one another, without the first."""
    time.sleep(1 + random.random())
    found = []
    for _ in range(count):
        found.append(click(training, size))
        time.sleep(gap_s)
    return found[1:]


def report(iteration, found, pauses):
    """Print the figures."""
    clock_s, core_s = iteration
    idle_s = median(seconds for seconds, _ in found["idle"])
    print(f"an iteration takes {1e3 * clock_s:.0f} ms, {1e3 * core_s:.0f} ms of the core; "
          f"a click on the idle device {1e3 * idle_s:.0f} ms")  # fmt: skip
    head = ("waits longer by", "median", "max ms", "of core: median", "max ms", "max iterations")
    print("{:32s}{:>10s}{:>10s}{:>18s}{:>10s}{:>16s}".format(*head))
    for way, name in NAMES.items():
        waits = [seconds - idle_s for seconds, _ in found[way]]
        taken = [seconds for _, seconds in found[way]]
        ms = [1e3 * value for value in (median(waits), max(waits), median(taken), max(taken))]
        print(f"{name:32s}{ms[0]:10.0f}{ms[1]:10.0f}{ms[2]:18.0f}{ms[3]:10.0f}"
              f"{max(taken) / core_s:16.2f}")  # fmt: skip
    print(f"a pause takes effect after {1e3 * median(pauses):.0f} ms, at most "
          f"{1e3 * max(pauses):.0f}")  # fmt: skip
    # The system counts the seconds of a core in hundredths.
    worst = max(seconds for _, seconds in found["courtesy"])
    print(f"a click waits at most one iteration longer: {worst <= core_s + 0.02}")
    print(f"a pause takes at most an iteration and {PAUSE_S} s: "
          f"{max(pauses) <= clock_s + PAUSE_S}")  # fmt: skip


def cost():
    """Print what looking for a claim costs in each iteration."""
    times = timeit.repeat(lambda: claimed("cpu"), number=2000, repeat=5)
    print(f"looking for a claim takes {1e6 * min(times) / 2000:.1f} µs where there is none")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--click-s", type=float, default=0.5)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # what is started here shares the core
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with TemporaryDirectory(ignore_cleanup_errors=True) as place:
        os.environ["BACKSPLIT_CONFIG_DIR"] = f"{place}/settings"
        with claim("cpu"):
            pass  # makes the folder
        cost()
        size = max(1, round(options.click_s / (timeit.timeit(lambda: work(10), number=3) / 30)))
        spec = PhantomSpec(shape=(40, 60, 60), lesion_radius_mm=(14.0, 22.0))
        with sample_project(Path(place) / "project", 3, train=6, test=2, spec=spec) as project:
            folder = project.folder
        training = Training(folder)
        try:
            before = training.iteration(3)
            found, pauses = play(training, options.rounds, size)
            found["row"] = [one for _ in range(3) for one in in_a_row(training, size)]
            after = training.iteration(3)
            report(tuple(map(max, before, after)), found, pauses)
        finally:
            training.end()


if __name__ == "__main__":
    main()
