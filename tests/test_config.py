"""Settings: where a value comes from, and what a mistake says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sleap_rtc import config
from sleap_rtc.config import Ice, Machine, Settings, all_settings, load, resolve
from sleap_rtc.errors import InvalidConfig

MACHINE = Machine(user_home=Path("/home/ada"), cache=Path("/cache"), host_name="gpu box.lab.org")


def settings(**given: Any) -> Settings:
    parts: dict[str, Any] = {"flags": {}, "environment": {}, "file": {}, "machine": MACHINE}
    return resolve(**(parts | given))


def why(**given: Any) -> str:
    with pytest.raises(InvalidConfig) as caught:
        settings(**given)
    return caught.value.message


def test_defaults_need_nothing() -> None:
    found = settings()
    assert found.home == Path("/home/ada/.sleap-rtc")
    assert found.name == "gpu-box"
    assert found.worker_dir == found.home / "worker"
    assert found.engines_dir == Path("/cache/engines")
    assert found.serving.data_dir == found.home / "server"
    assert (found.serving.host, found.serving.port) == ("127.0.0.1", 8765)
    assert found.ice_servers == ()


@pytest.mark.parametrize(
    ("host_name", "name"),
    [("", "device"), ("..", "device"), ("-x", "x"), ("a" * 90, "a" * 64), ("Łab-1.x", "Łab-1")],
)
def test_a_device_is_called_after_its_host(host_name: str, name: str) -> None:
    machine = msgspec.structs.replace(MACHINE, host_name=host_name)
    assert settings(machine=machine).name == name


def test_flag_beats_environment_beats_file_beats_default() -> None:
    file = {"server_port": 1}
    environment = {"SLEAP_RTC_SERVER_PORT": "2"}
    assert settings(file=file).serving.port == 1
    assert settings(file=file, environment=environment).serving.port == 2
    everything = settings(file=file, environment=environment, flags={"server_port": 3})
    assert everything.serving.port == 3
    assert settings(file=file, flags={"server_port": None}).serving.port == 1
    assert settings(file=file, environment={"SLEAP_RTC_SERVER_PORT": ""}).serving.port == 1


def test_every_setting_can_be_set_in_every_place() -> None:
    texts = {
        "home": "/h",
        "drive": "hdd",
        "log_level": "debug",
        "log_format": "json",
        "ice_servers": "stun:a:1",
        "limit_rate": "3",
        "insecure": "true",
        "offline": "true",
        "transport": "direct",
        "webrtc_library": "portable",
        "server_behind_proxy": "on",
        "server_port": "5",
        "server_storage": "off",
        "server_storage_quota": "5",
        "server_storage_files": "5",
        "server_stun_port": "5",
        "large_file_threshold": "7",
        "multipart_chunk_size": "16MB",
        "max_concurrent_parts": "7",
        "cache_size": "7",
        "storage_profile": "development",
        "storage_endpoint": "https://s3.lab",
        "storage_public_endpoint": "https://s3.lab",
    }
    texts |= {s.name: "7" for s in all_settings() if s.name.startswith("worker_")}
    texts["worker_dir"] = "/w"
    for setting in all_settings():
        text = texts.get(setting.name, "thing")
        by_environment = settings(environment={setting.env: text})
        flag: Any = (text,) if setting.many else text
        by_flag = settings(flags={setting.name: True if text in ("true", "on") else flag})
        assert by_environment != settings(), setting.name
        assert by_environment == by_flag, setting.name


def test_names_are_unique() -> None:
    for names in zip(*((s.name, s.env) for s in all_settings()), strict=True):
        assert len(set(names)) == len(names)
    flags = [setting.flag for setting in all_settings() if setting.flag]
    assert len(set(flags)) == len(flags)
    assert all(setting.help.endswith(".") for setting in all_settings())


def test_paths_count_from_the_home_in_the_file_and_from_here_elsewhere() -> None:
    home = Path("/home/ada/.sleap-rtc")
    assert settings(file={"worker_dir": "w"}).worker_dir == home / "w"
    assert settings(file={"worker_dir": "~/w"}).worker_dir == Path("/home/ada/w")
    assert settings(environment={"SLEAP_RTC_WORKER_DIR": "w"}).worker_dir == Path("w")
    assert settings(flags={"worker_dir": Path("~")}).worker_dir == Path("/home/ada")
    assert settings(environment={"SLEAP_RTC_ENGINES": "/e"}).engines_dir == Path("/e")
    moved = settings(environment={"SLEAP_RTC_HOME": "~/elsewhere"})
    assert moved.worker_dir == Path("/home/ada/elsewhere/worker")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("storage_endpoint", "s3.lab", "'s3.lab' is not the address of a store, which is http"),
        ("storage_public_endpoint", "https://s3.lab/b", "no path, as https://s3.lab:9000."),
        ("storage_region", "Frankfurt", "'Frankfurt' is not the name of a region"),
        ("storage_rooms_bucket", "My Rooms", "'My Rooms' is not the name of a bucket"),
        ("storage_log_bucket", "x" * 99, "which is 3 to 63 of a-z, 0-9, '.' and '-'"),
    ],
)
def test_a_wrong_text_is_answered_in_words(name: str, value: str, why: str) -> None:
    with pytest.raises(InvalidConfig) as failure:
        settings(file={name: value})
    assert failure.value.message.startswith(f"/home/ada/.sleap-rtc/config.toml: {name}: ")
    assert why in failure.value.message
    assert "regex" not in failure.value.message


def test_ice_servers_with_and_without_credentials() -> None:
    expected = (
        Ice(urls=("stun:a:1",)),
        Ice(urls=("turn:b:2?transport=tcp",), username="u", credential="secret"),
    )
    table = {"urls": ["turn:b:2?transport=tcp"], "username": "u", "credential": "secret"}
    assert settings(file={"ice_servers": ["stun:a:1", table]}).ice_servers == expected
    text = msgspec.json.encode(["stun:a:1", table]).decode()
    assert settings(environment={"SLEAP_RTC_ICE_SERVERS": text}).ice_servers == expected
    two = settings(environment={"SLEAP_RTC_ICE_SERVERS": "stun:a:1, stun:b:1,"}).ice_servers
    assert [server.urls for server in two] == [("stun:a:1",), ("stun:b:1",)]
    assert "secret" not in repr(expected)


@pytest.mark.parametrize(
    ("text", "rate"), [("10MB", 10_000_000), ("500k", 500_000), ("1.5 GB/s", 1_500_000_000)]
)
def test_rates(text: str, rate: int) -> None:
    assert settings(flags={"limit_rate": text}).limit_rate == rate


def test_what_a_worker_keeps_free_is_given_with_a_unit() -> None:
    assert settings(file={"worker_keep_free": "5GB"}).working.keep_free == 5_000_000_000
    assert settings(environment={"SLEAP_RTC_WORKER_KEEP_FREE": "0"}).working.keep_free == 0


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"file": {"server_port": "x"}}, ["/home/ada/.sleap-rtc/config.toml", "server_port"]),
        ({"file": {"server_port": True}}, ["server_port", "bool"]),
        ({"file": {"worker_dir": 3}}, ["worker_dir", "path"]),
        ({"file": {"worker_dir": ""}}, ["worker_dir", "path"]),
        ({"file": {"sever_port": 1}}, ["sever_port", "did you mean 'server_port'"]),
        ({"file": {"zzz": 1}}, ["there is no setting 'zzz'."]),
        ({"file": {"home": "/x"}}, ["SLEAP_RTC_HOME"]),
        ({"file": {"ice_servers": [{"url": "x"}]}}, ["ice_servers"]),
        ({"file": {"ice_servers": ["http://x"]}}, ["'http://x'", "stun:host:3478"]),
        ({"file": {"ice_servers": "stun:a:1"}}, ["ice_servers", "array"]),
        ({"environment": {"SLEAP_RTC_ICE_SERVERS": "[1"}}, ["SLEAP_RTC_ICE_SERVERS", "JSON"]),
        ({"environment": {"SLEAP_RTC_LOG_LEVEL": "loud"}}, ["SLEAP_RTC_LOG_LEVEL", "warning"]),
        ({"environment": {"SLEAP_RTC_INSECURE": "maybe"}}, ["SLEAP_RTC_INSECURE", "bool"]),
        ({"environment": {"SLEAP_RTC_LIMIT_RATE": "fast"}}, ["SLEAP_RTC_LIMIT_RATE", "10MB"]),
        ({"environment": {"SLEAP_RTC_LIMIT_RATE": "0"}}, ["SLEAP_RTC_LIMIT_RATE", "1 byte or"]),
        ({"flags": {"limit_rate": "0"}}, ["--limit-rate: '0' is not a rate of 1 byte or more"]),
        ({"environment": {"SLEAP_RTC_WORKER_KEEP_FREE": "much"}}, ["number of bytes"]),
        ({"environment": {"SLEAP_RTC_WORKER_PATIENCE": "inf"}}, ["SLEAP_RTC_WORKER_PATIENCE"]),
        ({"file": {"worker_max_waiting": 0}}, ["worker_max_waiting"]),
        ({"flags": {"server_port": 70000}}, ["--port", "65535"]),
        ({"flags": {"colour": "red"}}, ["the command line", "colour"]),
    ],
)
def test_a_mistake_is_named_with_its_place(given: dict[str, Any], parts: list[str]) -> None:
    message = why(**given)
    for part in parts:
        assert part in message


def test_load_reads_the_file_of_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLEAP_RTC_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('server = "https://lab.org"\nlimit_rate = "1MB"\n')
    found = load({"server_port": 99})
    assert (found.server, found.limit_rate) == ("https://lab.org", 1_000_000)
    assert found.serving.port == 99
    (tmp_path / "config.toml").unlink()
    assert load().server is None


@pytest.mark.parametrize("content", [b"server = ", b"\xff", b"[" * 200_000])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(InvalidConfig, match="it is not TOML"):
        config.read_file(path)


def test_a_file_that_is_too_large_or_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"#" * (config.MAX_FILE + 1))
    with pytest.raises(InvalidConfig, match="larger"):
        config.read_file(path)
    with pytest.raises(InvalidConfig, match="can't be read"):
        config.read_file(tmp_path)


def test_importing_settings_is_light() -> None:
    code = "import sys, sleap_rtc.config; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    heavy = {"asyncio", "cryptography", "websockets", "uvicorn", "loguru", "platformdirs"}
    assert heavy.isdisjoint(loaded)
