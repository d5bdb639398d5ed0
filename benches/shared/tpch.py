"""TPC-H's data, as tpchgen-cli makes it, kept for the next time; and the worker's types of its tables."""

import shutil
import subprocess

from . import places

READ_BYTES = 16 << 20
TABLES = ["customer", "lineitem", "nation", "orders", "part", "partsupp", "region", "supplier"]
LINEITEM = {
    "l_orderkey": "int64", "l_partkey": "int64", "l_suppkey": "int64", "l_linenumber": "int32",
    "l_quantity": "decimal(15,2)", "l_extendedprice": "decimal(15,2)", "l_discount": "decimal(15,2)",
    "l_tax": "decimal(15,2)", "l_returnflag": "string", "l_linestatus": "string", "l_shipdate": "date",
    "l_commitdate": "date", "l_receiptdate": "date", "l_shipinstruct": "string", "l_shipmode": "string",
    "l_comment": "string",
}
ORDERS = {
    "o_orderkey": "int64", "o_custkey": "int64", "o_orderstatus": "string", "o_totalprice": "decimal(15,2)",
    "o_orderdate": "date", "o_orderpriority": "string", "o_clerk": "string", "o_shippriority": "int32",
    "o_comment": "string",
}
POSTGRES_TYPES = {"int64": "bigint", "int32": "integer", "string": "text", "date": "date",
                  "decimal(15,2)": "numeric(15,2)"}


def table(name, scale, form):
    """A table's file, made where it is missing. `form` is csv or parquet."""
    folder = places.DATA / f"sf{scale}"
    path = folder / f"{name}.{form}"
    if not path.exists():
        unfinished = folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        command = [places.PEERS / "tpchgen-cli", form, "-s", str(scale), "-T", name, "-o", unfinished]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (unfinished / path.name).rename(path)
        shutil.rmtree(unfinished)
    return path


def warm(scale):
    """Reads a scale factor's files, so that they are in the page cache for whoever comes first."""
    for path in (places.DATA / f"sf{scale}").iterdir():
        with open(path, "rb") as file:
            while file.read(READ_BYTES):
                pass


def columns_yaml(columns):
    return "[" + ", ".join(f'{{name: {name}, type: "{type_}"}}' for name, type_ in columns.items()) + "]"


def columns_sql(columns):
    return ", ".join(f"{name} {POSTGRES_TYPES[type_]}" for name, type_ in columns.items())
