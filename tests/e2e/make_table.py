"""Makes an empty table with PyIceberg, as another engine's user would have; see common.py.

`schema`, `spec` and `order` are the JSON forms of Iceberg's table spec, `properties` the table's.
"""

from pyiceberg.catalog import load_catalog
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, SortOrder

import common

request = common.request()
properties = dict(request["catalog"])
catalog = load_catalog(properties.pop("name", "rest"), **properties)
catalog.create_namespace_if_not_exists(request["table"].rsplit(".", 1)[0])
spec, order = request.get("spec"), request.get("order")
catalog.create_table(
    request["table"],
    schema=Schema.model_validate(request["schema"]),
    partition_spec=PartitionSpec.model_validate(spec) if spec else UNPARTITIONED_PARTITION_SPEC,
    sort_order=SortOrder.model_validate(order) if order else UNSORTED_SORT_ORDER,
    properties=request.get("properties", {}),
)
common.answer([])
