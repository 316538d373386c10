"""Tables of plain Parquet as DuckDB and PyArrow read them, and what aperio left beside them; see common.py.

Called as `read_hive.py '[{"warehouse": path, "name": …}, …]'`; prints one JSON array: for each table `duckdb` and
`pyarrow` (its rows as [id, country, date, hour], by id), `offsets` (by partition), `unpublished` (manifests that
sync_points still name), `letters` (as "partition/offset"), `staged` and `manifests` (files that nothing names).
"""

import json
import pathlib
import sys

import duckdb
import pyarrow.dataset
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


def letters(warehouse, name):
    properties = {"type": "sql", "uri": f"sqlite:///{warehouse}/catalog.db", "warehouse": f"file://{warehouse}"}
    try:
        table = load_catalog("aperio", **properties).load_table(f"default.{name}_dead_letters")
    except NoSuchTableError:
        return []
    rows = table.scan(selected_fields=("partition", "offset")).to_arrow().to_pylist()
    return sorted(f"{row['partition']}/{row['offset']}" for row in rows)


def state(request):
    warehouse, name = pathlib.Path(request["warehouse"]), request["name"]
    folder, aside = warehouse / "default" / name, warehouse / ".aperio" / "default"
    points = pyarrow.parquet.read_table(aside / "sync_points.parquet").to_pylist()
    rows = {row["sync_key"]: row["sync_value"] for row in points if row["source_name"] == name}
    under = lambda what: [str(file) for file in (aside / name / what).rglob("*") if file.is_file()]
    return {
        "duckdb": by_duckdb(folder),
        "pyarrow": by_pyarrow(folder),
        "offsets": {key.split(":")[1]: int(value) for key, value in rows.items() if key.startswith("partition:")},
        "unpublished": [key for key in rows if key.startswith("manifest:")],
        "letters": letters(warehouse, name),
        "staged": under("staged"),
        "manifests": under("manifests"),
    }


common.answer([state(request) for request in json.loads(sys.argv[1])])
