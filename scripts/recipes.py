"""Train every recipe for real on SYNTHETIC cases: kill it, resume it, predict, compare, and tell.

python scripts/recipes.py FOLDER [--page docs/recipes.md] [--only NAME ...]

Each recipe is a study of two arms, alike but for the supports. The second one's training is killed
(SIGKILL) after its first epoch and resumed. Broken off, the same command goes on. The table of time
and memory is written between the marks of the page.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from napari_backsplit.backend.files import read_json, write_text
from napari_backsplit.backend.jobs import Job, Note, State, submit
from napari_backsplit.backend.jobs.batch import look_up, run_batch
from napari_backsplit.backend.phantom import PhantomSpec, sample_project
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import StudyArm, study_steps
from napari_backsplit.backend.training.recipes import RECIPES, chosen_recipes, plan_settings
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec

SHAPE = (40, 60, 60)
FEATURES = (8, 16, 32)
PLANS = {
    "3d_fullres": PlanSpec(features=FEATURES, patch_size=(32, 32, 32), batch_size=2, folds=4),
    "2d": PlanSpec(features=FEATURES, patch_size=(32, 32), batch_size=4, folds=4),
    "3d_lowres": PlanSpec(features=FEATURES, patch_size=(16, 16, 16), batch_size=2, folds=4,
                          gpu_memory_gb=0.006),
}  # fmt: skip
WIDTHS = {"resenc-m": 8, "resenc-l": 8, "segresnet": 8, "swinunetr": 12}
BUDGET = {"epochs": 2, "iterations": 8, "validation_iterations": 2, "picture_every": 0}
COMBINED = (
    ("segresnet", "focal", "inverse-weighting"),
    ("2d", "softseg"),
    ("resenc-m", "dice", "inverse-weighting", "no-deep-supervision"),
)
MARKS = ("<!-- recipes -->", "<!-- end of recipes -->")
PLAIN = ("plans", "dataset")
BATCHES = 9
ENV = {"OMP_NUM_THREADS": "1"}
HEAD = ("recipe", "parameters, M", "CPU s a batch", "memory, GB", "resumed after epoch")


def recipe_sets() -> Iterator[tuple[str, ...]]:
    """Yield what is trained: nothing, each recipe alone, and some combinations."""
    yield ()
    for name in RECIPES:
        yield (name,)
    yield from COMBINED


def plan_of(recipes: tuple[str, ...]) -> PlanSpec:
    """Return the small plan set that some recipes are trained in."""
    needed = plan_settings(recipes)
    plan = PLANS[needed.get("configuration", "3d_fullres")]
    return PlanSpec.model_validate({**plan.model_dump(), **needed})


def arms_of(recipes: tuple[str, ...]) -> list[StudyArm]:
    """Return the two arms of a study; a recipe that is an arm stands against the binary one."""
    widths = {n: {"width": WIDTHS[n]} for n in recipes if n in WIDTHS}
    shared: dict[str, Any] = {**BUDGET, **next(iter(widths.values()), {})}
    own_arm = any("arm" in recipe.run for recipe in chosen_recipes(recipes))
    binary = RunSpec(recipe=() if own_arm else recipes, arm="binary", **shared)
    partial = {"support_cases": 0.5} if "plain-partial" in recipes else {}
    second = {} if own_arm else {"arm": "backsplit"}
    learns = RunSpec(recipe=recipes, **second, **partial, **shared)
    return [StudyArm("binary", binary), StudyArm("BackSplit", learns)]


def prove(project: Path, recipes: tuple[str, ...]) -> dict[str, Any]:
    """Train, kill, resume, predict and compare; return the row of the table."""
    plan, arms = plan_of(recipes), arms_of(recipes)
    steps = study_steps(plan, arms, {"mirroring": False}, {})
    run_batch(project, steps[:2], env=ENV, tell=tell)  # the plan and the binary arm
    job = look_up(project, steps[:3]).get("BackSplit") or begin(project, plan, arms[1])
    if job.status().state is not State.SUCCEEDED:
        killed_and_resumed(job)
    done = run_batch(project, steps, env=ENV, tell=tell)
    summary = read_json((project / done["compare"]["report"]).parent / "summary.json")
    if {entry["arm"] for entry in summary["summaries"]} != {arm.name for arm in arms}:
        raise SystemExit(f"{recipes}: an arm is missing from the comparison")
    return row(job, recipes)


def begin(project: Path, plan: PlanSpec, arm: StudyArm) -> Job:
    run = arm.run.model_copy(update={"plan_set": plan.name})
    return submit(project, "train", {"run": run.model_dump(mode="json")}, arm.name, env=ENV)


def killed_and_resumed(job: Job) -> None:
    """Kill a training once its first epoch is reported, and let it go on to its end."""
    if job.status().state in (State.PENDING, State.RUNNING):
        until_first_epoch(job)
        kill(job)
    job.resume(env=ENV)
    status = job.wait(1800)
    if status.state is not State.SUCCEEDED:
        raise SystemExit(f"{job.id}: {status.state}: {status.error}\n{job.log_tail()}")


def until_first_epoch(job: Job) -> None:
    """Wait for the checkpoint of the first epoch."""
    while not (job.folder / "model" / "fold_0" / "checkpoint_latest.pth").exists():
        if job.status().state not in (State.PENDING, State.RUNNING):
            raise SystemExit(f"{job.id} ended before its first epoch: {job.log_tail()}")
        time.sleep(0.1)


def kill(job: Job) -> None:
    status = job.status()
    for pid in (status.pid, status.task_pid):
        with suppress(ProcessLookupError):
            os.killpg(pid or 0, signal.SIGKILL)
    while job.status().state is State.RUNNING:
        time.sleep(0.1)


def row(job: Job, recipes: tuple[str, ...]) -> dict[str, Any]:
    card = read_json(job.folder / "model" / "dataset.json")["backsplit"]["trained"]
    texts = [event.text for event in job.events()[0] if isinstance(event, Note)]
    resumed = [int(m[1]) for t in texts if (m := re.match(r"Resumed after epoch (\d+)", t))]
    return {
        "recipe": " + ".join(recipes) or "(none)",
        "parameters": card["parameters"] / 1e6,
        "seconds": cpu_seconds(job),
        "memory": card["peak_memory_bytes"] / 1e9,
        "resumed": max(resumed, default=0),
        "notes": [text for text in texts if text.startswith("The patch is")],
    }


def cpu_seconds(job: Job) -> float:
    """Return the processor time of a batch, loaded, augmented and learnt from, in one thread."""
    import torch

    from napari_backsplit.backend.training import nnunet
    from napari_backsplit.backend.training.run import Run
    from napari_backsplit.backend.training.trainer import trainer_for

    os.environ.update({"nnUNet_n_proc_DA": "0", "nnUNet_compile": "False"})
    torch.set_num_threads(1)
    nnunet.set_folders(job.folder.parents[1] / "nnunet")
    plans, dataset_json = (read_json(job.folder / "model" / f"{n}.json") for n in PLAIN)
    (configuration,) = plans["configurations"]
    spec = RunSpec.model_validate(job.spec.params["run"])
    with TemporaryDirectory() as folder, redirect_stdout(StringIO()):
        trainer = trainer_for(Run(spec, Path(folder)), plans, configuration, dataset_json)
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        taken = [one_batch(trainer) for _ in range(1 + BATCHES)]
    return median(taken[1:])


def one_batch(trainer: Any) -> float:
    began = time.process_time()
    trainer.train_step(next(trainer.dataloader_train))
    return time.process_time() - began


def tell(name: str, status: Any) -> None:
    if status.state in (State.FAILED, State.LOST):
        print(f"  {name}: {status.state} {status.error}", flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"| {' | '.join(HEAD)} |", "|---|" + "--:|" * (len(HEAD) - 1)]
    for r in rows:
        figures = [f"{r['parameters']:.2f}", f"{r['seconds']:.2f}", f"{r['memory']:.2f}"]
        figures += [f"{r['resumed']}"]
        lines.append(f"| {r['recipe']} | {' | '.join(figures)} |")
    said = dict.fromkeys(f"- {r['recipe']}: {text}" for r in rows for text in r["notes"])
    return "\n".join([*lines, "", *said])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    project = given.folder.resolve()
    if not (project / "project.json").exists():
        spec = PhantomSpec(shape=SHAPE)
        sample_project(project, 1, train=8, test=2, spec=spec).close()
        with Project.open(project) as opened:
            opened.freeze_test(4)
    rows = []
    for recipes in recipe_sets():
        if given.only and not set(given.only) & set(recipes or ("none",)):
            continue
        rows.append(prove(project, recipes))
        print({k: v for k, v in rows[-1].items() if k != "notes"}, flush=True)
    print(table(rows))
    if given.page is not None:
        before, _, rest = given.page.read_text(encoding="utf-8").partition(MARKS[0])
        after = rest.partition(MARKS[1])[2]
        write_text(given.page, f"{before}{MARKS[0]}\n\n{table(rows)}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()
