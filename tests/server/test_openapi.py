"""The OpenAPI document: whole, and about what is really there."""

from __future__ import annotations

import json
from typing import Any

from sleap_rtc.server.api import ENDPOINTS
from sleap_rtc.server.doubt_desk import DoubtDesk
from sleap_rtc.server.openapi import document, encoded
from sleap_rtc.server.storage_desk import StorageDesk
from sleap_rtc.storage.service import ReportDamaged


def references(plain: Any) -> set[str]:
    if isinstance(plain, dict):
        found = {plain["$ref"]} if isinstance(plain.get("$ref"), str) else set()
        return found.union(*map(references, plain.values()))
    if isinstance(plain, list):
        return set().union(*map(references, plain))
    return set()


def test_every_endpoint_is_in_it_and_is_done() -> None:
    paths = document()["paths"]
    assert len(paths) == len(ENDPOINTS)
    for endpoint in ENDPOINTS:
        operation = paths[endpoint.path][endpoint.method.lower()]
        assert operation["operationId"] == endpoint.name
        assert ("security" in operation) == endpoint.signed_in
        assert ("parameters" in operation) == ("{" in endpoint.path)
        if endpoint.signed_in:
            desk = DoubtDesk if endpoint.request is ReportDamaged else StorageDesk
            assert callable(getattr(desk, endpoint.name))


def test_every_reference_leads_somewhere() -> None:
    made = document()
    schemas = made["components"]["schemas"]
    assert {f"#/components/schemas/{name}" for name in schemas} == references(made)


def test_it_says_nothing_of_how_it_is_done_here() -> None:
    text = encoded().decode()
    assert json.loads(text)["openapi"] == "3.1.0"
    assert '"unknown"' not in text
    assert "\\\\A" not in text
    upload = document()["components"]["schemas"]["RequestUpload"]
    assert set(upload["required"]) == {"room", "area", "blake3", "size"}
    assert upload["properties"]["blake3"]["pattern"] == "^[0-9a-f]{64}$"
