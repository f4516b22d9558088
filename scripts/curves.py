"""Draw how trainings learnt each class: the validation Dice after every epoch.

python scripts/curves.py OUT.png PROJECT "TITLE=0004-train" ["TITLE=0005-train" ...]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DICE = ("target Dice", "Dice of ")


def curves(job: Path) -> dict[str, list[float]]:
    """Return each class's Dice by epoch, from a training's events."""
    found: dict[str, list[float]] = {}
    for line in (job / "events.jsonl").read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["kind"] == "metric" and event["name"].startswith(DICE):
            name = event["name"].removeprefix("Dice of ").removesuffix(" Dice")
            found.setdefault(name, []).append(event["value"])
    return found


def draw(axes: Axes, title: str, found: dict[str, list[float]]) -> None:
    for name, values in found.items():
        target = name == "target"
        axes.plot(
            range(1, len(values) + 1),
            values,
            color="black" if target else None,
            linewidth=2.2 if target else 1.4,
            label=name,
        )
    axes.set(title=title, xlabel="epoch", ylim=(-0.02, 1))
    axes.grid(alpha=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("project", type=Path)
    parser.add_argument("runs", nargs="+", metavar="TITLE=JOB")
    given = parser.parse_args()
    figure = Figure(figsize=(3.6 * len(given.runs), 3.2), layout="constrained")
    panels = figure.subplots(1, len(given.runs), sharey=True, squeeze=False)[0]
    for axes, run in zip(panels, given.runs, strict=True):
        title, _, job = run.rpartition("=")
        draw(axes, title, curves(given.project / "jobs" / job))
    panels[0].set_ylabel("Dice, validation patches")
    most = max(panels, key=lambda axes: len(axes.lines))
    most.legend(loc="center right", frameon=False)
    figure.savefig(given.out, dpi=110)


if __name__ == "__main__":
    main()
