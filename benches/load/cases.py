"""All cases, by name."""

from . import into_lake, into_postgres, under_reader

CASES = {
    "csv_to_postgres": into_postgres.csv_to_postgres,
    "postgres_to_postgres": into_postgres.postgres_to_postgres,
    "csv_to_parquet": lambda scale: into_lake.csv_to_parquet(
        scale, "csv_to_parquet", "compression: zstd", "COMPRESSION zstd"),
    "csv_to_parquet_snappy": lambda scale: into_lake.csv_to_parquet(
        scale, "csv_to_parquet_snappy", "compression: snappy", "COMPRESSION snappy"),
    "csv_to_parquet_partitioned": lambda scale: into_lake.csv_to_parquet(
        scale, "csv_to_parquet_partitioned", "compression: zstd, partitionBy: [l_shipmode]",
        "COMPRESSION zstd, PARTITION_BY (l_shipmode)", is_folder=True),
    "postgres_to_parquet": into_lake.postgres_to_parquet,
    "merge": into_postgres.merge,
    "replace_under_reader": under_reader.replace_under_reader,
    "model": into_postgres.model,
}
