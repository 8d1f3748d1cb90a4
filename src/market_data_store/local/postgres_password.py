"""Makes an embedded Postgres ask for its password, also one whose data were made when it asked for none.

The password is set before the server listens, by the same program in its single-user mode.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import pwd
from collections.abc import Sequence

from market_data_store.config import owned_files
from market_data_store.local.directory import Directory

#: Postgres's own number of iterations.
_ITERATIONS = 4096


def ask_for(
    password: str,
    directory: Directory,
    single_user: Sequence[str],
    user: pwd.struct_passwd | None,
    pass_fds: Sequence[int],
) -> None:
    """Set the superuser's password, and let nobody in without it, unless that was done already.

    The rules of before stay beside the new ones as `pg_hba.conf.before`.
    """
    rules = directory.path / "cluster" / "pg_hba.conf"
    wanted = _rules(password)
    if rules.read_text() == wanted:
        return
    statement = f"ALTER ROLE postgres PASSWORD '{_verifier(password)}'\n"
    command = [*single_user, "-c", "exit_on_error=on", "postgres"]
    process = directory.launch(command, user=user, pass_fds=pass_fds, text=statement)
    directory.wait_until(lambda: process.poll() == 0, process)
    owner = (user.pw_uid, user.pw_gid) if user else None
    owned_files.write_private(rules.with_name("pg_hba.conf.before"), rules.read_text(), owner=owner)
    owned_files.write_private(rules, wanted, owner=owner)


def _rules(password: str) -> str:
    # The hash tells whether the password in Postgres is this one, and leads nobody to its 256 bits.
    of_this_one = hashlib.sha256(password.encode()).hexdigest()
    return (
        "# Written by market-data-store: everybody needs a password. SHA-256 of the superuser's:\n"
        f"# {of_this_one}\n"
        "host all all 127.0.0.1/32 scram-sha-256\n"
    )


def _verifier(password: str) -> str:
    """Return what Postgres keeps of a password, from which nobody can get it (RFC 5802)."""
    salt = os.urandom(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored, server = hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256")
    encoded = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${_ITERATIONS}:{encoded[0]}${encoded[1]}:{encoded[2]}"
