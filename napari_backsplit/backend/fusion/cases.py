"""What a case tells a network: its masks after recipes and verdicts, what is missing, the fusion.

Sources are the masks on disk; supports are what the recipes make of them. A mask enters when a
person accepted it or, where that is asked for, unless a person rejected it. A support of which not
everything is known is missing: background then means "background or it".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.fuse import Fused, LabelScheme, Mask, fuse
from napari_backsplit.backend.fusion.recipes import grown, lesion_regions, make_supports
from napari_backsplit.backend.project import ProjectReader
from napari_backsplit.backend.project.recipes import Known, known_supports, sources_of
from napari_backsplit.backend.project.schema import Schema
from napari_backsplit.backend.volume import Geometry, Volume, write_volume

Admit = Literal["accepted", "unreviewed"]
"""Which masks of supports enter: those that a person accepted, or all that none rejected."""


def project_scheme(project: ProjectReader) -> LabelScheme:
    """Return the scheme of all targets and supports of a project, its recipes applied."""
    supports = tuple(support.name for support in project.schema.fused_supports)
    return LabelScheme(project.schema.target_names, supports)


def admitted(project: ProjectReader, case: str, structure: str, admit: Admit) -> bool:
    """Whether the mask of a structure enters; False without a mask.

    A target enters unless it was rejected. A mask that was changed outside of this package since
    it was accepted is not accepted.
    """
    record = project.provenance(case, structure)
    if record is None or record.review == "rejected":
        return False
    if admit == "unreviewed" or structure in project.schema.target_names:
        return True
    return record.review == "accepted" and project.is_as_written(case, structure)


def missing_supports(project: ProjectReader, case: str, admit: Admit) -> tuple[str, ...]:
    """Return the supports of which not everything is known in a case, in order of priority.

    An empty mask is not missing: the structure is known not to be there.
    """
    schema = project.schema
    names = [structure.name for structure in schema.structures]
    return unknown_supports(schema, [n for n in names if admitted(project, case, n, admit)])


def unknown_supports(schema: Schema, entered: Iterable[str]) -> tuple[str, ...]:
    """Return the supports that are not wholly known where only some structures' masks enter."""
    known = known_supports(known_of(schema, entered), schema.recipes)
    return tuple(s.name for s in schema.fused_supports if known[s.name] != "whole")


def known_of(schema: Schema, entered: Iterable[str]) -> dict[str, Known]:
    """Return how much is known of each structure where only some structures' masks enter."""
    there = set(entered)
    return {s.name: "whole" if s.name in there else "none" for s in schema.structures}


def case_masks(
    project: ProjectReader, case: str, admit: Admit, names: Iterable[str] | None = None
) -> dict[str, Mask]:
    """Return the masks of a case that a network is told of.

    Parameters
    ----------
    project : ProjectReader
    case : str
    admit : Admit
    names : iterable of str, optional
        Targets and supports to read; by default all. Only the masks that they need are read.

    Returns
    -------
    dict of str to ndarray of bool
        (z, y, x) on the image's grid. Of a support that is missing (`missing_supports`), what is
        known for certain, if anything is.
    """
    schema = project.schema
    wanted = project_scheme(project).names if names is None else tuple(names)
    sources = (source for name in wanted for source in sources_of(name, schema.recipes))
    read = dict.fromkeys((*schema.target_names, *sources))
    masks = {n: project.mask(case, n) for n in read if admitted(project, case, n, admit)}
    made = apply_recipes(schema, masks, project.geometry(case).spacing_mm)
    return {name: made[name] for name in wanted if name in made}


def apply_recipes(
    schema: Schema, masks: Mapping[str, Mask], spacing_mm: tuple[float, float, float]
) -> dict[str, Mask]:
    """Make the supports of a case from the masks that enter, (z, y, x) with their voxel size."""
    made_by_growing = any(recipe.kind == "grow" for recipe in schema.recipes)
    targets = [masks[n] for n in schema.target_names if n in masks] if made_by_growing else []
    regions = lesion_regions(targets, spacing_mm)
    return make_supports(
        masks, known_of(schema, masks), schema.recipes, lambda mask: grown(mask, regions)
    )


# --- the fusion of a case -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FusedCase:
    """The fusion of one case, on its image's grid.

    `fused.missing` names the supports of which not everything is known, also those that have some
    voxels in the label map.
    """

    case: str
    fused: Fused
    geometry: Geometry

    @property
    def volume(self) -> Volume:
        """The label map with its place in the patient."""
        return Volume(self.fused.label_map, self.geometry)

    def write(self, path: Path) -> None:
        """Write the label map, on the image's grid."""
        write_volume(self.volume, path)


def fuse_case(
    project: ProjectReader,
    case: str,
    scheme: LabelScheme | None = None,
    admit: Admit = "unreviewed",
) -> FusedCase:
    """Fuse the masks of a case.

    Parameters
    ----------
    project : ProjectReader
    case : str
    scheme : LabelScheme, optional
        Defaults to all targets and supports of the project. Masks outside it are left out.
    admit : Admit
        Which masks of supports enter.

    Raises
    ------
    InputError
        The scheme names a support that the project has not.
    """
    whole = project_scheme(project)
    scheme = scheme or whole
    unknown = sorted(set(scheme.names) - set(whole.names))
    if unknown:
        raise InputError(
            f"The project has no support {', '.join(unknown)}.",
            f"It has: {', '.join(whole.supports) or 'none'}.",
        )
    masks = case_masks(project, case, admit, scheme.names)
    geometry = project.geometry(case)
    fused = fuse(masks, scheme, geometry.shape)
    absent = missing_supports(project, case, admit)
    missing = tuple(n for n in scheme.names if n in absent or n in fused.missing)
    return FusedCase(case, replace(fused, missing=missing), geometry)
