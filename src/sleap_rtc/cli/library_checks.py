"""What ``doctor`` looks at in the library: damage, and what would lose by it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, Literal

from sleap_rtc.cli.machine_documents import CheckShown
from sleap_rtc.cli.text import count
from sleap_rtc.config import Settings
from sleap_rtc.errors import SleapRtcError
from sleap_rtc.library import examine
from sleap_rtc.library.registry import Registry

LOOK_S: Final = 5.0
"""Seconds for which records are looked at."""

_SHOWN: Final = 3
_WORDS: Final[dict[examine.Kind, tuple[Literal["warning", "broken"], str, str]]] = {
    "unreadable": ("broken", "records can't be read", "sleap-rtc repair-model {name}"),
    "older": ("warning", "records fell back to an older revision", "sleap-rtc repair-model {name}"),
    "newer": ("warning", "records are of a later sleap-rtc", "Update sleap-rtc on this machine."),
    "second-alias": ("warning", "second aliases", "sleap-rtc tag-model --remove {name}"),
    "alias-to-nothing": (
        "warning",
        "aliases name models that aren't here",
        "sleap-rtc tag-model --remove {name}",
    ),
    "alias-unreadable": (
        "warning",
        "aliases can't be read",
        "Set them anew: sleap-rtc tag-model MODEL {name} --force",
    ),
    "broken-links": (
        "warning",
        "{files}, linked to, not there",
        "Is a drive unplugged? If they were moved: sleap-rtc repair-model {name} --path FOLDER",
    ),
    "files": (
        "broken",
        "{files} missing, or of another size",
        "sleap-rtc repair-model {name}",
    ),
}


def library(settings: Settings) -> Iterator[CheckShown]:
    """Look at the library; a large one as far as there is time."""
    models = settings.home / "models"
    if not models.is_dir():
        return
    try:
        with Registry(models) as registry:
            found = examine.examine(registry, seconds=LOOK_S)
    except (SleapRtcError, OSError) as error:
        yield CheckShown(name="library", status="broken", message=str(error), hint="")
        return
    kinds = Counter(each.kind for each in found.findings)
    for kind, number in kinds.items():
        status, words, hint = _WORDS[kind]
        some = [each for each in found.findings if each.kind == kind]
        names = [each.name for each in some]
        files = count(sum(each.files for each in some), "file")
        more = f" and {number - _SHOWN:,} more" if number > _SHOWN else ""
        yield CheckShown(
            name="library",
            status=status,
            message=f"{words.format(files=files)}: {', '.join(names[:_SHOWN])}{more}",
            hint=hint.format(name=names[0]),
        )
    if not kinds:
        looked = "" if found.whole else f", as far as {LOOK_S:g} s went"
        number_of = count(found.models, "model")
        message = f"{number_of} and the aliases are whole, and no file is missing{looked}"
        yield CheckShown(name="library", status="ok", message=message, hint="")
