"""The scripts that shells load, in the shells themselves where they are installed."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import pytest

from sleap_rtc.cli.completion import PLACES

SHELLS = sorted(PLACES)
WITHIN_S = 30.0


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._main, other = pty.openpty()
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=other,
            stdout=other,
            stderr=other,
            start_new_session=True,
        )
        os.close(other)
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._main)

    def type(self, text: str) -> None:
        os.write(self._main, text.encode())

    def until(self, text: str) -> None:
        """Read until it says this."""
        end = time.monotonic() + WITHIN_S
        while text.encode() not in self._seen:
            ready, _, _ = select.select([self._main], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} never came: {self._seen!r}"
            self._seen += os.read(self._main, 4096)


def needs(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_names_the_program(cli, shell):
    done = cli("completion", shell)
    assert done.code == 0
    assert f"_SLEAP_RTC_COMPLETE={shell}_complete" in done.out
    assert PLACES[shell] in done.err


def test_the_shell_in_use_is_the_default(cli, monkeypatch):
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert cli("completion").out == cli("completion", "fish").out
    monkeypatch.setenv("SHELL", "/bin/strange")
    done = cli("completion")
    assert done.code == 2
    assert "bash, fish, zsh" in done.err
    assert cli("completion", "tcsh").code == 2


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_takes_the_script(cli, tmp_path, shell):
    script = tmp_path / "script"
    script.write_text(cli("completion", shell).out)
    done = subprocess.run([needs(shell), "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


LINES = [("sleap-rtc list-al", "list-aliases"), ("sleap-rtc model-info Fl", "Fly-night")]


@pytest.fixture
def shell(cli, home, tmp_path: Path):
    """Starts a shell that finds the program, a model's alias and its script."""
    home.alias("Fly-night", home.model("a").id)
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "sleap-rtc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sleap_rtc "$@"\n')
    program.chmod(0o755)
    environment = dict(os.environ) | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLEAP_RTC_HOME": str(home.root),
        "TERM": "dumb",
    }

    def script(name: str) -> Path:
        found = tmp_path / "script"
        found.write_text(cli("completion", name).out)
        return found

    return SimpleNamespace(environment=environment, script=script, folder=tmp_path)


@pytest.mark.parametrize(("line", "words"), LINES)
def test_bash_completes(shell, line, words):
    # What readline does at a TAB: the function of the command is called with the words so far.
    ask = f"""
        source {shell.script("bash")}
        COMP_WORDS=({line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMP_LINE="{line}"
        complete -p sleap-rtc > /dev/null || exit 3
        function=$(complete -p sleap-rtc | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function sleap-rtc "${{COMP_WORDS[-1]}}" 2> /dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [needs("bash"), "--norc", "-c", ask],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{words}\n"), done.stderr


@pytest.mark.parametrize(("line", "words"), LINES)
def test_fish_completes(shell, line, words):
    ask = f"source {shell.script('fish')}; complete --do-complete '{line}'"
    done = subprocess.run(
        [needs("fish"), "--no-config", "-c", ask],
        env=shell.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    told = [each.partition("\t")[0] for each in done.stdout.splitlines()]
    assert (done.returncode, told) == (0, [words]), done.stderr


@pytest.mark.parametrize(("line", "words"), LINES)
def test_zsh_completes(shell, line, words):
    """In a terminal, as completion is part of its line editor."""
    functions = shell.folder / "functions"
    functions.mkdir()
    shell.script("zsh").rename(functions / "_sleap-rtc")
    (shell.folder / ".zshrc").write_text(
        f"fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; PS1='ready> '\n"
    )
    with Terminal(
        [needs("zsh"), "-d", "-i"], shell.environment | {"ZDOTDIR": str(shell.folder)}
    ) as zsh:
        zsh.until("ready> ")
        zsh.type(f"{line}\t")
        zsh.until(f"{words} ")
