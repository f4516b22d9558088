"""The trainings behind docs/experiments/: run what is missing, then write the tables.

    python scripts/experiments.py experiments

Broken off, it goes on where it stopped. The hippocampus runs where BACKSPLIT_TEST_DATA names a
folder that holds it.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from napari_backsplit.backend.comparison.statistics import over_draws
from napari_backsplit.backend.files import read_json, write_text
from napari_backsplit.backend.jobs.batch import run_batch
from napari_backsplit.backend.phantom import sample_project
from napari_backsplit.backend.project import LabelMaps, Project, import_folder
from napari_backsplit.backend.study import StudyArm, study_steps
from napari_backsplit.backend.training.spec import PlanSpec
from napari_backsplit.cli.demo import (
    BASELINE,
    CONTROL,
    FINETUNE,
    PLAN,
    PREDICTION,
    SCRATCH,
    demo_arms,
)

DRAWS = (101, 102, 103)
DOCS = Path(__file__).parent.parent / "docs" / "experiments"
HIPPOCAMPUS_PLAN = PlanSpec(features=(8, 16, 32), patch_size=(32, 32, 32), batch_size=2, folds=4)

Summary = dict[str, Any]
Figure = tuple[str, str, str]
FIGURES: tuple[Figure, ...] = (
    ("lesion", "dice", "Dice"),
    ("lesion", "average_precision", "AP"),
    ("lesion", "found_lesions", "lesions found"),
    ("lesion", "lesion_f1", "lesion F1"),
    ("lesion", "false_positives", "FP a case"),
    ("lesion-free", "false_positives", "FP a lesion-free case"),
    ("lesion-free", "false_positive_ml", "FP ml a lesion-free case"),
)

PHANTOM_PAGE = """\
# BackSplit on the synthetic phantom

SYNTHETIC cases, a small network and a small budget: what is seen here says nothing of patients.
`make experiments` makes this page; `backsplit demo --seed N` runs one draw without the controls.

Draws {draws} (train and test both new; the settings were chosen on draw 1 alone): {train} cases to
train on, {test} held out, about a third of them without a lesion. U-Net {features}, patch {patch},
batch {batch}, batch Dice, {optimiser} at {lr:g}, {scratch} iterations from scratch. "fine-tuned"
starts from "binary" and learns {tuned} iterations more at {tuned_lr:g} with three supports
(kidney, liver, bowel); "{control}" is its control, the same extra iterations without supports.
"permuted" has another case's supports and "blobs" random regions of the same volumes. Renal sinus
fat, which looks like water beside the kidney, is left out of the phantom: that favours BackSplit.

## Lesion cases and lesion-free cases, mean over {n} draws

{means}

## Difference to "binary", mean over draws with a 95 % t interval, and draws in favour

{differences}

## Dice in lesion cases, draw by draw

{by_draw}

An interval over {n} draws is wide, and one that holds 0 shows no difference. A network that finds
fewer lesions also has fewer false positives: read the two together.

{machine}
"""

HIPPOCAMPUS_PAGE = """\
# The hippocampus: posterior as target, anterior as support

32 MRI crops of the Medical Segmentation Decathlon, Task04 (CC BY-SA 4.0), 24 to train on and 8 held
out. The target is large and in every case, so this is a test of the loop on real images rather
than of small lesions. Commands, from a folder with `images/` and `labels/`:

```
backsplit init hippocampus --channel MR --target posterior --support anterior
cd hippocampus
backsplit import images ../images
backsplit import labels ../labels --ids 1=anterior,2=posterior
backsplit reserve --count 8
backsplit check
backsplit plan --features 8,16,32 --patch-size 32,32,32 --batch-size 2 --folds 4
{train}
backsplit finetune --from 2 --epochs {tuned} {budget} --initial-lr {tuned_lr:g}
backsplit train --arm backsplit --epochs {epochs} {budget} --initial-lr {lr:g}
backsplit predict 2 --no-mirroring; backsplit predict 3 --no-mirroring
backsplit predict 4 --no-mirroring; backsplit predict 5 --no-mirroring
backsplit compare binary=6 fine-tuned=7 "{control}=8" BackSplit=9 --control "{control}"
```

{table}

{verdicts}

{machine}
"""


def run_study(
    folder: Path, make: Callable[[Path], Project], plan: PlanSpec, arms: Sequence[StudyArm]
) -> Summary:
    """Run a study in its project, made if missing, and return its summary."""
    if not (folder / "project.json").exists():
        make(folder).close()
    with Project.open(folder) as project:
        project.freeze_test(plan.folds)
    steps = study_steps(plan, arms, PREDICTION, {"controls": [CONTROL]})
    began = time.monotonic()

    def tell(name: str, status: Any) -> None:
        print(f"{folder.name} {time.monotonic() - began:6.0f} s  {name} {status.state}", flush=True)

    done = run_batch(folder, steps, at_once=2, env={"OMP_NUM_THREADS": "1"}, tell=tell)
    summary: Summary = read_json((folder / done["compare"]["report"]).parent / "summary.json")
    return summary


def phantom_arms(seed: int) -> list[StudyArm]:
    """The demo's arms and the controls of meaningless supports."""
    controls = ("permuted", "blobs")
    update = [{"arm": arm, "seed": seed} for arm in controls]
    runs = [SCRATCH.model_copy(update=values) for values in update]
    return [*demo_arms(seed), *map(StudyArm, controls, runs)]


def hippocampus_project(data: Path) -> Callable[[Path], Project]:
    def make(folder: Path) -> Project:
        project = Project.create(folder, "hippocampus", ["MR"], ["posterior"], ["anterior"])
        labels = LabelMaps(data / "labels", "{case}.nii.gz", {1: "anterior", 2: "posterior"})
        import_folder(project, data / "images", "{case}.nii.gz", [labels])
        project.reserve_test(count=8)
        return project

    return make


def value(summary: Summary, arm: str, figure: Figure) -> float:
    group, metric, _ = figure
    (found,) = [s for s in summary["summaries"] if (s["arm"], s["group"]) == (arm, group)]
    mean = found["means"][metric]
    return float("nan") if mean is None else float(mean)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def means_table(summaries: Sequence[Summary], arms: Sequence[str]) -> str:
    rows = [["arm", *(label for *_, label in FIGURES)]]
    for arm in arms:
        figures = [np.nanmean([value(s, arm, figure) for s in summaries]) for figure in FIGURES]
        rows.append([arm, *(f"{mean:.3f}" for mean in figures)])
    return markdown(rows)


def difference(summaries: Sequence[Summary], arm: str, against: str, figure: Figure) -> str:
    each = [value(s, arm, figure) - value(s, against, figure) for s in summaries]
    draws = over_draws(each)
    half = stats.t.ppf(0.975, draws.count - 1) * draws.deviation / sqrt(draws.count)
    better = sum(d < 0 for d in each) if "false" in figure[1] else draws.positive
    mean = draws.mean
    return f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}] {better}/{draws.count}"


def differences_table(summaries: Sequence[Summary], arms: Sequence[str]) -> str:
    rows = [["arm", *(label for *_, label in FIGURES)]]
    pairs = [(arm, BASELINE, arm) for arm in arms if arm != BASELINE]
    pairs += [("fine-tuned", CONTROL, f"fine-tuned, against {CONTROL}")]
    for arm, against, name in pairs:
        rows.append([name, *(difference(summaries, arm, against, f) for f in FIGURES)])
    return markdown(rows)


def by_draw_table(summaries: Sequence[Summary], arms: Sequence[str]) -> str:
    rows = [["arm", *(f"draw {draw}" for draw in DRAWS)]]
    rows += [[arm, *(f"{value(s, arm, FIGURES[0]):.3f}" for s in summaries)] for arm in arms]
    return markdown(rows)


def machine() -> str:
    import torch

    return (
        f"Measured with torch {torch.__version__.partition('+')[0]} on {os.cpu_count()} CPU cores "
        f"({platform.machine()}), one thread a job, {time.strftime('%Y-%m-%d')}."
    )


def phantom(folder: Path) -> None:
    summaries = [
        run_study(
            folder / f"draw-{draw}",
            lambda path, draw=draw: sample_project(path, draw),
            PLAN,
            phantom_arms(draw),
        )
        for draw in DRAWS
    ]
    arms = [arm.name for arm in phantom_arms(0)]
    page = PHANTOM_PAGE.format(
        draws=", ".join(map(str, DRAWS)),
        train=16,
        test=24,
        features="/".join(map(str, PLAN.features or ())),
        patch="x".join(map(str, PLAN.patch_size or ())),
        batch=PLAN.batch_size,
        optimiser=SCRATCH.optimiser,
        lr=SCRATCH.initial_lr,
        scratch=SCRATCH.epochs * SCRATCH.iterations,
        tuned=FINETUNE.epochs * FINETUNE.iterations,
        tuned_lr=FINETUNE.initial_lr,
        control=CONTROL,
        n=len(DRAWS),
        means=means_table(summaries, arms),
        differences=differences_table(summaries, arms),
        by_draw=by_draw_table(summaries, arms),
        machine=machine(),
    )
    write_text(DOCS / "phantom.md", page)


def hippocampus(folder: Path, data: Path) -> None:
    arms = demo_arms()
    summary = run_study(folder / "hippocampus", hippocampus_project(data), HIPPOCAMPUS_PLAN, arms)
    figures = [
        ("lesion", name, label)
        for name, label in (("dice", "Dice"), ("nsd", "NSD at 2 mm"), ("hd95_mm", "HD-95 mm"))
    ]
    rows = [["arm", *(label for *_, label in figures)]]
    rows += [[arm.name, *(f"{value(summary, arm.name, f):.3f}" for f in figures)] for arm in arms]
    verdicts = [
        f"- {v['arm']} against {v['against']}: {v['sentence']}" for v in summary["verdicts"]
    ]
    budget = (
        f"--iterations {SCRATCH.iterations} --validation-iterations "
        f"{SCRATCH.validation_iterations} --optimiser {SCRATCH.optimiser} "
        f"--weight-decay {SCRATCH.weight_decay:g}"
    )
    train = f"backsplit train --arm binary --epochs {SCRATCH.epochs} {budget}"
    page = HIPPOCAMPUS_PAGE.format(
        train=f"{train} --initial-lr {SCRATCH.initial_lr:g}",
        tuned=FINETUNE.epochs,
        tuned_lr=FINETUNE.initial_lr,
        epochs=SCRATCH.epochs,
        lr=SCRATCH.initial_lr,
        budget=budget,
        control=CONTROL,
        table=markdown(rows),
        verdicts="\n".join(verdicts),
        machine=machine(),
    )
    write_text(DOCS / "hippocampus.md", page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the projects are kept")
    folder = parser.parse_args().folder.resolve()
    data = os.environ.get("BACKSPLIT_TEST_DATA")
    if data:
        hippocampus(folder, Path(data) / "hippocampus")
    else:
        print("BACKSPLIT_TEST_DATA is not set: the hippocampus is left out.")
    phantom(folder)


if __name__ == "__main__":
    main()
