"""Makes a small table with PyIceberg, to try the readers on; see common.py."""

import pyarrow
from pyiceberg.catalog import load_catalog

import common

request = common.request()
properties = dict(request["catalog"])
catalog = load_catalog(properties.pop("name", "rest"), **properties)
catalog.create_namespace_if_not_exists(request["table"].rsplit(".", 1)[0])
rows = pyarrow.table({"id": pyarrow.array([1, 2, 3], pyarrow.int64()), "name": ["a", "b", None]})
catalog.create_table(request["table"], schema=rows.schema).append(rows)
common.answer(rows.to_pylist())
