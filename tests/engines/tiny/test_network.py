from __future__ import annotations

import numpy as np
import pytest

from sleap_rtc.engines.tiny.network import (
    Adam,
    Network,
    loss_and_gradient,
    new_weights,
    peaks,
    shapes,
)


def _case(seed: int = 0) -> tuple[Network, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    weights = {name: value.astype(np.float64) for name, value in new_weights(3, 2, rng).items()}
    weights["maps.w"] = rng.standard_normal(weights["maps.w"].shape)
    images = rng.standard_normal((2, 8, 12, 1))
    wanted = rng.uniform(0, 1, (2, 4, 6, 2))
    return Network(weights), images, wanted, np.array([[1.0, 0.0], [1.0, 1.0]])


@pytest.mark.parametrize("layer", list(shapes(3, 2)))
@pytest.mark.parametrize("kind", ["w", "b"])
def test_gradients_are_those_of_the_loss(layer: str, kind: str) -> None:
    network, images, wanted, known = _case()
    _, gradient = loss_and_gradient(network.forward(images), wanted, known)
    found = network.backward(gradient)[f"{layer}.{kind}"]
    weight = network.weights[f"{layer}.{kind}"]
    rng = np.random.default_rng(1)
    for _ in range(5):
        place = tuple(int(rng.integers(size)) for size in weight.shape)
        losses = []
        for step in (1e-5, -2e-5):
            weight[place] += step
            losses.append(loss_and_gradient(network.forward(images), wanted, known)[0])
        weight[place] += 1e-5
        slope = (losses[0] - losses[1]) / 2e-5
        assert found[place] == pytest.approx(slope, rel=1e-3, abs=1e-6)


def test_points_that_are_not_labelled_teach_nothing() -> None:
    network, images, wanted, known = _case()
    _, gradient = loss_and_gradient(network.forward(images), wanted, known)
    assert not gradient[0, :, :, 1].any()
    assert gradient[1, :, :, 1].any()


def test_adam_finds_the_bottom() -> None:
    weights = {"x": np.array([3.0, -2.0])}
    adam = Adam(weights, rate=0.1)
    for _ in range(300):
        adam.step(weights, {"x": 2 * (weights["x"] - 1)})
    np.testing.assert_allclose(weights["x"], 1, atol=0.01)


def test_a_peak_lies_between_pixels() -> None:
    ys, xs = np.mgrid[0:20, 0:30]
    scores = np.exp(-((xs - 10.3) ** 2 + (ys - 7.8) ** 2) / 4)
    scores += 0.6 * np.exp(-((xs - 24.0) ** 2 + (ys - 15.0) ** 2) / 4)
    (first, second) = peaks(scores, threshold=0.2, most=5)
    assert first[:2] == pytest.approx((10.3, 7.8), abs=0.1)
    assert second[:2] == pytest.approx((24.0, 15.0), abs=0.1)
    assert peaks(scores, threshold=0.2, most=1) == [first]
    assert peaks(np.zeros((4, 4)), threshold=0.2, most=5) == []
