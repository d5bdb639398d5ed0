"""A PostgreSQL of the benches' own, with the same settings for everyone who loads into it.

What is written is logged and synced as in production. Autovacuum is off, and a checkpoint is made before each run, so
that nobody pays for what another left behind.
"""

import contextlib
import os
import pathlib
import pwd
import shutil
import subprocess
import time

from . import places

PORT = int(os.environ.get("BENCH_PORT", "25432"))
SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "maintenance_work_mem": "256MB",
    "autovacuum": "off",
    "jit": "off",
}
USER = "app"
PASSWORD = "bench"
START_SECONDS = 30


def programs():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))
    if not found:
        raise SystemExit("PostgreSQL is not there: run 'dev/setup'")
    return found[-1]


def url(database):
    return f"postgres://{USER}:{PASSWORD}@127.0.0.1:{PORT}/{database}"


def as_postgres():
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]


@contextlib.contextmanager
def running():
    """The server, from an empty folder to its end."""
    folder = places.STATE / "postgres"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    password = folder / "password"
    password.write_text(PASSWORD)
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        for path in (folder, password):
            os.chown(path, user.pw_uid, user.pw_gid)
    bin_, data = programs(), folder / "data"
    subprocess.run(
        [*as_postgres(), bin_ / "initdb", "-D", data, "-U", USER, f"--pwfile={password}", "-A", "scram-sha-256",
         "-E", "UTF8", "--locale=C.UTF-8"],
        check=True, stdout=subprocess.DEVNULL, cwd="/",
    )
    options = {**SETTINGS, "port": PORT, "listen_addresses": "127.0.0.1", "unix_socket_directories": ""}
    command = [*as_postgres(), bin_ / "postgres", "-D", data]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([bin_ / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(PORT)]).returncode:
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"PostgreSQL does not start: see {folder / 'log'}")
            time.sleep(0.1)
        yield
    finally:
        server.send_signal(subprocess.signal.SIGINT)
        server.wait()
        shutil.rmtree(folder)


def psql(database, *statements, quiet=True):
    """Executes statements and gives the last one's output."""
    command = [programs() / "psql", url(database), "-X", "-v", "ON_ERROR_STOP=1", "-At"]
    for statement in statements:
        command += ["-c", statement]
    done = subprocess.run(command, capture_output=quiet, text=True)
    if done.returncode:
        raise SystemExit(f"psql {statements}: {done.stderr}")
    return done.stdout.strip()


def fresh(database, template="template0"):
    """A database as its template is, after a checkpoint: files are copied, so that it is quick for large ones."""
    psql("postgres", f"DROP DATABASE IF EXISTS {database} WITH (FORCE)",
         f"CREATE DATABASE {database} TEMPLATE {template} STRATEGY file_copy", "CHECKPOINT")
