"""Where a run starts from: one of the project's own models, or a foreign one that it adopts."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import link_or_copy, read_json
from napari_backsplit.backend.jobs import list_jobs
from napari_backsplit.backend.prediction.archive import unpack_zip
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.training.spec import LEARNING, NETWORK, PLANNED, RunSpec

ADOPTED = "baselines"
KEPT = ("plans.json", "dataset.json", "dataset_fingerprint.json")


def model_path(project_folder: Path, model: str) -> str:
    """Return the model folder that a person means, relative to the project.

    Parameters
    ----------
    project_folder : Path
    model : str
        Number or id of a training job, a path in the project, or any other model folder or zip,
        which is then adopted.

    Raises
    ------
    InputError
        There is no such job and no such model.
    """
    for job in list_jobs(project_folder):
        number = job.id.partition("-")[0]
        if model == job.id or (model.isdigit() and int(number) == int(model)):
            if job.spec.task != "train":
                raise InputError(f"Job {job.id} is no training.", "See: backsplit jobs list")
            return f"jobs/{job.id}/model"
    root = project_folder.resolve()
    for path in (root / model, Path(model).resolve()):
        if path.is_dir() and path.is_relative_to(root):
            return path.relative_to(root).as_posix()
        if path.exists():
            return adopt_model(project_folder, path)
    raise InputError(
        f"There is no training job and no model folder {model!r}.",
        "See the jobs with: backsplit jobs list",
    )


def plan_sets(project_folder: Path) -> dict[str, dict[str, Any]]:
    """Return the plan sets of a project as they are written down, by name; begun ones too."""
    files = sorted((project_folder / "nnunet" / "plan_sets").glob("*.json"))
    return {file.stem: read_json(file) for file in files}


def require_plan_set(project_folder: Path, name: str, fold: int | str) -> None:
    """Refuse a plan set that was not made, or a fold that it does not have.

    Raises
    ------
    InputError
    """
    made = plan_sets(project_folder)
    if name not in made or not made[name]["ready"]:
        ready = ", ".join(key for key, content in made.items() if content["ready"]) or "none"
        raise InputError(
            f"The project has no plan set {name!r} (it has: {ready}).",
            "Make it with: backsplit plan",
        )
    folds = len(made[name]["splits"])
    if fold != "all" and int(fold) >= folds:
        raise InputError(
            f"The plan set {name!r} has no fold {fold}.", f"Choose 0 to {folds - 1}, or all."
        )


def find_baseline(project_folder: Path, model: str) -> dict[str, Any]:
    """Return what a run spec needs to start from a model: baseline, plan set, fold and network.

    Raises
    ------
    InputError
        The project has no plan set with the plans of a foreign model.
    """
    found = start_of(project_folder, model)
    if not found["plan_set"]:
        raise InputError(
            "This model's plans are not in the project yet.",
            f"Run: backsplit plan --adopt {found['baseline']}",
        )
    return found


def start_of(project_folder: Path, model: str) -> dict[str, Any]:
    """Return what `find_baseline` does; the plan set is "" where a foreign model has none yet."""
    baseline = model_path(project_folder, model)
    opened = ModelFolder.open(project_folder / baseline)
    card, run = opened.card, opened.card.get("run") or {}
    plain = {name: RunSpec.model_fields[name].default for name in NETWORK}
    network = {name: run[name] for name in NETWORK if run.get(name, plain[name]) != plain[name]}
    if baseline.startswith("jobs/"):
        found = {"baseline": baseline, "plan_set": card["plan_set"], "fold": run["fold"]}
        return found | network
    fold = next(iter(opened.checkpoints))
    made = (content["spec"] for content in plan_sets(project_folder).values())
    return {
        "baseline": baseline,
        "plan_set": next((spec["name"] for spec in made if spec["baseline"] == baseline), ""),
        "fold": int(fold) if fold.isdigit() else fold,
        **{name: network[name] for name in network if name not in PLANNED},
    }


def learning_of(project_folder: Path, baseline: str) -> dict[str, Any]:
    """Return how a model was trained, for a fine-tune to learn the same way.

    Empty for a foreign model, which is taken to be trained by nnU-Net's defaults: a run's too.

    Parameters
    ----------
    baseline : str
        Model folder, relative to the project.
    """
    run = ModelFolder.open(project_folder / baseline).card.get("run") or {}
    return {key: run[key] for key in LEARNING if key in run}


def adopt_model(project_folder: Path, path: Path) -> str:
    """Take a foreign model into the project: checked, linked (else copied), never changed.

    The checkpoints get a second name under baselines/<name>, so that no job holds an outside
    path and the run stays repeatable when the original is moved.

    Returns
    -------
    str
        baselines/<name>, relative to the project.

    Raises
    ------
    InputError, UntrustedModelError
        The folder is not a whole model, or names code to run.
    """
    home = (project_folder / ADOPTED).resolve()
    if path.resolve().is_relative_to(home) and path.resolve() != home:
        return f"{ADOPTED}/{path.resolve().relative_to(home).parts[0]}"
    if path.suffix == ".zip":
        with TemporaryDirectory(prefix=".unpack-", dir=project_folder) as unpacked:
            return adopt_model(project_folder, unpack_zip(path, Path(unpacked) / "model"))
    model = ModelFolder.open(path)
    for adopted in sorted(home.glob("[!.]*")):
        if _same(adopted, path):
            return f"{ADOPTED}/{adopted.name}"
    name = next(name for n in count(1) if not (home / (name := f"baseline-{n}")).exists())
    home.mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".adopt-", dir=project_folder) as begun:
        _take(model, Path(begun) / name).rename(home / name)
    return f"{ADOPTED}/{name}"


def _take(model: ModelFolder, folder: Path) -> Path:
    for file in KEPT:
        if (model.path / file).exists():
            link_or_copy(model.path / file, folder / file)
    for fold, checkpoint in model.checkpoints.items():
        link_or_copy(checkpoint, folder / f"fold_{fold}" / checkpoint.name)
    return folder


def _same(adopted: Path, path: Path) -> bool:
    ours, theirs = ModelFolder.open(adopted), ModelFolder.open(path)
    return ours.hashes() == theirs.hashes()
