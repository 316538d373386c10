"""Reads a table with Spark; see common.py and spark_session.py."""

import json
import sys

import common
import spark_session

request = common.request()
catalog = request["catalog"]
spark = spark_session.session(catalog)
rows = spark.table(f"{spark_session.catalog_name(catalog)}.{request['table']}")
if request.get("filter"):
    rows = rows.where(request["filter"])
json.dump([json.loads(row) for row in rows.toJSON().collect()], sys.stdout)
