"""What may be said of an arm, in words.

A difference whose interval holds zero reads "not shown to differ". Fewer false positives are a
gain only where no fewer lesions are found: a network that finds nothing has none. Without
cases known to be unseen there is no verdict.
"""

from __future__ import annotations

from dataclasses import replace

from napari_backsplit.backend.comparison.results import (
    Comparison,
    Contrast,
    Group,
    MatchedSensitivity,
    Verdict,
)
from napari_backsplit.backend.comparison.statistics import Difference

MINUS = "\N{MINUS SIGN}"

_BETTER_WHEN_SILENT = {
    "any_false_positive",
    "false_positives",
    "false_positive_ml",
    "precision",
    "hd95_mm",
}


def signed(value: float, digits: int) -> str:
    """Write a number with its sign, as +0.15 or, with a true minus sign, −0.15."""
    text = f"{abs(value):.{digits}f}"
    if not any(digit in "123456789" for digit in text):
        return text
    return ("+" if value > 0 else MINUS) + text


def interval(difference: Difference, digits: int) -> str:
    """Write an interval, as [0.06, 0.23]."""
    low, high = (
        signed(value, digits).removeprefix("+") for value in (difference.low, difference.high)
    )
    return f"[{low}, {high}]"


def give_verdicts(comparison: Comparison) -> Comparison:
    """Return the comparison with a verdict for each target and pair of arms."""
    verdicts = tuple(
        _verdict(comparison, target, arm, against)
        for target in comparison.targets
        for arm, against in comparison.pairs
    )
    return replace(comparison, verdicts=verdicts)


def _verdict(comparison: Comparison, target: str, arm: str, against: str) -> Verdict:
    known = any(row.counted for row in comparison.rows if row.target == target)
    if not known:
        return Verdict(target, arm, against, _no_verdict(comparison, target), (), "no verdict")
    dice = _of(comparison, target, arm, against, "lesion", "dice")
    if dice.pairs == 0:
        sentence = "No lesion case to compare: nothing can be said of finding lesions"
    else:
        sentence = "; ".join([_found(comparison, target, arm, against), _dice(dice)])
    sentence += "; " + _false_positives(comparison, target, arm, against)
    details = _details(comparison, target, arm, against)
    return Verdict(target, arm, against, _capital(sentence) + ".", details, dice.reading)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _no_verdict(comparison: Comparison, target: str) -> str:
    states = {row.seen for row in comparison.rows if row.target == target}
    if states == {"seen"}:
        return "No verdict: a model had seen every case."
    return "No verdict: it is not known whether the models had seen these cases."


def _of(
    comparison: Comparison, target: str, arm: str, against: str, group: Group, metric: str
) -> Difference:
    contrast = comparison.contrast(target, arm, against, group, metric)
    assert contrast is not None  # conclude() measures every metric of a group
    return contrast.difference


def _found(comparison: Comparison, target: str, arm: str, against: str) -> str:
    ours, theirs = (comparison.summary(target, name, "lesion") for name in (arm, against))
    difference = _of(comparison, target, arm, against, "lesion", "found_lesions")
    gained = ours.found_lesions - theirs.found_lesions
    of = f"of {_plural(ours.reference_lesions, 'lesion')}"
    if difference.reading in ("better", "worse"):
        return f"finds {abs(gained)} {'more' if gained > 0 else 'fewer'} {of}"
    return f"finds {ours.found_lesions} {of} against {theirs.found_lesions}, {difference.reading}"


def _dice(difference: Difference) -> str:
    figures = f"{signed(difference.value, 2)} {interval(difference, 2)}"
    if difference.reading in ("better", "worse"):
        return f"Dice {figures}"
    return f"Dice {difference.reading} ({figures})"


def _false_positives(comparison: Comparison, target: str, arm: str, against: str) -> str:
    """Say what happened to false positives, apart for each group unless both read the same."""
    said: dict[Group, str] = {}
    groups: tuple[Group, ...] = ("lesion", "lesion-free")
    for group in groups:
        difference = _of(comparison, target, arm, against, group, "false_positives")
        if difference.pairs:
            said[group] = _read_false_positives(comparison, target, arm, against, difference)
    if len(set(said.values())) == 1:
        return f"false positives {next(iter(said.values()))}"
    return "false positives " + ", ".join(
        f"in {group} cases {text}" for group, text in said.items()
    )


def _read_false_positives(
    comparison: Comparison, target: str, arm: str, against: str, difference: Difference
) -> str:
    if difference.reading not in ("better", "worse"):
        return difference.reading
    figures = f"{signed(difference.value, 2)} {interval(difference, 2)} per case"
    if difference.reading == "worse":
        return f"more ({figures})"
    if finds_no_fewer(comparison, target, arm, against):
        return f"fewer ({figures})"
    return f"fewer ({figures}), but not a gain: {_why_no_gain(comparison, target, against)}"


def _why_no_gain(comparison: Comparison, target: str, against: str) -> str:
    if comparison.summary(target, against, "lesion").reference_lesions:
        return "fewer lesions are found too"
    return "without a lesion it is not known what else is lost"


def finds_no_fewer(comparison: Comparison, target: str, arm: str, against: str) -> bool:
    """Say whether fewer false positives may count: there are lesions, and no fewer are found."""
    ours, theirs = (comparison.summary(target, name, "lesion") for name in (arm, against))
    return ours.reference_lesions > 0 and ours.found_lesions >= theirs.found_lesions


def reading_of(comparison: Comparison, contrast: Contrast) -> str:
    """Return the reading of a contrast for a table; a gain that is none says so."""
    reading = contrast.difference.reading
    if not any(row.counted for row in comparison.rows if row.target == contrast.target):
        return "no verdict"
    pair = (contrast.target, contrast.arm, contrast.against)
    hollow = reading == "better" and contrast.metric.name in _BETTER_WHEN_SILENT
    if not hollow or finds_no_fewer(comparison, *pair):
        return reading
    lesions = comparison.summary(contrast.target, contrast.against, "lesion").reference_lesions
    return "fewer found: no gain" if lesions else "no lesion: no gain"


def _details(comparison: Comparison, target: str, arm: str, against: str) -> tuple[str, ...]:
    ours, theirs = (comparison.summary(target, name, "lesion") for name in (arm, against))
    free = comparison.summary(target, arm, "lesion-free")
    lines = [
        f"{_plural(ours.cases, 'lesion case')} and {_plural(free.cases, 'lesion-free case')}, "
        "reported apart."
    ]
    if ours.reference_lesions:
        lines.append(
            f"Lesion sensitivity {_share(ours.means['found_lesions'])} against "
            f"{_share(theirs.means['found_lesions'])}: false positives are to be read beside it."
        )
    if ours.missed or theirs.missed:
        lines.append(
            f"Nothing was predicted in {_plural(ours.missed, 'lesion case')} against "
            f"{theirs.missed}; HD-95 follows the empty-mask policy there."
        )
    lines += [_matched(match) for match in comparison.matched if _is(match, target, arm, against)]
    return tuple(lines)


def _is(match: MatchedSensitivity, target: str, arm: str, against: str) -> bool:
    return (match.target, match.arm, match.against) == (target, arm, against)


def _matched(match: MatchedSensitivity) -> str:
    if match.point is None:
        return (
            f"At no threshold does {match.arm} find the {match.found} lesions of {match.against}."
        )
    return (
        f"At a sensitivity no lower than {match.against}'s ({match.point.found} and {match.found} "
        f"lesions found; threshold {match.point.threshold:g}, chosen on these cases, without an "
        f"interval): {match.point.false_positives} false positives against "
        f"{match.false_positives}."
    )


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
