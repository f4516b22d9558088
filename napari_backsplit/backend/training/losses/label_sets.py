"""What a voxel's code may stand for: one class, or one of several.

A code is either a class 0..K-1 or a set code K, K+1, ... that stands for "one of these classes" (a
case without some supports: its remaining background is background *or* a missing support). The
likelihood of a set is the sum of its members' probabilities (marginal loss; Shi et al. 2021, doi
10.1016/j.media.2021.101979), so no voxel is ever told a false "background".
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def membership_table(classes: int, label_sets: Sequence[Sequence[int]]) -> Tensor:
    """Return which classes each code may stand for.

    Parameters
    ----------
    classes : int
        K, the number of classes with the background.
    label_sets : sequence of sequences of int
        The classes of code K, K + 1, ... in this order.

    Returns
    -------
    Tensor
        bool, (K + number of sets, K); row c < K holds c alone.

    Raises
    ------
    ValueError
        A set is empty or names a class outside 0..K-1.
    """
    table = torch.zeros(classes + len(label_sets), classes, dtype=torch.bool)
    table[:classes] = torch.eye(classes, dtype=torch.bool)
    for row, members in zip(table[classes:], label_sets, strict=True):
        if not members or min(members) < 0 or max(members) >= classes:
            raise ValueError(f"label set {list(members)} is not a set of classes 0..{classes - 1}")
        row[list(members)] = True
    return table


def merge_into_background(table: Tensor, supports: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Make supports part of the background: a voxel of either may be any of them.

    Parameters
    ----------
    table : Tensor
        From `membership_table`, (codes, K).
    supports : sequence of int
        Classes.

    Returns
    -------
    table : Tensor
        The new table, whose first K rows are the single classes.
    code : Tensor
        int64, (codes,): the code of the new table for each of the old one.
    """
    classes = table.shape[1]
    merged = torch.zeros(classes, dtype=torch.bool)
    merged[[0, *supports]] = True
    rows = torch.where((table & merged).any(1, keepdim=True), table | merged, table)
    single = rows.sum(1) == 1
    sets, number = torch.unique(rows[~single], dim=0, return_inverse=True)
    code = rows.int().argmax(1)
    code[~single] = classes + number
    return torch.cat([torch.eye(classes, dtype=torch.bool), sets]), code


def set_log_likelihood(logits: Tensor, codes: Tensor, table: Tensor) -> Tensor:
    """Return log p(set) of each voxel: log p(S) = logsumexp(z over S) - logsumexp(z).

    Parameters
    ----------
    logits : Tensor
        (b, K, ...), float.
    codes : Tensor
        (b, ...), integer codes.
    table : Tensor
        From `membership_table`.

    Returns
    -------
    Tensor
        (b, ...).
    """
    classes = logits.shape[1]
    log_p = logits.log_softmax(1)
    certain = codes.masked_fill(codes >= classes, 0).long()
    likelihood = log_p.gather(1, certain[:, None])[:, 0]
    for code in sets_present(codes, table):
        inside = log_p[:, table[code]].logsumexp(1)
        likelihood = torch.where(codes == code, inside, likelihood)
    return likelihood


def sets_present(codes: Tensor, table: Tensor) -> list[int]:
    """Return the set codes that some voxel has."""
    return [code for code in range(table.shape[1], len(table)) if bool((codes == code).any())]
