//! The summary of a snapshot, with the counts that Java's Iceberg writes and other engines read.
//!
//! Source: Iceberg 1.12 `SnapshotSummary.java` (`UpdateMetrics`) and `SnapshotProducer.java` (`summary`, `updateTotal`). The
//! crate's own totals reject `replace` and fall to zero on `overwrite`, hence this.

use std::collections::{HashMap, HashSet};

use iceberg::spec::{DataContentType, DataFile, DataFileFormat, Operation, Struct, Summary};

/// What a commit adds or removes, counted.
#[derive(Debug, Default, Clone, Copy)]
struct Count {
    bytes: u64,
    data_files: u64,
    records: u64,
    delete_files: u64,
    position_delete_files: u64,
    position_deletes: u64,
    equality_delete_files: u64,
    equality_deletes: u64,
    vectors: u64,
}

impl Count {
    fn take(&mut self, file: &DataFile) {
        let vector = is_vector(file);
        // A Puffin file holds many vectors: each brings its own bytes only.
        self.bytes += match file.content_size_in_bytes() {
            Some(bytes) if vector => u64::try_from(bytes).unwrap_or(0),
            _ => file.file_size_in_bytes(),
        };
        match file.content_type() {
            DataContentType::Data => {
                self.data_files += 1;
                self.records += file.record_count();
            }
            DataContentType::PositionDeletes => {
                self.delete_files += 1;
                self.vectors += u64::from(vector);
                self.position_delete_files += u64::from(!vector);
                self.position_deletes += file.record_count();
            }
            DataContentType::EqualityDeletes => {
                self.delete_files += 1;
                self.equality_delete_files += 1;
                self.equality_deletes += file.record_count();
            }
        }
    }
}

/// Returns whether a file is a deletion vector.
pub(super) fn is_vector(file: &DataFile) -> bool {
    file.content_type() == DataContentType::PositionDeletes && file.file_format() == DataFileFormat::Puffin
}

/// Counts the files of a commit as they are staged.
#[derive(Debug, Default)]
pub(super) struct Tally {
    added: Count,
    removed: Count,
    /// Partitions by spec id and value.
    changed: HashSet<(i32, Struct)>,
}

impl Tally {
    pub(super) fn add(&mut self, spec_id: i32, file: &DataFile) {
        self.added.take(file);
        self.changed.insert((spec_id, file.partition().clone()));
    }

    pub(super) fn remove(&mut self, spec_id: i32, file: &DataFile) {
        self.removed.take(file);
        self.changed.insert((spec_id, file.partition().clone()));
    }

    /// Names what the commit did.
    ///
    /// Source: Iceberg 1.12 `operation()` of `BaseRowDelta.java` where delete files are added, of `BaseOverwriteFiles.java`
    /// where files end. Unlike there, ending a delete file isn't an append: rows come back that a reader of appends would
    /// miss. A commit without files is an append, as an empty `FastAppend.java` is.
    pub(super) fn operation(&self) -> Operation {
        let (added, removed) = (&self.added, &self.removed);
        let removes = removed.data_files + removed.delete_files > 0;
        if added.data_files == 0 && (added.delete_files > 0 || removes) {
            Operation::Delete
        } else if added.delete_files > 0 || removes {
            Operation::Overwrite
        } else {
            Operation::Append
        }
    }

    /// Completes a summary: counts that aren't zero, and totals continued from the parent's.
    ///
    /// A total that the parent doesn't carry can't be continued and is left out; one that would be negative too.
    pub(super) fn complete(&self, summary: &mut HashMap<String, String>, parent: Option<&Summary>) {
        let (a, r) = (&self.added, &self.removed);
        let counts = [
            ("added-data-files", a.data_files),
            ("deleted-data-files", r.data_files),
            ("added-records", a.records),
            ("deleted-records", r.records),
            ("added-files-size", a.bytes),
            ("removed-files-size", r.bytes),
            ("added-delete-files", a.delete_files),
            ("removed-delete-files", r.delete_files),
            ("added-position-delete-files", a.position_delete_files),
            ("removed-position-delete-files", r.position_delete_files),
            ("added-position-deletes", a.position_deletes),
            ("removed-position-deletes", r.position_deletes),
            ("added-equality-delete-files", a.equality_delete_files),
            ("removed-equality-delete-files", r.equality_delete_files),
            ("added-equality-deletes", a.equality_deletes),
            ("removed-equality-deletes", r.equality_deletes),
            ("added-dvs", a.vectors),
            ("removed-dvs", r.vectors),
        ];
        for (name, count) in counts {
            if count > 0 {
                summary.insert(name.to_string(), count.to_string());
            }
        }
        let partitions = self.changed.len().to_string();
        summary.insert("changed-partition-count".to_string(), partitions);
        let totals = [
            ("total-data-files", a.data_files, r.data_files),
            ("total-records", a.records, r.records),
            ("total-files-size", a.bytes, r.bytes),
            ("total-delete-files", a.delete_files, r.delete_files),
            ("total-position-deletes", a.position_deletes, r.position_deletes),
            ("total-equality-deletes", a.equality_deletes, r.equality_deletes),
        ];
        for (name, added, removed) in totals {
            let before = match parent {
                None => Some(0),
                Some(parent) => parent
                    .additional_properties
                    .get(name)
                    .and_then(|total| total.parse::<u64>().ok()),
            };
            let total = before.and_then(|n| n.checked_add(added)?.checked_sub(removed));
            summary.remove(name);
            if let Some(total) = total {
                summary.insert(name.to_string(), total.to_string());
            }
        }
    }
}
