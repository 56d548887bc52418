"""What a model directory's configuration says of the model.

Two families are read, of which the second is translated into the words of the first::

    sleap-nn     model_config.head_configs.centroid, trainer_config.optimizer.lr, …    YAML or JSON
    SLEAP ≤ 1.4  model.heads.centroid, optimization.initial_learning_rate, …           JSON

A configuration that can't be read is no reason to refuse a model: its type can
be given. So it is told, and the next one is tried.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from sleap_rtc.errors import InvalidConfig, SleapRtcError
from sleap_rtc.files.beneath import open_file
from sleap_rtc.library.inspection.configs import (
    MAX_DEPTH,
    MAX_VALUES,
    at,
    chosen,
    hyperparameters,
    load_config,
)

NAMES: Final = tuple(
    f"{stem}.{ending}"
    for stem in ("training_config", "initial_config")
    for ending in ("yaml", "yml", "json")
)
"""Names of configurations, the one that says most first."""
MAX_FILE: Final = 4 * 1024 * 1024
MAX_NODES: Final = 1_000

Family = Literal["sleap-nn", "sleap"]

_TYPE: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RENAMED_HEADS: Final = {"multi_instance": "bottomup"}
_OLD_HYPERPARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "max_epochs": ("optimization", "epochs"),
    "learning_rate": ("optimization", "initial_learning_rate"),
    "optimizer": ("optimization", "optimizer"),
    "batch_size": ("optimization", "batch_size"),
    "steps_per_epoch": ("optimization", "batches_per_epoch"),
    "scale": ("data", "preprocessing", "input_scaling"),
    "crop_size": ("data", "instance_cropping", "crop_size"),
    "validation_fraction": ("data", "labels", "validation_fraction"),
}


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What a configuration says.

    Attributes:
        path: Name of its file.
        family: Which program wrote it.
        model_type: The head; None if there isn't exactly one.
        backbone: The backbone's configuration by its name.
        run_name: Empty if it has none.
        version: Of the program, where it says so.
        hyperparameters: The settings that people compare, flat.
        skeleton: Names of the points, in order.
        dataset: File name of the labels, where it says so.
    """

    path: str
    family: Family
    model_type: str | None
    backbone: dict[str, Any] = {}
    run_name: str = ""
    version: str | None = None
    hyperparameters: dict[str, Any] = {}
    skeleton: tuple[str, ...] = ()
    dataset: str | None = None


def find(files: Mapping[str, Path]) -> tuple[Profile | None, tuple[str, ...]]:
    """The configuration among a model's files.

    Args:
        files: Name → where it is; only the names of `NAMES` count.

    Returns:
        What it says, None if there is none that can be read; and what is wrong with others.
    """
    problems = []
    best: Profile | None = None
    for name in NAMES:
        if name not in files:
            continue
        try:
            found = read(files[name], name)
        except SleapRtcError as error:
            problems.append(error.message)
            continue
        except OSError as error:
            problems.append(f"{name}: it can't be read ({error.strerror})")
            continue
        if found.model_type is not None:
            return found, tuple(problems)
        best = best or found
    return best, tuple(problems)


def read(path: Path, name: str) -> Profile:
    """Read a configuration.

    Args:
        path: The file; a link is followed.
        name: What it is called.

    Raises:
        InvalidConfig: It is too large, can't be parsed, or is none.
        OSError: It can't be read.
    """
    return parse(_text(path, name), name)


def parse(text: str, name: str) -> Profile:
    """What a configuration's text says.

    Raises:
        InvalidConfig: It can't be parsed, or is none.
    """
    is_json = name.lower().endswith(".json")
    plain = load_json(text, where=name) if is_json else load_config(text, where=name)
    if isinstance(plain.get("model_config"), Mapping):
        return _new(plain, name)
    if isinstance(at(plain, ("model", "heads")), Mapping):
        return _old(plain, name)
    raise InvalidConfig(where=name, why="it is no training configuration of sleap-nn or SLEAP")


def load_json(text: str, *, where: str) -> dict[str, Any]:
    """Parse JSON into plain data of bounded size and depth.

    Raises:
        InvalidConfig: It isn't a mapping, or is beyond the bounds.
    """
    try:
        plain = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise InvalidConfig(where=where, why=f"it is not JSON ({error})") from None
    if not isinstance(plain, dict):
        raise InvalidConfig(where=where, why="it is not a mapping of settings")
    count = 0
    level: list[Any] = [plain]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        count += sum(len(each) for each in level)
        if count > MAX_VALUES:
            raise InvalidConfig(where=where, why=f"it has more than {MAX_VALUES} values")
        if not level:
            return plain
    raise InvalidConfig(where=where, why=f"it is nested more than {MAX_DEPTH} deep")


def _text(path: Path, name: str) -> str:
    if path.is_dir():
        raise InvalidConfig(where=name, why="it is a folder, not a file")
    fd = open_file(Path(os.path.realpath(path)))
    with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor has no path
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise InvalidConfig(where=name, why="it is not a file")
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise InvalidConfig(where=name, why=f"it has more than {MAX_FILE:,} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidConfig(where=name, why="it is not UTF-8 text") from None


# ── sleap-nn ─────────────────────────────────────────────────────────────────


def _new(plain: dict[str, Any], name: str) -> Profile:
    heads = chosen(plain, ("model_config", "head_configs"), where=name)
    parts = at(plain, ("data_config", "skeletons"))
    skeleton = _names(parts[0].get("nodes")) if _has_mapping(parts) else ()
    return Profile(
        path=name,
        family="sleap-nn",
        model_type=_type_of(heads),
        backbone=chosen(plain, ("model_config", "backbone_config"), where=name),
        run_name=_line(at(plain, ("trainer_config", "run_name"))),
        version=_line(plain.get("sleap_nn_version")) or None,
        hyperparameters=hyperparameters(plain),
        skeleton=skeleton or _parts(heads),
        dataset=_dataset(at(plain, ("data_config", "train_labels_path"))),
    )


def _names(nodes: Any) -> tuple[str, ...]:
    if not isinstance(nodes, list):
        return ()
    found = [node.get("name") if isinstance(node, Mapping) else node for node in nodes[:MAX_NODES]]
    return tuple(_line(name) for name in found if isinstance(name, str))


# ── SLEAP up to 1.4 ──────────────────────────────────────────────────────────


def _old(plain: dict[str, Any], name: str) -> Profile:
    heads = chosen(plain, ("model", "heads"), where=name)
    known = {key: at(plain, path) for key, path in _OLD_HYPERPARAMETERS.items()}
    backbone = chosen(plain, ("model", "backbone"), where=name)
    if backbone:
        known["backbone"] = ", ".join(backbone)
    skeletons = at(plain, ("data", "labels", "skeletons"))
    skeleton = _old_skeleton(skeletons[0]) if _has_mapping(skeletons) else ()
    outputs = plain.get("outputs")
    parts = ("run_name_prefix", "run_name", "run_name_suffix")
    named = outputs if isinstance(outputs, Mapping) else {}
    return Profile(
        path=name,
        family="sleap",
        model_type=_type_of({_RENAMED_HEADS.get(key, key): value for key, value in heads.items()}),
        backbone=backbone,
        run_name=_line("".join(str(named[part]) for part in parts if named.get(part))),
        version=_line(plain.get("sleap_version")) or None,
        hyperparameters={k: v for k, v in known.items() if isinstance(v, (str, int, float))},
        skeleton=_parts(heads) or skeleton,
        dataset=_dataset(at(plain, ("data", "labels", "training_labels"))),
    )


def _old_skeleton(skeleton: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the points: objects of jsonpickle, which refers to earlier ones by number."""
    objects = [_named(value) for value in _objects(skeleton)]
    nodes = skeleton.get("nodes")
    names: list[str] = []
    for node in nodes[:MAX_NODES] if isinstance(nodes, list) else ():
        found = node.get("id", node) if isinstance(node, Mapping) else None
        if not isinstance(found, Mapping):
            return ()
        number = found.get("py/id")
        if isinstance(number, int) and 1 <= number <= len(objects):
            named = objects[number - 1]
        else:
            named = next((n for n in (_named(each) for each in _objects(found)) if n), None)
        if named is None:
            return ()
        names.append(_line(named))
    return tuple(names)


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """Everything that jsonpickle numbers, in its order."""
    if isinstance(value, Mapping):
        if "py/object" in value or "py/reduce" in value:
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _named(value: Mapping[str, Any]) -> str | None:
    """The name of a point."""
    state = value.get("py/state")
    parts = state.get("py/tuple") if isinstance(state, Mapping) else None
    named = parts[0] if isinstance(parts, list) and parts else value.get("name")
    return named if isinstance(named, str) else None


# ── both ─────────────────────────────────────────────────────────────────────


def _type_of(heads: Mapping[str, Any]) -> str | None:
    if len(heads) != 1:
        return None
    (head,) = heads
    return head if _TYPE.fullmatch(head) else None


def _parts(heads: Mapping[str, Any]) -> tuple[str, ...]:
    """The first list of parts in a head: heads of several outputs repeat it."""
    for head in heads.values():
        for within in (head, *(head.values() if isinstance(head, Mapping) else ())):
            if isinstance(within, Mapping) and isinstance(within.get("part_names"), list):
                return _names(within["part_names"])
    return ()


def _has_mapping(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _dataset(value: Any) -> str | None:
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, str):
        return None
    return _line(re.split(r"[/\\]", first)[-1]) or None


def _line(value: Any) -> str:
    """A text as one line of bounded length, empty for anything else."""
    return " ".join(value.split())[:200] if isinstance(value, str) else ""
