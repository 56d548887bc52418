"""Two hundred real kills, of real processes that write to one library at once."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

# It imports once and then forks: what is killed are processes of their own all the same.
PROGRAM = '''
import os, random, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from loguru import logger
from msgspec.structs import replace
from sleap_rtc.domain.ids import recipe
from sleap_rtc.domain.models import ModelRecord
from sleap_rtc.library.examine import examine
from sleap_rtc.library.finder import Unreadable
from sleap_rtc.library.registry import Registry

logger.remove()
top, rounds, writers = Path(sys.argv[1]), int(sys.argv[2]), 4
models, acks = top / "models", top / "acks"
acks.mkdir(parents=True)
randomness = random.Random(11)

def opened():
    return Registry(models, index_dir=top / "index")

def record(name):
    made = recipe(model_type="centroid", backbone={}, run_name=name, dataset_hash="0")
    return ModelRecord(
        id=made.model_id, name=name, model_type="centroid", status="training",
        source="worker-training", created_at=datetime.now(UTC), full_hash=made.full_hash)

def counts(old):
    return old.training.hyperparameters

def write(me, n):
    """Count on in a record that all share, rename a model of one's own, make and delete others."""
    registry = opened()
    ack, named = (os.open(acks / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                  for name in (me, f"{me}-alias"))
    while True:
        n += 1
        registry.update("shared", lambda old: replace(old, training=replace(
            old.training, hyperparameters=counts(old) | {me: n})))
        os.write(ack, b"%d\\n" % n)
        registry.set_alias(f"{me}-name-{n}", own[me])
        os.write(named, b"%d\\n" % n)
        if n % 3 == 0:
            registry.delete(registry.register(record(f"{me} {n}")).id)

def acknowledged(me):
    path = acks / me
    lines = path.read_bytes().split(b"\\n") if path.exists() else []
    return int(lines[-2]) if len(lines) > 1 else 0

with opened() as registry:
    shared = registry.register(record("shared")).id
    registry.set_alias("shared", shared)
    names = [f"writer{n}" for n in range(writers)]
    own = {me: registry.register(record(me)).id for me in names}
    registry.changed = False

kills = 0
for turn in range(rounds):
    with opened() as registry:
        before = counts(registry.get("shared").record)
    children = []
    for me in names:
        child = os.fork()
        if child == 0:
            write(me, before.get(me, 0))
        children.append(child)
    time.sleep(randomness.uniform(0.002, 0.12))
    for child in children:
        time.sleep(randomness.uniform(0, 0.005))
        os.kill(child, signal.SIGKILL)
    for child in children:
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        kills += 1
    with opened() as registry:
        assert not [e for e in registry.walk() if isinstance(e, Unreadable)]
        found = counts(registry.get("shared").record)
        for me in names:
            said, here = acknowledged(me), found.get(me, 0)
            assert here in (said, said + 1), (turn, me, said, here)
            alias = registry.get(own[me]).alias
            number = int(alias.rpartition("-")[2]) if alias else 0
            assert acknowledged(f"{me}-alias") <= number <= here, (turn, me, alias, here)
            assert alias is None or registry.get(alias).id == own[me]
            (acks / f"{me}-alias").write_bytes(b"%d\\n" % number)
            # What it said last, before it was killed, counts from now on.
            (acks / me).write_bytes(b"%d\\n" % here)
        kinds = {each.kind for each in examine(registry).findings}
        assert kinds <= {"second-alias", "alias-to-nothing"}, kinds
        registry.changed = False

with opened() as registry:
    for me in names:
        registry.set_alias(f"{me}-last", own[me])
    # One renaming mends what kills left.
    aliases = {alias.name for alias in registry.list_aliases()}
    assert aliases == {"shared", *(f"{me}-last" for me in names)}, aliases
    listed = {entry.id for entry in registry.list().entries}
    assert {shared, *own.values()} <= listed
    total = sum(counts(registry.get("shared").record).values())
print(kills, total)
'''


def test_two_hundred_kills_lose_no_change_of_anybody(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "top", "50"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    kills, changes = map(int, done.stdout.split())
    assert kills == 200
    assert changes > 100
