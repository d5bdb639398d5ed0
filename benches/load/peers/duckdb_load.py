#!/usr/bin/env python3
"""Peer: DuckDB runs a query and ADBC's PostgreSQL driver copies its rows into a table, in binary COPY.

    duckdb_load.py URL TABLE CREATE_SQL SQL

DuckDB's own PostgreSQL extension is not among its packages; ADBC takes its Arrow batches as they come.
"""

import sys

import adbc_driver_postgresql.dbapi
import duckdb

BATCH_ROWS = 100_000

url, table, create, sql = sys.argv[1:]
connection = duckdb.connect()
with adbc_driver_postgresql.dbapi.connect(url) as target, target.cursor() as cursor:
    cursor.execute(create)
    rows = connection.execute(sql).to_arrow_reader(BATCH_ROWS)
    cursor.adbc_ingest(table, rows, mode="append")
    target.commit()
