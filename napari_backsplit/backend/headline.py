"""The one line over a verdict: a model against its baseline and against every control at once."""

from __future__ import annotations

from collections.abc import Sequence

from napari_backsplit.backend.answer import CONTROL_WORDS
from napari_backsplit.backend.comparison.results import Verdict
from napari_backsplit.backend.improvement_chain import BASELINE, CONTROL, OURS
from napari_backsplit.backend.shown import Shown

NO_VERDICT, TOO_FEW = "● No verdict", "● Too few cases to judge"
NOT_MEASURED = "● Not measured: these cases have no reference. Look at them on the image."
ONLY_PREDICTED = "● Not measured yet: compare the two on these cases for a verdict."
UNCONTROLLED = f"● It was not measured against {CONTROL_WORDS}: longer training may explain it."
"""Of a fine-tune that was compared without its control."""


def headline(shown: Shown, target: str, new: str) -> str:
    """Return how a model reads against the baseline and the controls, in Dice in lesion cases.

    As in the answer to a fine-tune, the least that holds against any of them counts, and what
    finds fewer lesions is not better.
    """
    rivals = [arm for arm in (shown.baseline, *shown.controls) if arm != new]
    own = [v for v in shown.verdicts if (v.target, v.arm) == (target, new) and v.against in rivals]
    if not any(verdict.against == shown.baseline for verdict in own):
        unmeasured = ONLY_PREDICTED if shown.unmeasured else NOT_MEASURED
        return NO_VERDICT if shown.cases else unmeasured
    readings = {verdict.against: _reading(shown, verdict) for verdict in own}
    for reading, words in (("no verdict", NO_VERDICT), ("too few to judge", TOO_FEW)):
        if reading in readings.values():
            return words
    lacking = [against for against, reading in readings.items() if reading != "better"]
    if not lacking and new == OURS and not shown.controls:
        return UNCONTROLLED
    worse = lacking and all(readings[against] == "worse" for against in lacking)
    return _words(lacking or list(readings), bool(lacking), bool(worse), _hedged(own))


def _words(rivals: Sequence[str], lacking: bool, worse: bool, hedged: bool) -> str:
    how = "worse" if worse else "not shown to be better" if lacking else "better"
    how = f"probably {how}" if hedged and not how.startswith("not") else how
    mark = "▲" if lacking else "✓"
    return f"{mark} {how.capitalize()} than {' and than '.join(map(name_of, rivals))}"


def name_of(arm: str) -> str:
    """Return an arm as a sentence names it."""
    return {BASELINE: "the baseline", CONTROL: CONTROL_WORDS}.get(arm, arm)


def _reading(shown: Shown, verdict: Verdict) -> str:
    fewer = (verdict.target, verdict.arm, verdict.against) in shown.fewer_found
    return "worse" if fewer and verdict.reading == "better" else verdict.reading


def _hedged(verdicts: Sequence[Verdict]) -> bool:
    return any(f"Dice probably {verdict.reading}" in verdict.sentence for verdict in verdicts)
