"""What a worker could do with a job's data, before any of it is sent: the feature ``datasets``.

::

    client                                              worker
      │ ── weigh_data (package, datasets) ───────────►   │  what is here? which paths are seen?
      │ ◄── data_weighed ─────────────────────────────   │  nothing is changed by asking
      │ ── submit_job (spec with datasets) ──────────►   │  fetched from where they are

A worker that names this feature takes the files of a job from the room's storage
and from disks that both see, as ``jobs/datasets.py`` says. Only owners and members
may ask, as only they submit jobs.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from sleap_rtc.domain.packages import MAX_SIZE, PackageRef
from sleap_rtc.jobs.datasets import MAX_DATASETS, Datasets, Name
from sleap_rtc.protocol.codec import Body

FEATURE: Final = "datasets"
"""What a peer that answers these names in its handshake."""


class WeighData(Body, frozen=True, tag="weigh_data"):
    """Which of these files have you, and which do you see where they are named as ``local``?"""

    package: PackageRef
    datasets: Datasets


class DataWeighed(Body, frozen=True, tag="data_weighed"):
    """What the worker has and sees.

    Attributes:
        here: Bytes of the package that are here: they needn't be sent.
        seen: Names of the files that it sees where they are named, with the right size.
        storage: Whether it can fetch from the room's storage.
    """

    here: Annotated[int, Meta(ge=0, le=MAX_SIZE)] = 0
    seen: Annotated[tuple[Name, ...], Meta(max_length=MAX_DATASETS)] = ()
    storage: bool = False
