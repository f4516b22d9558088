"""What is to be looked at in a case that is open and being edited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from napari_backsplit.backend.fusion.audit import examine_masks
from napari_backsplit.backend.fusion.findings import Finding, Limits, Severity, by_severity
from napari_backsplit.backend.fusion.quality import check_outliers
from napari_backsplit.backend.fusion.review import CaseState
from napari_backsplit.backend.structures.annotation import Annotation


def findings_of(
    annotation: Annotation, states: Mapping[str, CaseState], limits: Limits | None = None
) -> tuple[Finding, ...]:
    """Return what is to be looked at in an open case, the gravest first.

    Parameters
    ----------
    annotation : Annotation
        Its masks as they are now, saved or not.
    states : mapping of str to CaseState
        Every case: the volumes to compare with.
    limits : Limits, optional

    Returns
    -------
    tuple of Finding
        Positions are canonical (z, y, x).
    """
    limits = limits or Limits()
    schema = annotation.project.schema
    there = [n for n in annotation.structures() if annotation.standing(n) != "none"]
    masks = {n: annotation.kept(n) for n in there if n not in annotation.unreadable}
    found = [
        *_of_files(annotation),
        *examine_masks(
            annotation.case,
            annotation.grid,
            masks,
            schema.target_names,
            [n for n in schema.support_names if n not in annotation.unreadable],
            annotation.scene().image,
            limits,
        ),
        *_of_volumes(annotation, states, limits),
    ]
    return tuple(by_severity(found))


def _of_files(annotation: Annotation) -> Iterator[Finding]:
    for structure, error in annotation.unreadable.items():
        yield Finding(annotation.case, structure, "error", "unreadable", str(error))
    if annotation.project.verify_images([annotation.case]):
        text = (
            "The image has changed since it was imported, so the masks may not fit it. Restore "
            "the image, or import the case again."
        )
        yield Finding(annotation.case, "", "error", "changed", text)


def _of_volumes(
    annotation: Annotation, states: Mapping[str, CaseState], limits: Limits
) -> Iterator[Finding]:
    """Compare the volumes of the open case with those of the others."""
    targets = annotation.project.schema.target_names
    for name in annotation.structures():
        ml = {
            case: mask.ml or 0.0
            for case, state in states.items()
            for mask in state.masks
            if mask.structure == name  # a state may be older than the structure
        }
        ml[annotation.case] = annotation.volume_ml(name)
        severity: Severity = "info" if name in targets else "warning"
        found = check_outliers(name, ml, severity, limits)
        yield from (finding for finding in found if finding.case == annotation.case)
