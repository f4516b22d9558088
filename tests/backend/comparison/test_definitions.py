from __future__ import annotations

from math import isnan

import numpy as np
import pytest

from napari_backsplit.backend.comparison.definitions import definitions
from napari_backsplit.backend.comparison.metrics import Segmentation, measure
from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
from napari_backsplit.backend.comparison.results import METRICS

FIELDS = {
    "Dice": "dice",
    "IoU": "iou",
    "NSD": "nsd",
    "HD-95": "hd95_mm",
    "ASSD": "assd_mm",
    "Voxel sensitivity": "sensitivity",
    "Voxel precision": "precision",
    "Volume difference": "volume_difference_percent",
    "Lesions found": "lesion_sensitivity",
    "False positives": "false_positives",
    "Lesion F1": "lesion_f1",
    "False positive volume": "false_positive_ml",
    "False negative volume": "false_negative_ml",
}


def test_every_metric_has_one_definition_and_its_source():
    names = [definition.name for definition in definitions()]
    assert len(set(names)) == len(names)
    assert set(FIELDS) <= set(names)
    for definition in definitions():
        assert definition.text.endswith(".")
        assert definition.source


def test_every_metric_of_the_tables_is_defined():
    told = {definition.name for definition in definitions()}
    for metrics in METRICS.values():
        for metric in metrics:
            label = metric.label.split(",")[0].replace(
                "Cases with a false positive", "False positives"
            )
            assert label in told, metric.label


def test_the_definitions_say_what_holds_for_empty_masks():
    """What `measure` returns where the reference is empty is what its definition says."""
    empty, lesion = (Segmentation.of(np.full((3, 3, 3), on), (1, 1, 1)) for on in (False, True))
    free, missed = measure(empty, lesion), measure(lesion, empty)
    for definition in definitions():
        field = FIELDS.get(definition.name)
        if field is None:
            continue
        undefined = isnan(getattr(free, field))
        assert undefined == ("ot defined where" in definition.text), definition.name
        if undefined and "; 0 where only the prediction is" in definition.text:
            assert getattr(missed, field) == 0, definition.name


@pytest.mark.parametrize("missed", ["leave out", "diagonal"])
def test_the_policy_names_every_metric_that_an_empty_reference_leaves_undefined(missed):
    empty = Segmentation.of(np.zeros((3, 3, 3)), (1, 1, 1))
    figures = vars(measure(empty, empty))
    undefined = {name for name, value in figures.items() if value != value}
    words = {
        "dice": "Dice",
        "iou": "IoU",
        "nsd": "NSD",
        "hd95_mm": "HD-95",
        "assd_mm": "ASSD",
        "precision": "precision",
        "sensitivity": "sensitivity",
        "lesion_f1": "lesion F1",
        "lesion_sensitivity": "sensitivity",
        "volume_difference_percent": "volume difference in percent",
    }
    assert undefined == set(words)
    text = EmptyMaskPolicy(missed).text
    assert all(word in text for word in words.values())
