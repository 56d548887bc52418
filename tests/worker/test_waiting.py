"""Whose turn it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.ids import JobId, make_uuid7
from sleap_rtc.domain.packages import PackageRef
from sleap_rtc.errors import QueueFull
from sleap_rtc.jobs.spec import JobSpec, TrainSpec, TrainStage
from sleap_rtc.worker.waiting import Waiting

ADA, BOB = "1" * 64, "2" * 64


def job(number: int) -> JobSpec:
    stage = TrainStage(config="c.yaml", model_type="centroid", run_name="run")
    return JobSpec(
        id=make_uuid7(unix_ms=1_000 + number, randomness=bytes([number]) * 10),
        engine="tiny",
        work=TrainSpec(labels="a.slp", stages=(stage,), dataset_name="a", dataset_hash="0" * 64),
        inputs=PackageRef(id=f"{number:064x}", size=1, files=1, listing=50),
        room="a" * 32,
    )


def everything(_: JobSpec) -> bool:
    return True


def nothing(_: JobSpec) -> bool:
    return False


def waiting(*numbers: int) -> Waiting:
    jobs = Waiting(most=100, most_each=100)
    for number in numbers:
        jobs.add(job(number), ADA)
    return jobs


def taken(jobs: Waiting, at_hand=everything) -> list[JobId]:
    found = []
    while (turn := jobs.next(at_hand)) is not None:
        found.append(turn)
    return found


def test_first_come_first_served_and_each_once() -> None:
    jobs = waiting(3, 1, 2, 3)
    assert len(jobs) == 3
    assert taken(jobs) == [job(3).id, job(1).id, job(2).id]
    assert jobs.is_empty
    assert len(jobs) == 0


def test_those_whose_data_is_there_come_first() -> None:
    jobs = waiting(1, 2, 3)
    assert jobs.next(lambda spec: spec.id == job(2).id) == job(2).id
    assert taken(jobs, nothing) == [job(1).id, job(3).id]


def test_a_job_that_was_put_back_has_no_turn_until_its_data_is_there() -> None:
    jobs = waiting(1)
    jobs.put_back(job(2), ADA)
    assert not jobs.look_again(nothing)
    assert taken(jobs) == [job(1).id]
    assert job(2).id in jobs
    assert jobs.look_again(everything)
    jobs.add(job(3), ADA)
    assert taken(jobs) == [job(2).id, job(3).id]


def test_a_held_job_waits_until_it_is_added_again() -> None:
    jobs = waiting(1)
    jobs.hold(job(2), BOB)
    assert not jobs.look_again(everything)
    assert taken(jobs) == [job(1).id]
    jobs.add(job(2), BOB)
    assert taken(jobs) == []
    jobs.remove(job(2).id)
    jobs.add(job(2), BOB)
    assert taken(jobs) == [job(2).id]


def test_all_that_wait_count() -> None:
    jobs = Waiting(most=4, most_each=2)
    jobs.add(job(1), ADA)
    jobs.hold(job(2), ADA)
    with pytest.raises(QueueFull, match="of this device: 2"):
        jobs.check_room(ADA)
    jobs.check_room(BOB)
    jobs.add(job(3), BOB)
    jobs.put_back(job(4), None)
    with pytest.raises(QueueFull, match="no more jobs: 4"):
        jobs.check_room(BOB)
    assert [spec.id for spec in jobs] == [job(number).id for number in (1, 2, 3, 4)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["add", "next", "put_back", "hold", "remove", "look_again"]),
            st.integers(1, 5),
        ),
        max_size=40,
    ),
    st.sets(st.integers(1, 5)),
)
def test_no_job_is_lost_and_none_waits_twice(steps, offered) -> None:
    jobs = Waiting(most=100, most_each=100)
    there: set[JobId] = set()

    def at_hand(spec: JobSpec) -> bool:
        return spec.id in {job(number).id for number in offered}

    for step, number in steps:
        match step:
            case "add":
                jobs.add(job(number), ADA)
                there.add(job(number).id)
            case "next":
                turn = jobs.next(at_hand)
                assert (turn is None) or turn in there
                there.discard(turn)
            case "put_back" | "hold":
                getattr(jobs, step)(job(number), ADA)
                there.add(job(number).id)
            case "remove":
                jobs.remove(job(number).id)
                there.discard(job(number).id)
            case "look_again":
                jobs.look_again(at_hand)
    assert sorted(spec.id for spec in jobs) == sorted(there)
