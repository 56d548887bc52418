"""Names of rooms, workers and devices, and what a worker says of itself."""

from __future__ import annotations

import pytest

from sleap_rtc.domain.places import Gpu, Hardware, WorkerInfo, check_name
from sleap_rtc.domain.values import decode, encode
from sleap_rtc.errors import DataError, InvalidName


@pytest.mark.parametrize("name", ["gpu-1", "lab", "Ägypten", "a.b_c", "x" * 64, "7"])
def test_usual_names_are_taken(name):
    assert check_name("worker", name) == name


@pytest.mark.parametrize("name", ["", "-x", ".x", "a b", "a/b", "x" * 65, "a\n", "a\x1b[1m"])
def test_odd_names_are_refused_by_their_kind(name):
    with pytest.raises(InvalidName, match=r"^worker name "):
        check_name("worker", name)


def test_what_a_worker_says_comes_back_with_what_a_later_one_adds():
    info = WorkerInfo(
        hardware=Hardware(cpus=2, gpus=(Gpu(name="T4", memory=16 * 2**30),)),
        engines={"tiny": "1"},
    )
    raw = encode(info).replace(b'"cpus":2', b'"cpus":2,"sockets":1')
    read = decode(WorkerInfo, raw, what="info")
    assert read.hardware.unknown == {"sockets": 1}
    assert encode(read).count(b'"sockets":1') == 1


def test_impossible_figures_are_refused():
    with pytest.raises(DataError):
        decode(WorkerInfo, b'{"jobs":-1}', what="info")
    with pytest.raises(DataError):
        decode(WorkerInfo, b'{"hardware":{"gpus":[{"name":"T4","memory":-1}]}}', what="info")
