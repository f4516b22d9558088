"""What a model did with an image: taught by it, judged by it, or never saw it.

Cases that a fold held out are unseen by its last checkpoint, though not by its best one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_backsplit.backend.prediction.model_folder import ModelFolder
    from napari_backsplit.backend.project import Project

ROLES = ("training", "validation")
FINAL = "checkpoint_final.pth"
HELD_OUT = "held out"
"""The role of a case among the validation cases of a model that they had no part in making."""


def role_of(card: Mapping[str, Any], hashes: set[str]) -> str | None:
    """Return what a model did with an image: "training", "validation", "unseen", None: unknown.

    A fine-tune has seen what its baseline saw; where that one does not say what it saw,
    nothing is unseen for certain.
    """
    record = seen_record(card)
    for role in ROLES:
        if hashes & set(record[role]):
            return role
    return "unseen" if says_all(card) else None


def seen_record(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hashes of the images a model has seen, by role, its baselines' included.

    Where any of them does not say what it saw, the record is not "complete".
    """
    records = list(_data_records(card))
    known = {
        role: sorted({h for data in records for h in (data.get(role) or {}).values()})
        for role in ROLES
    }
    return {**known, "complete": says_all(card)}


def says_all(card: Mapping[str, Any]) -> bool:
    """Whether a model, and all that it started from, say what they saw."""
    return all(role in data for data in _data_records(card) for role in ROLES)


def _data_records(card: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield card.get("data") or {}
    if card.get("baseline") is not None:
        yield from _data_records(card["baseline"])


def held_out(card: Mapping[str, Any], hashes: Collection[str], checkpoint: str = FINAL) -> bool:
    """Whether an image among a model's validation images had no part in making it.

    Validation cases choose checkpoint_best.pth, and with patience when a training ends. The last
    checkpoint of a training without patience would be the same without them; so must be that of
    the model it started from, where the image was among its validation images too.

    Parameters
    ----------
    card : mapping
        What this package wrote about the model.
    hashes : collection of str
        SHA-256 of the image, any of them.
    checkpoint : str
        File name of the checkpoint that is used.
    """
    validation = (card.get("data") or {}).get("validation") or {}
    if not set(hashes).isdisjoint(validation.values()) and not _unguided(card, checkpoint):
        return False
    start = card.get("baseline")
    used = (card.get("run") or {}).get("baseline_checkpoint", "")
    return start is None or held_out(start, hashes, used)


def _unguided(card: Mapping[str, Any], checkpoint: str) -> bool:
    """Whether validation cases had no say in a checkpoint; not where the card does not tell."""
    run = card.get("run")
    if run is None or card.get("exported_checkpoint", FINAL) != FINAL:
        return False
    guided = any(run.get(name) is not None for name in ("patience", "same_epochs_as"))
    return checkpoint == FINAL and not guided


def seen(
    project: Project, model: ModelFolder, case: str, declared_unseen: Collection[str] = ()
) -> dict[str, str | None]:
    """Return what is known of what a model did with a case, and how.

    Returns
    -------
    dict
        "role": training, validation, held out, unseen or None; "seen", how that is known:
        "verified" by hashes, "declared" by the user, or "unknown".
    """
    images = project.case(case).images.values()
    hashes = {image.sha256 for image in images} | {image.source_sha256 for image in images}
    role = role_of(model.card, hashes - {""})
    declared = case in declared_unseen
    checkpoint = next(iter(model.checkpoints.values())).name
    if role == "validation" and held_out(model.card, hashes, checkpoint):
        if not says_all(model.card):  # of what it started from nothing is known
            return {"seen": "declared" if declared else "unknown", "role": HELD_OUT}
        role = HELD_OUT
    if role is not None:
        return {"seen": "verified", "role": role}
    if declared:
        return {"seen": "declared", "role": "unseen"}
    return {"seen": "unknown", "role": None}
