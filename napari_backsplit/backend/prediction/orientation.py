"""Images that lie otherwise than those a model was trained on: turned exactly, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError

if TYPE_CHECKING:
    from napari_backsplit.backend.prediction.export import Exported

Array = NDArray[Any]
_PAIRS = ("LR", "PA", "SI")


@dataclass(frozen=True)
class Turn:
    """A permutation and flips of the axes (z, y, x) of an image.

    Attributes
    ----------
    order : tuple of int
        For each axis of the turned array, the axis it comes from.
    flipped : tuple of bool
        For each axis of the image's own array, whether it is reversed first.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    @property
    def is_none(self) -> bool:
        """Whether nothing is turned."""
        return self == Turn()

    def turn(self, array: Array) -> Array:
        """Return an array whose last three axes are the image's, as a turned view."""
        lead = array.ndim - 3
        axes = [*range(lead), *(lead + axis for axis in self.order)]
        turned: Array = array[tuple([slice(None)] * lead + self._reversal())].transpose(axes)
        return turned

    def spacing(self, spacing: Any) -> list[float]:
        """Return the spacing (z, y, x) of the turned image."""
        return [float(spacing[axis]) for axis in self.order]

    def undo(self, array: Array) -> Array:
        """Return a turned array (z, y, x) as the image's own: exact."""
        own = array.transpose(np.argsort(self.order).tolist())[tuple(self._reversal())]
        return np.ascontiguousarray(own)

    def back(self, exported: Exported) -> Exported:
        """Return what was exported of the turned image on the image's own grid."""
        if self.is_none:
            return exported
        return replace(
            exported,
            mask=self.undo(exported.mask),
            labels=None if exported.labels is None else self.undo(exported.labels),
            probabilities=tuple(self.undo(each) for each in exported.probabilities),
            gap=None if exported.gap is None else self.undo(exported.gap),
        )

    def _reversal(self) -> list[slice]:
        return [slice(None, None, -1 if flip else None) for flip in self.flipped]


def is_orientation(codes: str) -> bool:
    """Whether three letters such as "LPS" name an orientation."""
    pairs = [next((p for p in _PAIRS if letter in p), "") for letter in codes]
    return sorted(pairs) == sorted(_PAIRS)


def turn_between(image: str, model: str) -> Turn:
    """Return what turns an image with axes `image` into one with axes `model`.

    Parameters
    ----------
    image, model : str
        Where the index axes x, y, z point, such as "LPS", as `geometry.axis_codes` says.

    Raises
    ------
    GeometryError
        One of them names no orientation.
    """
    own, wanted = [_axes(codes) for codes in (image, model)]
    order = [own_axis for pair, _ in wanted for own_axis in range(3) if own[own_axis][0] == pair]
    letters = dict(wanted)
    flipped = [letter != letters[pair] for pair, letter in own]
    return Turn((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))


def _axes(codes: str) -> list[tuple[str, str]]:
    """Return for each array axis z, y, x which pair of directions it lies in, and its letter."""
    if not is_orientation(codes):
        raise GeometryError(f"{codes!r} is no orientation.", "Give three letters such as LPS.")
    return [(next(pair for pair in _PAIRS if letter in pair), letter) for letter in codes[::-1]]
