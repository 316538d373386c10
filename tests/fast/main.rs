//! What needs seconds and neither servers nor a network: the layers of the code, stored formats and printed texts that
//! others depend on, and the files that the repository ships.
//!
//! Expected texts are in `snapshots/`. After a wanted change: `INSTA_UPDATE=always cargo test --test fast`, and read the
//! difference before it is committed: readers of tables, scripts and dashboards live with it.

mod cli;
mod layers;
mod schema_check;
mod shipped;
mod stored;
mod unwritten;
