"""What napari's menus call."""

from __future__ import annotations

from napari import Viewer


def open_sample_project(viewer: Viewer) -> None:
    """Open the dock with the sample project; it is made the first time."""
    _, dock = viewer.window.add_plugin_dock_widget("napari-backsplit", "BackSplit")
    dock.open_sample()
