"""Project folder: schema of targets and supports, cases, provenance, one writer at a time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_backsplit.backend.project.images import Reading
    from napari_backsplit.backend.project.importing import (
        ImportReport,
        apply_plan,
        import_folder,
        import_masks,
        import_multilabel,
        import_structure_folder,
    )
    from napari_backsplit.backend.project.nnunet_raw import (
        dataset_structures,
        import_nnunet_raw,
        scan_nnunet_raw,
    )
    from napari_backsplit.backend.project.reader import ProjectReader
    from napari_backsplit.backend.project.scanning import (
        FoundCase,
        ImportPlan,
        LabelMaps,
        Masks,
        Problem,
        StructureFiles,
        scan_folder,
        scan_masks,
    )
    from napari_backsplit.backend.project.schema import (
        FORMAT_VERSION,
        OKABE_ITO,
        Case,
        Channel,
        Image,
        Provenance,
        Schema,
        Structure,
        neutral_name,
    )
    from napari_backsplit.backend.project.soft_importing import import_soft
    from napari_backsplit.backend.project.store import Project

_HOMES = {
    "images": "Reading",
    "importing": (
        "ImportReport apply_plan import_folder import_masks import_multilabel "
        "import_structure_folder"
    ),
    "nnunet_raw": "dataset_structures import_nnunet_raw scan_nnunet_raw",
    "reader": "ProjectReader",
    "scanning": (
        "FoundCase ImportPlan LabelMaps Masks Problem StructureFiles scan_folder scan_masks"
    ),
    "schema": (
        "FORMAT_VERSION OKABE_ITO Case Channel Image Provenance Schema Structure neutral_name"
    ),
    "soft_importing": "import_soft",
    "store": "Project",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [
    "FORMAT_VERSION",
    "OKABE_ITO",
    "Case",
    "Channel",
    "FoundCase",
    "Image",
    "ImportPlan",
    "ImportReport",
    "LabelMaps",
    "Masks",
    "Problem",
    "Project",
    "ProjectReader",
    "Provenance",
    "Reading",
    "Schema",
    "Structure",
    "StructureFiles",
    "apply_plan",
    "dataset_structures",
    "import_folder",
    "import_masks",
    "import_multilabel",
    "import_nnunet_raw",
    "import_soft",
    "import_structure_folder",
    "neutral_name",
    "scan_folder",
    "scan_masks",
    "scan_nnunet_raw",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
