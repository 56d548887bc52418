"""Models between people, over real processes and a real connection (PUSH-1, PULL-1)."""

from __future__ import annotations

import contextlib
import filecmp
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from blake3 import blake3

from sleap_rtc.client.transfers import Transfers
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelFile, ModelRecord
from sleap_rtc.domain.packages import BLOCK
from sleap_rtc.files.packing import pack
from sleap_rtc.library.registry import Registry
from sleap_rtc.transfer.events import WINDOW
from sleap_rtc.transports.stored import RUN

pytestmark = [pytest.mark.slow, pytest.mark.webrtc]

BLOCKS = 24
PAGE = Path(__file__).parents[2] / "docs" / "moving.md"


def put(machine, name: str, *, head: str = "centroid", seed: int = 1, alias: str = "", blocks=2):
    """Make a model of a library."""
    made = recipe(model_type=head, backbone={}, run_name=name, dataset_hash="0" * 64)
    chance = random.Random(seed)
    with machine.library as registry:
        folder = registry.incoming / name
        (folder / "logs").mkdir(parents=True)
        contents = {
            # Block by block: one number of more than 256 MiB is refused.
            "best.npz": b"".join(chance.randbytes(BLOCK) for _ in range(blocks)),
            "logs/training log.csv": b"epoch,loss\n",
        }
        for path, data in contents.items():
            (folder / path).write_bytes(data)
        record = ModelRecord(
            id=made.model_id,
            name=name,
            model_type=head,
            status="completed",
            source="worker-training",
            created_at=datetime(2026, 3, seed, tzinfo=UTC),
            full_hash=made.full_hash,
            canonical=made.canonical,
            checkpoint="best.npz",
            package=pack({path: folder / path for path in contents}).package.id,
            files=tuple(
                ModelFile(path=path, size=len(data), blake3=blake3(data).hexdigest())
                for path, data in contents.items()
            ),
        )
        entry = registry.place(folder, record)
        if alias:
            registry.set_alias(alias, entry.id)
        return registry.get(entry.id)


def there(lab) -> Registry:
    return Registry(lab.worker.directory / "models", index_dir=lab.root / "gpu-1-index")


def test_what_one_person_pushes_another_pulls(lab, run_page) -> None:
    lab.worker.begin()
    first = put(lab.client, "head")
    second = put(lab.client, "body", head="centered_instance", seed=2)
    with lab.client.library as library:
        library.set_alias("flies", first.id, second.id)

    assert len(run_page(lab, PAGE)) == 6
    with there(lab) as library:
        kept = library.get(first.id).record
        assert library.get_alias("flies").models == (first.id, second.id)
        assert (kept.source, kept.canonical) == ("client-upload", first.record.canonical)
        assert kept.brought_by is not None
        assert {f.path: f.blake3 for f in kept.files} == {
            f.path: f.blake3 for f in first.record.files
        }
        assert [f.safety for f in kept.files] == ["unknown", None]
    with lab.client.library as library:
        [at] = library.get(first.id).record.locations
        assert (at.kind, at.name) == ("worker", "gpu-1")
        assert Path(at.path).parent == lab.worker.directory / "models"

    friend = lab.person("friend", lab.invite("member"))
    end = friend.do("pull", models=["flies"]).done()  # from the only worker
    assert [each["how"] for each in end["moved"]] == ["added", "added"]
    assert end["offers"] == [["flies", "free", False]]
    with friend.library as library:
        mine = library.get(first.id)
        assert (mine.record.source, mine.record.brought_by) == ("worker-pull", None)
        assert mine.record.package == first.record.package
        assert (mine.directory / "best.npz").read_bytes() == (
            first.directory / "best.npz"
        ).read_bytes()
    assert friend.left() == []

    # Who only looks may not push.
    guest = lab.person("guest", lab.invite("viewer"))
    end = guest.do("push", models=[put(guest, "mine", seed=4).id], worker="gpu-1").done()
    assert [code for code, _ in end["failed"]] == ["not_permitted"]
    assert "guest is a viewer" in end["failed"][0][1]


def test_more_than_half_a_gigabyte(lab) -> None:
    lab.worker.begin()
    entry = put(lab.client, "huge", blocks=501)
    over = {"SLEAP_RTC_TRANSPORT": "direct"}  # it isn't copied, as on one machine it would be
    end = lab.client.do("push", models=[entry.id], worker="gpu-1", env=over).done()
    assert [each["how"] for each in end["moved"]] == ["added"]
    assert end["sent"] >= 501 * BLOCK
    with there(lab) as library:
        kept = library.get(entry.id)
        assert kept.record.package == entry.record.package
        assert filecmp.cmp(kept.directory / "best.npz", entry.directory / "best.npz", shallow=False)


def test_killed_in_the_middle_and_taken_up(lab) -> None:
    lab.worker.begin()
    entry = put(lab.client, "large", blocks=BLOCKS)
    asked = {"models": [entry.id], "worker": "gpu-1"}
    over = {"SLEAP_RTC_TRANSPORT": "direct"}  # what is copied on one machine is there too soon

    # The client dies.
    client = lab.client.do("push", **asked, slow=True, env=dict(over))
    client.until(lambda line: line["kind"] == "moving" and line["done"] > 4_000_000)
    client.kill()
    assert lab.worker.records() == {}
    transfers = Transfers(lab.client.home / "transfers")
    [cut] = transfers.all()
    assert (cut.state, cut.direction, cut.attempts) == ("cut", "push", 1)

    # The worker dies, and comes back while the client waits.
    client = lab.client.do("push", **asked, slow=True, env=dict(over))
    begun = client.until(lambda line: line["kind"] == "moving" and line["phase"] == "receiving")
    assert begun["done"] > 4_000_000
    client.until(lambda line: line["kind"] == "moving" and line["done"] > 12_000_000)
    lab.worker.daemon.kill()
    assert lab.worker.records() == {}
    lab.worker.begin()
    end = client.done()
    assert [each["how"] for each in end["moved"]] == ["added"]
    # At most what was under way when the one or the other died went twice.
    assert end["sent"] < (BLOCKS - 4) * 1024 * 1024 + 9 * 1024 * 1024
    assert lab.worker.records()["centroid"].package == entry.record.package
    with there(lab) as library:
        assert list(library.incoming.iterdir()) == []
    [done] = transfers.all()
    assert (done.id, done.state, done.attempts) == (cut.id, "done", 2)

    # So does who pulls.
    friend = lab.person("friend", lab.invite("member"))
    pull = friend.do("pull", **asked, env=over | {"SLEAP_RTC_LIMIT_RATE": "8MB"})
    pull.until(lambda line: line["kind"] == "moving" and line["done"] > 4_000_000)
    pull.kill()
    assert friend.models() == {}
    [cut] = Transfers(friend.home / "transfers").all()
    assert cut.state == "cut"
    # Not at full speed: it would be there before it is told how far it is.
    pull = friend.do("pull", **asked, env=over | {"SLEAP_RTC_LIMIT_RATE": "16MB"})
    begun = pull.until(lambda line: line["kind"] == "moving" and line["phase"] == "receiving")
    assert begun["done"] > 4_000_000
    assert [each["how"] for each in pull.done()["moved"]] == ["added"]
    assert friend.models()["centroid"].package == entry.record.package
    assert friend.left() == []


def test_another_model_in_the_way(lab) -> None:
    lab.worker.begin()
    entry = put(lab.client, "run", alias="mine")
    asked = {"models": ["mine"], "worker": "gpu-1"}
    assert lab.client.do("push", **asked).done()["failed"] == []
    friend = lab.person("friend", lab.invite("member"))
    other = put(friend, "run", seed=2)
    assert other.id == entry.id
    theirs = {"models": [other.id], "worker": "gpu-1"}

    end = friend.do("push", **theirs, if_exists="overwrite").done()
    assert ([code for code, _ in end["failed"]], end["sent"]) == (["not_permitted"], 0)
    end = friend.do("push", **theirs, if_exists="keep-both").done()
    assert [(m["how"], m["result"]) for m in end["moved"]] == [("renamed", f"{entry.id}-2")]

    # Who pushed it may; the one that was there is in the trash, and its name stays.
    with there(lab) as library:
        library.set_alias("theirs", entry.id)
    shutil.rmtree(entry.directory)
    mine = put(lab.client, "run", seed=4)
    assert mine.id == entry.id
    end = lab.client.do("push", models=[mine.id], worker="gpu-1", if_exists="overwrite").done()
    [moved] = end["moved"]
    assert (moved["how"], moved["result"]) == ("replaced", entry.id)
    trashed = Path(moved["trash"]) / "best.npz"
    assert blake3(trashed.read_bytes()).hexdigest() == entry.record.files[0].blake3
    with there(lab) as library:
        now = library.get("theirs")
        assert (now.id, now.alias) == (entry.id, "theirs")
        assert now.record.package == mine.record.package


def test_two_workers_and_storage_share_one_download(lab) -> None:
    lab.worker.begin()
    second = lab.new_worker("gpu-2", lab.invite())
    second.begin(SLEAP_RTC_LIMIT_RATE="5MB")
    entry = put(lab.client, "large", blocks=BLOCKS, seed=9)
    size = entry.record.size
    asked = {"models": [entry.id], "worker": "gpu-1"}

    # Through storage: the client reads for storage alone, the worker fetches from there.
    end = lab.client.do("push", **asked, env={"SLEAP_RTC_TRANSPORT": "s3"}).done()
    [moved] = end["moved"]
    assert moved["came"] == [["s3", "the room's storage", size]]
    assert end["sent"] == 0
    assert lab.worker.records()["centroid"].package == entry.record.package
    # On one machine files are read where they are.
    end = lab.client.do("push", models=[entry.id], worker="gpu-2").done()
    assert end["moved"][0]["came"] == [["local", "laptop", size]]
    assert end["sent"] == 0

    # Which of them is meant isn't known.
    friend = lab.person("friend", lab.invite("member"))
    code, error = friend.do("pull", models=[entry.id]).refused()
    assert (code, error["message"]) == (2, f"Several workers have '{entry.id}': gpu-1, gpu-2.")

    # From both workers and storage at once; one worker dies in the middle, the other one is slow,
    # and every block that storage has is wrong by a bit.
    with spoilt(lab, entry.record.files):
        came = _pull_from_everywhere(lab, friend, entry, asked)
    stored = came.pop("the room's storage")
    assert 3 <= stored / BLOCK <= 2 * RUN / BLOCK
    # What the one that died had sent by then depends on who was connected first.
    assert {"gpu-2"} <= set(came) <= {"gpu-1", "gpu-2"}
    # Nothing twice but what a slow one was relieved of.
    assert size <= sum(came.values()) <= size + WINDOW


@contextlib.contextmanager
def spoilt(lab, files) -> Iterator[None]:
    """Until the block ends a bit of each block of these files is another, where the server keeps
    them."""
    hashes = {file.blake3 for file in files}
    kept = [path for path in (lab.host.root / "server").rglob("*") if path.name in hashes]
    assert kept
    before = [path.read_bytes() for path in kept]
    try:
        for path, data in zip(kept, before, strict=True):
            wrong = bytearray(data)
            wrong[7::BLOCK] = bytes(byte ^ 1 for byte in wrong[7::BLOCK])
            path.write_bytes(wrong)
        yield
    finally:
        for path, data in zip(kept, before, strict=True):
            path.write_bytes(data)


def _pull_from_everywhere(lab, friend, entry, asked) -> Counter[str]:
    """How much came from whom."""
    everything = {
        "SLEAP_RTC_LARGE_FILE_THRESHOLD": "1",
        "SLEAP_RTC_LIMIT_RATE": "8MB",
        "TMPDIR": str(friend.home),  # as on another machine
    }
    pull = friend.do("pull", **asked, beside=["gpu-2"], env=everything)
    pull.until(lambda line: line["kind"] == "moving" and line["done"] > 12_000_000)
    lab.worker.daemon.kill()
    end = pull.done()
    assert friend.models()["centroid"].package == entry.record.package
    assert friend.left() == []
    came: Counter[str] = Counter()
    for _, source, count in end["moved"][0]["came"]:
        came[source] += count
    return came
