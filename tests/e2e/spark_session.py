"""A Spark session on a catalog; see common.py. JARS is the folder of Spark's additional jars.

Spark's launcher is given a `java` of ours by JAVA_HOME; what Java 24 and newer forbid by default and Netty and Arrow
still use is allowed below. Hadoop 3.4.3 goes before the 3.4.2 that Spark carries, which can't run without Java's
security manager.
"""

import os
import pathlib

from pyspark.sql import SparkSession

import common


def catalog_name(catalog):
    return catalog.get("name", "rest")


def session(catalog):
    jars = [str(jar) for jar in sorted(pathlib.Path(os.environ["JARS"]).glob("*.jar"))]
    java_options = [
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
        "-Dio.netty.noUnsafe=false",
        "-Dorg.apache.iceberg.shaded.io.netty.noUnsafe=false",
    ]
    prefix = f"spark.sql.catalog.{catalog_name(catalog)}"
    settings = {
        "spark.driver.extraClassPath": ":".join(jars),
        "spark.driver.extraJavaOptions": " ".join(java_options),
        "spark.driver.memory": "1g",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        prefix: "org.apache.iceberg.spark.SparkCatalog",
        f"{prefix}.type": "rest" if catalog["type"] == "rest" else "jdbc",
        f"{prefix}.uri": catalog["uri"] if catalog["type"] == "rest" else f"jdbc:sqlite:{common.sqlite_path(catalog)}?busy_timeout=60000",
    }
    if "warehouse" in catalog:
        settings[f"{prefix}.warehouse"] = catalog["warehouse"]
    builder = SparkSession.builder.master("local[2]")
    for key, value in settings.items():
        builder = builder.config(key, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark
