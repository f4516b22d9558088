"""Which label of a model is which target of a project. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.model_folder import ModelFolder


def match_targets(
    model: ModelFolder, targets: Sequence[str], given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return which label of a model is which target of a project.

    Names decide, whatever their case; a single target of both needs no common name.

    Raises
    ------
    InputError
        A target has no counterpart and none was given, or two have the same.
    """
    if given is None and len(targets) == len(model.targets) == 1:
        return {targets[0]: model.targets[0]}
    by_name = {name.casefold(): name for name in model.labels}
    matched = {target: (given or {}).get(target) or by_name.get(target) for target in targets}
    missing = [target for target, label in matched.items() if label not in model.labels]
    if missing:
        raise InputError(
            f"The model has no label for {', '.join(missing)}; it knows {', '.join(by_name)}.",
            "Say which of its labels is which target.",
        )
    if len(set(matched.values())) < len(matched):
        said = ", ".join(f"{target}: {label}" for target, label in matched.items())
        raise InputError(f"Two targets are the same label ({said}).", "Give each its own.")
    return {target: str(label) for target, label in matched.items()}
