//! The path of a record in one function, and the thread that walks it: chunks in, files out.

mod horizon;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use arrow::array::ArrayRef;
use iceberg::spec::{PartitionSpecRef, PrimitiveType, SchemaRef, SortOrderRef, Type};
use uuid::Uuid;

use self::horizon::Horizon;
pub use self::horizon::{EventKey, TooManyEvents, event_key};
use crate::chunk::Chunk;
use crate::config::{Apply, Envelope, EventTime, KafkaColumn, KeyFormat, ValueFormat};
use crate::decode::envelope::{EVENT_ID, EnvelopeDecoder};
use crate::decode::framed::{FramedDecoder, Framing};
use crate::decode::json::JsonDecoder;
use crate::decode::key::KeyDecoder;
use crate::decode::raw::RawDecoder;
use crate::decode::transcoded::{Holds, TranscodedDecoder};
use crate::decode::{DeadLetter, Decoded, Decoder, Letters, Stage};
use crate::error::chain;
use crate::kill_points::{self, KillPoint, Place};
use crate::memory::{Held, Memory, Purpose};
use crate::offsets::{Offset, Partition};
use crate::place::{PlaceError, Placer};
use crate::schema::frame::{Part, SchemaKey};
use crate::schema::infer::Shape;
use crate::schema::{ColumnSource, KEY, Missing, RowPlanRef, UnknownFields, Writers};
use crate::table::{Tally, WindowFile, WindowId};
use crate::write::{FileSinks, ParquetSettings, WindowWriter, WriteError};

/// Everything that the files of a window depend on; replaced as a whole when the table's schema changes.
#[derive(Clone)]
pub struct LinePlan {
    /// How columns are filled.
    pub rows: RowPlanRef,
    /// The schemas of values that are known, and that the table was changed for.
    pub writers: Arc<Writers>,
    /// The schemas of keys, likewise.
    pub key_writers: Arc<Writers>,
    /// The same as files hold them: in Hive's layout without the columns that are directories.
    pub stored: RowPlanRef,
    /// Partitions are directories as Hive lays them out.
    pub hive: bool,
    /// The spec that new files are written for.
    pub spec: PartitionSpecRef,
    /// The table's sort order, if it has one.
    pub sort_order: Option<SortOrderRef>,
    /// Parquet properties of the table.
    pub settings: ParquetSettings,
    /// Where data files go.
    pub data_location: String,
}

impl LinePlan {
    /// The schemas that are known of the part of records that a key is of.
    pub fn writers(&self, key: &SchemaKey) -> &Writers {
        match key.part {
            Part::Value => &self.writers,
            Part::Key => &self.key_writers,
        }
    }

    /// The place of the column of keys.
    fn key_column(&self) -> Option<usize> {
        let is_key = |source: &ColumnSource| *source == ColumnSource::Kafka(KafkaColumn::Key);
        self.rows.sources.iter().position(is_key)
    }

    fn has_keys(&self) -> bool {
        self.key_column().is_some()
    }

    /// Says whether keys are bytes, and their column takes bytes: nothing is to be decoded.
    fn keys_as_they_are(&self, format: KeyFormat) -> bool {
        let binary = Type::Primitive(PrimitiveType::Binary);
        let column = self.key_column().map(|at| &self.rows.schema.as_struct().fields()[at]);
        format == KeyFormat::Of(ValueFormat::Bytes) && column.is_none_or(|column| *column.field_type == binary)
    }
}

/// What stays the same for a line as long as it lives.
#[derive(Clone)]
pub struct LineSettings {
    /// Which of its pipeline's lines it is, from 0.
    pub number: usize,
    /// How many lines its pipeline has at most.
    pub lines: usize,
    /// The topic's name.
    pub topic: String,
    /// How values are encoded.
    pub encoding: Encoding,
    /// How keys are decoded, where the table has a column for them.
    pub keys: Option<KeyEncoding>,
    /// What is around each row.
    pub envelope: Option<Envelope>,
    /// `eventTimeField` and its format.
    pub event_time: Option<EventTime>,
    /// No file holds more rows than this.
    pub rows_per_file_max: u64,
    /// Where the lines of the pipeline count what they hold.
    pub memory: Memory,
    /// The memory that rows and files of all lines of the pipeline may hold between two chunks.
    pub open_bytes_max: usize,
    /// The memory that the dead letters of a window may hold in all lines of the pipeline.
    pub letters_bytes_max: usize,
    /// `onDecodeError: deadLetter`: rejects are kept, to be stored.
    pub keeps_rejects: bool,
}

/// How values are encoded: which decoder reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// JSON.
    Json,
    /// By a schema, which the records name or a file holds.
    Framed(Framing),
    /// What holds JSON, or says what JSON can.
    Transcoded(Holds),
    /// One text, or bytes.
    Raw,
}

/// How keys are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyEncoding {
    /// `keyFormat`.
    pub format: KeyFormat,
    /// Their schemas are in a registry.
    pub registry: bool,
}

/// Why a line can't go on. A record that can't be decoded isn't among these.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// The rows can't be placed under the table's spec at all.
    #[error("the table's partitions can't be computed")]
    Place(#[from] PlaceError),
    /// The files can't be written.
    #[error("the files of the window can't be written")]
    Write(#[from] WriteError),
    /// `idempotent`: what is to be remembered doesn't fit into memory.
    #[error(transparent)]
    Events(#[from] TooManyEvents),
    /// There is no thread for a line.
    #[error("a line has no thread")]
    Thread(#[source] std::io::Error),
    /// Nobody could give the table the columns that the records need.
    #[error("{0}")]
    Schema(String),
}

/// What a line is asked to do, in order: a seal can't overtake a chunk.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every order is a chunk: a box would be made for each"
)]
pub enum Order {
    /// Put a chunk into a window. `ticket` is released when the chunk's rows are encoded.
    Take {
        /// The window.
        window: WindowId,
        /// The records.
        chunk: Chunk,
        /// What the chunk holds of the byte budget.
        ticket: Box<dyn Send>,
    },
    /// Make the windows that are opened from now on by this plan: the table was changed.
    Plan(Box<LinePlan>),
    /// Complete the files of a window and answer with [`Reply::Sealed`].
    Seal(WindowId),
    /// Forget a window.
    Drop(WindowId),
}

/// What a line answers.
pub enum Reply {
    /// A chunk is in its window.
    Staged(Tally),
    /// The records can't be decoded with what the line knows; it waits for the plan of a table that was changed, or of the
    /// same one if nothing can be done.
    Wants {
        /// What it lacks.
        wants: Wants,
        /// The id of the table's schema that the line knows.
        schema_id: i32,
        /// Where the answer goes; an error ends the run.
        answer: SyncSender<Result<Given, String>>,
    },
    /// The line begins to read a partition, and lacks the events that the table holds of it.
    WantsEvents {
        /// The partition.
        partition: Partition,
        /// Where it begins: those from offsets before are wanted.
        start: Offset,
        /// Where the answer goes, offsets and the events there; an error ends the run.
        answer: SyncSender<Result<Vec<(Offset, EventKey)>, String>>,
    },
    /// The window should be closed: its dead letters hold as much memory as they may, or its files can't be written. Said
    /// once of each.
    Crowded(WindowId),
    /// A window's files are complete.
    Sealed(Box<LineWindow>),
    /// The line can't go on.
    Failed(LineError),
}

/// What a line lacks for a chunk.
#[derive(Debug, Clone)]
pub enum Wants {
    /// Columns, or wider ones, for these fields and their types.
    Columns(Shape),
    /// The schemas that records were written with, and columns for them.
    Schemas(Vec<SchemaKey>),
}

/// What a line that lacked something is given.
#[derive(Clone)]
pub struct Given {
    /// How it goes on.
    pub plan: LinePlan,
    /// The schemas that nobody could get: their records are rejects of this chunk.
    pub missing: Missing,
}

/// A window as one line filled it, or as several did, see [`LineWindow::merge`].
pub struct LineWindow {
    /// Its name.
    pub id: WindowId,
    /// The line's number; of several the smallest.
    pub line: usize,
    /// Its files.
    pub files: Vec<WindowFile>,
    /// Where its records went.
    pub tally: Tally,
    /// Rejects, to be stored before the commit; shared with whoever stores them.
    pub letters: Vec<Arc<Letters>>,
    /// Values that no column of the table took.
    pub fields_dropped: u64,
    /// Of the filtered: events that were sent again.
    pub resent: u64,
    /// Of the filtered: changes after which a row should be gone.
    pub gone: u64,
    /// The first reasons of rejection, for the log.
    pub reasons: Vec<String>,
    /// The greatest event time per partition, microseconds UTC.
    pub event_times: BTreeMap<Partition, i64>,
    /// The schemas that its files were written under.
    pub schemas: Vec<SchemaRef>,
    /// Why a line could not write its files, where it may yet: the window is to be read again.
    pub unwritten: Option<String>,
}

impl LineWindow {
    /// Adds what another line filled of the same window.
    ///
    /// # Panics
    /// If it is another window.
    pub fn merge(mut self, other: LineWindow) -> LineWindow {
        assert_eq!(self.id, other.id, "parts of one window");
        if other.line < self.line {
            return other.merge(self);
        }
        self.files.extend(other.files);
        self.tally.add(other.tally);
        self.letters.extend(other.letters);
        for schema in other.schemas {
            if !self.schemas.contains(&schema) {
                self.schemas.push(schema);
            }
        }
        self.unwritten = self.unwritten.or(other.unwritten);
        self.fields_dropped += other.fields_dropped;
        self.resent += other.resent;
        self.gone += other.gone;
        let room = REASONS_MAX.saturating_sub(self.reasons.len());
        self.reasons.extend(other.reasons.into_iter().take(room));
        for (partition, time) in other.event_times {
            let greatest = self.event_times.entry(partition).or_insert(time);
            *greatest = (*greatest).max(time);
        }
        self
    }
}

/// Reasons kept of one window: a person reads a few, never a million.
const REASONS_MAX: usize = 5;

/// Where the files of one window go.
pub struct NewSinks {
    /// In the names of its files, and of no others: random, since this layer has no source of such numbers.
    pub unique: Uuid,
    /// Takes the files.
    pub sinks: Box<dyn FileSinks>,
}

/// Names the files of a window as one line writes them, but for their numbers.
///
/// Windows of two tables that a process fills at once are numbered alike, and may share a directory: the random part is
/// what differs. The window and the line are for people who look for where a file came from.
pub fn file_stem(window: WindowId, line: usize, unique: Uuid) -> String {
    let (run, sequence) = (window.run.simple(), window.sequence);
    format!("{run}-{sequence:05}-{line}-{}", unique.simple())
}

/// Turns fresh sinks on for each window.
pub type SinkMaker = Box<dyn Fn() -> NewSinks + Send>;

/// One worker's assembly line; a pipeline has several, each with files of its own.
pub struct Line {
    settings: LineSettings,
    plan: LinePlan,
    tools: Tools,
    sinks: SinkMaker,
    /// What the table was asked to take and can't, under the plan's schema: it isn't asked again.
    refused: Shape,
    /// The plan for the next window, where it is another.
    next: Option<Box<LinePlan>>,
    held: Held,
    /// `idempotent`: the events that were seen.
    horizon: Option<Horizon>,
    open: Option<Open>,
    /// A window whose files can't be written now, and why. Until it is dropped nothing is taken into those after it: they start
    /// where it would have ended.
    unwritten: Option<(WindowId, String)>,
}

/// What a plan makes of a chunk.
struct Tools {
    decoder: Decoder,
    /// Where keys are more than bytes.
    keys: Option<KeyDecoder>,
    placer: Placer,
}

/// The window that is being filled.
struct Open {
    window: LineWindow,
    writer: WindowWriter,
    letters: Letters,
    /// It was said that the letters hold too much.
    crowded: bool,
}

impl Line {
    /// Makes a line.
    ///
    /// # Errors
    /// [`LineError::Place`] if the spec doesn't fit the plan.
    pub fn new(settings: LineSettings, plan: LinePlan, sinks: SinkMaker) -> Result<Self, LineError> {
        let tools = Line::tools(&settings, &plan)?;
        let held = settings.memory.hold(Purpose::Files);
        let horizon = settings.envelope.and_then(|envelope| envelope.horizon);
        Ok(Line {
            horizon: horizon.map(|length| Horizon::new(length, settings.open_bytes_max, &settings.memory)),
            held,
            settings,
            plan,
            tools,
            sinks,
            refused: Shape::Null,
            next: None,
            open: None,
            unwritten: None,
        })
    }

    /// Works off orders until the sender is gone.
    pub fn work(mut self, orders: Receiver<Order>, mut answer: impl FnMut(Reply)) {
        while let Ok(order) = orders.recv() {
            let done = match order {
                Order::Take { window, chunk, ticket } => {
                    kill_points::pass(KillPoint::Inside(Place::ChunkTaken));
                    let taken = self
                        .take_or_skip(window, &chunk, &mut answer)
                        .map(|tally| answer(Reply::Staged(tally)));
                    drop(ticket);
                    taken
                }
                Order::Plan(plan) => {
                    self.next = Some(plan);
                    Ok(())
                }
                Order::Seal(window) => self
                    .seal_or_say(window)
                    .map(|sealed| answer(Reply::Sealed(Box::new(sealed)))),
                Order::Drop(window) => {
                    self.drop_window(window);
                    self.unwritten.take_if(|(id, _)| *id == window);
                    Ok(())
                }
            };
            if let Err(error) = done {
                answer(Reply::Failed(error));
                return;
            }
        }
    }

    fn drop_window(&mut self, window: WindowId) {
        if let Some(horizon) = &mut self.horizon {
            horizon.drop_window(window);
        }
        if self.open.take_if(|open| open.window.id == window).is_some() {
            self.held.set(0);
        }
    }

    /// Gives up a window for now: its files can't be written.
    fn put_off(&mut self, window: WindowId, why: &WriteError) {
        self.drop_window(window);
        // Where it was being sealed it is open no more.
        self.held.set(0);
        self.unwritten = Some((window, chain(why)));
    }

    /// Takes a chunk, unless its window has to be read again anyway.
    fn take_or_skip(
        &mut self,
        id: WindowId,
        chunk: &Chunk,
        answer: &mut impl FnMut(Reply),
    ) -> Result<Tally, LineError> {
        let skipped = Tally {
            records: chunk.len() as u64,
            ..Tally::default()
        };
        if self.unwritten.is_some() {
            return Ok(skipped);
        }
        match self.take(id, chunk, answer) {
            Err(LineError::Write(error)) if error.retryable() => {
                self.put_off(id, &error);
                answer(Reply::Crowded(id));
                Ok(skipped)
            }
            taken => taken,
        }
    }

    /// Takes one chunk all the way into the window's open files.
    fn take(&mut self, id: WindowId, chunk: &Chunk, answer: &mut impl FnMut(Reply)) -> Result<Tally, LineError> {
        if self.open.as_ref().is_none_or(|open| open.window.id != id)
            && let Some(plan) = self.next.take()
        {
            if plan.rows.schema != self.plan.rows.schema {
                self.refused = Shape::Null;
            }
            self.open = None;
            self.replan(*plan)?;
        }
        let mut decoded = self.decode(chunk, answer)?;
        let resent = self.drop_resent(id, chunk, &mut decoded, answer)?;
        let gone = decoded.gone;
        let (filtered, decode_rejects) = (decoded.filtered, decoded.rejects.len());
        let fields_dropped = decoded.fields_dropped;
        let placed = self.tools.placer.place(decoded, chunk);
        if let Some(horizon) = &mut self.horizon {
            let unplaced = placed.rejects.iter().filter(|reject| reject.stage == Stage::Place);
            unplaced.for_each(|reject| horizon.forget(chunk.partition, chunk.offset(reject.index as usize)));
        }
        let scattered = placed
            .scattered
            .as_ref()
            .map_or(0, |scattered| scattered.rows.num_rows());
        let rows = placed.parts.iter().map(|part| part.rows.num_rows()).sum::<usize>() + scattered;
        let tally = Tally {
            records: chunk.len() as u64,
            rows: rows as u64,
            rejected: placed.rejects.len() as u64,
            filtered,
        };
        tally.assert_complete();
        assert!(
            decode_rejects <= placed.rejects.len(),
            "placing keeps the decoder's rejects"
        );
        if self.open.as_ref().is_none_or(|open| open.window.id != id) {
            self.open = Some(self.open_window(id));
        }
        let open = self.open.as_mut().expect("opened above");
        open.writer.write(placed.parts)?;
        if let Some(scattered) = placed.scattered {
            open.writer.scatter(scattered)?;
        }
        // The lines share their memory: what the others leave, and a fair part of it in any case.
        let (all, own) = (self.settings.open_bytes_max, self.held.bytes());
        let held = usize::try_from(self.settings.memory.held_for(Purpose::Files)).unwrap_or(usize::MAX);
        let left = all.saturating_sub(held.saturating_sub(own));
        open.writer.relieve(left.max(all / self.settings.lines.max(1)))?;
        self.held.set(open.writer.held_bytes());
        open.window.tally.add(tally);
        open.window.fields_dropped += fields_dropped;
        open.window.resent += resent;
        open.window.gone += gone;
        if let Some(time) = placed.event_time_max_us {
            let greatest = open.window.event_times.entry(chunk.partition).or_insert(time);
            *greatest = (*greatest).max(time);
        }
        for reject in &placed.rejects {
            if open.window.reasons.len() < REASONS_MAX {
                let offset = chunk.offset(reject.index as usize);
                open.window
                    .reasons
                    .push(format!("{}/{offset}: {}", chunk.partition, reject.reason));
            }
        }
        if self.settings.keeps_rejects {
            let framed = matches!(
                self.settings.encoding,
                Encoding::Framed(Framing::Registry { .. }) | Encoding::Transcoded(Holds::Framed)
            );
            let letter = |reject| DeadLetter::of(&self.settings.topic, chunk, reject, framed);
            open.letters.extend(placed.rejects.iter().map(letter));
            if !open.crowded && open.letters.held_bytes() > self.settings.letters_bytes_max / self.settings.lines.max(1)
            {
                open.crowded = true;
                answer(Reply::Crowded(id));
            }
        }
        Ok(tally)
    }

    /// `idempotent`: takes away the rows of events that were sent again; returns how many.
    fn drop_resent(
        &mut self,
        id: WindowId,
        chunk: &Chunk,
        decoded: &mut Decoded,
        answer: &mut impl FnMut(Reply),
    ) -> Result<u64, LineError> {
        let Some(mut horizon) = self.horizon.take() else {
            return Ok(0);
        };
        horizon.enter(id);
        if !horizon.knows(chunk.partition, chunk.range.start()) {
            let (partition, start) = (chunk.partition, chunk.range.start());
            let events = asked(|answering| {
                answer(Reply::WantsEvents {
                    partition,
                    start,
                    answer: answering,
                });
            })?;
            horizon.begin(partition, start, events);
        }
        let resent = match self.event_ids(decoded) {
            Some(ids) => horizon.take(chunk, decoded, &ids),
            None => 0,
        };
        horizon.ended(chunk.partition, chunk.range.end())?;
        decoded.filtered += resent;
        self.horizon = Some(horizon);
        Ok(resent)
    }

    /// The ids of the events that rows are, or were inside.
    fn event_ids(&self, decoded: &Decoded) -> Option<ArrayRef> {
        match self.settings.envelope?.apply {
            Apply::Rows => decoded.event_ids.clone().map(|ids| Arc::new(ids) as ArrayRef),
            Apply::Events => {
                let path = [EVENT_ID.to_owned()];
                let (at, below) = self.plan.rows.payload_column(&path)?;
                below.is_empty().then(|| decoded.rows.column(at).clone())
            }
        }
    }

    /// Decodes; where the table lacks columns for what is there, or a schema isn't known, waits until they are there and
    /// decodes again.
    fn decode(&mut self, chunk: &Chunk, answer: &mut impl FnMut(Reply)) -> Result<Decoded, LineError> {
        let mut missing = Missing::new();
        // Ends: a round makes all schemas known or missing, and one of columns that leaves the table's schema as it is is the
        // last; the others each took something in.
        loop {
            let mut decoded = self.tools.decoder.decode(chunk, &missing);
            if let Some(keys) = &mut self.tools.keys {
                keys.attach(chunk, &missing, &mut decoded);
            }
            if !decoded.unknown.is_empty() {
                let given = self.ask(Wants::Schemas(decoded.unknown.clone()), answer)?;
                let told = |key| given.plan.writers(key).get(key).is_some() || given.missing.contains_key(key);
                if let Some(key) = decoded.unknown.iter().find(|key| !told(key)) {
                    return Err(LineError::Schema(format!("nobody told of {key}")));
                }
                missing.extend(given.missing);
                self.replan(given.plan)?;
                continue;
            }
            let evolves = matches!(self.plan.rows.unknown, UnknownFields::Evolve | UnknownFields::Strict);
            // Without a column for keys there is nobody to declare, or to ignore, what is inside it.
            let keyless = self.tools.keys.is_some() && !self.plan.has_keys();
            let asked = match (&decoded.unseen, evolves) {
                (Some(shape), true) => Some(shape.clone()),
                (Some(shape), false) if keyless => shape.field(KEY).map(|of| Shape::Object(vec![(KEY.to_owned(), of)])),
                _ => None,
            };
            let Some(shape) = asked else {
                return Ok(decoded);
            };
            if self.refused.covers(&shape) {
                return Ok(decoded);
            }
            let schema_id = self.schema_id();
            let given = self.ask(Wants::Columns(shape.clone()), answer)?;
            self.replan(given.plan)?;
            if self.schema_id() == schema_id {
                self.refused.merge(shape);
                return Ok(decoded);
            }
            self.refused = Shape::Null;
        }
    }

    fn ask(&self, wants: Wants, answer: &mut impl FnMut(Reply)) -> Result<Given, LineError> {
        asked(|answering| {
            answer(Reply::Wants {
                wants,
                schema_id: self.schema_id(),
                answer: answering,
            });
        })
    }

    fn schema_id(&self) -> i32 {
        self.plan.rows.schema.schema_id()
    }

    /// Goes on under another plan.
    fn replan(&mut self, mut plan: LinePlan) -> Result<(), LineError> {
        if let Some(open) = &mut self.open {
            // All files of a window are of the spec that it was opened under; a table takes files of any spec it ever had.
            plan.spec = self.plan.spec.clone();
            if plan.rows.schema != self.plan.rows.schema {
                open.window.schemas.push(plan.rows.schema.clone());
                open.writer.replan(plan.stored.clone())?;
            }
        }
        self.tools = Line::tools(&self.settings, &plan)?;
        self.plan = plan;
        Ok(())
    }

    /// Completes the files of a window, or says in it that they have to be written anew.
    fn seal_or_say(&mut self, id: WindowId) -> Result<LineWindow, LineError> {
        if self.unwritten.is_none() {
            match self.seal(id) {
                Err(LineError::Write(error)) if error.retryable() => self.put_off(id, &error),
                sealed => return sealed,
            }
        }
        Ok(LineWindow {
            unwritten: self.unwritten.as_ref().map(|(_, why)| why.clone()),
            ..self.new_window(id)
        })
    }

    fn seal(&mut self, id: WindowId) -> Result<LineWindow, LineError> {
        let open = match self.open.take_if(|open| open.window.id == id) {
            Some(open) => open,
            None => self.open_window(id),
        };
        let Open {
            mut window,
            writer,
            letters,
            ..
        } = open;
        window.letters = vec![Arc::new(letters)];
        let spec_id = self.plan.spec.spec_id();
        window.files = writer
            .seal()?
            .into_iter()
            .map(|file| WindowFile { spec_id, file })
            .collect();
        self.held.set(0);
        Ok(window)
    }

    fn new_window(&self, id: WindowId) -> LineWindow {
        LineWindow {
            id,
            line: self.settings.number,
            files: Vec::new(),
            tally: Tally::default(),
            letters: Vec::new(),
            fields_dropped: 0,
            resent: 0,
            gone: 0,
            reasons: Vec::new(),
            event_times: BTreeMap::new(),
            schemas: vec![self.plan.rows.schema.clone()],
            unwritten: None,
        }
    }

    fn open_window(&self, id: WindowId) -> Open {
        let NewSinks { unique, sinks } = (self.sinks)();
        let stem = file_stem(id, self.settings.number, unique);
        let plan = self.plan.clone();
        let writer = WindowWriter::new(
            plan.stored,
            plan.spec,
            plan.sort_order,
            plan.settings,
            plan.data_location,
            stem,
            self.settings.rows_per_file_max,
            sinks,
        );
        Open {
            window: self.new_window(id),
            writer,
            letters: Letters::new(&self.settings.memory),
            crowded: false,
        }
    }

    fn tools(settings: &LineSettings, plan: &LinePlan) -> Result<Tools, LineError> {
        let rows = plan.rows.clone();
        let event_time = settings.event_time.as_ref();
        let event_time = event_time.map(|event_time| event_time.path.as_slice());
        let opened = settings.envelope.filter(|envelope| envelope.is_opened());
        let transcoded = |holds| {
            let decoder = TranscodedDecoder::new(plan.rows.clone(), plan.writers.clone(), holds, event_time);
            Decoder::Transcoded(match opened {
                Some(envelope) => decoder.within(envelope),
                None => decoder,
            })
        };
        let decoder = match settings.encoding {
            Encoding::Json if opened.is_none() => Decoder::Json(JsonDecoder::new(rows)),
            Encoding::Json => transcoded(Holds::Bare),
            Encoding::Raw => Decoder::Raw(RawDecoder::new(&rows, event_time)),
            Encoding::Transcoded(holds) => transcoded(holds),
            Encoding::Framed(framing) => match settings.envelope {
                Some(envelope) if envelope.apply == Apply::Rows => {
                    let decoder = EnvelopeDecoder::new(envelope, rows, plan.writers.clone(), framing, event_time);
                    Decoder::Envelope(Box::new(decoder))
                }
                _ => Decoder::Framed(FramedDecoder::new(rows, plan.writers.clone(), framing, event_time)),
            },
        };
        let placer = Placer::new(
            plan.rows.clone(),
            plan.spec.clone(),
            &settings.topic,
            settings.event_time.clone(),
        )?;
        let placer = if plan.hive { placer.in_hive_layout() } else { placer };
        let keys = settings.keys.filter(|keys| !plan.keys_as_they_are(keys.format));
        let keys = keys.map(|keys| KeyDecoder::new(keys.format, &plan.rows, plan.key_writers.clone(), keys.registry));
        Ok(Tools { decoder, keys, placer })
    }
}

/// Waits for the answer to what `ask` asks.
fn asked<T>(ask: impl FnOnce(SyncSender<Result<T, String>>)) -> Result<T, LineError> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    ask(sender);
    receiver
        .recv()
        .map_err(|_| LineError::Schema("the run ended while it waited for an answer".into()))?
        .map_err(LineError::Schema)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Of all that four processes name at once, or one after the other, whatever else is alike.
        #[test]
        fn files_of_two_windows_are_never_named_alike(
            windows in proptest::collection::vec((0u128..2, 0u32..3, 0usize..2), 1..200),
        ) {
            let mut names = HashSet::new();
            for (run, sequence, line) in windows {
                let id = WindowId { run: Uuid::from_u128(run), sequence: sequence.into() };
                let name = file_stem(id, line, Uuid::new_v4());
                prop_assert!(name.starts_with(&Uuid::from_u128(run).simple().to_string()));
                prop_assert!(names.insert(name.to_lowercase()), "{name}");
            }
        }
    }
}
