"""Cases that end in Parquet files."""

from shared import server, tpch

from .case import ORIGIN, Case, Contender, duckdb_rows, manifest, peer
from .into_postgres import lineitem_source, origin, read_csv

LIMIT_MIB = 512


def lineitem_is_there(contender, folder):
    """What a reader finds; partition columns come back from the folders' names."""
    sums = "count(*), sum(l_extendedprice), sum(l_orderkey * l_linenumber), sum(length(l_comment))"
    files = f"read_parquet('{folder}/lake/**/*.parquet', hive_partitioning = true)"
    return str(duckdb_rows(f"SELECT {sums}, sum(l_quantity), min(l_shipdate), count(DISTINCT l_shipmode) FROM {files}"))


def lake_sink(options):
    return f"sinks: [{{name: lake, from: lineitem, lake: {{url: 'file://{{folder}}/lake', {options}}}}}]"


def copy(select, options, is_folder=False):
    """DuckDB's COPY of a SELECT to files."""

    def command(folder):
        (folder / "lake").mkdir()
        target = folder / "lake" / ("parts" if is_folder else "lineitem.parquet")
        return peer("duckdb_copy.py", f"COPY ({select}) TO '{target}' (FORMAT parquet, {options})")

    return command


def csv_to_parquet(scale, name, ours, theirs, is_folder=False):
    path = tpch.table("lineitem", scale, "csv")
    spec = f"sources: [{lineitem_source(path)}]\n{lake_sink(ours)}"
    select = f"SELECT * FROM {read_csv(path, tpch.LINEITEM)}"
    return Case(name, [
        Contender("ours", f"a lake with {ours}", manifest(spec), limit_mib=LIMIT_MIB),
        Contender("duckdb", f"COPY of read_csv with given types, {theirs}", copy(select, theirs, is_folder)),
    ], lineitem_is_there, template=None)


def postgres_to_parquet(scale):
    spec = f"""
sources: [{{name: lineitem, postgres: {{connection: {{secretRef: {{name: origin}}}}, table: public.lineitem}}}}]
{lake_sink("compression: zstd")}
"""
    exact = ", ".join(f"CAST({name} AS DECIMAL(15,2)) AS {name}" if type_.startswith("decimal") else name
                      for name, type_ in tpch.LINEITEM.items())

    def adbc(folder):
        (folder / "lake").mkdir()
        return peer("adbc_to_parquet.py", server.url(ORIGIN), "SELECT * FROM lineitem", exact,
                    "FORMAT parquet, COMPRESSION zstd", folder / "lake/lineitem.parquet")

    def psql_csv(folder):
        (folder / "lake").mkdir()
        sql = (f"COPY (SELECT * FROM {read_csv('/dev/stdin', tpch.LINEITEM, header=False)}) "
               f"TO '{folder}/lake/lineitem.parquet' (FORMAT parquet, COMPRESSION zstd)")
        out = r"\copy lineitem TO STDOUT (FORMAT csv)"
        script = f'psql=$0 url=$1; shift; "$psql" "$url" -qXc "{out}" | "$@"'
        return ["sh", "-c", script, server.programs() / "psql", server.url(ORIGIN), *peer("duckdb_copy.py", sql)]

    return Case("postgres_to_parquet", [
        Contender("ours", "a postgres source and a lake with compression zstd", manifest(spec), limit_mib=LIMIT_MIB),
        Contender("duckdb_adbc", "ADBC's Arrow batches, numeric as text cast back to DECIMAL(15,2), COPY with zstd", adbc),
        Contender("psql_duckdb", r"\copy TO STDOUT as CSV, read_csv with given types, COPY with zstd", psql_csv),
    ], lineitem_is_there, template=None, prepare=lambda: origin(scale))
