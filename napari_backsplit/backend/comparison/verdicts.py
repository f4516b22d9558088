"""What may be said of an arm, in words.

A difference whose interval holds zero, or whose p is not small after Holm's correction, reads "not
shown to differ". Below fifty patients what is shown is said with "probably". Fewer false positives
are a gain only where no fewer lesions are found: a network that finds nothing has none. Without
cases known to be unseen there is no verdict, and of one case there are no statistics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import isfinite

from napari_backsplit.backend.comparison.coverage import nearest_patients
from napari_backsplit.backend.comparison.results import (
    ALL,
    Comparison,
    Contrast,
    Group,
    MatchedSensitivity,
    Row,
    Verdict,
    countable,
)
from napari_backsplit.backend.comparison.statistics import Difference

MINUS = "\N{MINUS SIGN}"

_BETTER_WHEN_SILENT = {
    "any_false_positive",
    "false_positives",
    "false_positive_ml",
    "precision",
    "hd95_mm",
    "assd_mm",
    "absolute_difference_ml",  # nothing is nearer to a little than much too much is
    "soft_absolute_error",
    "soft_squared_error",
    "soft_absolute_difference_ml",
    "soft_absolute_difference_percent",
}


def signed(value: float, digits: int) -> str:
    """Write a number with its sign, as +0.15 or, with a true minus sign, −0.15."""
    text = f"{abs(value):.{digits}f}"
    if not any(digit in "123456789" for digit in text):
        return text
    return ("+" if value > 0 else MINUS) + text


def interval(difference: Difference, digits: int) -> str:
    """Write an interval, as [0.06, 0.23], or that there is none."""
    if not isfinite(difference.low):
        return "[no interval]"
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
    details = _details(comparison, target, arm, against)
    rows = countable(comparison.rows, target, arm)
    if len({row.patient for row in rows}) == 1:
        single = _single(rows, countable(comparison.rows, target, against))
        return Verdict(target, arm, against, single, details, "too few to judge")
    dice = _of(comparison, target, arm, against, "lesion", "dice")
    if dice.pairs == 0:
        sentence = "No lesion case to compare: nothing can be said of finding lesions"
    else:
        sentence = "; ".join([_found(comparison, target, arm, against), _dice(dice)])
    sentence += "; " + _false_positives(comparison, target, arm, against)
    return Verdict(target, arm, against, _capital(sentence) + ".", details, dice.reading)


def _single(ours: Sequence[Row], theirs: Sequence[Row]) -> str:
    """Say why there are no statistics of one patient, and of one case what was measured."""
    if len(ours) > 1:
        return (
            f"No statistics: all {len(ours)} cases are of one patient, and of one patient it "
            "cannot be said what holds for others."
        )
    one, other = ours[0].measures, theirs[0].measures
    figures = [f"False positives {one.false_positives} against {other.false_positives}"]
    if ours[0].group == "lesion":
        lesions = _plural(one.reference_lesions, "lesion")
        figures.append(f"finds {one.found_lesions} of {lesions} against {other.found_lesions}")
        figures.append(f"Dice {one.dice:.2f} against {other.dice:.2f}")
    return (
        "No statistics: there is one case, and of one case it cannot be said what holds for "
        f"others. {'; '.join(figures)}."
    )


def _uncapital(label: str) -> str:
    """Write a label within a sentence; an abbreviation stays."""
    return label if label.isupper() else label[:1].lower() + label[1:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _no_verdict(comparison: Comparison, target: str) -> str:
    states = {row.case: row.seen for row in comparison.rows if row.target == target}
    seen = list(states.values()).count("seen")
    if seen == len(states):
        return "No verdict: a model had seen every case."
    if not seen:
        return "No verdict: it is not known whether the models had seen these cases."
    return (
        f"No verdict: no case is known to be unseen by every model. One had seen {seen} of "
        f"{len(states)} cases, of the others it is not known."
    )


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
        more = "more" if gained > 0 else "fewer"
        if difference.hedged:
            share = f"{abs(gained)} {more} of {ours.reference_lesions}"
            return f"probably finds {more} lesions ({share})"
        return f"finds {abs(gained)} {more} {of}"
    return f"finds {ours.found_lesions} {of} against {theirs.found_lesions}, {difference.reading}"


def _dice(difference: Difference) -> str:
    figures = f"{signed(difference.value, 2)} {interval(difference, 2)}"
    if difference.reading not in ("better", "worse"):
        return f"Dice {difference.reading} ({figures})"
    return (
        f"Dice probably {difference.reading}: {figures}"
        if difference.hedged
        else (f"Dice {figures}")
    )


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
    probably = "probably " if difference.hedged else ""
    if difference.reading == "worse":
        return f"{probably}more ({figures})"
    if finds_no_fewer(comparison, target, arm, against):
        return f"{probably}fewer ({figures})"
    return (
        f"{probably}fewer ({figures}), but not a gain: {_why_no_gain(comparison, target, against)}"
    )


def _why_no_gain(comparison: Comparison, target: str, against: str) -> str:
    if comparison.summary(target, against, "lesion").reference_lesions:
        return "fewer lesions are found too"
    return "without a lesion it is not known what else is lost"


def finds_no_fewer(
    comparison: Comparison, target: str, arm: str, against: str, stratum: str = ALL
) -> bool:
    """Say whether fewer false positives may count: there are lesions, and no fewer are found.

    In a stratum neither there nor over all cases.
    """
    differences = (
        comparison.contrast(target, arm, against, "lesion", "found_lesions", part)
        for part in dict.fromkeys((ALL, stratum))
    )
    return all(found is not None and found.difference.value >= 0 for found in differences)


def reading_of(comparison: Comparison, contrast: Contrast) -> str:
    """Return the reading of a contrast for a table; a gain that is none says so."""
    reading = contrast.difference.reading
    if not any(row.counted for row in comparison.rows if row.target == contrast.target):
        return "no verdict"
    pair = (contrast.target, contrast.arm, contrast.against)
    hollow = reading == "better" and contrast.metric.name in _BETTER_WHEN_SILENT
    if not hollow or finds_no_fewer(comparison, *pair, contrast.stratum):
        return reading
    lesions = comparison.summary(contrast.target, contrast.against, "lesion").reference_lesions
    return "fewer found: no gain" if lesions else "no lesion: no gain"


def _details(comparison: Comparison, target: str, arm: str, against: str) -> tuple[str, ...]:
    ours, theirs = (comparison.summary(target, name, "lesion") for name in (arm, against))
    free = comparison.summary(target, arm, "lesion-free")
    lines = [
        f"{_plural(ours.cases, 'lesion case')} of {_plural(ours.patients, 'patient')} and "
        f"{_plural(free.cases, 'lesion-free case')} of {free.patients}, reported apart."
    ]
    lines += _certainty(comparison, target, arm, against)
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


def _certainty(comparison: Comparison, target: str, arm: str, against: str) -> Iterator[str]:
    """Say how far the intervals are to be trusted, and what Holm's correction took back."""
    contrasts = [c for c in comparison.contrasts_of(target, arm, against) if c.group == "lesion"]
    dice = _of(comparison, target, arm, against, "lesion", "dice")
    least, settings = comparison.settings.bootstrap.minimum_patients, comparison.settings.bootstrap
    if 0 < dice.patients < least:
        yield f"{_plural(dice.patients, 'patient')}: fewer than {least} are too few to judge."
    elif dice.hedged and isfinite(dice.coverage):
        yield (
            f"With {dice.patients} patients this is hedged: such an interval held the truth in "
            f"{_share(dice.coverage)} of simulations of {nearest_patients(dice.patients)} "
            f"patients, where {_share(settings.level)} are aimed at."
        )
    if isfinite(dice.holm_p):
        yield (
            f"Dice: p {_equal(dice.wilcoxon_p)} by the signed-rank test over patients, "
            f"{p_value(dice.holm_p)} after Holm's correction over {_listed_primary(contrasts)}."
        )
    taken = [c.metric.label for c in contrasts if _taken_back(c.difference)]
    if taken:
        yield (
            f"{', '.join(taken)}: the interval excludes zero, but after Holm's correction p is not "
            f"below {1 - settings.level:.2g}, so no difference is claimed."
        )


def _taken_back(difference: Difference) -> bool:
    excludes_zero = difference.low > 0 or difference.high < 0
    told = difference.reading == "not shown to differ" and isfinite(difference.holm_p)
    return excludes_zero and told


def _listed_primary(contrasts: Sequence[Contrast]) -> str:
    tested = [c.metric.label for c in contrasts if isfinite(c.difference.holm_p)]
    first = tested[0]
    return ", ".join([first, *(_uncapital(label) for label in tested[1:])])


def _equal(p: float) -> str:
    return p_value(p) if p_value(p).startswith("<") else f"= {p_value(p)}"


def p_value(p: float) -> str:
    """Write a p: 0.03, 0.003, or < 0.001."""
    if not isfinite(p):
        return "not defined"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


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
