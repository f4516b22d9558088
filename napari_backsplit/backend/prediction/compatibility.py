"""Whether a model fits a data set. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_backsplit.backend.prediction.model_folder import ModelFolder

_NORMALISATION_OF = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "zscore": "ZScoreNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}


def compatibility(
    model: ModelFolder, *, channels: Sequence[str], spacing_mm: Sequence[float] | None = None
) -> list[str]:
    """Say which expectations of a model a data set does not meet, and what to do.

    Parameters
    ----------
    model : ModelFolder
        The model to be used.
    channels : sequence of str
        Modality of each channel as nnU-Net calls it ("CT", or anything else), in order.
    spacing_mm : sequence of float, optional
        Typical spacing of the images, mm, (z, y, x).

    Returns
    -------
    list of str
        One or two sentences each; empty when everything fits.
    """
    if len(channels) != len(model.channels):
        return [
            f"The model takes {len(model.channels)} channels ({', '.join(model.channels)}), the "
            f"data have {len(channels)} ({', '.join(channels)}). Choose a model trained on these "
            "channels."
        ]
    return _normalisation_notes(model, channels) + _spacing_notes(model, spacing_mm)


def _normalisation_notes(model: ModelFolder, channels: Sequence[str]) -> list[str]:
    notes = []
    for channel, theirs, scheme in zip(channels, model.channels, model.normalisation, strict=False):
        if _NORMALISATION_OF.get(channel.casefold(), "ZScoreNormalization") != scheme:
            notes.append(
                f"Channel {channel} would be normalised with {scheme}, as the model's channel "
                f"{theirs} was. Check that both are the same kind of image, in the same unit."
            )
    return notes


def _spacing_notes(model: ModelFolder, spacing_mm: Sequence[float] | None) -> list[str]:
    theirs = model.spacing_mm
    if spacing_mm is None or len(spacing_mm) != len(theirs):
        return []
    ratios = [ours / own for ours, own in zip(spacing_mm, theirs, strict=True)]
    if min(ratios) >= 0.5 and max(ratios) <= 2:
        return []
    grids = (" x ".join(f"{value:.2g}" for value in grid) for grid in (spacing_mm, theirs))
    return [
        "The images' spacing of {} mm is more than twice or less than half the model's, {} mm "
        "(z, y, x). They are resampled, but small lesions may be missed; prefer a model trained "
        "on similar images.".format(*grids)
    ]
