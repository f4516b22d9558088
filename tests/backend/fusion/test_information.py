"""Proposition 1 and Theorem 1 of BackSplit, against the explicit matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.information import gap_shares, information_gap

Array = NDArray[Any]


def softmax(logits: Array) -> Array:
    """Over the first axis."""
    powers = np.exp(logits - logits.max(axis=0))
    return np.asarray(powers / powers.sum(axis=0))


def multiclass(eta: Array) -> Array:
    """I_Y in logit space."""
    return np.diag(eta) - np.outer(eta, eta)


def binary(eta: Array, c: int) -> Array:
    """I_Z in logit space: eta_c / (1 - eta_c) (e_c - eta)(e_c - eta)^T."""
    toward = np.eye(len(eta))[c] - eta
    others = np.delete(eta, c).sum()  # 1 - eta_c, also where eta_c is nearly 1
    return np.asarray(eta[c] / others * np.outer(toward, toward))


def within_rest(eta: Array, c: int) -> Array:
    """(1 - eta_c) (Diag(pi) - pi pi^T)."""
    others = np.delete(eta, c).sum()
    pi = eta / others
    pi[c] = 0
    return np.asarray(others * (np.diag(pi) - np.outer(pi, pi)))


@st.composite
def models(draw: st.DrawFn, limit: float = 30.0) -> tuple[Array, int]:
    """Probabilities of K classes in a small volume, and the target."""
    classes = draw(st.integers(3, 9))
    shape = (classes, draw(st.integers(1, 2)), 2, 2)
    logits = draw(arrays(np.float64, shape, elements=st.floats(-limit, limit)))
    return softmax(logits), draw(st.integers(0, classes - 1))


@settings(deadline=None)
@given(models())
def test_the_gap_is_the_trace_of_the_two_informations_difference(model: tuple[Array, int]) -> None:
    eta, c = model
    gap, shares = information_gap(eta, c), gap_shares(eta, c)
    assert gap.shape == eta.shape[1:]
    assert gap.dtype == shares.dtype == np.float32
    for voxel in np.ndindex(gap.shape):
        here = eta[(slice(None), *voxel)]
        difference = multiclass(here) - binary(here, c)
        assert gap[voxel] == pytest.approx(np.trace(difference), abs=1e-6)
        assert shares[(slice(None), *voxel)] == pytest.approx(
            np.diag(within_rest(here, c)), abs=1e-6
        )
    assert shares.sum(axis=0) == pytest.approx(gap, abs=1e-6)
    assert not shares[c].any()


@settings(deadline=None)
@given(models(limit=8.0), st.integers(1, 4), st.integers(0, 2**16))
def test_the_gap_in_parameters_is_that_of_proposition_1_and_never_negative(
    model: tuple[Array, int], parameters: int, seed: int
) -> None:
    probabilities, c = model
    eta = probabilities[:, 0, 0, 0]
    jacobian = np.random.default_rng(seed).normal(size=(len(eta), parameters))
    difference = jacobian.T @ (multiclass(eta) - binary(eta, c)) @ jacobian
    assert difference == pytest.approx(jacobian.T @ within_rest(eta, c) @ jacobian, abs=1e-9)
    assert np.linalg.eigvalsh(difference).min() >= -1e-9
    assert np.linalg.eigvalsh(multiclass(eta) - binary(eta, c)).min() >= -1e-9


@settings(deadline=None)
@given(models(limit=8.0), st.integers(1, 4), st.integers(0, 2**16))
def test_theorem_1_by_summing_over_all_labels(
    model: tuple[Array, int], parameters: int, seed: int
) -> None:
    probabilities, c = model
    eta = probabilities[:, 0, 0, 0]
    classes = len(eta)
    jacobian = np.random.default_rng(seed).normal(size=(classes, parameters))
    scores = np.stack([jacobian.T @ (np.eye(classes)[y] - eta) for y in range(classes)])
    z_of = np.arange(classes) == c
    projected, variance = [], np.zeros((parameters, parameters))
    for z in (True, False):
        weights = eta * (z_of == z)
        chance = weights.sum()
        mean = weights @ scores / chance
        projected.append((chance, mean))
        left = scores - mean
        variance += np.einsum("y,yi,yj->ij", weights, left, left)
    of_target = jacobian.T @ (np.eye(classes)[c] - eta)  # gradient of log eta_c
    of_rest = -eta[c] / (1 - eta[c]) * of_target  # gradient of log (1 - eta_c)
    assert projected[0][1] == pytest.approx(of_target, abs=1e-7)
    assert projected[1][1] == pytest.approx(of_rest, abs=1e-7)
    coarse = sum(chance * np.outer(mean, mean) for chance, mean in projected)
    complete = np.einsum("y,yi,yj->ij", eta, scores, scores)
    assert coarse == pytest.approx(jacobian.T @ binary(eta, c) @ jacobian, abs=1e-7)
    assert complete == pytest.approx(coarse + variance, abs=1e-7)
    assert variance == pytest.approx(jacobian.T @ within_rest(eta, c) @ jacobian, abs=1e-7)


def test_by_hand() -> None:
    """pi is a half and a half: 0.8 x (1 - 0.5); certain targets and one-class rests have none."""
    eta = np.array([[0.4, 0.0, 0.8, 0.0], [0.2, 1.0, 0.2, 0.5], [0.4, 0.0, 0.0, 0.5]])
    gap = information_gap(eta.reshape(3, 1, 1, 4), 1).ravel()
    assert gap == pytest.approx([0.4, 0.0, 0.0, 0.0])
    shares = gap_shares(eta.reshape(3, 1, 1, 4), 1)[:, 0, 0, 0]
    assert shares == pytest.approx([0.2, 0.0, 0.2])


@given(st.integers(3, 9))
def test_it_is_largest_where_the_target_is_excluded_and_the_rest_is_even(classes: int) -> None:
    eta = np.full((classes, 1, 1, 1), 1 / (classes - 1))
    eta[0] = 0
    assert information_gap(eta, 0)[0, 0, 0] == pytest.approx(1 - 1 / (classes - 1), abs=1e-6)


@settings(deadline=None)
@given(models(limit=300.0), st.sampled_from([np.float16, np.float32, np.float64]))
def test_extreme_logits_give_a_gap_between_its_limits(
    model: tuple[Array, int], dtype: type[np.floating[Any]]
) -> None:
    eta, c = model
    gap = information_gap(eta.astype(dtype), c)
    assert np.isfinite(gap).all()
    assert gap.min() >= 0
    assert gap.max() <= 1
    assert gap == pytest.approx(information_gap(eta, c), abs=5e-3)


def test_with_two_classes_it_is_refused_and_the_reason_is_said() -> None:
    eta = np.full((2, 1, 1, 1), 0.5)
    for function in (information_gap, gap_shares):
        with pytest.raises(InputError, match="Proposition 1") as error:
            function(eta, 1)
        assert "supports" in error.value.remedy


@pytest.mark.parametrize(
    ("eta", "target", "words"),
    [
        (np.full((3, 1, 1, 1), 0.5), 0, "miss 1 by up to 0.5"),
        (np.array([2.0, -1.0, 0.0]).reshape(3, 1, 1, 1), 0, "lowest is -1"),
        (np.full((3, 1, 1, 1), np.nan), 0, "no probabilities"),
        (np.full((4, 1, 1, 1), 0.25), 4, "no class 4 among 4"),
        (np.full((4, 1, 1, 1), 0.25), -1, "no class -1"),
        (np.full((4, 1, 1), 0.25), 0, "shape"),
    ],
)
def test_what_is_no_softmax_is_refused(eta: Array, target: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        information_gap(eta, target)


def test_no_more_than_a_plane_is_copied() -> None:
    """A whole copy would need 16 planes of four classes; the map itself is one float a voxel."""
    import tracemalloc

    eta = np.full((4, 16, 64, 64), 0.25, np.float32)
    tracemalloc.start()
    information_gap(eta, 0)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < eta.nbytes
