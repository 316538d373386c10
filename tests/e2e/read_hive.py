"""Tables of plain Parquet as DuckDB and PyArrow read them, and what aperio left beside them; see common.py.

Called as `read_hive.py '[{"warehouse": path, "name": …}, …]'`. A warehouse in a bucket also has `s3` (`endpoint`, `key`,
`secret`) and `catalog`, the file of its SQLite catalog; it is copied from there and then read as any other. Prints one
JSON array: for each table `duckdb` and `pyarrow` (its rows as [id, country, date, hour], by id), `offsets` (by
partition), `unpublished` (manifests that sync_points still name), `letters` (as "partition/offset"), `staged` and
`manifests` (files that nothing names).
"""

import json
import pathlib
import sys
import tempfile

import duckdb
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError

import common


def by_duckdb(folder):
    rows = duckdb.sql(
        f"select id, country, cast(date as varchar), hour from read_parquet('{folder}/**/*.parquet',"
        " hive_partitioning = true, union_by_name = true) order by id"
    )
    return [list(row) for row in rows.fetchall()]


def by_pyarrow(folder):
    # All columns, so that those of the files and of the directories must go together.
    table = pyarrow.parquet.read_table(folder)
    rows = [[row["id"], row["country"], row["date"], row["hour"]] for row in table.to_pylist()]
    again = pyarrow.dataset.dataset(folder, partitioning="hive").to_table(columns=["id", "country"])
    assert again.num_rows == len(rows)
    return sorted(rows)


def letters(request, name):
    catalog = request.get("catalog", request["warehouse"] + "/catalog.db")
    properties = {"type": "sql", "uri": f"sqlite:///{catalog}"}
    if "s3" in request:
        s3 = request["s3"]
        properties |= {"s3.endpoint": s3["endpoint"], "s3.region": "us-east-1"}
        properties |= {"s3.access-key-id": s3["key"], "s3.secret-access-key": s3["secret"]}
    try:
        table = load_catalog("aperio", **properties).load_table(f"default.{name}_dead_letters")
    except NoSuchTableError:
        return []
    rows = table.scan(selected_fields=("partition", "offset")).to_arrow().to_pylist()
    return sorted(f"{row['partition']}/{row['offset']}" for row in rows)


def state(request):
    if "s3" not in request:
        return state_in(request, pathlib.Path(request["warehouse"]))
    s3 = request["s3"]
    bucket = pyarrow.fs.S3FileSystem(
        endpoint_override=s3["endpoint"], access_key=s3["key"], secret_key=s3["secret"], region="us-east-1"
    )
    with tempfile.TemporaryDirectory() as copy:
        pyarrow.fs.copy_files(request["warehouse"].removeprefix("s3://"), copy, source_filesystem=bucket)
        return state_in(request, pathlib.Path(copy))


def state_in(request, warehouse):
    name = request["name"]
    folder, aside = warehouse / "default" / name, warehouse / ".aperio" / "default"
    points = pyarrow.parquet.read_table(aside / "sync_points.parquet").to_pylist()
    rows = {row["sync_key"]: row["sync_value"] for row in points if row["source_name"] == name}
    under = lambda what: [str(file) for file in (aside / name / what).rglob("*") if file.is_file()]
    return {
        "duckdb": by_duckdb(folder),
        "pyarrow": by_pyarrow(folder),
        "offsets": {key.split(":")[1]: int(value) for key, value in rows.items() if key.startswith("partition:")},
        "unpublished": [key for key in rows if key.startswith("manifest:")],
        "letters": letters(request, name),
        "staged": under("staged"),
        "manifests": under("manifests"),
    }


common.answer([state(request) for request in json.loads(sys.argv[1])])
