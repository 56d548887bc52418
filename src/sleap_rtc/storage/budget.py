"""An alert before the bill: a budget for the storage, with mails when it is nearly used up.

AWS Budgets is a service of the account, beside S3, with rights of its own; other stores
have nothing like it. So the documents are made here, and ``aws``, the program that
everybody has who pays there, is asked to hand them in. What can't be done is said, with
the command that does it.

=========================  ==============================================
mail to ``email``          when 80 % of ``limit`` are spent this month
the same                   when 100 % are expected by its end
=========================  ==============================================
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

NAME: Final = "sleap-rtc storage"
WITHIN_S: Final = 60.0
"""Seconds that the program may take."""
RIGHTS: Final = ("budgets:ModifyBudget", "sts:GetCallerIdentity")
"""What handing it in needs."""

_ACCOUNT: Final = "ACCOUNT"
_SPENT, _EXPECTED = 80, 100
_LINES: Final = 300


class Budget(msgspec.Struct, frozen=True):
    """What may be spent, and who is told.

    Attributes:
        limit: US dollars in a month for all that S3 costs in the account.
        email: Who gets the mails.
    """

    limit: int
    email: str


def budget_document(budget: Budget) -> dict[str, Any]:
    """What AWS Budgets is given as ``--budget``."""
    return {
        "BudgetName": NAME,
        "BudgetLimit": {"Amount": str(budget.limit), "Unit": "USD"},
        "TimeUnit": "MONTHLY",
        "BudgetType": "COST",
        "CostFilters": {"Service": ["Amazon Simple Storage Service"]},
    }


def alerts_document(budget: Budget) -> list[dict[str, Any]]:
    """What AWS Budgets is given as ``--notifications-with-subscribers``."""
    return [
        {
            "Notification": {
                "NotificationType": kind,
                "ComparisonOperator": "GREATER_THAN",
                "Threshold": share,
                "ThresholdType": "PERCENTAGE",
            },
            "Subscribers": [{"SubscriptionType": "EMAIL", "Address": budget.email}],
        }
        for kind, share in (("ACTUAL", _SPENT), ("FORECASTED", _EXPECTED))
    ]


def command(budget: Budget, account: str = _ACCOUNT) -> list[str]:
    """The command that hands it in.

    Args:
        budget: The budget.
        account: The account's twelve digits; ``ACCOUNT`` stands for them where they aren't known.
    """
    return [
        "aws",
        "budgets",
        "create-budget",
        "--account-id",
        account,
        "--budget",
        json.dumps(budget_document(budget)),
        "--notifications-with-subscribers",
        json.dumps(alerts_document(budget)),
    ]


def shown(budget: Budget) -> str:
    """The command as it is typed into a shell."""
    return shlex.join(command(budget))


def create(budget: Budget, environment: Mapping[str, str]) -> str:
    """Hand it in by ``aws``, with the credentials that it finds. Blocks.

    Args:
        budget: The budget; one of the same name that is there stays as it is.
        environment: The process's.

    Returns:
        Why it isn't set; empty when it is.
    """
    program = shutil.which("aws", path=environment.get("PATH"))
    if program is None:
        return "the program aws isn't installed here"
    identity = [program, "sts", "get-caller-identity", "--query", "Account", "--output", "text"]
    account, why = _run(identity, environment)
    if why:
        return why
    if not (len(account) == 12 and account.isascii() and account.isdigit()):
        return f"aws doesn't say whose account it is, but {account[:40]!r}"
    _, why = _run([program, *command(budget, account)[1:]], environment)
    return "" if "DuplicateRecordException" in why else why


def _run(asked: Sequence[str], environment: Mapping[str, str]) -> tuple[str, str]:
    """What a program says, and why it failed; empty if it didn't."""
    try:
        done = subprocess.run(
            asked,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"aws can't be asked: {error}"[:_LINES]
    why = " ".join(done.stderr.split())[-_LINES:] or f"aws ended with {done.returncode}"
    return done.stdout.strip(), why if done.returncode else ""
