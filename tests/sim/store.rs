//! The store that the files of several tables are in, under one path.

use std::collections::BTreeMap;

use aperio::line::file_stem;
use aperio::table::WindowId;
use uuid::Uuid;

use crate::columns::Form;
use crate::dice::Dice;
use crate::world::At;

/// The `write.data.path` of every table.
pub const DATA_PATH: &str = "s3://b/shared";

/// A file's bytes, known by when it was made: one of the same name that was made later is another.
pub type Bytes = u64;

/// A file of rows.
pub struct File {
    /// Whose records they are.
    pub topic: &'static str,
    pub records: Vec<At>,
    /// What it was written for.
    pub form: Form,
    pub bytes: Bytes,
}

/// File paths to what is there.
pub struct Store {
    files: BTreeMap<String, File>,
    made: Bytes,
    random: Dice,
    /// How many files were deleted.
    pub deleted: u32,
}

impl Store {
    pub fn new() -> Self {
        Store {
            files: BTreeMap::new(),
            made: 0,
            random: Dice(1),
            deleted: 0,
        }
    }

    /// Creates the file of a window, under the name that its line gives it; returns its path.
    pub fn write(&mut self, path: &str, window: WindowId, topic: &'static str, form: Form, records: Vec<At>) -> String {
        let path = format!("{path}/{}-00000.parquet", file_stem(window, 0, self.unique()));
        self.create(path.clone(), topic, form, records);
        path
    }

    /// Creates a file as other engines name theirs; returns its path.
    pub fn write_foreign(&mut self, path: &str, topic: &'static str, form: Form, records: Vec<At>) -> String {
        let path = format!("{path}/{}.parquet", self.unique());
        self.create(path.clone(), topic, form, records);
        path
    }

    fn unique(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.random.roll(u64::MAX), self.random.roll(u64::MAX))
    }

    /// Creates, and never replaces. The program would fail then; here nothing may lead to it.
    fn create(&mut self, path: String, topic: &'static str, form: Form, records: Vec<At>) {
        self.made += 1;
        let file = File {
            topic,
            records,
            form,
            bytes: self.made,
        };
        if let Some(there) = self.files.insert(path.clone(), file) {
            panic!("{path} is there already, with records of topic {}", there.topic);
        }
    }

    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }

    pub fn delete(&mut self, path: &str) {
        self.deleted += u32::from(self.files.remove(path).is_some());
    }
}
