"""What came of an improvement, in plain words that claim no more than was shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_backsplit.backend.comparison.results import Row
from napari_backsplit.backend.comparison.tables import read_cases
from napari_backsplit.backend.comparison.verdicts import MINUS
from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.improvement_chain import BASELINE, CONTROL, OURS
from napari_backsplit.backend.jobs import State, list_jobs
from napari_backsplit.backend.training.spec import RunSpec

NOTABLE = 0.05
"""Change of a case's Dice from which the case is named."""

CONTROL_WORDS = "the same extra binary training"

_NO_MATTER = {"arm", "supports", "masks", "epochs", "hours", "until", "same_epochs_as", "patience",
              "split_offset", "split_noise", "curriculum_epochs", "final_support_weight",
              "target_dice_share", "workers", "threads", "device", "compile",
              "checkpoint_every", "picture_every", "yield_to_clicks", "tracker"}  # fmt: skip
"""What may differ between a new model and its control: what concerns labels or the machine alone;
the epochs that were trained are compared instead of a budget."""


@dataclass(frozen=True)
class Answer:
    """Whether a new model is better, and where.

    Attributes
    ----------
    text : str
        The answer in a sentence or two.
    better : bool or None
        True only where Dice in lesion cases is shown to be better, its interval without zero,
        than the baseline's and than that of the same extra binary training, and it is not shown
        that fewer lesions are found; None where nothing can be said: too few cases, unknown
        whether they were unseen, or no control, or one of other settings.
    verdicts : tuple of str
        The comparison's own sentences.
    gained, lost : tuple of str
        Cases whose Dice rose or fell by more than `NOTABLE` against the baseline.
    cases : int
        Cases that were counted.
    report : Path
        The whole report.
    hedged : bool
        There are too few patients to say it without "probably".
    """

    text: str
    better: bool | None
    verdicts: tuple[str, ...]
    gained: tuple[str, ...]
    lost: tuple[str, ...]
    cases: int
    report: Path
    hedged: bool = False


def answer(project_folder: Path, chain: str) -> Answer | None:
    """Return what the comparison at the end of a chain says; None before it has succeeded."""
    for job in reversed(list_jobs(project_folder)):  # one that was repeated counts last
        if job.spec.task == "compare" and chain in (job.id, job.spec.chain):
            status = job.status()
            if status.state is State.SUCCEEDED and status.result:
                other = _other_settings(Path(project_folder), job.spec.params["arms"])
                return _answer(Path(project_folder), status.result, other)
    return None


def _other_settings(project_folder: Path, arms: Mapping[str, Any]) -> list[str]:
    """Return in which settings a control was trained unlike the new model, beside its labels.

    One of the two may have been repeated with changes. Of models that are gone nothing is said.
    """
    if not {OURS, CONTROL} <= arms.keys():
        return []
    ours, control = (_trained(project_folder, arms[arm]) for arm in (OURS, CONTROL))
    pairs = zip(ours, control, strict=False)
    different = {key for one, other in pairs if one and other for key in one
                 if one[key] != other[key]}  # fmt: skip
    return sorted(name.replace("_", " ") for name in different)


def _trained(project_folder: Path, folders: str | list[str]) -> list[dict[str, Any]]:
    """Return what a model's weights depend on, but its labels; of each fold, {} where unknown."""
    found = []
    for folder in [folders] if isinstance(folders, str) else folders:
        run: dict[str, Any] = {}
        with suppress(BackSplitError, KeyError, TypeError, ValueError):
            model = read_json(project_folder / folder / "job.json")["params"]["model"]
            card = read_json(project_folder / model / "dataset.json")["backsplit"]
            spec = RunSpec.model_validate(card["run"])
            run = spec.model_dump(exclude=_NO_MATTER)
            run["epochs"] = (card.get("trained") or card["run"])["epochs"]
        found.append(run)
    return found


def _answer(project_folder: Path, result: Mapping[str, Any], other: list[str]) -> Answer:
    folder = project_folder / result["folder"]
    summary = read_json(folder / "summary.json")
    read = _Reading(summary, other)
    changes = _changes(read_cases(folder / "cases.csv"), read.ours, read.baseline)
    gained = tuple(case for case, change in changes.items() if change > NOTABLE)
    lost = tuple(case for case, change in changes.items() if change < -NOTABLE)
    counted = sum(seen in ("verified", "declared") for seen in summary["cases"].values())
    sentences = [*read.sentences(), *_named(gained, lost, bool(counted))]
    return Answer(
        text=" ".join(sentences),
        better=read.better,
        verdicts=tuple(
            f"{v['arm']} against {v['against']}: {v['sentence']}" for v in summary["verdicts"]
        ),
        gained=gained,
        lost=lost,
        cases=counted,
        report=project_folder / result["report"],
        hedged=read.hedged,
    )


class _Reading:
    """What a summary says of the first arm that is neither baseline nor control, against those."""

    def __init__(self, summary: Mapping[str, Any], other: list[str]) -> None:
        self.summary, self.other = summary, other
        self.baseline = summary["settings"]["baseline"]
        self.controls = list(summary["settings"]["controls"])
        others = (arm for arm in summary["arms"] if arm not in (self.baseline, *self.controls))
        self.ours = next(others)
        self.rivals = [self.baseline, *self.controls]
        self.uncontrolled = self.ours == OURS and (not self.controls or bool(other))
        self.subject = "the new model" if self.ours == OURS else self.ours

    def difference(self, target: str, against: str, metric: str) -> Mapping[str, Any]:
        """Return a measured difference of ours, in lesion cases."""
        wanted = (target, self.ours, against, "lesion", metric)
        keys = ("target", "arm", "against", "group", "metric")
        found: Mapping[str, Any] = next(
            each
            for each in self.summary["differences"]
            if tuple(each[key] for key in keys) == wanted and each.get("stratum", "all") == "all"
        )
        return found

    def reading(self, against: str) -> str:
        """Return how ours reads against a rival: the least that holds for every target."""
        readings = [self._of_target(target, against) for target in self.summary["targets"]]
        order = ("no verdict", "worse", "too few to judge", "not shown to differ", "better")
        return min(readings, key=order.index)

    def _of_target(self, target: str, against: str) -> str:
        reading = str(self.difference(target, against, "dice")["reading"])
        fewer = self.difference(target, against, "found_lesions")["reading"] == "worse"
        return "worse" if reading == "better" and fewer else reading

    @property
    def better(self) -> bool | None:
        """Whether ours is better than every rival; None where that cannot be said."""
        readings = {rival: self.reading(rival) for rival in self.rivals}
        unsure = {"no verdict", "too few to judge"} & set(readings.values())
        if unsure or (readings[self.baseline] == "better" and self.uncontrolled):
            return None
        return set(readings.values()) == {"better"}

    @property
    def hedged(self) -> bool:
        """Whether a difference is shown on so few patients that it is said with "probably"."""
        shown = (
            self.difference(target, rival, "dice")
            for target in self.summary["targets"]
            for rival in self.rivals
        )
        return any(each.get("hedged") and each["reading"] in ("better", "worse") for each in shown)

    def sentences(self) -> Iterator[str]:
        """Yield the answer, then the figures against the baseline and against the control."""
        if self.reading(self.baseline) == "no verdict":
            said = str(self.summary["verdicts"][0]["sentence"])
            yield said
            if "not known" in said:
                yield "Declare cases unseen only if you know that no model was trained on them."
            return
        yield self._conclusion()
        said = "; ".join(self._against(rival) for rival in self.rivals)
        yield f"{said[:1].upper()}{said[1:]}; on {self._cases()}."
        if self.other:
            yield (
                f"That training was not the same: it differs in {', '.join(self.other)}. Repeat it "
                "with the settings of the new model."
            )
        elif self.uncontrolled:
            yield f"It was not measured against {CONTROL_WORDS}: longer training may explain it."
        yield from self._more_marked()

    def _more_marked(self) -> Iterator[str]:
        """Say where ours is shown to mark more that is no lesion: Dice does not tell it all."""
        worse = {
            (each["against"], each["group"])
            for each in self.summary["differences"]
            if each["arm"] == self.ours
            and each.get("stratum", "all") == "all"
            and each["metric"] == "false_positives"
            and each["reading"] == "worse"
        }
        for rival in self.rivals:
            groups = " and ".join(f"{group} cases" for against, group in sorted(worse)
                                  if against == rival)  # fmt: skip
            if groups:
                yield f"It has more false positives in {groups} than {self._name(rival)}."

    def _conclusion(self) -> str:
        if self.better is None:
            return f"It cannot be said whether {self.subject} is better."
        lacking = [rival for rival in self.rivals if self.reading(rival) != "better"]
        worse = lacking and all(self.reading(rival) == "worse" for rival in lacking)
        how = "worse" if worse else "not shown to be better" if lacking else "better"
        how = f"probably {how}" if self.hedged and not how.startswith("not") else how
        names = [self._name(rival) for rival in lacking or self.rivals]
        subject = self.subject[:1].upper() + self.subject[1:]
        return f"{subject} is {how} than {' and than '.join(names)}."

    def _cases(self) -> str:
        states = list(self.summary["cases"].values())
        declared = states.count("declared")
        count = declared + states.count("verified")
        said = f", {declared} of them by your word alone" if declared else ""
        return f"{count} case{'' if count == 1 else 's'} that no model had seen{said}"

    def _name(self, rival: str) -> str:
        if rival == CONTROL:
            return CONTROL_WORDS
        return "the baseline" if rival == BASELINE else rival

    def _against(self, rival: str) -> str:
        name = self._name(rival)
        figures = ", ".join(self._figures(target, rival) for target in self.summary["targets"])
        maybe = "probably " if self.hedged else ""
        words = {
            "better": f"{maybe}better than {name}",
            "worse": f"{maybe}worse than {name}",
            "not shown to differ": f"not shown to differ from {name}",
            "too few to judge": f"too few cases to judge against {name}",
        }
        return f"{words[self.reading(rival)]} ({figures})"

    def _figures(self, target: str, rival: str) -> str:
        dice = self.difference(target, rival, "dice")
        several = f"{target}: " if len(self.summary["targets"]) > 1 else ""
        if dice["value"] is None:
            return f"{several}no lesion to find"
        ours, theirs = (self._found(target, arm) for arm in (self.ours, rival))
        return (
            f"{several}Dice {_signed(dice['value'])} {_interval(dice)}, "
            f"finds {ours[0]} of {ours[1]} lesions against {theirs[0]}"
        )

    def _found(self, target: str, arm: str) -> tuple[int, int]:
        wanted = (target, arm, "lesion")
        keys = ("target", "arm", "group")
        summaries = self.summary["summaries"]
        own = next(each for each in summaries if tuple(each[key] for key in keys) == wanted)
        return own["found_lesions"], own["reference_lesions"]


def _interval(difference: Mapping[str, Any]) -> str:
    low, high = difference["low"], difference["high"]
    if low is None or high is None:
        return "(too few patients for an interval)"
    return f"[{_plain(low)}, {_plain(high)}]"


def _signed(value: float) -> str:
    text = _plain(value)
    if text.startswith(MINUS):
        return text
    return f"{'+' if float(text) else '±'}{text}"


def _plain(value: float) -> str:
    text = f"{abs(value):.2f}"
    if not float(text):  # An interval that excludes zero shall not seem to hold it.
        text = f"{abs(value):.3f}" if round(value, 3) else text
    return f"{MINUS}{text}" if value < 0 and float(text) else text


def _changes(rows: list[Row], ours: str, baseline: str) -> dict[str, float]:
    """Return by how much each counted lesion case's Dice changed; of several targets the most."""
    dice = {
        (row.arm, row.case, row.target): row.measures.dice
        for row in rows
        if row.counted and row.group == "lesion"
    }
    found: dict[str, float] = {}
    for (arm, case, target), value in dice.items():
        if arm == ours:
            change = value - dice[baseline, case, target]
            found[case] = max(change, found.get(case, 0.0), key=abs)
    return found


def _named(gained: tuple[str, ...], lost: tuple[str, ...], counted: bool) -> Iterator[str]:
    """Name the cases that changed notably."""
    if not counted:
        return
    for cases, what in ((gained, "Better"), (lost, "Worse")):
        if cases:
            yield f"{what} by more than {NOTABLE} Dice in {', '.join(cases)}."
    if not gained and not lost:
        yield f"In no lesion case did Dice change by more than {NOTABLE}."
