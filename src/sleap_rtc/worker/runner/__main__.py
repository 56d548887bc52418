"""``python -m sleap_rtc.worker.runner JOBDIR``: run one job, in the foreground.

With ``--detach`` it goes to the background in a process that init adopts, and
with ``--ready-fd N`` it says on that descriptor, in one line, that it listens, or
why it doesn't. Exit codes are those of :mod:`sleap_rtc.errors`.
"""

from __future__ import annotations

import sys

from sleap_rtc.worker.runner.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
