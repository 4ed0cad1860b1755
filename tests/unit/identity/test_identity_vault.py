"""The vault: keys on disk and in memory, crashes at its writes, what it refuses to open."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trust_domain import DOMAIN
from world import NOW

from wharfinger.core import failpoint
from wharfinger.core.clock import HOUR
from wharfinger.core.errors import Conflict, Corrupt, HostUnfit
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.spiffeid import TrustDomain

CRASHER = """
import os, signal, sys
from pathlib import Path
from wharfinger.core import failpoint
from wharfinger.identity.issuer.vault import Vault
from wharfinger.identity.spiffeid import TrustDomain
folder, armed = Path(sys.argv[1]), sys.argv[2]
failpoint.arm(armed, lambda: os.kill(os.getpid(), signal.SIGKILL))
vault = Vault(folder, TrustDomain("example.test"), int(sys.argv[3]))
print("opened", flush=True)
vault.keep_checkpoint(b"second")
print("kept", flush=True)
"""
NAMES = sorted(name for name in failpoint.NAMES if name.startswith("issuer."))


def test_a_trust_domain_is_made_once(tmp_path: Path) -> None:
    """Opening again gives the same root, token key and log key; the file is the owner's alone."""
    first = Vault(tmp_path / "issuer", DOMAIN, NOW)
    again = Vault(tmp_path / "issuer", DOMAIN, NOW + HOUR)
    assert again.root == first.root
    assert again.jwt_authorities == first.jwt_authorities
    assert again.log_key == first.log_key
    assert (tmp_path / "issuer").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "issuer" / "keys.pem").stat().st_mode & 0o777 == 0o600


def test_keys_that_others_can_read_are_not_used(tmp_path: Path) -> None:
    """A keys.pem with a wider mode is refused, with the command that mends it."""
    Vault(tmp_path, DOMAIN, NOW)
    (tmp_path / "keys.pem").chmod(0o640)
    with pytest.raises(HostUnfit, match="mode 0600") as refused:
        Vault(tmp_path, DOMAIN, NOW)
    assert "chmod 600" in refused.value.hint


def test_the_keys_of_another_trust_domain_are_not_used(tmp_path: Path) -> None:
    """A state directory belongs to the trust domain that it was made for."""
    Vault(tmp_path, DOMAIN, NOW)
    with pytest.raises(Conflict, match=r"example\.test, not of other\.test"):
        Vault(tmp_path, TrustDomain("other.test"), NOW)


def test_a_clock_set_back_before_the_root_is_named(tmp_path: Path) -> None:
    """What would be issued before the root begins never verifies, so nothing is."""
    Vault(tmp_path, DOMAIN, NOW)
    with pytest.raises(HostUnfit, match="the clock says"):
        Vault(tmp_path, DOMAIN, NOW - HOUR)


def test_damaged_keys_are_corrupt_and_never_shown(tmp_path: Path) -> None:
    """Cut at any line, or with a byte changed on any line, the file is refused whole and no part of it is in the error."""
    Vault(tmp_path, DOMAIN, NOW)
    path = tmp_path / "keys.pem"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for number, line in enumerate(lines):
        changed = bytearray(whole)
        changed[len(b"".join(lines[:number])) + len(line) // 2] ^= 1
        for damaged in (b"".join(lines[:number]), bytes(changed)):
            path.write_bytes(damaged)
            with pytest.raises(Corrupt) as refused:
                Vault(tmp_path, DOMAIN, NOW)
            assert not any(text.strip().decode() in str(refused.value) for text in lines if len(text) > 40)


def test_keys_are_not_shown_by_repr_and_reach_no_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing that prints a vault prints a key."""
    with caplog.at_level(logging.DEBUG):
        vault = Vault(tmp_path, DOMAIN, NOW)
    assert repr(vault._keys) == "_Keys(...)"
    assert "PRIVATE" not in caplog.text


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Where the folder cannot be made the error says so, and what to do."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostUnfit, match="the issuer's keys"):
        Vault(tmp_path / "file" / "issuer", DOMAIN, NOW)


@pytest.mark.parametrize("name", NAMES)
def test_a_death_at_a_write_leaves_the_old_or_the_new(tmp_path: Path, name: str) -> None:
    """After kill -9 before or after each durable write the vault opens, and holds what was acknowledged."""
    if name.startswith("issuer.checkpoint"):
        Vault(tmp_path, DOMAIN, NOW).keep_checkpoint(b"first")
        root = Vault(tmp_path, DOMAIN, NOW).root
    died = subprocess.run(
        [sys.executable, "-c", CRASHER, str(tmp_path), name, str(NOW)], capture_output=True, text=True, check=False
    )
    assert died.returncode == -9, died.stderr
    vault = Vault(tmp_path, DOMAIN, NOW)
    kept = vault.last_checkpoint()
    if name.startswith("issuer.checkpoint"):
        assert vault.root == root
        assert kept == (b"first" if name.endswith("before") else b"second")
    else:
        assert "opened" not in died.stdout and kept == b""
    assert Vault(tmp_path, DOMAIN, NOW).root == vault.root


def test_what_a_crash_left_half_written_is_swept(tmp_path: Path) -> None:
    """A temporary file may hold keys that nobody uses: it is gone when the vault is opened."""
    Vault(tmp_path, DOMAIN, NOW)
    left = tmp_path / ".keys.pem.new"
    left.write_bytes(b"-----BEGIN PRIVATE KEY-----")
    Vault(tmp_path, DOMAIN, NOW)
    assert os.listdir(tmp_path) == ["keys.pem"]
