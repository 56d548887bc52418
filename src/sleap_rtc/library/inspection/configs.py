"""Read training configurations, YAML or JSON, without trusting them.

The family of configurations that SLEAP and sleap-nn write::

    data_config:     {preprocessing: …, augmentation_config: …}
    model_config:    {backbone_config: {unet: {…}}, head_configs: {centroid: {…}}}
    trainer_config:  {max_epochs: 50, optimizer: {lr: 0.001}, run_name: …}

The type of model is the one head that isn't null, and the backbone likewise.
What comes out of :func:`load_config` is plain data of bounded size and depth:
mappings with text keys, lists, text, finite numbers, booleans and null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml

from sleap_rtc.errors import InvalidConfig

MAX_SIZE: Final = 256 * 1024
"""Characters of the largest configuration; sleap-nn's own have 4,000, and YAML is slow to read."""
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 20_000

Plain = dict[str, Any]

_EXPONENT: Final = re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$")

_HYPERPARAMETERS: Final[dict[str, tuple[str, ...]]] = {
    "max_epochs": ("trainer_config", "max_epochs"),
    "learning_rate": ("trainer_config", "optimizer", "lr"),
    "optimizer": ("trainer_config", "optimizer_name"),
    "batch_size": ("trainer_config", "train_data_loader", "batch_size"),
    "steps_per_epoch": ("trainer_config", "train_steps_per_epoch"),
    "seed": ("trainer_config", "seed"),
    "scale": ("data_config", "preprocessing", "scale"),
    "crop_size": ("data_config", "preprocessing", "crop_size"),
    "validation_fraction": ("data_config", "validation_fraction"),
    "augmentation": ("data_config", "use_augmentations_train"),
}


def load_config(text: str, *, where: str) -> Plain:
    """Parse a configuration; JSON is YAML too.

    Args:
        text: The file's content.
        where: Names it in errors, for example its path.

    Raises:
        InvalidConfig: Too large, not YAML, with anchors or tags, or not a mapping of plain data.
    """
    if len(text) > MAX_SIZE:
        why = f"it has {len(text)} characters, more than the {MAX_SIZE} allowed"
        raise InvalidConfig(where=where, why=why)
    try:
        plain = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with stricter rules
    except _Refused as refused:
        raise InvalidConfig(where=where, why=str(refused)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        what = error.problem or "it is not YAML"
        raise InvalidConfig(where=where, why=f"{line}{what}") from None
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        why = f"it is not YAML ({str(error).splitlines()[0] if str(error) else type(error)})"
        raise InvalidConfig(where=where, why=why) from None
    if not isinstance(plain, dict):
        raise InvalidConfig(where=where, why="it is not a mapping of settings")
    return plain


def dump_config(plain: Mapping[str, Any]) -> str:
    """Plain data as YAML, keys in the order they have."""
    text: str = yaml.dump(
        dict(plain), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
    return text


def hyperparameters(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that people compare, flat; what isn't set is left out."""
    found = {name: at(plain, path) for name, path in _HYPERPARAMETERS.items()}
    known = {name: value for name, value in found.items() if isinstance(value, (str, int, float))}
    backbones = at(plain, ("model_config", "backbone_config"))
    if isinstance(backbones, dict):
        used = [name for name, value in backbones.items() if value is not None]
        if used:
            known["backbone"] = ", ".join(used)
    return known


def at(plain: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    """The value at a path of keys, None where a part of it is absent or null."""
    value: Any = plain
    for key in path:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def chosen(plain: Mapping[str, Any], path: tuple[str, ...], *, where: str) -> dict[str, Any]:
    """The entries of the mapping at ``path`` that aren't null.

    Raises:
        InvalidConfig: There is something else.
    """
    value = at(plain, path)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidConfig(where=where, why=f"{'.'.join(path)} must be a mapping")
    return {str(key): item for key, item in value.items() if item is not None}


def leaves(plain: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that isn't a mapping with entries, with its path."""
    if isinstance(plain, Mapping) and plain:
        for key, item in plain.items():
            yield from leaves(item, (*path, str(key)))
    else:
        yield path, plain


class _Refused(Exception):
    """Well-formed YAML that is not taken; says where and why."""


class _Dumper(yaml.SafeDumper):
    """A SafeDumper that quotes text which others would read as a number."""


class _Loader(yaml.SafeLoader):
    """A SafeLoader without anchors, merging, dates and duplicate keys, with bounds."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(f"line {line}: anchors and references (& and *) are not allowed")
        self._values += 1
        if self._values > MAX_VALUES:
            raise _Refused(f"line {line}: it has more than {MAX_VALUES} values")
        if self._depth >= MAX_DEPTH:
            raise _Refused(f"line {line}: it is nested more than {MAX_DEPTH} deep")
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        line = key_node.start_mark.line + 1
        if not isinstance(key, str):
            raise _Refused(f"line {line}: the key {key!r} is not text")
        if key in found:
            raise _Refused(f"line {line}: {key!r} is there twice")
        found[key] = loader.construct_object(value_node, deep=True)
    return found


def _float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    # A sexagesimal reading such as 1:30.5, or a bare dot, is text to whoever wrote it.
    text = node.value.replace("_", "")
    try:
        value = float(text)
    except ValueError:
        spelled = {".inf": math.inf, "+.inf": math.inf, "-.inf": -math.inf, ".nan": math.nan}
        found = spelled.get(text.lower())
        if found is None:
            return str(node.value)
        value = found
    if not math.isfinite(value):
        line = node.start_mark.line + 1
        raise _Refused(f"line {line}: {node.value} is not a finite number")
    return value


def _int(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    text = node.value.replace("_", "")
    try:
        # "010" is 8 in YAML 1.1 and 10 in 1.2; nobody who writes it here means eight.
        value = int(text, 0) if text.lstrip("+-").startswith(("0x", "0b")) else int(text)
    except ValueError:
        return str(node.value)
    if abs(value) >= 1 << 63:
        raise _Refused(f"line {node.start_mark.line + 1}: {text[:40]} is too large a number")
    return value


def _tagged(loader: _Loader, node: yaml.Node) -> Any:
    raise _Refused(f"line {node.start_mark.line + 1}: the tag {node.tag} is not allowed")


def _text(loader: _Loader, node: yaml.ScalarNode) -> str:
    return str(node.value)


for _tag, _make in (
    ("tag:yaml.org,2002:map", _mapping),
    ("tag:yaml.org,2002:float", _float),
    ("tag:yaml.org,2002:int", _int),
    ("tag:yaml.org,2002:timestamp", _text),
    ("tag:yaml.org,2002:merge", _text),
    ("tag:yaml.org,2002:value", _text),
    ("tag:yaml.org,2002:binary", _tagged),
    ("tag:yaml.org,2002:set", _tagged),
    ("tag:yaml.org,2002:omap", _tagged),
    ("tag:yaml.org,2002:pairs", _tagged),
    (None, _tagged),
):
    _Loader.add_constructor(_tag, _make)

# YAML 1.1 reads 1e-4 as text; everybody who writes it means a number, and OmegaConf reads one.
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789"))
