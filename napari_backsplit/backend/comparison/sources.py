"""What a comparison rests on: models, the versions that ran them, and licences.

Names and ids only: no path, no patient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

from napari_backsplit import __version__
from napari_backsplit.backend.comparison.arms import decided
from napari_backsplit.backend.comparison.trainings import EPOCHS, Training, card_of, training_of
from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.training.baseline import ADOPTED

NOT_RECORDED, NOT_KNOWN, NOT_STATED = "not recorded", "not known", "not stated"
_PACKAGES = ("napari-backsplit", "nnunetv2", "torch", "numpy", "python")
_ENGINES = {"file": "a file", "phantom": "the synthetic phantom"}


@dataclass(frozen=True)
class Licence:
    """Under which licences the masks of a structure stand.

    Parameters
    ----------
    what : str
        The structure, and what it is for.
    made_with : str
        Engines and models.
    licences : str
        Joined; "not recorded" where none is.
    """

    what: str
    made_with: str
    licences: str


@dataclass(frozen=True)
class Sources:
    """What a comparison rests on.

    Parameters
    ----------
    models : mapping of str to mapping
        Arm -> what is known of its model, word -> value.
    versions : mapping of str to mapping
        What ran -> package -> version.
    licences : tuple of Licence
    """

    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    licences: tuple[Licence, ...] = ()


def sources_of(
    project: ProjectReader, folders: Mapping[str, Sequence[Path]], cases: Sequence[str]
) -> Sources:
    """Collect what a comparison rests on.

    Parameters
    ----------
    project : ProjectReader
    folders : mapping of str to sequence of Path
        Arm -> the folders of its prediction jobs.
    cases : sequence of str
        The cases compared.
    """
    records = {arm: [_record(folder) for folder in each] for arm, each in folders.items()}
    paths = {arm: _path(each) for arm, each in records.items()}
    cards = {arm: card_of(project.folder, path) for arm, path in paths.items()}
    trained = {
        arm: [training_of(project.folder, _path([record])) for record in each]
        for arm, each in records.items()
    }
    predicted = {
        f"Prediction by {arm}": _versions(_json(folder / "job.json").get("versions"))
        for arm, each in folders.items()
        for folder in each[:1]
    }
    made = {f"Training of {arm}": _versions(card.get("versions")) for arm, card in cards.items()}
    versions = {**made, **predicted, "Comparison and report": _here()}
    return Sources(
        models={arm: _model(records[arm], cards[arm], trained[arm]) for arm in folders},
        versions={what: each for what, each in versions.items() if each},
        licences=(
            *(_of_model(arm, path, cards[arm]) for arm, path in paths.items()),
            *_of_masks(project, cases),
        ),
    )


def _json(path: Path) -> dict[str, Any]:
    """Return a JSON file; empty where it is missing or torn: a report says "not recorded"."""
    try:
        value = read_json(path)
    except (OSError, ValueError, BackSplitError):
        return {}
    return value if isinstance(value, dict) else {}


def _record(folder: Path) -> dict[str, Any]:
    inner = folder / "predictions" / "predictions.json"
    return _json(inner if inner.exists() else folder / "predictions.json")


def _path(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the folder of an arm's model, as its predictions name it; "" where they do not."""
    return str((records[0].get("model") or {}).get("path") or "") if records else ""


def _versions(given: object) -> dict[str, str]:
    known = dict(given) if isinstance(given, Mapping) else {}
    return {name: str(known[name]) for name in _PACKAGES if name in known}


def _here() -> dict[str, str]:
    found = {"napari-backsplit": __version__, "python": python_version()}
    return {**found, **{name: version(name) for name in ("numpy", "scipy", "SimpleITK")}}


# --- models -------------------------------------------------------------------------------------


def _model(
    records: Sequence[Mapping[str, Any]], card: Mapping[str, Any], trained: Sequence[Training]
) -> dict[str, str]:
    models = [record.get("model") or {} for record in records]
    settings = [record.get("settings") or {} for record in records]
    baseline = card.get("baseline")
    facts = {
        "Kind": _kind(card, models),
        "Supports": ", ".join(card.get("supports") or ()) or ("none" if card else ""),
        "Plan set": _each(each.plan_set or NOT_KNOWN for each in trained),
        "Trained on": _trained_on(models),
        "Started from": "an earlier model" if baseline else ("scratch" if card else ""),
        "Epochs": _each(each.settings.get(EPOCHS) for each in trained),
        "Changed settings": _each(each.changed or NOT_KNOWN for each in trained),
        "Configuration": _each(model.get("configuration") for model in models),
        "Trainer": _each(model.get("trainer_name") for model in models),
        "Folds": _each(fold for model in models for fold in model.get("folds") or ()),
        "Checkpoint": _each(each.get("checkpoint") for each in settings),
        "Lesion where": _decided(records, "rule"),
        "Mirrored": _decided(records, "mirroring"),
        "Step of the window": _decided(records, "step_size"),
        "Device": _each(each.get("device") for each in settings),
        "Checkpoint's SHA-256": _each(_digests(models)),
    }
    return {word: value for word, value in facts.items() if value}


def _decided(records: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return a setting that decides the masks: that of another program nobody knows."""
    return _each(decided(record).get(name, NOT_KNOWN) for record in records)


def _kind(card: Mapping[str, Any], models: Sequence[Mapping[str, Any]]) -> str:
    return str(card.get("arm") or "") or _each(model.get("arm") for model in models)


def _trained_on(models: Sequence[Mapping[str, Any]]) -> str:
    seen = [(model.get("seen") or {}).get("training") for model in models]
    known = [each for each in seen if each is not None]
    if not known or len(known) < len(seen):
        return NOT_RECORDED
    return f"{len({digest for each in known for digest in each})} images"


def _digests(models: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for model in models:
        for name, digest in (model.get("hashes") or {}).items():
            if str(name).endswith(".pth"):
                yield f"{str(digest)[:16]}…"


def _each(values: Iterable[Any]) -> str:
    """Join the different values that are known."""
    known = (value for value in values if value is not None and value != "")
    return ", ".join(dict.fromkeys("yes" if v is True else "no" if v is False else str(v)
                                   for v in known))  # fmt: skip


# --- licences -----------------------------------------------------------------------------------


def _of_model(arm: str, path: str, card: Mapping[str, Any]) -> Licence:
    """Return the licence of a model, and of the masks that it learnt from."""
    adopted = path.startswith(f"{ADOPTED}/")
    made = "adopted" if adopted else "trained in this project" if card else "a model from elsewhere"
    own = NOT_STATED if adopted else "the project's own" if card else NOT_RECORDED
    learnt = card.get("licences") or {}
    masks = "; ".join(f"{name}: {', '.join(known)}" for name, known in learnt.items())
    return Licence(
        f"Model {arm}",
        ", ".join(filter(None, (made, masks and f"masks it learnt from: {masks}"))),
        str(card.get("licence") or own),
    )


def _of_masks(project: ProjectReader, cases: Sequence[str]) -> list[Licence]:
    schema = project.schema
    uses = dict.fromkeys(schema.target_names, "reference")
    uses |= {name: "organ" for name in schema.support_names if name not in uses}
    return [line for name, use in uses.items() if (line := _of_mask(project, cases, name, use))]


def _of_mask(project: ProjectReader, cases: Sequence[str], name: str, use: str) -> Licence | None:
    records = [record for case in cases if (record := project.provenance(case, name))]
    if not records:
        return None
    made = dict.fromkeys(
        " ".join([_ENGINES.get(record.engine, record.engine), record.model]).strip()
        for record in records
    )
    licences = dict.fromkeys(record.licence or NOT_RECORDED for record in records)
    return Licence(
        f"Masks of {name} ({use})", ", ".join(each for each in made if each), ", ".join(licences)
    )
