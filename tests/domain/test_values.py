import contextlib
import subprocess
import sys
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from sleap_rtc.domain import values
from sleap_rtc.domain.values import Document, Value
from sleap_rtc.errors import DataError, NewerFormat


class Leaf(Value, frozen=True):
    n: int = 0


class Cat(Value, frozen=True, tag="cat"):
    leaf: Leaf = Leaf()


class Dog(Value, frozen=True, tag="dog"):
    leaves: tuple[Leaf, ...] = ()


class Tree(Value, frozen=True):
    left: "Tree | None" = None
    leaf: Leaf | None = None


class Inner(Document, frozen=True):
    leaf: Leaf = Leaf()


class Everything(Document, frozen=True):
    leaf: Leaf
    maybe: Leaf | None = None
    many: Annotated[list[Leaf], Meta(max_length=100)] = []
    some: tuple[Leaf, ...] = ()
    pair: tuple[Cat, Leaf] = (Cat(), Leaf())
    named: dict[str, Leaf] = {}
    deep: dict[str, list[Leaf]] = {}
    pet: Cat | Dog = Cat()
    pets: tuple[Cat | Dog, ...] = ()
    either: list[Leaf] | dict[str, Leaf] | None = None
    tree: Tree = Tree()
    inner: Inner | None = None
    free: dict[str, Any] = {}
    renamed: int = msgspec.field(default=0, name="otherName")


NAMES = st.text(max_size=12)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


def plain_value(
    fields: dict[str, st.SearchStrategy[Any]],
    *,
    required: dict[str, st.SearchStrategy[Any]] | None = None,
) -> st.SearchStrategy[dict[str, Any]]:
    """A value's plain form, with fields that its class doesn't know."""
    known = {*fields, *(required or {}), "type", "format"}
    unknown = st.dictionaries(NAMES.filter(lambda name: name not in known), PLAIN, max_size=2)
    return st.builds(
        lambda more, own: more | own,
        unknown,
        st.fixed_dictionaries(required or {}, optional=fields),
    )


leaf = plain_value({"n": st.integers(-5, 5)})
cat = plain_value({"leaf": leaf}, required={"type": st.just("cat")})
dog = plain_value({"leaves": st.lists(leaf, max_size=2)}, required={"type": st.just("dog")})
tree = st.recursive(
    plain_value({"leaf": leaf | st.none()}),
    lambda inner: plain_value({"left": inner | st.none(), "leaf": leaf}),
    max_leaves=4,
)
inner_document = plain_value({"leaf": leaf}, required={"format": st.just("1.7")})
everything = plain_value(
    {
        "maybe": leaf | st.none(),
        "many": st.lists(leaf, max_size=2),
        "some": st.lists(leaf, max_size=2),
        "pair": st.tuples(cat, leaf).map(list),
        "named": st.dictionaries(NAMES, leaf, max_size=2),
        "deep": st.dictionaries(NAMES, st.lists(leaf, max_size=2), max_size=2),
        "pet": cat | dog,
        "pets": st.lists(cat | dog, max_size=2),
        "either": st.lists(leaf, max_size=2) | st.dictionaries(NAMES, leaf, max_size=2),
        "tree": tree,
        "inner": inner_document,
        "free": st.dictionaries(NAMES | st.just("unknown"), PLAIN, max_size=3),
        "otherName": st.integers(0, 5),
    },
    required={"format": st.sampled_from(["1.0", "1.42"]), "leaf": leaf},
)


def is_kept(before: Any, after: Any) -> bool:
    """Whether everything of ``before`` is in ``after``, which may have defaults besides."""
    if isinstance(before, dict) and isinstance(after, dict):
        return all(key in after and is_kept(item, after[key]) for key, item in before.items())
    if isinstance(before, list) and isinstance(after, list):
        return len(before) == len(after) and all(map(is_kept, before, after))
    return type(before) is type(after) and before == after


def without_defaults(plain: Any) -> Any:
    """Known fields at their default are not written by nested values: not a loss."""
    if isinstance(plain, dict):
        dropped = {"n": 0, "leaf": {}, "leaves": [], "left": None}
        pairs = {key: without_defaults(item) for key, item in plain.items()}
        return {
            k: v
            for k, v in pairs.items()
            if not (k in dropped and v in (dropped[k], None) and not isinstance(v, (bool, float)))
        }
    if isinstance(plain, list):
        return [without_defaults(item) for item in plain]
    return plain


@given(everything)
def test_unknown_fields_survive_at_every_level(plain: dict[str, Any]) -> None:
    data = msgspec.json.encode(plain)
    value = values.decode(Everything, data, what="x")
    again = msgspec.json.decode(values.encode(value))
    assert is_kept(without_defaults(plain), without_defaults(again))
    assert values.decode(Everything, values.encode(value), what="x") == value


@given(everything)
def test_reading_leaves_what_it_reads_alone(plain: dict[str, Any]) -> None:
    before = msgspec.json.encode(plain)
    values.from_plain(Everything, plain, what="x")
    assert msgspec.json.encode(plain) == before


def test_each_place_keeps_its_own_unknown_fields() -> None:
    plain = {
        "format": "1.9",
        "leaf": {"n": 1, "a": 1},
        "pair": [{"type": "cat", "leaf": {"b": 2}, "c": 3}, {"d": 4}],
        "pet": {"type": "dog", "leaves": [{"e": 5}]},
        "either": {"x": {"f": 6}},
        "tree": {"left": {"left": {"g": 7}}},
        "h": [1, {"n": 2}],
    }
    value = values.from_plain(Everything, plain, what="x")
    assert value.unknown == {"h": [1, {"n": 2}]}
    assert value.leaf.unknown == {"a": 1}
    assert value.pair[0].unknown == {"c": 3}
    assert value.pair[0].leaf.unknown == {"b": 2}
    assert value.pair[1].unknown == {"d": 4}
    assert isinstance(value.pet, Dog)
    assert value.pet.leaves[0].unknown == {"e": 5}
    assert isinstance(value.either, dict)
    assert value.either["x"].unknown == {"f": 6}
    assert value.tree.left is not None
    assert value.tree.left.left == Tree(unknown={"g": 7})
    assert is_kept(plain, values.to_plain(value))


def test_a_field_called_unknown_is_an_unknown_field() -> None:
    value = values.from_plain(Leaf, {"n": 1, "unknown": {"n": 2}}, what="x")
    assert value == Leaf(n=1, unknown={"unknown": {"n": 2}})
    assert values.to_plain(value) == {"n": 1, "unknown": {"n": 2}}


def test_an_unknown_field_never_stands_in_for_a_known_one() -> None:
    assert values.to_plain(Leaf(unknown={"n": 7, "m": 8})) == {"m": 8}


def test_a_change_keeps_unknown_fields() -> None:
    value = values.from_plain(Leaf, {"n": 1, "colour": "red"}, what="x")
    assert values.to_plain(msgspec.structs.replace(value, n=2)) == {"n": 2, "colour": "red"}


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_data_error(data: bytes) -> None:
    with contextlib.suppress(DataError):
        values.decode(Everything, data, what="x")


@given(PLAIN)
def test_any_json_gives_a_value_or_a_data_error(plain: Any) -> None:
    for candidate in (plain, {"leaf": plain}, {"leaf": {}, "pet": plain, "either": plain}):
        with contextlib.suppress(DataError):
            values.decode(Everything, msgspec.json.encode(candidate), what="x")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"[" * 100_000, "not JSON"),
        (b'{"leaf":' * 5_000 + b"{}" + b"}" * 5_000, "x"),
        (b'{"leaf":{"n":1e999}}', "not JSON"),
        (b'{"leaf":{"n":"\xff"}}', "not JSON"),
        (b'{"leaf":{"n":"1"}}', "Expected `int`"),
        (b"{}", "leaf"),
        (b"3", "Expected"),
        (b'{"leaf":{},"pet":{"type":"cow"}}', "cow"),
        (b'{"leaf":{},"pair":[{"type":"cat"}]}', "length 2"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, part: str) -> None:
    with pytest.raises(DataError, match="x: ") as caught:
        values.decode(Everything, data, what="x")
    assert part in caught.value.message


def test_a_document_too_large_is_refused_unread() -> None:
    with pytest.raises(DataError, match="more than the 10 allowed"):
        values.decode(Leaf, b" " * 11, what="x", limit=10)


@pytest.mark.parametrize("format_", ["2.0", "99.1"])
def test_a_later_major_format_is_refused(format_: str) -> None:
    plain = {"format": format_, "leaf": {}}
    with pytest.raises(NewerFormat, match=f"the file has format {format_}"):
        values.from_plain(Everything, plain, what="the file")


def test_a_later_major_format_is_refused_inside_another_value() -> None:
    with pytest.raises(NewerFormat, match=r"Inner has format 2\.0"):
        values.from_plain(Everything, {"leaf": {}, "inner": {"format": "2.0"}}, what="x")


@pytest.mark.parametrize(
    "format_", ["1", "1.", ".1", "a.b", "1.0.0", "-1.0", "\u0662.\u0663", 1, None, []]
)
def test_a_malformed_format_is_refused(format_: Any) -> None:
    plain = {"format": format_, "leaf": {}}
    if format_ is None:  # as if it weren't there, but of the wrong type
        with pytest.raises(DataError):
            values.from_plain(Everything, plain, what="x")
    else:
        with pytest.raises(DataError, match="format"):
            values.from_plain(Everything, plain, what="x")


def test_a_later_minor_format_is_written_back() -> None:
    value = values.from_plain(Everything, {"format": "1.9", "leaf": {}}, what="x")
    assert values.to_plain(value)["format"] == "1.9"


def test_pretty_is_the_same_for_people() -> None:
    value = Everything(leaf=Leaf(n=1))
    text = values.encode_pretty(value)
    assert text.endswith(b"}\n")
    assert text.startswith(b'{\n  "leaf": {\n    "n": 1\n  },')
    assert values.decode(Everything, text, what="x") == value


class Plain(Document, frozen=True):
    """As `Everything`, without another document in it: it can be read in one step."""

    leaf: Leaf
    many: Annotated[list[Leaf], Meta(max_length=100)] = []
    pair: tuple[Cat, Leaf] = (Cat(), Leaf())
    named: dict[str, Leaf] = {}
    pet: Cat | Dog = Cat()
    either: list[Leaf] | dict[str, Leaf] | None = None
    tree: Tree = Tree()
    free: dict[str, Any] = {}
    text: str = ""


def both_ways(data: bytes) -> tuple[Any, Any]:
    """What one step reads, None when it doesn't; and what the long way does, or its error."""
    try:
        whole: Any = values.from_plain(Plain, msgspec.json.decode(data), what="x")
    except (DataError, msgspec.DecodeError) as error:
        whole = error
    return values._in_one_step(Plain, data), whole


@given(everything | PLAIN | st.dictionaries(st.sampled_from(["leaf", "text", "unknown"]), PLAIN))
def test_one_step_reads_what_the_long_way_does_or_nothing(plain: Any) -> None:
    fields = {**Plain.__annotations__, "format": 0, "colour": 0, "unknown": 0}
    if isinstance(plain, dict):
        plain = {key: item for key, item in plain.items() if key in fields}
    quick, whole = both_ways(msgspec.json.encode(plain))
    assert quick is None or quick == whole


@given(everything)
def test_what_is_written_in_one_step_is_what_the_long_way_writes(plain: Any) -> None:
    value = values.from_plain(Everything, plain, what="x")
    assert values.encode(value) == msgspec.json.encode(values.to_plain(value))
    without = msgspec.structs.replace(value, unknown={})
    assert values.encode(without) == msgspec.json.encode(values.to_plain(without))


def test_what_has_no_unknown_fields_is_written_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    value = Plain(format="1.3", leaf=Leaf(n=1), pet=Dog(leaves=(Leaf(n=2),)), text="\u00e4")
    long_way = msgspec.json.encode(values.to_plain(value))
    monkeypatch.setattr(values, "to_plain", lambda _: 1 / 0)
    assert values.encode(value) == long_way
    assert values.encode(value.leaf) == b'{"n":1}'


@pytest.mark.parametrize("free", [{"unknown": {}}, {"a": {"unknown": 1}}, {'"unknown":': 2}])
def test_what_is_called_unknown_by_a_person_is_written(free: dict[str, Any]) -> None:
    value = Plain(leaf=Leaf(n=1), free=free, text='{"unknown":{},')
    assert values.decode(Plain, values.encode(value), what="x") == value
    assert values.encode(value) == msgspec.json.encode(values.to_plain(value))
    later = msgspec.structs.replace(value, unknown={"colour": "red"})
    assert msgspec.json.decode(values.encode(later))["colour"] == "red"


def test_what_has_no_unknown_fields_is_read_in_one_step() -> None:
    plain = {"format": "1.3", "leaf": {"n": 1}, "pet": {"type": "dog", "leaves": [{"n": 2}]}}
    quick, whole = both_ways(msgspec.json.encode(plain))
    assert quick == whole == Plain(format="1.3", leaf=Leaf(n=1), pet=Dog(leaves=(Leaf(n=2),)))


@pytest.mark.parametrize(
    "data",
    [
        b'{"leaf": {"n": 1, "colour": 2}}',
        b'{"leaf": {"unknown": {"n": 2}}}',
        b'{"leaf": {"\\u0075nknown": {"n": 2}}}',
        b'{"leaf": {}, "format": "2.0"}',
        b'{"leaf": {}, "format": "one"}',
        b'{"leaf": {"n": "one"}}',
        b"{",
    ],
)
def test_what_wants_a_second_look_is_not_read_in_one_step(data: bytes) -> None:
    assert both_ways(data)[0] is None


def test_a_document_inside_another_has_a_format_of_its_own() -> None:
    data = b'{"leaf": {}, "inner": {"format": "2.0"}}'
    with pytest.raises(NewerFormat):
        values.decode(Everything, data, what="x")


THREADS = """
import sys, threading
from sleap_rtc.domain.values import Value, decode

sys.setswitchinterval(1e-6)
kinds = []
for _ in range(150):
    class Inner(Value, frozen=True):
        a: "int | None" = None
        b: "tuple[str, ...]" = ()

    class Middle(Value, frozen=True):
        inner: Inner = Inner()
        more: dict[str, Inner] = {}

    class Outer(Value, frozen=True):
        middle: Middle = Middle()

    kinds.append((Middle, Outer))
together = threading.Barrier(4)

def run(number):
    for pair in kinds:
        together.wait()
        data = b'{"inner": {"a": 1, "b": ["x"]}}'
        data = b'{"middle": %b}' % data if number % 2 else data
        decode(pair[number % 2], data, what="it")

threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("read")
"""


def test_threads_may_read_a_kind_for_the_first_time_at_once() -> None:
    """In a process of its own, which msgspec crashes where it learns of a class in two threads."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr
