"""The command that measures one mask against another, outside any project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_backsplit.backend.compare_settings import CompareSettings
from napari_backsplit.backend.errors import GeometryError, InputError
from napari_backsplit.cli import app
from napari_backsplit.cli.comparing import PREDICTING
from napari_backsplit.cli.data import JsonOption
from napari_backsplit.cli.models import COMPARE, changes_of
from napari_backsplit.cli.options import with_spec

if TYPE_CHECKING:
    from napari_backsplit.backend.comparison.metrics import Measures
    from napari_backsplit.backend.volume import Volume

FIGURES = {
    "dice": ("Dice", ""),
    "iou": ("IoU", ""),
    "nsd": ("NSD", ""),
    "hd95_mm": ("HD-95", "mm"),
    "assd_mm": ("ASSD", "mm"),
    "sensitivity": ("Voxel sensitivity", ""),
    "precision": ("Voxel precision", ""),
    "reference_ml": ("Volume of the reference", "ml"),
    "predicted_ml": ("Volume of the prediction", "ml"),
    "difference_ml": ("Volume difference in ml", "ml"),
    "volume_difference_percent": ("Volume difference in %", "%"),
    "reference_lesions": ("Lesions of the reference", ""),
    "predicted_lesions": ("Lesions of the prediction", ""),
    "found_lesions": ("Lesions found, count", ""),
    "false_positives": ("False positives", ""),
    "lesion_sensitivity": ("Lesions found, share", "share"),
    "lesion_f1": ("Lesion F1", ""),
    "false_positive_ml": ("False positive volume", "ml"),
    "false_negative_ml": ("False negative volume", "ml"),
}
"""Field of `Measures` -> its name, which begins as its definition's does, and its unit."""

SIZES = ("lesion size", "in the reference", "found", "predicted", "false positives")


@app.command(rich_help_panel=COMPARE)
@with_spec(CompareSettings, skip=PREDICTING)
def evaluate(
    *,
    reference: Annotated[Path, typer.Argument(help="The reference mask.")],
    prediction: Annotated[Path, typer.Argument(help="The predicted mask, on the same grid.")],
    label: Annotated[
        int | None, typer.Option(help="Id of the lesion in both; by default all but 0 is lesion.")
    ] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Only the figures.")] = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Measure one predicted mask against its reference; no project is needed.

    backsplit evaluate reference.nii.gz prediction.nii.gz
    """
    from napari_backsplit.cli.console import say, show, table

    settings = CompareSettings(**changes_of(CompareSettings, options))
    measures, rules = _measured(reference, prediction, label, settings)
    meant = _definitions()
    if as_json:
        show({**_plain(asdict(measures)), "rules": rules, "definitions": meant}, True)
        return
    table(("figure", "value", "unit"), _rows(measures))
    say("")
    table(SIZES, _sizes(measures))
    for text in () if brief else (*rules, *(f"{name}: {text}" for name, text in meant.items())):
        say("")
        say(text)


def _definitions() -> dict[str, str]:
    """Return what each figure is, with its source."""
    from napari_backsplit.backend.comparison.definitions import definitions

    shown = [name for name, _ in FIGURES.values()]
    return {
        each.name: f"{each.text} {each.source}."
        for each in definitions()
        if any(name.startswith(each.name) for name in shown)
    }


def _measured(
    reference: Path, prediction: Path, label: int | None, settings: CompareSettings
) -> tuple[Measures, list[str]]:
    """Return the figures, and the rules they follow in words."""
    from napari_backsplit.backend.comparison.lesions import LesionSettings
    from napari_backsplit.backend.comparison.metrics import Segmentation, measure
    from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
    from napari_backsplit.backend.volume import read_label_map

    masks = [read_label_map(path) for path in (reference, prediction)]
    turned = _on_one_grid(masks)
    _check_label(masks, label)
    first, second = (
        Segmentation.of(mask.array == label if label else mask.array, mask.spacing_mm)
        for mask in masks
    )
    lesions = LesionSettings(
        settings.matching, settings.iou_threshold, settings.connectivity, settings.strata_ml
    )
    missed = settings.missed_hd95 == "image diagonal"
    policy = EmptyMaskPolicy("diagonal" if missed else "leave out")
    measures = measure(first, second, settings.tolerance_mm, policy, lesions)
    tolerance = f"NSD counts surfaces within {settings.tolerance_mm:g} mm as one."
    return measures, [*turned, tolerance, lesions.text, policy.text]


def _on_one_grid(masks: list[Volume]) -> tuple[str, ...]:
    """Turn both masks where they lie otherwise on the same grid, and say so."""
    if not masks[0].geometry.difference(masks[1].geometry):
        return ()
    from napari_backsplit.backend.geometry import axis_codes

    axes = [axis_codes(mask.geometry) for mask in masks]
    masks[:] = [mask.canonical() for mask in masks]
    if difference := masks[0].geometry.difference(masks[1].geometry):
        raise GeometryError(
            f"The prediction is not on the grid of the reference. {difference}",
            "Resample it onto the grid of the reference.",
        )
    return (
        f"The reference lies along the axes {axes[0]} and the prediction along {axes[1]} of the "
        "same grid: both were turned to LPS, exactly.",
    )


def _check_label(masks: list[Volume], label: int | None) -> None:
    """Refuse an id that neither mask has: every figure would be of nothing."""
    if label == 0:
        raise InputError("--label 0 is what is no lesion.", "Give the id of the lesion.")
    if label is None or any((mask.array == label).any() for mask in masks):
        return
    from numpy import unique

    ids = sorted({int(value) for mask in masks for value in unique(mask.array)} - {0})
    known = ", ".join(map(str, ids)) or "none: both masks are empty"
    raise InputError(f"Neither mask has the id {label}.", f"They have: {known}.")


def _rows(measures: Measures) -> Iterator[tuple[str, str, str]]:
    for name, (words, unit) in FIGURES.items():
        value = getattr(measures, name)
        yield words, _number(value), unit


def _sizes(measures: Measures) -> Iterator[tuple[object, ...]]:
    for each in measures.by_stratum:
        yield each.name, each.reference, each.found, each.predicted, each.false_positives


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return f"{value:.4g}" if isfinite(value) else "not defined"


def _plain(value: Any) -> Any:
    """Return it as JSON has it: what is not a number becomes null."""
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value
