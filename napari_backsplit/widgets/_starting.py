"""Ways to a first project: the sample, or an image that is open in the viewer."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from napari.layers import Image, Layer
from platformdirs import user_data_path, user_documents_path

from napari_backsplit.backend.errors import ProjectError
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.volume import write_volume
from napari_backsplit.widgets._layers import KEY, SOFT_TISSUE_HU, volume_of_layer, window
from napari_backsplit.widgets._layout import short

PROJECTS = "BackSplit"
IMAGES = "Images (*.nii *.nii.gz *.nrrd *.mha *.mhd)"
"""What a dialog for files offers."""


def sample_folder() -> Path:
    """Return where the sample project is kept, whether it is there or not."""
    return user_data_path("napari-backsplit") / "sample"


def open_sample() -> Project:
    """Open the sample project to click in, to read only where another window has it open."""
    from napari_backsplit.backend.phantom.sample import sample_to_click

    folder = sample_folder()
    if not folder.exists():
        sample_to_click(folder)
    return Project.open(folder, fall_back=True)


def images_in(viewer: Any) -> list[Image]:
    """Return the image layers of a viewer that are not a project's own."""
    return [
        layer
        for layer in viewer.layers
        if isinstance(layer, Image) and "case" not in layer.metadata.get(KEY, {})
    ]


def project_from_layer(layer: Layer) -> Project:
    """Make a project with one case of an image layer, in the user's documents.

    A layer that our reader opened is added by its file; of any other one the voxels are written.

    Raises
    ------
    InputError
        The layer is no single grey volume.
    """
    volume = volume_of_layer(layer)
    channel = "CT" if window(volume.array) == SOFT_TISSUE_HU else "image"
    folder = _new_folder(user_documents_path() / PROJECTS)
    project = Project.create(folder, folder.name, [channel], ["lesion"])
    try:
        known = layer.metadata.get(KEY, {}).get("path")
        if known:
            project.add_case({channel: Path(known)}, name=Path(known).name)
        else:
            with TemporaryDirectory(dir=folder, prefix=".layer-") as made:
                file = Path(made) / "layer.nii.gz"
                write_volume(volume, file)
                project.add_case({channel: file}, name=layer.name, notes=volume.notes)
    except BaseException:
        project.close()
        raise
    return project


def _new_folder(parent: Path) -> Path:
    for number in range(1, 10_000):
        folder = parent / f"project-{number:03d}"
        if not folder.exists():
            return folder
    raise ProjectError(f"{parent} is full of projects.", "Make one with Project > New.")


def title_of(project: Project) -> str:
    """Return a project's name with what is to be known of it at a glance."""
    cases = len(project.schema.cases)
    alone = " · read only" if project.read_only else ""
    return f"{short(project.schema.name)} · {cases} case{'s' * (cases != 1)}{alone}"
