"""Checks of files and images: grids, ids, finite voxels, the same voxels or other axes elsewhere.

Each is one small function and reads no file. A message names structures and case ids, never a path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.fusion.findings import Finding
from napari_backsplit.backend.geometry import Geometry


def check_grid(case: str, structure: str, image: Geometry, mask: Geometry) -> list[Finding]:
    """Report a mask that is not on its image's grid."""
    difference = image.difference(mask)
    if difference is None:
        return []
    text = f"The mask is not on the grid of the image. {difference} Import it again, resampled."
    return [Finding(case, structure, "error", "grid", text)]


def check_ids(case: str, structure: str, label_map: NDArray[Any]) -> list[Finding]:
    """Report a mask file that holds several ids."""
    if label_map.max(initial=0) < 2:
        return []
    ids = np.unique(label_map[label_map > 0])  # an id may be as large as its type
    if len(ids) < 2:
        return []
    shown = ", ".join(str(i) for i in ids[:5]) + (", ..." if len(ids) > 5 else "")
    text = f"The mask holds {len(ids)} ids ({shown}); all count as {structure}."
    return [Finding(case, structure, "warning", "ids", text)]


def check_finite(case: str, channel: str, array: NDArray[Any]) -> list[Finding]:
    """Report an image with NaN or infinite voxels."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return []
    wrong = ~np.isfinite(array)
    z, y, x = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
    text = f"{np.count_nonzero(wrong)} voxels are NaN or infinite. Correct the image."
    return [Finding(case, channel, "error", "not_finite", text, (z, y, x))]


def check_orientations(codes: Mapping[str, str]) -> list[Finding]:
    """Find cases whose axes point elsewhere than in most: a network trains along file axes.

    Parameters
    ----------
    codes : mapping of str to str
        Case -> where its index axes point, such as "LPS".
    """
    if not codes:
        return []
    usual, _ = Counter(codes.values()).most_common(1)[0]
    return [
        Finding(
            case,
            "",
            "warning",
            "orientation",
            f"The image is stored as {code}, most are {usual}. nnU-Net trains along the axes of "
            "the files: store all cases alike.",
        )
        for case, code in codes.items()
        if code != usual
    ]


def check_duplicates(digests: Mapping[str, str]) -> list[Finding]:
    """Report cases with the same voxels: one could be trained on and the other tested.

    Parameters
    ----------
    digests : mapping of str to str
        Case -> hash of its images' voxels.
    """
    cases: dict[str, list[str]] = {}
    for case, digest in digests.items():
        cases.setdefault(digest, []).append(case)
    return [
        Finding(case, "", "error", "duplicate", f"Its images are those of {first}. Remove one.")
        for first, *others in cases.values()
        for case in others
    ]
