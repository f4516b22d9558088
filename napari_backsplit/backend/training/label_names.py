"""Label names of a baseline as the project calls them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import RunSpec


def renamed_labels(labels: Mapping[str, Any], targets: list[str], spec: RunSpec) -> dict[str, int]:
    """Return a baseline's labels under the project's names.

    One foreground label and one target are the same thing whatever their names; otherwise the
    names must agree or be mapped.

    Raises
    ------
    InputError
        The baseline predicts regions or has an ignore label.
    """
    odd = [name for name, label in labels.items() if not isinstance(label, int) or name == "ignore"]
    if odd:
        raise InputError(
            f"The baseline has regions or an ignore label ({', '.join(odd)}).",
            "Use a model with one softmax class per label.",
        )
    mapping = dict(spec.label_mapping)
    foreground = [name for name, label in labels.items() if label != 0]
    if not mapping and len(foreground) == len(targets) == 1:
        mapping = {foreground[0]: targets[0]}
    return {
        "background" if label == 0 else mapping.get(name, name): label
        for name, label in labels.items()
    }
