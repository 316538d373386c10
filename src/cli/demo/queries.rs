//! Commands that query the table with engines that we didn't write, to be pasted into a shell.

use std::path::Path;

use crate::config::Pipeline;

/// Returns the commands, indented.
///
/// The catalog's name is part of all of them: readers of a SQL catalog that use another name see no tables and no error.
pub(super) fn text(pipeline: &Pipeline, metadata_location: &str, dir: &Path) -> String {
    let catalog = &pipeline.catalog;
    let (name, warehouse) = (&catalog.name, &catalog.warehouse);
    let database = catalog.uri.trim_start_matches("sqlite:").trim_start_matches("//");
    let table = format!("{}.{}", pipeline.schema, pipeline.name);
    let file = dir.join(super::PIPELINE_FILE);
    let file = file.display();
    format!(
        r#"   DuckDB (reads the table as it is now; after the next commit ask the catalog for the newer metadata file):
     duckdb -c "INSTALL iceberg; LOAD iceberg;
       SELECT type, count(*) AS events, round(sum(product.price * quantity), 2) AS amount
       FROM iceberg_scan('{metadata_location}') GROUP BY type ORDER BY events DESC"

   PyIceberg (pip install 'pyiceberg[sql-sqlite,pyarrow]'):
     python3 -c "from pyiceberg.catalog import load_catalog; \
       catalog = load_catalog('{name}', type='sql', uri='sqlite:///{database}', warehouse='{warehouse}'); \
       rows = catalog.load_table('{table}').scan().to_arrow(); \
       print(rows.group_by('type').aggregate([('event_id', 'count')]).to_pylist())"

   Spark (the catalog is called `{name}`, as in the file: another name shows an empty catalog):
     spark-sql --packages org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0,org.xerial:sqlite-jdbc:3.50.3.0 \
       --conf spark.sql.catalog.{name}=org.apache.iceberg.spark.SparkCatalog \
       --conf spark.sql.catalog.{name}.type=jdbc \
       --conf spark.sql.catalog.{name}.uri=jdbc:sqlite:{database} \
       --conf spark.sql.catalog.{name}.warehouse={warehouse} \
       -e "SELECT type, count(*) FROM {name}.{table} GROUP BY type"

   aperio itself:
     aperio validate {file}
     aperio sync-points show {file}"#
    )
}
