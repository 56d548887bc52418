"""A yes of this machine's owner."""

from __future__ import annotations

from sleap_rtc.client.approvals import Approvals

HASH = "5c" * 32


def test_a_yes_is_said_and_taken_back(cli, home):
    approvals = Approvals(home.root / "trusted")
    done = cli("trust-model", HASH)
    assert done.code == 0
    assert f"{HASH} is run on this machine." in done.err
    assert approvals.has(HASH)
    again = cli("trust-model", HASH.upper(), "--json")
    assert again.document == {"blake3": HASH, "trusted": True, "before": True}
    assert "as before" in cli("trust-model", HASH).err

    done = cli("trust-model", HASH, "--remove")
    assert "not run here without a yes." in done.err
    assert not approvals.has(HASH)
    assert "as before" in cli("trust-model", HASH, "--remove").err


def test_what_is_no_hash_is_refused(cli, home):
    for text in ("best.ckpt", "../" + HASH, HASH[:-1], "g" * 64):
        done = cli("trust-model", text)
        assert done.code == 2
        assert "is not 64 hex digits" in done.err
    assert not (home.root / "trusted").exists()
