"""Whether a case was unseen by the models that are compared on it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NotRequired, TypedDict

SeenStatus = Literal["verified", "declared", "unknown", "seen"]
"""How it is known that a case is unseen: verified by the model's record, declared by the user,
unknown, or known to have been seen."""

_BY_TRUST: tuple[SeenStatus, ...] = ("seen", "unknown", "declared", "verified")


class ModelRecord(TypedDict):
    """What a model folder says of the images it has seen.

    ``training`` and ``validation`` are SHA-256 hashes of image files, ``validation`` those of the
    fold that chose the best checkpoint; a list that is missing is not known. Not ``complete``:
    a model that it started from does not say what it saw.
    """

    training: NotRequired[list[str] | None]
    validation: NotRequired[list[str] | None]
    complete: NotRequired[bool]
    declared_unseen: NotRequired[bool]


def case_status(hashes: Iterable[str], model: ModelRecord) -> SeenStatus:
    """Say whether one model has seen a case.

    Parameters
    ----------
    hashes : iterable of str
        SHA-256 of each of the case's images.
    model : ModelRecord
        The model's record.

    Returns
    -------
    SeenStatus
        A hash that is in the record counts for more than a declaration.
    """
    own = set(hashes)
    training, validation = model.get("training"), model.get("validation")
    if own & {*(training or ()), *(validation or ())}:
        return "seen"
    says_all = training is not None and validation is not None and model.get("complete", True)
    if own and says_all:
        return "verified"
    return "declared" if model.get("declared_unseen") else "unknown"


def weakest(statuses: Iterable[SeenStatus]) -> SeenStatus:
    """Return the least that can be said over several models; "unknown" of none."""
    known = set(statuses)
    return next((status for status in _BY_TRUST if status in known), "unknown")
