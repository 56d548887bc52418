"""Identifiers: how they look and how they are made.

=============  =====================================  =============================================
what           form                                   made from
=============  =====================================  =============================================
model          8 hex digits, ``-2`` on a collision    SHA-256 over the recipe (REG-4)
job, transfer  UUIDv7                                 time and randomness, by whoever asks
device         64 hex digits                          its Ed25519 public key
room           32 base32 letters, lower case          BLAKE3 of the room's public key
package        64 hex digits                          BLAKE3 of its canonical listing
=============  =====================================  =============================================

Nothing here reads a clock or a random source: both are handed in.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import uuid
from collections.abc import Mapping
from typing import Any, Final, NewType

import msgspec
from blake3 import blake3

from sleap_rtc.errors import InvalidName

ModelId = NewType("ModelId", str)
JobId = NewType("JobId", str)
DeviceId = NewType("DeviceId", str)
RoomId = NewType("RoomId", str)
PackageId = NewType("PackageId", str)

MODEL_ID: Final = r"\A[0-9a-f]{8}(-([2-9]|[1-9][0-9]{1,3}))?\Z"
"""Pattern of a model id, for values that hold one."""

_MODEL_ID: Final = re.compile(MODEL_ID)
_HEX64: Final = re.compile(r"[0-9a-f]{64}")
_ROOM_ID: Final = re.compile(r"[a-z2-7]{32}")
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


class Recipe(msgspec.Struct, frozen=True):
    """What a model's id is made from.

    Attributes:
        canonical: The JSON text that is hashed, with sorted keys and no white space.
        full_hash: SHA-256 of it, 64 hex digits.
    """

    canonical: str
    full_hash: str

    @property
    def model_id(self) -> ModelId:
        """The id without a collision suffix: the first 8 digits of the full hash."""
        return ModelId(self.full_hash[:8])


def recipe(
    *, model_type: str, backbone: Mapping[str, Any], run_name: str, dataset_hash: str
) -> Recipe:
    """The recipe of a model: the same input gives the same id on every machine (REG-4).

    Args:
        model_type: The head, for example ``centroid``.
        backbone: Parsed backbone configuration: strings, numbers, booleans, None, lists, mappings.
        run_name: The job's run name, never an attempt's.
        dataset_hash: BLAKE3 of the dataset, 64 hex digits; for a foreign model its checkpoint's.

    Returns:
        The canonical text and its hash. Whole floats count as integers (``2.0`` is ``2``), since
        YAML and JSON writers disagree about them.
    """
    plain = {
        "backbone": _canonical(backbone),
        "dataset": dataset_hash,
        "model_type": model_type,
        "run_name": run_name,
    }
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return Recipe(canonical=text, full_hash=hashlib.sha256(text.encode("ascii")).hexdigest())


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)
        return int(value) if value.is_integer() else value
    return value


def with_suffix(model_id: ModelId, number: int) -> ModelId:
    """The id of the ``number``-th model with the same 8 digits: bare, then -2, -3 and so on."""
    base = model_id.partition("-")[0]
    return ModelId(base if number < 2 else f"{base}-{number}")


def is_model_id(text: str) -> bool:
    """Whether the text has the form of a model id, with or without suffix."""
    return _MODEL_ID.fullmatch(text) is not None


def is_id_prefix(text: str) -> bool:
    """Whether the text can be the beginning of a model id: 4 or more of its digits."""
    return re.fullmatch(r"[0-9a-f]{4,8}(-[0-9]{0,4})?", text) is not None


def model_id(text: str) -> ModelId:
    """Check and name a model id.

    Raises:
        InvalidName: Not of the form of a model id.
    """
    if not is_model_id(text):
        raise InvalidName(kind="model id", name=text[:80], why="it is 8 hex digits, as in 3f2a9c01")
    return ModelId(text)


def fingerprint(device: DeviceId) -> str:
    """A device's id as people compare it: half of it, 128 bits, in groups of four."""
    return " ".join(device[at : at + 4] for at in range(0, 32, 4))


def called(name: str, device: DeviceId) -> str:
    """A device as others are told of it: a name is its own choice, 64 bits of its key are not."""
    return f"{name} ({fingerprint(device)[:19]})"


def device_id(text: str) -> DeviceId:
    """Check and name a device id, an Ed25519 public key in hex.

    Raises:
        InvalidName: Not 64 lower-case hex digits.
    """
    if _HEX64.fullmatch(text) is None:
        raise InvalidName(kind="device id", name=text[:80], why="it is 64 hex digits")
    return DeviceId(text)


def package_id(text: str) -> PackageId:
    """Check and name a package id.

    Raises:
        InvalidName: Not 64 lower-case hex digits.
    """
    if _HEX64.fullmatch(text) is None:
        raise InvalidName(kind="package id", name=text[:80], why="it is 64 hex digits")
    return PackageId(text)


def room_id(text: str) -> RoomId:
    """Check and name a room id.

    Raises:
        InvalidName: Not 32 lower-case base32 letters.
    """
    if _ROOM_ID.fullmatch(text) is None:
        raise InvalidName(kind="room id", name=text[:80], why="it is 32 letters and digits 2 to 7")
    return RoomId(text)


def room_id_of(public_key: bytes) -> RoomId:
    """The id of the room with this Ed25519 public key (32 bytes).

    160 bits of BLAKE3: short enough to read out, too many to find a second key for.
    """
    digest = blake3(b"sleap-rtc room\x00" + public_key).digest(length=20)
    return RoomId(base64.b32encode(digest).decode("ascii").lower())


def job_id(text: str) -> JobId:
    """Check and name a job id.

    Raises:
        InvalidName: Not a UUIDv7 in its usual lower-case form.
    """
    if not is_uuid7(text):
        raise InvalidName(kind="job id", name=text[:80], why="it is a UUID of version 7")
    return JobId(text)


def is_uuid7(text: str) -> bool:
    """Whether the text is a UUIDv7 in its usual lower-case form."""
    return _UUID7.fullmatch(text) is not None


def unix_ms_of(uuid7: str) -> int:
    """When a UUIDv7 says that it was made, in milliseconds since 1970 UTC."""
    return int(uuid7[:8] + uuid7[9:13], 16)


def make_uuid7(*, unix_ms: int, randomness: bytes) -> str:
    """A UUIDv7 (RFC 9562): sorts by time, and can be made by whoever asks.

    Args:
        unix_ms: Milliseconds since 1970 UTC, 0 to 2**48 - 1.
        randomness: 10 random bytes.
    """
    if not 0 <= unix_ms < 1 << 48 or len(randomness) != 10:
        raise ValueError("unix_ms must fit 48 bits, and randomness be 10 bytes")
    low = int.from_bytes(randomness, "big")
    number = (
        unix_ms << 80 | 0x7 << 76 | (low >> 62 & 0xFFF) << 64 | 0b10 << 62 | low & (1 << 62) - 1
    )
    return str(uuid.UUID(int=number))
