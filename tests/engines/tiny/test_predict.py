"""What is found twice is told once."""

from __future__ import annotations

import numpy as np

from sleap_rtc.engines.tiny.predict import Animal, _distinct


def _animal(x: float, score: float, *, y: float = 10.0) -> Animal:
    return Animal(np.array([[x, y], [x + 12.0, y], [np.nan, np.nan]]), np.full(3, score), score)


def test_the_surer_of_two_that_are_one_animal_stays():
    weak, sure, other = _animal(20.0, 0.6), _animal(21.0, 0.9), _animal(20.0, 0.7, y=40.0)

    assert _distinct([weak, sure, other], nearer=5.0) == [sure, other]


def test_animals_that_share_no_point_are_two():
    left = Animal(np.array([[5.0, 5.0], [np.nan, np.nan]]), np.array([0.9, 0.0]), 0.9)
    right = Animal(np.array([[np.nan, np.nan], [5.0, 5.0]]), np.array([0.0, 0.8]), 0.8)

    assert _distinct([left, right], nearer=5.0) == [left, right]
