"""The review of a cohort as a table: a row for each case, and one for each of its structures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from napari_backsplit.backend.fusion.audit import Measure
from napari_backsplit.backend.fusion.review import CaseState, MaskState, State
from napari_backsplit.backend.project import ProjectReader

Volumes = Mapping[str, Mapping[str, float]]
"""Structure -> case -> ml."""

WORDS: Mapping[State, str] = {
    "none": "not judged",
    "unreviewed": "unreviewed",
    "accepted": "✓ accepted",
    "needs_work": "! needs work",
    "rejected": "✗ rejected",
}

_FORMULA = ("=", "+", "-", "@", "\t", "\n")


@dataclass(frozen=True)
class ReviewRow:
    """A case, or one of its structures; the fields are the columns.

    Attributes
    ----------
    structure : str
        "" in the row of the case.
    state : State
        Of the mask as it is now, or of the case; "none" where there is no mask, or no verdict.
    volume_ml : float or None
        None for a case, without a mask, and where it is not known.
    verdict, edited_since_verdict, who, when_utc, comment
        The last verdict, and whether a mask that it was about is another one now; "" and False
        without one.
    """

    case: str
    patient: str
    reserved_for_test: bool
    structure: str
    state: State
    volume_ml: float | None
    verdict: str
    edited_since_verdict: bool
    who: str
    when_utc: str
    comment: str


COLUMNS = tuple(field.name for field in fields(ReviewRow))


def review_rows(
    project: ProjectReader, states: Iterable[CaseState], volumes: Volumes | None = None
) -> tuple[ReviewRow, ...]:
    """Return the rows of some cases, each before those of its structures.

    `volumes` are taken where they are known, those of the states elsewhere.
    """
    measured = volumes or {}
    rows = []
    for state in states:
        rows.append(_row(project, state.case, state, None))
        for mask in state.masks:
            ml = measured.get(mask.structure, {}).get(state.case, mask.ml)
            rows.append(_row(project, state.case, mask, ml))
    return tuple(rows)


def _row(
    project: ProjectReader, case: str, of: CaseState | MaskState, ml: float | None
) -> ReviewRow:
    known = project.case(case)
    verdict = of.verdict
    return ReviewRow(
        case=case,
        patient=known.patient,
        reserved_for_test=known.test,
        structure=of.structure if isinstance(of, MaskState) else "",
        state=of.state,
        volume_ml=ml,
        verdict=verdict.verdict if verdict else "",
        edited_since_verdict=of.edited,
        who=verdict.who if verdict else "",
        when_utc=verdict.when if verdict else "",
        comment=verdict.comment if verdict else "",
    )


def volumes_ml(
    states: Iterable[CaseState], measures: Sequence[Measure] = ()
) -> dict[str, dict[str, float]]:
    """Return the volume of every mask: as measured in an audit, otherwise as kept beside it."""
    result: dict[str, dict[str, float]] = {}
    for state in states:
        for mask in state.masks:
            if mask.ml is not None:
                result.setdefault(mask.structure, {})[state.case] = mask.ml
    for measure in measures:
        result.setdefault(measure.structure, {})[measure.case] = measure.ml
    return result


def csv_text(rows: Iterable[ReviewRow]) -> str:
    """Return rows as CSV; what a spreadsheet would take for a formula begins with '."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in asdict(row).items()} for row in rows)
    return text.getvalue()


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
    text = "\n".join(str(value).splitlines())  # a bare \r would end the row unquoted
    return f"'{text}" if text.startswith(_FORMULA) else text


def plain_rows(rows: Iterable[ReviewRow]) -> list[dict[str, object]]:
    """Return rows as JSON holds them."""
    return [asdict(row) for row in rows]


# --- words --------------------------------------------------------------------------------------


def case_words(state: CaseState) -> str:
    """Say how a case stands: "✓ accepted, edited since"."""
    return f"{WORDS[state.state]}{_since(state)}"


def mask_words(mask: MaskState) -> str:
    """Say how a mask stands: "✓ accepted", "unreviewed, edited since", "no mask"."""
    return f"{'no mask' if mask.state == 'none' else WORDS[mask.state]}{_since(mask)}"


def _since(of: CaseState | MaskState) -> str:
    return ", edited since" if of.verdict and of.edited else ""


def volume_words(ml: float | None) -> str:
    """Return a volume with three digits, "" where it is not known; small ones stay readable."""
    if ml is None:
        return ""
    return f"{ml:.0f} ml" if ml >= 100 else f"{ml:.3g} ml"
