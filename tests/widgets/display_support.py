"""Small volumes with landmarks, and a display, for the tests of what napari shows."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Layer

from napari_backsplit.backend.geometry import Geometry, from_parts
from napari_backsplit.backend.volume import Volume

EYE = np.eye(3)
SIGNED_PERMUTATIONS = [
    np.eye(3)[:, list(axes)] * signs
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]
CENTRE, RIGHT, ANTERIOR, HEAD = 1, 2, 3, 4


def grid(shape=(4, 5, 6), spacing=(3.0, 2.0, 1.0), origin=(10.0, -20.0, 30.0), direction=EYE):
    return from_parts(shape, spacing, origin, direction)


def counted(geometry: Geometry, dtype="float32") -> Volume:
    values = np.arange(np.prod(geometry.shape), dtype=dtype).reshape(geometry.shape)
    return Volume(values, geometry)


def landmarks(direction) -> Volume:
    """Return a volume on a grid of that direction with a voxel at its centre and beside it.

    They are placed by where the voxels lie in the patient, not by any reordering of axes.
    """
    geometry = grid((7, 5, 9), direction=direction)
    array = np.zeros(geometry.shape, np.uint8)
    centre = geometry.to_lps((3, 2, 4))
    for value, step in {
        CENTRE: (0, 0, 0),
        RIGHT: (-1, 0, 0),
        ANTERIOR: (0, -1, 0),
        HEAD: (0, 0, 1),
    }.items():
        along = np.abs(np.asarray(geometry.direction)).T @ np.abs(step)
        mm = 2 * float(along @ geometry.spacing_mm[::-1])
        index = geometry.to_index(centre + mm * np.asarray(step))
        array[tuple(np.rint(index).astype(int))] = value
    return Volume(array, geometry)


def viewer_with(*layers) -> ViewerModel:
    viewer = ViewerModel()
    for data in layers:
        viewer.add_layer(Layer.create(*data))
    return viewer


def on_a_virtual_display(code: str, home: Path, timeout_s: float = 120) -> str:
    """Run code where napari has a canvas: offscreen it has no OpenGL and dies at its start."""
    start = shutil.which("xvfb-run")
    if start is None:
        pytest.skip("a napari canvas needs OpenGL: install xvfb")
    command = [start, "-a", "-s", "-screen 0 1600x1200x24", sys.executable, "-c", code]
    folders = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(home))
    environment = {**os.environ, **folders, "QT_QPA_PLATFORM": "xcb"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout_s
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
