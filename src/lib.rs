//! aperio turns Kafka topics into Apache Iceberg tables, exactly once.
//!
//! A pure state machine decides, a small async shell obeys, plain threads carry bytes. Modules in reading order:
//!
//! 1. words: [`units`], [`offsets`], [`error`]; where tests kill a run: [`kill_points`];
//! 2. the pipeline file as written and as run: [`config`];
//! 3. a record's path, pure and synchronous: [`chunk`], [`schema`], [`decode`], [`place`], [`write`];
//! 4. decisions over Iceberg metadata, pure: [`table`]; the run as a state machine, pure: [`run`];
//! 5. the world, one foreign system each: [`kafka`], [`catalog`], [`store`], [`sync_points`];
//! 6. the shell that feeds events to the run and does what it says: [`shell`]; the command line: [`cli`].

pub mod units;

pub mod offsets;

pub mod error;

pub mod kill_points;

pub mod config;

pub mod chunk;

pub mod schema;

pub mod decode;

pub mod place;

pub mod write;

pub mod line;

pub mod table;

pub mod run;

pub mod kafka;

pub mod store;

pub mod catalog;

pub mod sync_points;

pub mod dead_letters;

pub mod shell;

pub mod cli;
