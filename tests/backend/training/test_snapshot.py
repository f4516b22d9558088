from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from numpy.typing import NDArray

from napari_backsplit.backend.training.snapshot import (
    PIXELS,
    PREDICTION,
    REFERENCE,
    View,
    choose_view,
    draw,
    predict,
)

SHAPE = (12, 20, 24)


def _cases(**lesions: list[tuple[tuple[int, int, int], int]]) -> Any:
    """Return a `load_case` of cases with cubes of an edge around a centre."""
    loaded = {}
    for name, cubes in lesions.items():
        codes = np.zeros((1, *SHAPE), np.int16)
        for (z, y, x), edge in cubes:
            codes[0, z : z + edge, y : y + edge, x : x + edge] = 1
        codes[0, 0, 0, 0] = 2  # a support
        image = np.arange(codes.size, dtype=np.float32).reshape(codes.shape)
        places = {1: np.argwhere(codes == 1), 2: np.argwhere(codes == 2)}
        loaded[name] = (image, codes, None, {"class_locations": places})
    return loaded.__getitem__, list(loaded)


def _view(patch: tuple[int, ...] = (4, 8, 8), **lesions: Any) -> View | None:
    load, cases = _cases(**lesions)
    return choose_view(load, cases, [1], patch, [3.0, 1.0, 2.0][-len(patch) :], "z")


def test_the_largest_lesion_of_the_case_with_most_is_shown() -> None:
    view = _view(
        case_1=[((1, 1, 1), 2)],
        case_2=[((1, 1, 1), 2), ((6, 10, 12), 3)],
        case_3=[((6, 10, 12), 3)],
    )
    assert view is not None
    assert view.case == "case_2"
    assert view.place == "slice 7 of 12 across z"
    assert view.patch.shape == (1, 4, 8, 8)
    assert view.plane == 2
    assert view.spacing_mm == (1.0, 2.0)
    expected = np.zeros((8, 8), bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(view.reference, expected)
    middle = np.ravel_multi_index((6, 11, 13), SHAPE)
    assert view.patch[0, 2, 4, 4] == middle


def test_a_patch_reaches_beyond_the_image() -> None:
    view = _view(patch=(16, 8, 8), case_1=[((0, 0, 0), 2)])
    assert view is not None
    assert view.patch.shape == (1, 16, 8, 8)
    assert view.patch[0, :7].max() == 0, "outside"
    assert view.patch[0, 7].max() > 0
    assert view.reference.sum() == 4


def test_a_flat_network_gets_a_flat_patch() -> None:
    view = _view(patch=(8, 8), case_1=[((6, 10, 12), 3)])
    assert view is not None
    assert (view.patch.shape, view.plane) == ((1, 8, 8), None)
    assert view.reference.sum() == 9


def test_no_target_no_picture() -> None:
    assert _view(case_1=[], case_2=[]) is None
    assert _view() is None


class Thresholds(torch.nn.Module):
    """Predicts class 1 where the patch is bright, at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = torch.nn.Dropout(1.0)

    def forward(self, patch: torch.Tensor) -> list[torch.Tensor]:
        bright = self.dropout(patch)
        logits = torch.cat([torch.full_like(bright, 5.0), bright], 1)
        return [logits, logits[..., ::2]]


def test_the_network_predicts_as_it_does_when_judged_and_is_left_as_it_was() -> None:
    patch = np.zeros((1, 4, 8, 8), np.float32)
    patch[0, 2, 1, 1] = 9
    view = View("case_1", patch, np.zeros((8, 8), bool), 2, (1.0, 1.0), "slice 3 of 9 across z")
    network = Thresholds().train()
    before = torch.get_rng_state()

    predicted = predict(network, view, torch.device("cpu"))

    assert predicted.sum() == predicted[1, 1] == 1
    assert network.training
    assert network.dropout.training
    assert torch.equal(torch.get_rng_state(), before)


def _near(picture: NDArray[Any], colour: str) -> int:
    wanted = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return int((np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.1).sum())


@pytest.mark.parametrize("found", [True, False])
def test_a_picture_has_both_outlines_and_names_the_case(found: bool) -> None:
    view = _view(case_1=[((6, 10, 12), 3)])
    assert view is not None
    predicted = np.roll(view.reference, 2, axis=1) & found

    picture = imread(io.BytesIO(draw(view, predicted, "case_1, after epoch 10")))

    assert picture.shape == (PIXELS, PIXELS, 4)
    image = picture[60:420]  # above the legend
    assert _near(image, REFERENCE) > 100
    assert (_near(image, PREDICTION) > 100) is found
    legend = picture[440:]
    assert _near(legend, REFERENCE) > 20
    assert _near(legend, PREDICTION) > 20
