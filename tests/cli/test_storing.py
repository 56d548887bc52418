"""Setting up storage by the command, on a real S3 server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from sleap_rtc.cli.storage_documents import InitStorageDocument
from sleap_rtc.testing.seaweed import ADMIN, READER, SeaweedServer, find_weed


@pytest.fixture(scope="module")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    if find_weed() is None:
        pytest.skip("SeaweedFS is not installed")
    with SeaweedServer(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def by(monkeypatch):
    """Sets whose credentials, and which store, the environment names."""

    def set_up(endpoint, credentials):
        monkeypatch.setenv("SLEAP_RTC_STORAGE_ENDPOINT", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", credentials.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", credentials.secret_key)

    return set_up


@pytest.mark.slow
def test_it_sets_up_and_says_what_it_did(cli, seaweed, by):
    by(seaweed.endpoint, ADMIN)
    done = cli("server-init-storage", "--origin", "https://lab.example.org")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "sleap-rtc-uploads: bucket" in lines
    assert "sleap-rtc-rooms: old versions kept" in lines
    assert any("Safe for several writers" in line for line in lines)
    assert "secret" not in done.out + done.err
    assert "account: budget alert - not done, none is named with --budget" in done.out
    again = cli(
        "server-init-storage", "--json", "--budget", "5", "--budget-email", "lab@example.org"
    )
    document = msgspec.convert(again.document, InitStorageDocument)
    assert document.steps[0].what == "bucket (was there)"
    assert document.steps[-1].what == "budget alert"
    assert "isn't Amazon's" in document.steps[-1].why
    assert document.budget_command.startswith("aws budgets create-budget")
    assert document.pins_content
    assert document.pins_ranges


@pytest.mark.slow
def test_who_may_not_is_told(cli, seaweed, by, monkeypatch):
    by(seaweed.endpoint, READER)
    monkeypatch.setenv("SLEAP_RTC_STORAGE_UPLOADS_BUCKET", "another")
    done = cli("server-init-storage")
    assert done.code == 6
    assert "refused to make the bucket another" in done.err


def test_policies_need_no_store(cli):
    done = cli("server-init-storage", "--policies")
    assert done.code == 0
    assert set(json.loads(done.out)) == {"server", "setup", "tls"}
    document = msgspec.convert(
        cli("server-init-storage", "--policies", "--json").document, InitStorageDocument
    )
    assert document.steps == ()
    assert document.pins_content is None


def test_a_store_without_tls_is_refused(cli, by):
    by("http://s3.lab.example.org", ADMIN)
    done = cli("server-init-storage")
    assert done.code == 2
    assert "not encrypted" in done.err


def test_offline_nobody_is_asked(cli, by):
    by("http://127.0.0.1:9", ADMIN)
    done = cli("server-init-storage", "--offline")
    assert done.code != 0
    assert "The storage is not asked" in done.err
    assert cli("server-init-storage", "--policies", "--offline").code == 0


def test_without_credentials_it_says_where_they_come_from(cli, monkeypatch):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    done = cli("server-init-storage")
    assert done.code == 2
    assert "~/.aws/credentials" in done.err


@pytest.mark.parametrize(
    "given",
    [
        ("--budget", "5"),
        ("--budget-email", "a@b"),
        ("--budget", "5", "--budget-email", "nobody"),
        ("--budget", "0", "--budget-email", "a@b"),
    ],
)
def test_a_budget_is_named_whole(cli, given):
    assert cli("server-init-storage", "--policies", *given).code == 2
