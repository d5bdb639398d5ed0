"""What a case of the benches is: the same work for the worker and its peers, and a look at what each left."""

import contextlib
import dataclasses
import json
import os
import pathlib
import subprocess
from collections.abc import Callable

from shared import places, server

# The database that is loaded into, made anew for each run, and the one that is read.
TARGET, ORIGIN = "bench", "origin"


@dataclasses.dataclass
class Contender:
    """One way to do a case's work. `ours` is the worker; its limit is enforced by a control group."""

    name: str
    # In words, exactly: it goes into the results.
    does: str
    # Gives the command, for a folder of this run's own.
    command: Callable[[pathlib.Path], list]
    # SQL before the run, which is not measured.
    setup: tuple[str, ...] = ()
    limit_mib: int | None = None
    # Takes minutes, and runs in fewer rounds.
    slow: bool = False


@dataclasses.dataclass
class Case:
    """A piece of work. The first contender is the worker."""

    name: str
    contenders: list[Contender]
    # What is there after a run, as a text that must be the same for all. Not measured.
    check: Callable[[Contender, pathlib.Path], str]
    # The database that each run's is a copy of; None where no database is written.
    template: str | None = "template0"
    # Made once before all runs.
    prepare: Callable[[], None] = lambda: None
    # What goes on beside a run; gives a dict that is filled with its own figures.
    beside: Callable[[], contextlib.AbstractContextManager] = lambda: contextlib.nullcontext({})


def manifest(spec):
    """A command that runs the worker with a manifest of this `spec`; {folder} is the run's folder."""

    def command(folder):
        text = "apiVersion: report-operator.dev/v1alpha1\nkind: ReportPipeline\nmetadata: {name: bench}\nspec:\n"
        text += "".join(f"  {line}\n" for line in spec.replace("{folder}", str(folder)).strip().splitlines())
        path = folder / "pipeline.yaml"
        path.write_text(text)
        return [places.worker(), "run", path]

    return command


def environment(folder):
    """Of the worker and of all peers alike."""
    return {
        **os.environ,
        "SECRET_DB_URL": server.url(TARGET),
        "SECRET_ORIGIN_URL": server.url(ORIGIN),
        "REPORT_SCRATCH": str(folder),
    }


def peer(name, *arguments):
    """A program of peers/, run by the Python that has the peers' packages."""
    return [places.PYTHON, pathlib.Path(__file__).parent / "peers" / name, *arguments]


def psql(database, *commands):
    """psql with these commands in one session, each by itself."""
    command = [server.programs() / "psql", server.url(database), "-qX", "-v", "ON_ERROR_STOP=1"]
    for text in commands:
        command += ["-c", text]
    return command


def duckdb_rows(sql):
    """The rows of a query in DuckDB, to look at files with."""
    # The bar, which comes after two seconds, would be in the output.
    program = "import duckdb, json, sys; c = duckdb.connect(); c.execute('SET enable_progress_bar = false'); " \
              "print(json.dumps(c.execute(sys.argv[1]).fetchall(), default=str))"
    done = subprocess.run([places.PYTHON, "-c", program, sql], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{sql}: {done.stderr}")
    return json.loads(done.stdout)
