from __future__ import annotations

from pathlib import Path

import click
import pytest

from sleap_rtc.cli.app import App
from sleap_rtc.cli.commands import cli
from sleap_rtc.cli.options import LEVELS, PathType, read_secret
from sleap_rtc.cli.table import ROWS
from sleap_rtc.config import all_settings
from sleap_rtc.errors import UsageError

# Flags of commands that have a setting's name and mean something of their own.
OWN = {("demo", "--dir"), ("engine", "--dir")}


def flags():
    """Every (command, option) below the root, and the root's."""
    with click.Context(cli) as ctx:
        pairs = [("", option) for option in cli.params]
        for name in ROWS:
            command = cli.get_command(ctx, name)
            below = list(command.commands.values()) if isinstance(command, click.Group) else []
            pairs += [(name, param) for each in (command, *below) for param in each.params]
    return [(name, param) for name, param in pairs if isinstance(param, click.Option)]


def test_a_settings_flag_says_what_the_setting_says():
    by_flag = {setting.flag: setting for setting in all_settings() if setting.flag}
    compared = set()
    for name, option in flags():
        for flag in set(option.opts) & set(by_flag):
            if (name, flag) in OWN:
                continue
            assert option.help == by_flag[flag].help, (name, flag)
            compared.add(flag)
    assert {"--home", "--server", "--dir", "--data-dir", "--port", "--insecure"} <= compared
    assert set(by_flag) == compared


def test_the_levels_are_those_of_the_setting(cli):
    level = next(setting for setting in all_settings() if setting.name == "log_level")
    assert level.kind.__origin__.__args__ == LEVELS


def test_every_command_has_the_options_of_all(cli, tmp_path):
    everywhere = {"--json", "--quiet", "--home", "--log-level", "--insecure"}
    everywhere |= {"--debug", "--offline"}
    found = {}
    for name, option in flags():
        found.setdefault(name, set()).update(option.opts)
    for name, options in found.items():
        assert everywhere <= options, name
    home = tmp_path / "elsewhere"
    assert cli("room", "list", "--home", home, "--log-level", "debug").code == 0
    assert (home / "logs" / "client.log").exists()


def test_secrets_come_from_a_file_or_standard_input(make_output, tmp_path):
    file = tmp_path / "code"
    file.write_text("ABCD-EFGH\n")
    assert read_secret(App(make_output()), str(file)) == "ABCD-EFGH"
    assert read_secret(App(make_output(stdin=" ABCD \n")), "-") == "ABCD"
    with pytest.raises(UsageError, match="Standard input is empty"):
        read_secret(App(make_output()), "-")


def test_paths_are_checked(tmp_path):
    assert PathType().convert("a/b", None, None) == Path("a/b")
    with pytest.raises(click.BadParameter, match="empty"):
        PathType().convert("", None, None)  # and not for the folder where one is
    (tmp_path / "file").write_text("")
    with pytest.raises(click.BadParameter):
        PathType(file_okay=False).convert(str(tmp_path / "file"), None, None)
