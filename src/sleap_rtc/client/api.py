"""The Python API: what the command line does, for programs and notebooks.

Asynchronously::

    async with AsyncClient() as client:
        job = client.compose_training("flies.pkg.slp", ["centroid.yaml"])
        async with client.submit(job, worker="gpu-1", alias="flies") as training:
            async for update in training.updates():
                print(update)

Without ``async``, and in one call: ``client/synchronous.py``. Its parts by their subject::

    api_rooms.py    this machine, its rooms, who is in them, links to workers
    api_jobs.py     jobs: composed, submitted, followed, commanded
    api_models.py   models: asked for, pushed, pulled, run here
"""

from __future__ import annotations

from sleap_rtc.client.api_jobs import JobsApi
from sleap_rtc.client.api_models import ModelsApi


class AsyncClient(JobsApi, ModelsApi):
    """A person's machine: its rooms, its jobs, its library. An asynchronous context manager.

    Args:
        settings: By default those of the environment and the home's file.
        library: The home's library, where it is open already; it is closed with this.

    Attributes:
        taken_over: What became of models in the public sleap-rtc's registry, if it was found now.
        known: What this machine was told last, for when nobody can be asked.
    """
