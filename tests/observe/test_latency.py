from concurrent.futures import ThreadPoolExecutor

from sleap_rtc.observe.latency import BOUNDS_S, Latencies


def test_calls_are_counted_by_operation_and_duration() -> None:
    latencies = Latencies()
    for seconds in (0.0001, 0.0003, 0.0004, 90.0):
        latencies.add("get", seconds, failed=seconds > 1)
    latencies.add("list", 0.2)
    found = latencies.all()
    assert list(found) == ["get", "list"]
    get = found["get"]
    assert (get.buckets[0], get.buckets[2], get.buckets[-1]) == (1, 2, 1)
    assert (get.count, get.failed, get.longest_s) == (4, 1, 90.0)
    assert round(get.total_s, 4) == 90.0008


def test_a_quantile_is_the_upper_end_of_its_bucket() -> None:
    latencies = Latencies()
    for _ in range(98):
        latencies.add("get", 0.0004)
    latencies.add("get", 0.03)
    latencies.add("get", 100.0)
    get = latencies.all()["get"]
    assert get.quantile(0.5) == 0.0005
    assert get.quantile(0.99) == 0.05
    assert get.quantile(1) == 100.0


def test_a_quantile_is_never_more_than_the_longest() -> None:
    latencies = Latencies()
    latencies.add("get", 0.06)
    assert latencies.all()["get"].quantile(0.99) == 0.06
    assert max(BOUNDS_S) == 60


def test_threads_lose_no_call() -> None:
    latencies = Latencies()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: latencies.add("get", 0.001), range(2_000)))
    assert latencies.all()["get"].count == 2_000
