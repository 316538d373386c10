//! Tables as other engines read them: PyIceberg, DuckDB and Spark, each a Python script beside this file.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::setup;

/// An engine we didn't write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A second; no equality deletes.
    PyIceberg,
    /// A second.
    DuckDb,
    /// Some 20 s and 1 GB: for few tests.
    Spark,
}

/// Where a table is found.
#[derive(Clone, Debug)]
pub enum Catalog {
    /// The database file and the warehouse folder of a SQL catalog on SQLite; `name` is its catalog_name.
    Sql {
        name: String,
        database: PathBuf,
        warehouse: PathBuf,
    },
    /// The address of a REST catalog.
    Rest { uri: String },
    /// Whatever PyIceberg takes, which alone reads it.
    Properties(Value),
}

impl Catalog {
    /// A SQL catalog as the pipeline file's defaults lay it out in `warehouse`.
    pub fn sql(warehouse: &Path) -> Self {
        let warehouse = std::path::absolute(warehouse).expect("a path");
        Self::Sql {
            name: "aperio".to_owned(),
            database: warehouse.join("catalog.db"),
            warehouse,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Sql {
                name,
                database,
                warehouse,
            } => json!({
                "type": "sql", "name": name,
                "uri": format!("sqlite:///{}", database.display()),
                "warehouse": format!("file://{}", warehouse.display()),
            }),
            Self::Rest { uri } => json!({"type": "rest", "uri": uri}),
            Self::Properties(properties) => properties.clone(),
        }
    }
}

/// All rows of a table (`namespace.name`) as objects, in no order; those for which `filter` holds, if it is given (in
/// the engine's own words).
pub fn read(engine: Engine, catalog: &Catalog, table: &str, filter: Option<&str>) -> Vec<Value> {
    let script = match engine {
        Engine::PyIceberg => "read_pyiceberg.py",
        Engine::DuckDb => "read_duckdb.py",
        Engine::Spark => "read_spark.py",
    };
    run(
        script,
        json!({"catalog": catalog.to_json(), "table": table, "filter": filter}),
    )
}

/// What DuckDB answers to `select {what}` from a table (`namespace.name`): for tables that are too large to read whole.
pub fn select(catalog: &Catalog, table: &str, what: &str) -> Vec<Value> {
    run(
        "read_duckdb.py",
        json!({"catalog": catalog.to_json(), "table": table, "select": what}),
    )
}

/// What aperio left of tables, each with the file of its sync points, as `read_state.py` tells it.
pub fn read_states(tables: &[(Catalog, String, PathBuf)]) -> Vec<Value> {
    states(tables, false)
}

/// The same with all rows, and with the columns of every schema that the tables ever had.
pub fn read_whole(tables: &[(Catalog, String, PathBuf)]) -> Vec<Value> {
    states(tables, true)
}

fn states(tables: &[(Catalog, String, PathBuf)], whole: bool) -> Vec<Value> {
    let request = |(catalog, table, points): &(Catalog, String, PathBuf)| json!({"catalog": catalog.to_json(), "table": table, "sync_points": points, "whole": whole});
    let requests: Vec<_> = tables.iter().map(request).collect();
    run("read_state.py", json!(requests))
}

/// Tables of plain Parquet as `read_hive.py` tells of them; `requests` as it takes them.
pub fn read_hive(requests: &[Value]) -> Vec<Value> {
    run("read_hive.py", json!(requests))
}

/// Makes the table with PyIceberg, of `id` long and `name` string, and three rows; returns them.
pub fn create_small_table(catalog: &Catalog, table: &str) -> Vec<Value> {
    run("create_table.py", json!({"catalog": catalog.to_json(), "table": table}))
}

/// Removes a property of the table with PyIceberg.
pub fn unset_property(catalog: &Catalog, table: &str, property: &str) {
    let request = json!({"catalog": catalog.to_json(), "table": table, "property": property});
    run("unset_property.py", request);
}

/// Runs statements in one session of Spark, in order; the catalog's namespace `default` is the current one. Returns the
/// rows of each.
pub fn spark_sql(catalog: &Catalog, statements: &[String]) -> Vec<Value> {
    run(
        "spark_sql.py",
        json!({"catalog": catalog.to_json(), "statements": statements}),
    )
}

/// One read of [`read_many`]: the engine (PyIceberg or DuckDB), the table, the filter.
pub type Reading<'a> = (Engine, &'a str, Option<&'a str>);

/// What [`read_many`] tells of one read.
#[derive(Debug, serde::Deserialize)]
pub struct ReadTable {
    pub rows: Vec<Value>,
    /// PyIceberg: the data files that it planned to read.
    #[serde(default)]
    pub files: usize,
    /// PyIceberg: the records that the newest snapshot tells of.
    #[serde(default)]
    pub total: u64,
    /// PyIceberg: the table's columns and their types.
    #[serde(default)]
    pub schema: serde_json::Map<String, Value>,
}

/// Reads tables one after the other in one process of Python, which takes a second to start.
pub fn read_many(catalog: &Catalog, reads: &[Reading<'_>]) -> Vec<ReadTable> {
    let reads: Vec<_> = reads
        .iter()
        .map(|(engine, table, filter)| {
            let engine = match engine {
                Engine::PyIceberg => "pyiceberg",
                Engine::DuckDb => "duckdb",
                Engine::Spark => panic!("Spark has a script of its own"),
            };
            json!({"engine": engine, "table": table, "filter": filter})
        })
        .collect();
    let answer = python("read_many.py", &json!({"catalog": catalog.to_json(), "reads": reads}));
    serde_json::from_value(answer).expect("read_many.py answers every read")
}

/// Makes an empty table with PyIceberg. `form` may hold `schema`, `spec`, `order` (the JSON of Iceberg's table spec) and
/// `properties`.
pub fn make_table(catalog: &Catalog, table: &str, form: Value) {
    let mut request = json!({"catalog": catalog.to_json(), "table": table});
    let fields = request.as_object_mut().expect("an object");
    fields.extend(form.as_object().expect("an object").clone());
    python("make_table.py", &request);
}

fn run(script: &str, request: Value) -> Vec<Value> {
    match python(script, &request) {
        Value::Array(rows) => rows,
        other => panic!("{script} printed no rows: {other}"),
    }
}

/// A session of Spark that takes one statement after the other, so that other things can happen in between.
pub struct Spark {
    child: Child,
    statements: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Spark {
    /// Starts it on a catalog, whose namespace `default` is the current one, and waits until it is ready.
    pub fn start(catalog: &Catalog) -> Self {
        let mut command = script("spark_shell.py", &json!({"catalog": catalog.to_json()}));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = setup::spawn(command);
        let statements = child.stdin.take().expect("piped");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        let mut spark = Self {
            child,
            statements,
            answers,
        };
        spark.answer("starting");
        spark
    }

    /// Runs a statement; returns its rows, or what Spark says against it.
    pub fn try_sql(&mut self, statement: &str) -> Result<Vec<Value>, String> {
        writeln!(self.statements, "{}", json!(statement)).expect("Spark listens");
        let answer = self.answer(statement);
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer["rows"].as_array().expect("rows").clone()),
        }
    }

    fn answer(&mut self, statement: &str) -> Value {
        let mut line = String::new();
        // Ends: at the answer, or when Spark does.
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).expect("Spark prints text");
            assert!(read > 0, "Spark ended at `{statement}`");
            if let Some(answer) = line.strip_prefix("answer ") {
                return serde_json::from_str(answer).expect("an answer in JSON");
            }
        }
    }
}

impl Drop for Spark {
    fn drop(&mut self) {
        setup::kill_group(&mut self.child);
    }
}

/// The command that runs a script.
fn script(script: &str, request: &Value) -> Command {
    let mut command = Command::new(setup::part("python").join("bin/python"));
    if script.contains("spark") {
        command
            .env("JAVA_HOME", setup::java_home_for_spark())
            .env("JARS", setup::part("spark").join("libs"));
        command.env_remove("SPARK_HOME").env_remove("PYSPARK_SUBMIT_ARGS");
    }
    command
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e").join(script))
        .arg(request.to_string());
    command
}

fn python(name: &str, request: &Value) -> Value {
    let mut command = script(name, request);
    let output = command.output().expect("python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {request}:\n{errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name} printed no JSON ({error}): {text}\n{errors}"))
}
