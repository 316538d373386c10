"""What the readers share: their argument, metadata locations, and rows as JSON.

A reader is called as `read_X.py '{"catalog": …, "table": "namespace.name", "filter": …}'` where catalog is
`{"type": "sql", "name": …, "uri": "sqlite:////…", "warehouse": …}` or `{"type": "rest", "uri": "http://…"}`, and
prints one JSON array of rows; DuckDB's takes a "select" too, in place of `*`. Times are ISO 8601, binary is base64,
decimals and UUIDs are strings.
"""

import base64
import datetime
import decimal
import json
import sqlite3
import sys
import urllib.request
import uuid


def request():
    return json.loads(sys.argv[1])


def sqlite_path(catalog):
    return catalog["uri"].removeprefix("sqlite:///")


def metadata_location(catalog, table):
    """Where the table's current metadata.json is, as a path or URI."""
    namespace, name = table.rsplit(".", 1)
    if catalog["type"] == "sql":
        # A writer may be frozen in the middle of a commit.
        with sqlite3.connect(sqlite_path(catalog), timeout=60) as connection:
            return connection.execute(
                "select metadata_location from iceberg_tables"
                " where catalog_name = ? and table_namespace = ? and table_name = ?",
                (catalog["name"], namespace, name),
            ).fetchone()[0]
    url = f"{catalog['uri']}/v1/namespaces/{namespace}/tables/{name}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        return json.load(answer)["metadata-location"]


def plain(value):
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime() | datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | uuid.UUID():
            return str(value)
        case _:
            raise TypeError(f"no JSON for {type(value)}")


def answer(rows):
    json.dump(rows, sys.stdout, default=plain)
