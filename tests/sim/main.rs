//! The exactly-once proof by simulation: real [`aperio::run::Run`] machines against a world of maps, without threads,
//! clocks or a network. The table's metadata are real, and read by the program's own functions. Every effect can fail
//! before it happens, lose its answer, crash the process before or after, happen late, or happen twice; meanwhile others
//! roll the table back, write to it, compact it, expire its snapshots, change its columns and partitions and move its
//! offsets, and logs lose their ends and grow again. And parts of a process can hang.
//!
//! Pipelines share what they may share: two tables have their files under one path, named by the program's own function, and
//! letters in one table, found by the program's own keys. What becomes of a record, row or letter, differs by process.

mod columns;
mod dice;
mod exhaustive;
mod fates;
mod hung;
mod letters;
mod process;
mod scene;
mod seeds;
mod store;
mod world;
