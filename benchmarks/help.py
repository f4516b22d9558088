"""Seconds until `backsplit --help` answers: against a bare Python, and against typer alone."""

import argparse
import subprocess
import sys
from statistics import median
from time import perf_counter

TYPER = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'])"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "typer alone, --help": ["-c", TYPER],
    "backsplit --help": ["-c", "from napari_backsplit.cli import main; main()", "--help"],
}


def clock(arguments):
    start = perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=11)
    repeats = parser.parse_args().repeats
    rounds = [[clock(arguments) for arguments in COMMANDS.values()] for _ in range(repeats + 1)]
    times = [median(column) for column in zip(*rounds[1:], strict=True)]  # the first one warms up
    for name, seconds in zip(COMMANDS, times, strict=True):
        print(f"{name:<20} {seconds:7.3f} s   {seconds / times[0]:5.1f}x")
    print(f"answers in under 0.5 s: {times[-1] < 0.5}")


if __name__ == "__main__":
    main()
