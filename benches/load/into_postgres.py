"""Cases that end in PostgreSQL."""

import json

from shared import places, server, tpch

from .case import ORIGIN, TARGET, Case, Contender, duckdb_rows, manifest, peer, psql

LIMIT_MIB = 256
DATABASE = "connection: {secretRef: {name: db}}"
CREATE = f"CREATE TABLE lineitem ({tpch.columns_sql(tpch.LINEITEM)})"
DUCKDB_TYPES = {"int64": "BIGINT", "int32": "INTEGER", "string": "VARCHAR", "date": "DATE",
                "decimal(15,2)": "DECIMAL(15,2)"}


def read_csv(path, columns, header=True):
    """DuckDB's reader with the same types as the others, and nothing to guess."""
    types = ", ".join(f"'{name}': '{DUCKDB_TYPES[type_]}'" for name, type_ in columns.items())
    options = f"header={str(header).lower()}, delim=',', quote='\"', auto_detect=false, columns={{{types}}}"
    return f"read_csv('{path}', {options})"


def lineitem_source(path):
    return f"{{name: lineitem, file: {{path: {path}}}, columns: {tpch.columns_yaml(tpch.LINEITEM)}}}"


def lineitem_is_there(_contender, _folder):
    sums = "count(*), sum(l_extendedprice), sum(l_orderkey::numeric * l_linenumber), sum(length(l_comment))"
    return server.psql(TARGET, f"SELECT {sums}, sum(l_quantity), min(l_shipdate), max(l_receiptdate) FROM lineitem")


def csv_to_postgres(scale, limit_mib=LIMIT_MIB):
    path = tpch.table("lineitem", scale, "csv")
    load = [
        f"LOAD CSV FROM '{path}' INTO {server.url(TARGET).replace('postgres:', 'postgresql:')}",
        "TARGET TABLE public.lineitem",
        "WITH skip header = 1, fields optionally enclosed by '\"', fields terminated by ',';",
    ]

    def pgloader(folder):
        (folder / "lineitem.load").write_text("\n".join(load))
        return ["pgloader", "--root-dir", folder, folder / "lineitem.load"]

    spec = f"""
sources: [{lineitem_source(path)}]
sinks:
  - {{name: lineitem, from: lineitem, postgres: {{{DATABASE}, table: public.lineitem}}, mode: {{replace: {{}}}}}}
"""
    return Case("csv_to_postgres", [
        Contender("ours", "mode replace: a new ledger, a staged logged table, swapped in at the commit",
                  manifest(spec), limit_mib=limit_mib),
        Contender("psql", r"\copy FROM a CSV file into an empty logged table",
                  lambda _: psql(TARGET, rf"\copy lineitem FROM '{path}' (FORMAT csv, HEADER)"), (CREATE,)),
        Contender("duckdb", "read_csv with given types, Arrow batches into an empty logged table by ADBC",
                  lambda _: peer("duckdb_load.py", server.url(TARGET), "lineitem", CREATE,
                                 f"SELECT * FROM {read_csv(path, tpch.LINEITEM)}")),
        Contender("dlt", "Arrow batches with given types, write_disposition replace, loaded as CSV",
                  lambda folder: peer("dlt_load.py", server.url(TARGET), "lineitem", path,
                                      json.dumps(tpch.LINEITEM), folder), slow=True),
        Contender("pgloader", "LOAD CSV into an empty logged table, its defaults", pgloader, (CREATE,), slow=True),
    ], lineitem_is_there)


def origin(scale):
    """Makes the database that is read: lineitem without indexes, as COPY leaves it."""
    path = tpch.table("lineitem", scale, "csv")
    server.fresh(ORIGIN)
    server.psql(ORIGIN, CREATE, rf"\copy lineitem FROM '{path}' (FORMAT csv, HEADER)", "VACUUM ANALYZE lineitem")


def postgres_to_postgres(scale):
    spec = f"""
sources: [{{name: lineitem, postgres: {{connection: {{secretRef: {{name: origin}}}}, table: public.lineitem}}}}]
sinks:
  - {{name: lineitem, from: lineitem, postgres: {{{DATABASE}, table: public.lineitem}}, mode: {{replace: {{}}}}}}
"""

    def pipe(_):
        out = r"\copy lineitem TO STDOUT"
        into = r"\copy lineitem FROM STDIN"
        bin_ = server.programs()
        script = f'{bin_}/psql "$0" -qXc "{out}" | {bin_}/psql "$1" -qXv ON_ERROR_STOP=1 -c "{into}"'
        return ["sh", "-c", script, server.url(ORIGIN), server.url(TARGET)]

    return Case("postgres_to_postgres", [
        Contender("ours", "mode replace: a new ledger, a staged logged table, swapped in at the commit",
                  manifest(spec), limit_mib=LIMIT_MIB),
        Contender("psql", r"\copy TO STDOUT | \copy FROM STDIN as text, into an empty logged table", pipe, (CREATE,)),
    ], lineitem_is_there, prepare=lambda: origin(scale))


def changes(scale):
    """1% of lineitem's rows with another quantity; a tenth of them are new."""
    path = places.DATA / f"sf{scale}" / "changes.csv"
    if not path.exists():
        rows = read_csv(tpch.table("lineitem", scale, "csv"), tpch.LINEITEM)
        new = "l_linenumber + CASE WHEN l_orderkey % 10 = 3 THEN 10 ELSE 0 END AS l_linenumber"
        select = f"SELECT * REPLACE ({new}, CAST(l_quantity + 1 AS DECIMAL(15,2)) AS l_quantity) FROM {rows}"
        duckdb_rows(f"COPY ({select} WHERE (l_orderkey * 7 + l_linenumber) % 100 = 0) TO '{path}' (HEADER)")
    return path


def merge(scale):
    path, key = changes(scale), ["l_orderkey", "l_linenumber"]
    rest = [name for name in tpch.LINEITEM if name not in key]
    template = "merge_template"
    upsert = (f"INSERT INTO lineitem SELECT * FROM changes ON CONFLICT ({', '.join(key)}) DO UPDATE SET "
              + ", ".join(f"{name} = excluded.{name}" for name in rest))
    spec = f"""
sources: [{lineitem_source(path)}]
sinks:
  - name: lineitem
    from: lineitem
    postgres: {{{DATABASE}, table: public.lineitem}}
    mode: {{merge: {{key: [{', '.join(key)}]}}}}
    adopt: true
"""

    def prepare():
        full = tpch.table("lineitem", scale, "csv")
        server.fresh(template)
        server.psql(template, CREATE, rf"\copy lineitem FROM '{full}' (FORMAT csv, HEADER)",
                    f"ALTER TABLE lineitem ADD PRIMARY KEY ({', '.join(key)})", "VACUUM ANALYZE lineitem")

    return Case("merge", [
        Contender("ours", "mode merge of 1% changes into the table, which it adopts, and a new ledger",
                  manifest(spec), limit_mib=LIMIT_MIB),
        Contender("psql", r"\copy into a temporary table, then INSERT … ON CONFLICT DO UPDATE, in one transaction",
                  lambda _: psql(TARGET, "BEGIN", "CREATE TEMP TABLE changes (LIKE lineitem) ON COMMIT DROP",
                                 rf"\copy changes FROM '{path}' (FORMAT csv, HEADER)", upsert, "COMMIT")),
    ], lineitem_is_there, template=template, prepare=prepare)


def model(scale):
    lineitem, orders = tpch.table("lineitem", scale, "csv"), tpch.table("orders", scale, "csv")
    select = ("SELECT o_orderdate, o_orderpriority, count(*) AS lines, "
              "sum(l_extendedprice * (1 - l_discount)) AS revenue "
              "FROM {lineitem} JOIN {orders} ON o_orderkey = l_orderkey GROUP BY o_orderdate, o_orderpriority")
    spec = f"""
sources:
  - {lineitem_source(lineitem)}
  - {{name: orders, file: {{path: {orders}}}, columns: {tpch.columns_yaml(tpch.ORDERS)}}}
models:
  - {{name: daily, sql: '{select.format(lineitem='lineitem', orders='orders')}'}}
sinks:
  - {{name: daily, from: daily, postgres: {{{DATABASE}, table: public.daily}}, mode: {{replace: {{}}}}}}
"""
    query = select.format(lineitem=read_csv(lineitem, tpch.LINEITEM), orders=read_csv(orders, tpch.ORDERS))
    create = "CREATE TABLE daily (o_orderdate date, o_orderpriority text, lines bigint, revenue numeric)"
    check = "SELECT count(*), sum(lines), sum(revenue), min(o_orderdate), max(revenue) FROM daily"
    return Case("model", [
        Contender("ours", "a model over two CSV sources that joins and aggregates, mode replace", manifest(spec),
                  limit_mib=512),
        Contender("duckdb", "the same query over read_csv with given types, into an empty logged table by ADBC",
                  lambda _: peer("duckdb_load.py", server.url(TARGET), "daily", create, query)),
    ], lambda _contender, _folder: server.psql(TARGET, check))
