from __future__ import annotations

import pytest


@pytest.mark.parametrize("action", ["show", "attach", "logs", "stop", "cancel", "pause", "retry"])
def test_a_job_that_there_is_not(cli, action):
    done = cli("jobs", action, "zzzz1234")
    assert done.code == 3
    assert "There is no job 'zzzz1234'" in done.err


def test_a_name_that_fits_two_jobs(cli, home):
    one, two = home.job(1), home.job(2)
    prefix = one.id[:8]
    assert two.id.startswith(prefix)
    done = cli("jobs", "attach", prefix)
    assert done.code == 2
    assert one.id in done.err
    assert two.id in done.err


def test_the_limit_has_bounds(cli):
    assert cli("jobs", "--limit", "0").code == 2
    assert cli("jobs", "--limit", "5").code == 0


def test_a_command_needs_a_job(cli):
    done = cli("jobs", "stop")
    assert done.code == 2
    assert "Missing argument 'JOB'" in done.err
