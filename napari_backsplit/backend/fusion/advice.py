"""What the advisor says: a support's figures, their reasons in words, and the proposal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from napari_backsplit.backend.fusion.gap_estimate import AROUND_MM
from napari_backsplit.backend.fusion.review import State

ESTIMATE = (
    "The gap is an ESTIMATE from the masks around each voxel: a binary model has none (BackSplit, "
    "Proposition 1)."
)
FEWER = (
    "Each support more has a price: on synthetic cases three cost a small network shape against "
    "the one that holds the lesions, and removed about as many false positives "
    "(docs/experiments/finetune.md)."
)


@dataclass(frozen=True)
class SupportAdvice:
    """A support, and what speaks for and against it.

    Shares are of all lesions (or false positives) of the cases that were looked at, those of cases
    in which the support is not known included.

    Attributes
    ----------
    support : str
    lesions, held, touched : int
        Lesions in all; those it holds: of all supports it has most of the lesion or of the shell
        one voxel around it, and a quarter at least; those it meets or is one voxel away from.
    inside : float or None
        Share of the lesions' volume that its mask has; None without a lesion.
    distance_mm : float or None
        Median over the lesions, where the support is there, of the shortest distance between voxel
        centres; 0 where it touches. None where no lesion tells.
    false_positives : int
        Predicted components without a lesion that it holds as it would a lesion.
    false_volume : float or None
        Share of those components' volume that its mask has; None without one.
    gap : float or None
        Its share of the information gap (BackSplit, Proposition 1) of a run, in and around the
        lesions: mean over voxels, then over cases. None where the run does not know it.
    gap_estimate : float or None
        ESTIMATE of such a share from the masks alone, on a scale of its own; see
        `fusion.gap_estimate`. Mean over the cases in which something is known of it.
    present, absent, missing : int
        Cases where it is known with voxels, known not to be there, and not, or not wholly, known.
    review : dict of {"none", "unreviewed", "accepted", "needs_work", "rejected"} to int
        Masks that it is made of, by review state.
    usable : bool
        Some case has a voxel of it that may enter.
    """

    support: str
    lesions: int
    held: int
    touched: int
    inside: float | None
    distance_mm: float | None
    wrong: int
    false_positives: int
    false_volume: float | None
    gap: float | None
    gap_estimate: float | None
    present: int
    absent: int
    missing: int
    review: dict[State, int]
    usable: bool

    @property
    def holds(self) -> float:
        """Share of the lesions that it holds, 0..1."""
        return self.held / max(self.lesions, 1)

    @property
    def touches(self) -> float:
        """Share of the lesions that it touches, 0..1."""
        return self.touched / max(self.lesions, 1)

    @property
    def cases(self) -> int:
        """Cases that were looked at."""
        return self.present + self.absent + self.missing

    @property
    def reasons(self) -> tuple[str, ...]:
        """What speaks for and against it, in words."""
        return (*_of_lesions(self), *_of_errors(self), *_of_the_gap(self), *_of_masks(self))


@dataclass(frozen=True)
class Advice:
    """What was found.

    Attributes
    ----------
    cases, predicted : tuple of str
        The cases that were looked at, and those of them with a prediction of the baseline.
    lesions, wrong : int
        26-connected components of all targets; predicted ones that meet no lesion.
    supports : tuple of SupportAdvice
        Those that are proposed first, in their order, then the others, the best first.
    proposed : tuple of str
    notes : tuple of str
        What a reader must know of these figures.
    """

    cases: tuple[str, ...]
    predicted: tuple[str, ...]
    lesions: int
    wrong: int
    supports: tuple[SupportAdvice, ...]
    proposed: tuple[str, ...]
    notes: tuple[str, ...]

    def of(self, support: str) -> SupportAdvice:
        """Return what was found of a support."""
        return next(found for found in self.supports if found.support == support)


def _of_lesions(found: SupportAdvice) -> Iterator[str]:
    if not found.lesions:
        return
    lesions = f"of {found.lesions} lesion{'s' * (found.lesions > 1)}"
    if found.held:
        yield f"holds {found.held} {lesions}"
    if found.touched:
        yield f"touches {found.touched} {lesions}"
    if found.inside:
        yield f"{percent(found.inside)} of the lesions' volume lies in its mask"
    if found.distance_mm:
        yield f"its median distance from a lesion is {found.distance_mm:.0f} mm"


def _of_errors(found: SupportAdvice) -> Iterator[str]:
    if found.false_positives:
        yield f"holds {found.false_positives} of {found.wrong} false positives of the baseline"
    if found.false_volume:
        share = percent(found.false_volume)
        yield f"{share} of the baseline's false-positive volume lies in it"


def _of_the_gap(found: SupportAdvice) -> Iterator[str]:
    if found.gap is not None:
        yield (
            f"has {found.gap:.3f} of the run's information gap, a mean within {AROUND_MM:.0f} mm "
            "of the lesions"
        )
    if found.gap_estimate is not None:
        yield f"ESTIMATE of its share of the information gap: {found.gap_estimate:.3f}"


def _of_masks(found: SupportAdvice) -> Iterator[str]:
    cases = f"of {found.cases} case{'s' * (found.cases > 1)}"
    if found.missing:
        yield f"missing in {found.missing} {cases}"
    if found.absent:
        yield f"known not to be there in {found.absent} {cases}"
    if waiting := found.review.get("unreviewed", 0) + found.review.get("needs_work", 0):
        yield f"{waiting} mask{'s are' if waiting > 1 else ' is'} not accepted yet"
    if rejected := found.review.get("rejected", 0):
        yield f"{rejected} mask{'s were' if rejected > 1 else ' was'} rejected"
    if not found.usable:
        yield "no voxel of it may enter training, so it is not proposed"


def percent(share: float) -> str:
    """Return a share, 0..1, in per cent; neither nothing nor all where it is not."""
    if 0 < share < 0.01:
        return "less than 1 %"
    return f"{min(round(100 * share), 100 if share >= 1 else 99)} %"
