//! The places where tests kill a run, so that each of its steps is tried as its last one.
//!
//! Without the feature `failpoints` passing one is nothing. With it, the environment variable `FAILPOINTS` (of the crate
//! `fail`) says what happens where, such as `Before(Swap)=2*off->return`: the third to pass there dies of SIGKILL.

/// One place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillPoint {
    /// An effect is about to happen.
    Before(Effect),
    /// It has happened, and nobody knows yet.
    After(Effect),
    /// In the middle of an effect, or between two.
    Inside(Place),
}

/// The effects of a run's actions, each named like its action.
#[cfg_attr(feature = "failpoints", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the actions of the same names are documented")]
pub enum Effect {
    ResolveStart,
    Join,
    Read,
    Take,
    Discard,
    Seal,
    Prepare,
    Load,
    Swap,
    Publish,
    Drop,
    Pause,
    Resume,
    AckRevoke,
    Finish,
}

/// Where an effect is half done.
#[cfg_attr(feature = "failpoints", derive(clap::ValueEnum))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The topic was looked at, and the table wasn't yet.
    TopicSeen,
    /// The first metadata file of a new table is written, and a SQL catalog doesn't name it yet.
    TableWritten,
    /// A new table is in the catalog.
    TableCreated,
    /// A line has a chunk, and has decoded nothing of it yet.
    ChunkTaken,
    /// New columns are about to be added to the table.
    ColumnsUnseen,
    /// They were added, and no record was decoded with them yet.
    ColumnsAdded,
    /// A data file is complete in the store.
    FileUploaded,
    /// Dead letters are in their table, and not in their topic.
    LettersStored,
    /// The manifests of a commit are written.
    ManifestsStaged,
    /// A SQL catalog's next metadata file is written, and its row still names the one before.
    MetadataWritten,
    /// The catalog has taken a swap.
    Swapped,
    /// The answer to a swap is at hand, and the run hasn't heard it.
    AnswerHeld,
    /// The new sync points are in a temporary file.
    PointsWritten,
    /// They are in their place, and the folder isn't synced yet.
    PointsRenamed,
    /// The sync points are published, and the group offsets aren't.
    PointsPublished,
    /// Partitions are being taken away, and the run hasn't heard it.
    RevokeHeard,
    /// A file of a table of plain Parquet is where readers look, others of its commit may not be.
    FilePublished,
    /// All of them are, and sync points still name the manifest.
    FilesPublished,
    /// A file of a dropped window or of a failed attempt is deleted, others may not be.
    FileDeleted,
}

/// Does what `FAILPOINTS` says of this place: nothing, unless a test set it.
///
/// `return` kills the process with SIGKILL; `return(stop)` stops it with SIGSTOP, until somebody sends SIGCONT;
/// `return(term)` asks it to end with SIGTERM.
pub fn pass(point: KillPoint) {
    #[cfg(feature = "failpoints")]
    fail::fail_point!(&format!("{point:?}"), |how| raise(how.as_deref()));
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

#[cfg(feature = "failpoints")]
fn raise(how: Option<&str>) {
    let signal = match how {
        Some("stop") => libc::SIGSTOP,
        Some("term") => libc::SIGTERM,
        _ => libc::SIGKILL,
    };
    // SAFETY: no memory involved. The signal is sent to this process itself.
    unsafe { libc::kill(libc::getpid(), signal) };
    // A signal to the whole process may be taken by another thread first: this one goes no further until it acts.
    std::thread::sleep(std::time::Duration::from_millis(20));
}
