"""The table of commands, from which help, completion and the reference are made.

Nothing is imported for it: ``sleap-rtc --help`` is this table.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Row(NamedTuple):
    """A command: its name, its module's, and its line in the help.

    The module has an object of the command's name, with ``_`` for ``-``.
    """

    name: str
    module: str
    help: str
    hidden: bool = False


SECTIONS: Final[dict[str, tuple[Row, ...]]] = {
    "Set up": (
        Row("login", "login", "Sign in at a server."),
        Row("room", "room", "Make, share, join and list rooms, and see who is in them."),
        Row("engine", "engine", "List and install what trains and tracks."),
        Row("doctor", "doctor", "Check the set-up, and say how to mend it."),
        Row("completion", "completion", "Let bash, zsh or fish complete commands and names."),
        Row("demo", "demo", "Train, bring home, and track: the whole way on one machine."),
    ),
    "Train": (
        Row("train", "train", "Train on a worker, and bring the models home."),
        Row("client-train", "train", "The same as train.", hidden=True),
        Row("jobs", "jobs", "List, follow and command jobs."),
        Row("workers", "workers", "List the workers that are online."),
    ),
    "Models": (
        Row("list-models", "models", "List the models of this machine's library."),
        Row("model-info", "models", "Everything about one model."),
        Row("compare-models", "models", "Show models side by side, and which is best."),
        Row("tag-model", "models", "Give a model an alias, or take it away."),
        Row("list-aliases", "models", "List the aliases, and the models that they name."),
        Row("update-model", "models", "Change the notes and tags of models."),
        Row("delete-model", "models", "Delete models; files stay unless --files is given."),
        Row("restore-model", "restoring", "Bring deleted models back."),
        Row("import-model", "importing", "Import models into this machine's library."),
        Row("push-model", "moving", "Push models of this library to a worker."),
        Row("pull-model", "moving", "Pull models of a worker into this library."),
        Row("transfers", "transfers", "List what is on its way, and go on with what was cut."),
        Row("sync", "sync", "Compare this library with what workers have."),
        Row("repair-model", "repair", "Mend models: their records, their aliases, their files."),
        Row("clean-models", "clean", "Remove what the library doesn't need."),
        Row("export-registry", "registry", "Write every record and alias to a JSON file."),
        Row("import-registry", "registry", "Merge records and aliases from another library."),
        Row("backup", "registry", "Save the whole library to one archive."),
        Row("restore", "registry", "Bring back what backup saved."),
        Row("track", "track", "Run models over videos, here or on a worker."),
    ),
    "Machines": (
        Row("worker", "worker", "Make this machine a worker of a room, or ask another one."),
        Row("trust-model", "trusting", "Let a checkpoint that looks odd run on this machine."),
        Row("server", "server", "Run a server."),
        Row("server-code", "server", "Make a set-up code for one more device."),
        Row("server-init-storage", "storing", "Set up the buckets for rooms' files."),
    ),
}

ROWS: Final = {row.name: row for rows in SECTIONS.values() for row in rows}

ABOUT: Final = "Train SLEAP models on any machine you can reach, and keep every model."

EPILOG: Final = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 network, "
    "6 not permitted, 130 interrupted or cancelled."
)

COMPLETE: Final = "_SLEAP_RTC_COMPLETE"
"""Environment variable by which a shell asks what may come next."""
