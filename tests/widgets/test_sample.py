from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from napari.layers import Layer
from npe2 import PluginManager, PluginManifest

from napari_backsplit.widgets._layers import KEY, LayerData, stored, volume_of_layer
from napari_backsplit.widgets._orientation import Plane, show_plane
from napari_backsplit.widgets.sample import synthetic_ct
from tests.widgets.display_support import viewer_with


@pytest.fixture(scope="module")
def sample() -> list[LayerData]:
    return synthetic_ct()


def test_the_manifest_is_valid_and_found() -> None:
    manifest = PluginManifest.from_distribution("napari-backsplit")
    assert manifest.display_name == "BackSplit"
    manifest.validate_imports()
    manager = PluginManager()
    manager.discover(include_npe1=False)
    assert "napari-backsplit" in manager


def test_the_sample_is_an_image_with_its_fused_labels(sample) -> None:
    (image, shown, kind), (labels, also_shown, other) = sample
    assert (kind, other) == ("image", "labels")
    assert image.shape == labels.shape
    assert shown["scale"] == also_shown["scale"]
    assert shown["translate"] == also_shown["translate"]
    assert shown["contrast_limits"] == (-160, 240)
    ids = also_shown["metadata"][KEY]["labels"]
    assert set(np.unique(labels)) == set(ids.values())


def test_the_organs_are_where_a_radiologist_looks_for_them(sample) -> None:
    viewer = viewer_with(*sample)
    labels = viewer.layers[1]
    ids = labels.metadata[KEY]["labels"]

    def seen(name: str, plane: Plane) -> tuple[float, float]:
        show_plane(viewer, plane)
        middle = labels.data_to_world(np.argwhere(labels.data == ids[name]).mean(0))
        down, right = (middle[axis] for axis in viewer.dims.displayed)
        return down, right

    for plane in ("axial", "coronal"):
        assert seen("liver", plane)[1] < -20, "the liver is left of the midline on the screen"
        assert abs(seen("kidney", plane)[1]) < 20
    assert seen("liver", "coronal")[0] < seen("kidney", "coronal")[0], "and above the kidneys"
    assert seen("bowel", "axial")[0] < seen("kidney", "axial")[0], "the bowel is before them"
    assert seen("bowel", "sagittal")[1] < seen("kidney", "sagittal")[1]


def test_the_sample_can_be_worked_on_like_any_image(sample) -> None:
    layer = Layer.create(*sample[0])
    volume = volume_of_layer(layer)
    assert np.array_equal(volume.array, stored(layer.data))
    assert volume.spacing_mm == pytest.approx((4.8, 4.8, 4.8))


def test_opening_the_sample_loads_no_torch() -> None:
    code = (
        "import sys; from napari_backsplit.widgets.sample import synthetic_ct; synthetic_ct();"
        "print([m for m in ('torch', 'nnunetv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
