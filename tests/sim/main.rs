//! The exactly-once proof by simulation: real [`aperio::run::Run`] machines against a world of maps, without threads,
//! clocks or a network. Every effect can fail before it happens, lose its answer, crash the process before or after,
//! happen late, or happen twice.

mod exhaustive;
mod process;
mod seeds;
mod world;
