"""Check the first line of a commit message: ``type(scope): what changed``.

    python tools/message.py FILE

The file is git's own, with the message as it will be; comments in it don't count.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TYPES = ("feat", "fix", "perf", "refactor", "style", "test", "docs", "build", "ci", "chore")
MAX_SUMMARY = 100
_FORM = re.compile(rf"({'|'.join(TYPES)})\([a-z0-9-]+(, ?[a-z0-9-]+)*\)!?: \S.*[^\s.]")


def fault(summary: str) -> str:
    """What is wrong with the first line of a message; empty when nothing is."""
    if len(summary) > MAX_SUMMARY:
        return f"it has {len(summary)} characters; {MAX_SUMMARY} are allowed"
    if _FORM.fullmatch(summary) is None:
        return f"it isn't 'type(scope): what changed', with a type of: {', '.join(TYPES)}"
    return ""


def main(path: str) -> int:
    """Check the message in a file; returns the exit code."""
    lines = Path(path).read_text("utf-8").splitlines()
    summary = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    why = fault(summary)
    if why:
        sys.stderr.write(f"The commit message {summary!r} is refused: {why}.\n")
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
