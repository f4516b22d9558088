from __future__ import annotations

import subprocess
import sys

import numpy as np
from npe2 import PluginManager, PluginManifest

from napari_backsplit.widgets.sample import synthetic_ct


def test_the_manifest_is_valid_and_found() -> None:
    manifest = PluginManifest.from_distribution("napari-backsplit")
    assert manifest.display_name == "BackSplit"
    manifest.validate_imports()
    manager = PluginManager()
    manager.discover(include_npe1=False)
    assert "napari-backsplit" in manager


def test_the_sample_is_an_image_with_its_fused_labels() -> None:
    (image, shown, kind), (labels, also_shown, other) = synthetic_ct()
    assert (kind, other) == ("image", "labels")
    assert image.shape == labels.shape
    assert shown["scale"] == also_shown["scale"]
    ids = also_shown["metadata"]["labels"]
    assert set(np.unique(labels)) == set(ids.values())


def test_opening_the_sample_loads_no_torch() -> None:
    code = (
        "import sys; from napari_backsplit.widgets.sample import synthetic_ct; synthetic_ct();"
        "print([m for m in ('torch', 'nnunetv2') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
