"""The budget's documents, and what is said when they can't be handed in."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from sleap_rtc.storage.budget import NAME, Budget, create, shown

SIGNED_IN = '[ "$1" = sts ] && { echo 123456789012; exit 0; }'
LAB = Budget(limit=50, email="lab@example.org")


def test_the_command_is_whole() -> None:
    words = shlex.split(shown(LAB))
    assert words[:5] == ["aws", "budgets", "create-budget", "--account-id", "ACCOUNT"]
    budget, alerts = json.loads(words[6]), json.loads(words[8])
    assert budget["BudgetName"] == NAME
    assert budget["BudgetLimit"] == {"Amount": "50", "Unit": "USD"}
    assert [each["Notification"]["NotificationType"] for each in alerts] == ["ACTUAL", "FORECASTED"]
    assert all(each["Subscribers"][0]["Address"] == LAB.email for each in alerts)


def program(folder: Path, script: str) -> dict[str, str]:
    """A program that is called aws and notes how it was called."""
    path = folder / "aws"
    path.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> {folder}/calls\n{script}\n')
    path.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def test_it_is_handed_in_for_the_account_of_the_credentials(tmp_path: Path) -> None:
    environment = program(tmp_path, '[ "$1" = sts ] && echo 123456789012; exit 0')
    assert create(LAB, environment) == ""
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[1].startswith("budgets create-budget --account-id 123456789012 --budget {")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'Unable to locate credentials' >&2; exit 253", "Unable to locate credentials"),
        ("echo nobody", "doesn't say whose account"),
        (
            f"{SIGNED_IN}; echo 'AccessDeniedException: budgets:ModifyBudget' >&2; exit 254",
            "AccessDeniedException",
        ),
        ("exit 3", "ended with 3"),
    ],
)
def test_why_it_can_t_be_is_said(tmp_path: Path, script: str, why: str) -> None:
    assert why in create(LAB, program(tmp_path, script))


def test_one_that_is_there_stays(tmp_path: Path) -> None:
    script = f"{SIGNED_IN}; echo 'An error occurred (DuplicateRecordException)' >&2; exit 254"
    assert create(LAB, program(tmp_path, script)) == ""


def test_without_the_program(tmp_path: Path) -> None:
    assert "isn't installed" in create(LAB, {"PATH": str(tmp_path)})
