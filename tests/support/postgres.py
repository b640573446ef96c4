"""A throw-away PostgreSQL on the loopback interface, started from Debian's own binaries."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SUPERUSER = "tap_tests"
START_SECONDS = 60


@dataclass(frozen=True)
class Postgres:
    """A running server: its address, and queries to it."""

    port: int
    bin_dir: Path
    host: str = "127.0.0.1"
    user: str = SUPERUSER
    database: str = "postgres"

    @property
    def target_config(self) -> dict[str, Any]:
        """Settings for target-postgres; the server trusts everybody and ignores the password."""
        return {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": "not-asked",
            "database": self.database,
        }

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    def new_database(self, name: str) -> str:
        """The address of a new, empty database."""
        self.execute(f'create database "{name}"')
        return self.url.removesuffix(self.database) + name

    def execute(self, sql: str) -> str:
        """Run statements with psql and return its bare output; a failing statement raises."""
        command = [
            str(self.bin_dir / "psql"),
            self.url,
            *("-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"),
        ]
        environment = {**os.environ, "PGCLIENTENCODING": "UTF8"}
        done = subprocess.run(command, input=sql, env=environment, capture_output=True, encoding="utf-8", check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def rows(self, query: str, *, schema: str = "public") -> list[dict[str, Any]]:
        """The rows of a query as objects; json, null and "" stay what they are, dates become ISO text."""
        text = self.execute(f'set search_path to "{schema}"; select row_to_json(row_) from ({query}) as row_;')
        # Only "\n" ends a row: text may hold other line separators.
        return [json.loads(line) for line in text.split("\n") if line]

    def tables(self, schema: str) -> list[str]:
        """The names of the tables of a schema, sorted."""
        query = f"select tablename from pg_tables where schemaname = '{schema}' order by 1"
        return [row["tablename"] for row in self.rows(query)]

    def counts(self, schema: str) -> dict[str, int]:
        """Rows per table of a schema."""
        return {
            table: self.rows(f'select count(*) as n from "{schema}"."{table}"')[0]["n"] for table in self.tables(schema)
        }


def _bin_dir() -> Path:
    """The folder of initdb; Debian keeps the programs of each version outside of PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0), default=None)
    found = newest or shutil.which("initdb")
    if not found:
        pytest.fail("PostgreSQL is missing: `make test` installs it, as does apt-get install postgresql")
    return Path(found).parent


def _unprivileged() -> dict[str, Any]:
    """Arguments for subprocess: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    account = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _run(command: Sequence[str], log: Path, identity: dict[str, Any]) -> None:
    # pg_ctl's server keeps the standard streams that it is given: a pipe would never see its end.
    with log.open("ab") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=log.parent,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            check=False,
            **identity,
        )
    assert done.returncode == 0, f"{command[0]} failed:\n{log.read_text(encoding='utf-8', errors='replace')}"


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Run a server with an empty database; stop it and remove its files at the end."""
    bin_dir, identity = _bin_dir(), _unprivileged()
    # Not pytest's tmp_path: that is closed to the unprivileged account.
    home = Path(tempfile.mkdtemp(prefix="tap-braze-postgres-"))
    data, log = home / "data", home / "log"
    try:
        log.touch()
        if identity:
            for path in (home, log):
                os.chown(path, identity["user"], identity["group"])
        port = free_port()
        pg_ctl = str(bin_dir / "pg_ctl")
        initdb = ("-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "--no-locale", "--no-sync")
        options = (
            f"-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' "
            "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c max_wal_size=4GB"
        )
        _run([str(bin_dir / "initdb"), "-D", str(data), *initdb], log, identity)
        start = ("start", "-w", "-t", str(START_SECONDS), "-D", str(data), "-o", options)
        _run([pg_ctl, *start], log, identity)
        try:
            yield Postgres(port=port, bin_dir=bin_dir)
        finally:
            # By the pid in the data directory.
            _run([pg_ctl, "stop", "-w", "-m", "immediate", "-D", str(data)], log, identity)
    finally:
        shutil.rmtree(home, ignore_errors=True)
