//! aperio turns Kafka topics into Apache Iceberg tables, exactly once.
//!
//! A pure state machine decides, a small async shell obeys, plain threads carry bytes.
//!
//! ```text
//!            records                rows             files, unseen            one swap
//!   kafka ───chunk──▶ line: decode ──────▶ place ───▶ write ──sealed window──▶ catalog ──▶ the table's readers
//!     ▲                                                 │                        ▲    the ledger moves in the same swap
//!     │                                               store              table::admit: only if the window starts where
//!     └─────────── shell: hands events to run, does what it says ────────────────┘    the freshly loaded ledger ends
//! ```
//!
//! What holds at every moment, whatever is killed, lost or started twice:
//!
//! - Every offset below the ledger is in exactly one of: visible row, dead letter, counted skip.
//! - The ledger moves only in the swap that adds the window's files, and only from where the window starts.
//! - Sync points and group offsets are copies: never ahead of the ledger through us, and never read as progress.
//!
//! Modules in reading order. A module uses those above it, never one below; `tests/fast/layers.rs` reads this list and
//! says so. Down to [`discover`] everything is pure: no runtime, no client, no clock, no global source of random numbers.
//!
//! 1. words: [`units`], [`offsets`], [`error`], [`memory`]; where tests kill a run: [`kill_points`];
//! 2. the pipeline file as written and as run: [`config`];
//! 3. the exactly-once core: [`table`] decides over Iceberg metadata, [`run`] is the run as a state machine;
//! 4. the path of a record: [`chunk`], [`json`], [`schema`], [`decode`], [`place`], [`write`], and in one function: [`line`];
//! 5. what a topic holds, guessed from samples that take the same path: [`discover`];
//! 6. the world, one system each: [`resident`], [`http`], [`kafka`], [`registry`], [`store`], [`sync_points`], [`catalog`], [`dead_letters`];
//! 7. those who watch: [`observe`]; feeding events to the run and doing what it says: [`shell`]; the command line: [`cli`].

pub mod units;

pub mod offsets;

pub mod error;

pub mod memory;

pub mod kill_points;

pub mod config;

pub mod table;

pub mod run;

pub mod chunk;

pub mod json;

pub mod schema;

pub mod decode;

pub mod place;

pub mod write;

pub mod line;

pub mod discover;

pub mod resident;

pub mod http;

pub mod kafka;

pub mod registry;

pub mod store;

pub mod sync_points;

pub mod catalog;

pub mod dead_letters;

pub mod observe;

pub mod shell;

pub mod cli;
