//! The exactly-once proof by simulation: real [`aperio::run::Run`] machines against a world of maps, without threads,
//! clocks or a network. The table's metadata are real, and read by the program's own functions. Every effect can fail
//! before it happens, lose its answer, crash the process before or after, happen late, or happen twice; meanwhile others
//! roll the table back, write to it, compact it, expire its snapshots, change its columns and partitions and move its
//! offsets, and logs lose their ends and grow again. And parts of a process can hang.

mod columns;
mod dice;
mod exhaustive;
mod hung;
mod process;
mod scene;
mod seeds;
mod world;
