"""What a model of a comparison has predicted already, and what it has still to predict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from napari_backsplit.backend.compare_settings import CompareSettings
from napari_backsplit.backend.comparison.arms import DECIDES
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.model_choices import ModelChoice, Predicted
from napari_backsplit.backend.prediction.model_folder import ModelFolder


@dataclass(frozen=True)
class Arm:
    """A model in a comparison: what it has predicted, and what it has still to predict."""

    name: str
    choice: ModelChoice
    there: Mapping[str, str]
    todo: tuple[str, ...]
    params: Mapping[str, Any]
    seconds: float | None


def asked_of(
    name: str,
    choice: ModelChoice,
    model: ModelFolder | None,
    folds: tuple[str, ...],
    cases: Sequence[str],
    settings: CompareSettings,
) -> Arm:
    """Return what a model has predicted of some cases, and what it has still to predict.

    Parameters
    ----------
    model : ModelFolder, optional
        None where there is nothing left of it but predictions.
    folds : tuple of str
        Those to predict with.

    Raises
    ------
    InputError
        Predictions whose model is gone lack a case.
    """
    if model is None:
        done = choice.predictions[0]
        lacking = [case for case in cases if case not in done.cases]
        if lacking:
            raise InputError(
                f"{name} lacks {', '.join(lacking[:5])}{' and more' * (len(lacking) > 5)}, and "
                "its model is not in the project.",
                "Leave these cases out, or take the model into the project.",
            )
        return Arm(name, choice, dict.fromkeys(cases, done.folder), (), {}, 0.0)
    checkpoint = next(iter(model.checkpoints.values())).name
    there = _there(choice.predictions, folds, checkpoint, cases, settings)
    todo = tuple(case for case in cases if case not in there)
    params = _params(choice, folds, checkpoint, todo, settings)
    return Arm(name, choice, there, todo, params, _seconds(choice, todo, settings))


def _there(
    predictions: Sequence[Predicted],
    folds: tuple[str, ...],
    checkpoint: str,
    cases: Sequence[str],
    settings: CompareSettings,
) -> dict[str, str]:
    """Return case -> job that predicted it the same way; no case of a job is in another."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    able = [done for done in predictions if _same(done, folds, checkpoint, settings)]
    for done in sorted(able, key=lambda done: -len(set(done.cases) & set(cases))):
        own = [case for case in cases if case in done.cases]
        if own and taken.isdisjoint(done.cases):
            found |= dict.fromkeys(own, done.folder)
            taken |= done.cases.keys()
    return found


def _same(
    done: Predicted, folds: tuple[str, ...], checkpoint: str, settings: CompareSettings
) -> bool:
    """Whether a job predicted as the settings ask."""
    enough = done.probabilities or not settings.probabilities
    alike = all(done.decides[name] == getattr(settings, name) for name in DECIDES)
    return enough and alike and (done.folds, done.checkpoint) == (folds, checkpoint)


def _params(
    choice: ModelChoice,
    folds: tuple[str, ...],
    checkpoint: str,
    cases: Sequence[str],
    settings: CompareSettings,
) -> dict[str, Any]:
    """Return the parameters of a prediction; what is usual is left out, as elsewhere."""
    params: dict[str, Any] = {
        "model": choice.path,
        "folds": [int(fold) if fold.isdigit() else fold for fold in folds],
        "cases": list(cases),
        "checkpoint": checkpoint,
        "device": settings.device,
        "declared_unseen": [],
    }
    changed = {
        n: getattr(settings, n) for n, usual in DECIDES.items() if getattr(settings, n) != usual
    }
    return params | changed | ({"probabilities": True} if settings.probabilities else {})


def _seconds(choice: ModelChoice, todo: Sequence[str], settings: CompareSettings) -> float | None:
    """Return how long predicting takes, by the newest prediction of the model on that device."""
    if not todo:
        return 0.0
    for done in choice.predictions:
        alike = all(done.decides[name] == getattr(settings, name) for name in DECIDES)
        if alike and done.device == settings.device and done.seconds_a_case:
            return len(todo) * done.seconds_a_case
    return None
