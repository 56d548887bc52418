"""The scripts that shells load, in the shells themselves where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sleap_rtc.cli.completion import PLACES

SHELLS = sorted(PLACES)


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


@pytest.mark.parametrize(
    ("line", "words"),
    [("sleap-rtc list-al", "list-aliases"), ("sleap-rtc model-info Fl", "Fly-night")],
)
def test_bash_completes(cli, home, tmp_path: Path, line, words):
    home.alias("Fly-night", home.model("a").id)
    script = tmp_path / "script"
    script.write_text(cli("completion", "bash").out)
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "sleap-rtc"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sleap_rtc "$@"\n')
    program.chmod(0o755)
    # What readline does at a TAB: the function of the command is called with the words so far.
    ask = f"""
        source {script}
        COMP_WORDS=({line}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMP_LINE="{line}"
        complete -p sleap-rtc > /dev/null || exit 3
        function=$(complete -p sleap-rtc | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        $function sleap-rtc "${{COMP_WORDS[-1]}}" 2> /dev/null
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [needs("bash"), "--norc", "-c", ask],
        env=dict(os.environ)
        | {"PATH": f"{programs}:{os.environ['PATH']}", "SLEAP_RTC_HOME": str(home.root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{words}\n"), done.stderr
