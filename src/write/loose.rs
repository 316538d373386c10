//! Rows of many partition values, few of each: they wait together, and are split once there are enough of them.
//!
//! A chunk spread over two thousand values holds four rows of each. A batch of four rows costs more memory for its columns
//! than for its rows, and an encoder for them a thousand times as much.

use std::collections::HashMap;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use arrow::error::ArrowError;
use iceberg::spec::Struct;

use super::encoder::step_rows;
use crate::place::{Part, Scattered};

/// Batches that wait side by side; more are made one, since each costs for its columns, however short they are.
const BATCHES_MAX: usize = 128;

/// Counted for a waiting row beside its columns: its number among the rows of its value.
const ROW_BYTES: usize = 4;

/// Counted for a value with waiting rows: its key, path and list.
const VALUE_BYTES: usize = 400;

/// Counted for a column of a batch beside its buffers: the array and the heads of its buffers.
const COLUMN_BYTES: usize = 300;

/// Waiting rows.
#[derive(Debug, Default)]
pub(super) struct Loose {
    batches: Vec<RecordBatch>,
    rows: usize,
    column_bytes: usize,
    /// By partition value, in any order: its rows, numbered through all batches, ascending.
    values: HashMap<Struct, Value>,
}

#[derive(Debug)]
struct Value {
    path: String,
    rows: Vec<u32>,
}

/// The rows of one partition value on their way to its file.
pub(super) struct Gathered {
    pub value: Struct,
    pub path: String,
    rows: Vec<u32>,
}

/// Rows taken out, to be made batches one value after another.
pub(super) struct Taken {
    batches: Vec<RecordBatch>,
    /// How many of the rows are copied at once.
    step_rows: usize,
    /// In the order in which the values were first seen.
    pub parts: Vec<Gathered>,
}

impl Loose {
    /// Returns the memory that the rows hold, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.column_bytes + self.rows * ROW_BYTES + self.values.len() * VALUE_BYTES
    }

    /// Returns how many rows wait.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the first rows that wait, if there are any.
    pub(super) fn first(&self) -> Option<&RecordBatch> {
        self.batches.first()
    }

    /// Says whether rows of `value` wait.
    pub(super) fn holds(&self, value: &Struct) -> bool {
        self.values.contains_key(value)
    }

    pub(super) fn add(&mut self, scattered: Scattered) -> Result<(), ArrowError> {
        let first = u32::try_from(self.rows).expect("waiting rows are bounded by their bytes");
        for (value, rows) in scattered.values.iter().zip(scattered.rows_of) {
            let rows = rows.into_iter().map(|row| first + row);
            self.value(&value.value, &value.path).extend(rows);
        }
        self.push(scattered.rows)
    }

    pub(super) fn add_part(&mut self, part: Part) -> Result<(), ArrowError> {
        let first = u32::try_from(self.rows).expect("waiting rows are bounded by their bytes");
        let count = u32::try_from(part.rows.num_rows()).expect("a chunk's rows fit 32 bits");
        self.value(&part.value, &part.path).extend(first..first + count);
        // A slice would keep all rows of its chunk in memory.
        let own = take_record_batch(&part.rows, &UInt32Array::from_iter_values(0..count))?;
        self.push(own)
    }

    fn value(&mut self, value: &Struct, path: &str) -> &mut Vec<u32> {
        if !self.values.contains_key(value) {
            let path = path.to_owned();
            self.values.insert(value.clone(), Value { path, rows: Vec::new() });
        }
        &mut self.values.get_mut(value).expect("it was just put there").rows
    }

    fn push(&mut self, rows: RecordBatch) -> Result<(), ArrowError> {
        self.rows += rows.num_rows();
        self.batches.push(rows);
        if self.batches.len() >= BATCHES_MAX {
            // Of those that came since the last time only, unless there are many of these too: no row is copied often.
            let large = self.rows / BATCHES_MAX;
            let from = self.batches.iter().rposition(|batch| batch.num_rows() > large);
            let small = self.batches.split_off(from.map_or(0, |at| at + 1));
            if small.len() > 1 {
                self.batches.push(concat_batches(small[0].schema_ref(), &small)?);
            } else {
                let all = [std::mem::take(&mut self.batches), small].concat();
                self.batches.push(concat_batches(all[0].schema_ref(), &all)?);
            }
        }
        self.count();
        Ok(())
    }

    fn count(&mut self) {
        let of = |batch: &RecordBatch| batch.get_array_memory_size() + batch.num_columns() * COLUMN_BYTES;
        self.column_bytes = self.batches.iter().map(of).sum();
    }

    /// Takes out the values with the most rows, until at most `rows_left` of the rows wait on.
    ///
    /// With few large values among many small ones that leaves the small ones time to grow.
    pub(super) fn take(&mut self, rows_left: usize) -> Result<Taken, ArrowError> {
        let mut values: Vec<(Struct, Value)> = std::mem::take(&mut self.values).into_iter().collect();
        values.sort_unstable_by_key(|(_, value)| (std::cmp::Reverse(value.rows.len()), value.rows[0]));
        let (mut left, mut count) = (self.rows, 0);
        // Ends: each value has rows.
        while left > rows_left && count < values.len() {
            left -= values[count].1.rows.len();
            count += 1;
        }
        let stay = values.split_off(count);
        values.sort_unstable_by_key(|(_, value)| value.rows[0]);
        let batches = std::mem::take(&mut self.batches);
        let step_rows = step_rows(self.column_bytes, self.rows);
        self.rows = 0;
        if !stay.is_empty() {
            let mut numbers: Vec<u32> = stay.iter().flat_map(|(_, value)| value.rows.iter().copied()).collect();
            numbers.sort_unstable();
            self.batches.push(gather(&batches, &numbers)?);
            self.rows = numbers.len();
            for (value, Value { path, rows }) in stay {
                let new = |row: u32| numbers.binary_search(&row).expect("each row that stays has a number");
                let rows = rows.into_iter().map(|row| new(row) as u32).collect();
                self.values.insert(value, Value { path, rows });
            }
        }
        self.count();
        let parts = values
            .into_iter()
            .map(|(value, Value { path, rows })| Gathered { value, path, rows });
        Ok(Taken {
            batches,
            step_rows,
            parts: parts.collect(),
        })
    }
}

impl Taken {
    /// Makes the rows of one value batches of their own, one after the other: what is copied is to be small.
    pub(super) fn batches(&self, gathered: &Gathered) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> {
        let steps = gathered.rows.chunks(self.step_rows);
        steps.map(|rows| gather(&self.batches, rows))
    }
}

/// Copies rows, whose numbers through all batches ascend, into one batch.
fn gather(batches: &[RecordBatch], numbers: &[u32]) -> Result<RecordBatch, ArrowError> {
    let (mut batch, mut start) = (0, 0);
    let places = numbers.iter().map(|number| {
        let number = *number as usize;
        // Ends: a row's number is below the sum of all rows.
        while number - start >= batches[batch].num_rows() {
            start += batches[batch].num_rows();
            batch += 1;
        }
        (batch, number - start)
    });
    let places: Vec<(usize, usize)> = places.collect();
    // Only the batches that hold one of the rows: a kernel looks at each it is given.
    let (Some((first, _)), Some((last, _))) = (places.first().copied(), places.last().copied()) else {
        return Ok(batches[0].slice(0, 0));
    };
    let used: Vec<&RecordBatch> = batches[first..=last].iter().collect();
    let places: Vec<(usize, usize)> = places.into_iter().map(|(batch, row)| (batch - first, row)).collect();
    interleave_record_batch(&used, &places)
}
