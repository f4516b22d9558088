"""Lesions: which are found, which are not, and what is found where there is none.

A lesion is a 26-connected component. A reference lesion is found if any voxel of it is
predicted; a predicted component is a false positive if it meets no reference lesion. False
positive and false negative volume are autoPET's (S. Gatidis et al., Nat Mach Intell 6, 2024):
the volume of the false positive components, and of the reference lesions not found. Partial
overlap adds to neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.runs import Runs, touching


@dataclass(frozen=True)
class LesionCount:
    """Lesions of one case, by any overlap.

    Parameters
    ----------
    reference, predicted : int
        Components in the reference and in the prediction.
    found : int
        Reference components that the prediction meets.
    false_positives : int
        Predicted components that meet no reference component.
    missed_voxels, false_voxels : int
        Voxels of the reference components not found, and of the false positive components.
    """

    reference: int
    predicted: int
    found: int
    false_positives: int
    missed_voxels: int
    false_voxels: int

    @property
    def sensitivity(self) -> float:
        """Found over reference lesions; not a number without a reference lesion."""
        return self.found / self.reference if self.reference else float("nan")

    @property
    def f1(self) -> float:
        """Lesion-wise F1, ``2 TP / (2 TP + FN + FP)``, as in the ISLES 2022 challenge.

        TP are the reference lesions found. Not a number without a reference lesion.
        """
        total = self.found + self.reference + self.false_positives
        return 2 * self.found / total if self.reference else float("nan")


def count_lesions(reference: Runs, prediction: Runs) -> LesionCount:
    """Match the components of two masks by any overlap; zeros for empty masks."""
    i, j = touching(reference, prediction)
    missed = _without(reference, i)
    false = _without(prediction, j)
    return LesionCount(
        reference=reference.components.count,
        predicted=prediction.components.count,
        found=reference.components.count - len(missed),
        false_positives=len(false),
        missed_voxels=int(missed.sum()),
        false_voxels=int(false.sum()),
    )


def _without(runs: Runs, met: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the voxels of each component none of whose runs is in `met`."""
    components = runs.components
    return np.delete(components.voxels, np.unique(components.label[met]))
