"""Which way the images lie that a model was trained on. Needs no torch."""

from __future__ import annotations

from collections import Counter

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.geometry import axis_codes
from napari_backsplit.backend.prediction.model_folder import ModelFolder
from napari_backsplit.backend.prediction.orientation import is_orientation
from napari_backsplit.backend.project import Project


def orientations_of(model: ModelFolder) -> dict[str, int]:
    """Return the axes of a model's training images, such as LPS -> images; {} if unknown.

    The model's card says it; where an older one does not, the project that the model lies in does.
    """
    said = model.card.get("orientations")
    entries = said if isinstance(said, dict) else {}
    counts = {axes: count for axes, count in entries.items() if isinstance(count, int)}
    known = {axes: count for axes, count in counts.items() if is_orientation(axes)}
    return known or _in_project(model)


def _in_project(model: ModelFolder) -> dict[str, int]:
    """Look at the cases of the project in jobs/<id>/model that still have the images trained on."""
    folder = (model.path / "../../..").resolve()
    taught = (model.card.get("data") or {}).get("training") or {}
    if model.path.name != "model" or not (folder / "project.json").is_file():
        return {}
    try:
        with Project.open(folder, read_only=True) as project:
            cases = [case for case in project.case_ids() if _is_same(project, case, taught)]
            return dict(Counter(axis_codes(project.geometry(case)) for case in cases))
    except BackSplitError:
        return {}


def _is_same(project: Project, case: str, taught: dict[str, str]) -> bool:
    images = project.case(case).images.values()
    return taught.get(case) in {image.sha256 for image in images}
