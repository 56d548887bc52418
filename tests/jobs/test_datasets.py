"""Where the files of a job are named to be: what may be said, and what is kept of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sleap_rtc.domain.packages import BLOCK, FileEntry, package, ref
from sleap_rtc.domain.values import Value, decode, encode
from sleap_rtc.errors import DataError, UnsafePath, UsageError
from sleap_rtc.jobs.datasets import (
    MAX_DATASETS,
    MAX_ROOM,
    Datasets,
    LinkedFile,
    NamedFile,
    SharedFile,
    StoredFile,
    check,
    fit,
    in_order,
    linked,
    shared,
    stored,
    waits_for_nobody,
)

LABELS = NamedFile(name="labels/a.slp", size=5, checksum="a" * 64, place="/data/a.slp")
CONFIG = NamedFile(name="configs/0/c.yaml", size=3, checksum="b" * 64, place="/home/c.yaml")
KEY = f"uploads/{'r' * 32}/{'a' * 64}"


def packed(*files: NamedFile):
    entries = [FileEntry(path=f.name, size=f.size, hashes=b"h" * 32) for f in files]
    return ref(package(entries))


class Holder(Value, frozen=True):
    datasets: Datasets = ()


def test_each_way_is_named_by_its_type():
    every = (linked(LABELS), stored(LABELS, KEY), shared(LABELS))
    plain = [msgspec.to_builtins(each) for each in every]
    assert [each["type"] for each in plain] == ["webrtc", "s3", "local"]
    assert [each["path"] for each in plain] == ["labels/a.slp", KEY, "/data/a.slp"]
    assert {(each["size_bytes"], each["checksum"]) for each in plain} == {(5, "a" * 64)}


def test_what_a_later_version_says_is_kept_and_an_unknown_way_is_none():
    plain = {**msgspec.to_builtins(stored(LABELS, KEY)), "region": "moon"}
    data = msgspec.json.encode({"datasets": [plain]})
    read = decode(Holder, data, what="it")
    assert isinstance(read.datasets[0], StoredFile)
    assert msgspec.json.decode(encode(read)) == {"datasets": [plain]}
    with pytest.raises(DataError):
        decode(Holder, data.replace(b'"s3"', b'"pigeon"'), what="it")


@pytest.mark.parametrize("change", [{"size_bytes": -1}, {"checksum": "a" * 63}, {"path": ""}])
def test_what_breaks_the_rules_isnt_read(change):
    plain = {**msgspec.to_builtins(linked(LABELS)), **change}
    with pytest.raises(DataError):
        decode(Holder, msgspec.json.encode({"datasets": [plain]}), what="it")


def test_a_job_names_each_file_of_its_package_once():
    whole = packed(LABELS, CONFIG)
    check((), whole)
    check((stored(LABELS, KEY), linked(CONFIG)), whole)
    for wrong in (
        (linked(LABELS),),
        (linked(LABELS), shared(LABELS)),
        (linked(LABELS), linked(msgspec.structs.replace(CONFIG, size=4))),
    ):
        with pytest.raises(UsageError, match="names its files wrongly"):
            check(wrong, whole)
    with pytest.raises(UnsafePath):
        check((linked(msgspec.structs.replace(LABELS, name="../a")), linked(CONFIG)), whole)


def test_who_can_be_away():
    empty = LinkedFile(name="e", path="e", size_bytes=0, checksum="c" * 64)
    assert not waits_for_nobody(())
    assert not waits_for_nobody((stored(LABELS, KEY), linked(CONFIG)))
    assert waits_for_nobody((stored(LABELS, KEY), shared(CONFIG), empty))


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=8))
def test_the_order_is_the_packages(names):
    files = [LinkedFile(name=n, path=n, size_bytes=0, checksum="0" * 64) for n in names]
    found = [each.name.encode("utf-8", "surrogatepass") for each in in_order(files)]
    assert found == sorted(found)


def test_a_job_names_no_more_than_a_message_holds():
    some = tuple(linked(LABELS) for _ in range(MAX_DATASETS))
    assert fit(some)
    assert not fit((*some, linked(LABELS)))
    long = SharedFile(name="n" * 1000, path="p" * 4000, size_bytes=BLOCK, checksum="d" * 64)
    assert fit((long,))
    assert not fit((long,) * (MAX_ROOM // 5000 + 1))
