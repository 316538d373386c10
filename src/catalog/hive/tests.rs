//! The commits of plain Parquet tables, simulated: the program's own state machine, sync points and moves, by several
//! processes at once, on a bucket that fails.
//!
//! Every request to the bucket can fail before it has an effect, lose its answer, be sent twice by the client so that the
//! second one is refused, arrive later, or be its process's last, before or after. Processes take turns between any two
//! requests, or freeze for long. The same seed plays the same history.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use iceberg::spec::{
    DataContentType, DataFileBuilder, DataFileFormat, FormatVersion, NestedField, PrimitiveType, Schema, Struct, Type,
    UnboundPartitionSpec,
};
use iceberg::{NamespaceIdent, TableIdent};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use uuid::Uuid;

use super::*;
use crate::error::{Exit, Failure};
use crate::offsets::{Offset, OffsetRange, OffsetRanges, Offsets, Partition};
use crate::run::window::RejectLimit;
use crate::run::{Action, Event, Outcome, Run, RunConfig, Swapped};
use crate::table::admit::Source;
use crate::table::ledger::LedgerProblem;
use crate::table::{SealedWindow, TableView, Tally, WindowFile, WindowId};
use crate::units::Millis;

/// Seeds played; `APERIO_SIM_SEEDS=100000` plays more.
const SEEDS_DEFAULT: u64 = 60;

/// Turns with faults; after them the world is kind.
const TURNS_WITH_FAULTS: u64 = 800;

/// More turns than any play needs; reaching it means that a run wedged.
const TURNS_MAX: u64 = 60_000;

/// A name with which a conflict on sync points is waited for shortest.
const NAME: &str = "dd";

const RECORDS_PER_FETCH: i64 = 3;

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }

    fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    FailsBefore,
    AnswerLost,
    /// The client sends it twice and hears what became of the second.
    SentTwice,
    Late,
    CrashBefore,
    CrashAfter,
}

const FAULTS: [Fault; 6] = [
    Fault::FailsBefore,
    Fault::AnswerLost,
    Fault::SentTwice,
    Fault::Late,
    Fault::CrashBefore,
    Fault::CrashAfter,
];

/// A request that left a process and hasn't arrived yet.
enum Request {
    Put(Path, PutPayload, PutOptions),
    Copy(Path, Path),
    Delete(Path),
}

struct State {
    dice: Dice,
    /// A fault at one of so many requests; 0: none.
    fault_in: u64,
    in_transit: Vec<Request>,
    /// The process that is being polled gives up its turn.
    yielded: bool,
    /// It has died.
    died: bool,
    /// Changes of the bucket.
    changes: u64,
}

/// A bucket between the processes and the memory that holds its objects.
struct Bucket {
    objects: InMemory,
    state: Mutex<State>,
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

impl std::fmt::Display for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bucket")
    }
}

fn injected() -> Error {
    Error::Generic {
        store: "Bucket",
        source: "injected".into(),
    }
}

impl Bucket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds the state")
    }

    /// Lets the others have their turn.
    async fn turn(&self) {
        let mut turned = false;
        std::future::poll_fn(|_| {
            if std::mem::replace(&mut turned, true) {
                return Poll::Ready(());
            }
            self.state().yielded = true;
            Poll::Pending
        })
        .await;
    }

    async fn die(&self) {
        self.state().died = true;
        std::future::pending::<()>().await;
    }

    fn fault(&self) -> Option<Fault> {
        let mut state = self.state();
        let some_in = state.fault_in;
        if some_in == 0 || !state.dice.once_in(some_in) {
            return None;
        }
        Some(FAULTS[state.dice.roll(FAULTS.len() as u64) as usize])
    }

    /// Makes a request, or what a fault makes of it.
    async fn send(&self, request: Request) -> Result<Option<PutResult>> {
        self.turn().await;
        let fault = self.fault();
        match fault {
            Some(Fault::FailsBefore) => return Err(injected()),
            Some(Fault::CrashBefore) => self.die().await,
            Some(Fault::Late) => {
                self.state().in_transit.push(request);
                return Err(injected());
            }
            _ => {}
        }
        let mut answer = self.arrive(&request).await;
        if fault == Some(Fault::SentTwice) {
            answer = self.arrive(&request).await;
        }
        match fault {
            Some(Fault::AnswerLost) => return Err(injected()),
            Some(Fault::CrashAfter) => self.die().await,
            _ => {}
        }
        self.turn().await;
        answer
    }

    async fn arrive(&self, request: &Request) -> Result<Option<PutResult>> {
        self.state().changes += 1;
        match request {
            Request::Put(at, payload, options) => {
                let done = self.objects.put_opts(at, payload.clone(), options.clone()).await;
                done.map(Some)
            }
            Request::Copy(from, to) => self.objects.copy(from, to).await.map(|()| None),
            Request::Delete(at) => self.objects.delete(at).await.map(|()| None),
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let done = self.send(Request::Put(at.clone(), payload, options)).await?;
        Ok(done.expect("a put is answered as such"))
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(injected())
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.turn().await;
        match self.fault() {
            Some(Fault::CrashBefore | Fault::CrashAfter) => self.die().await,
            Some(_) => return Err(injected()),
            None => {}
        }
        let found = self.objects.get_opts(at, options).await;
        self.turn().await;
        found
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        unreachable!("`Deletes` has its own")
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        self.send(Request::Copy(from.clone(), to.clone())).await.map(drop)
    }
}

/// A handle on the bucket whose streams may outlive a borrow.
#[derive(Debug)]
struct Handle(Arc<Bucket>);

impl std::fmt::Display for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Handle {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, at: &Path, options: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(at, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let bucket = Arc::clone(&self.0);
        let delete = move |at: Path| {
            let bucket = Arc::clone(&bucket);
            async move { bucket.send(Request::Delete(at.clone())).await.map(|_| at) }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

fn ident() -> TableIdent {
    TableIdent::new(NamespaceIdent::new("default".into()), NAME.into())
}

fn hive(objects: Arc<dyn ObjectStore>) -> HiveCatalog {
    let open = |warehouse: &str| Store::over_bucket(objects.clone(), warehouse);
    let points = SyncPoints::within(open("s3://b/w/.aperio"), "default");
    HiveCatalog::new(ident(), open("s3://b/w"), open("s3://b/w/.aperio"), points)
}

fn new_table() -> NewTable {
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    NewTable {
        schema: Schema::builder().with_fields([id.into()]).build().expect("a schema"),
        spec: UnboundPartitionSpec::builder().build(),
        properties: Default::default(),
        format_version: FormatVersion::V2,
    }
}

fn source() -> Source {
    Source {
        topic: "t".into(),
        topic_id: Some("id".into()),
        cluster_id: None,
    }
}

fn view(table: &LoadedTable) -> Result<TableView, LedgerProblem> {
    hive::view(
        &table.metadata,
        table.rows.as_deref().expect("a table of plain Parquet"),
    )
}

/// What one process does with its table: the state machine decides, all effects follow one another.
struct Process {
    run: Run,
    hive: HiveCatalog,
    base: LoadedTable,
    id: Uuid,
    ends: Offsets,
    /// The partitions that the group gives it.
    mine: Vec<Partition>,
    events: VecDeque<Event>,
    positions: BTreeMap<Partition, (u64, Offset)>,
    windows: BTreeMap<WindowId, Vec<(Partition, i64)>>,
    hand: Vec<(Partition, i64)>,
    paused: bool,
    now: Millis,
}

/// Plays one process to its end.
async fn process(objects: Arc<dyn ObjectStore>, id: u128, ends: Offsets, mine: Vec<Partition>) -> Outcome {
    let hive = hive(objects);
    // Ends: the bucket is kind at last.
    let (base, view) = loop {
        let table = match hive.load(&ident()).await {
            Ok(Some(table)) => table,
            Ok(None) => match hive.create(&ident(), new_table()).await {
                Ok(table) => table,
                Err(_) => continue,
            },
            Err(_) => continue,
        };
        let view = view(&table).expect("rows that go together");
        break (table, view);
    };
    let config = RunConfig {
        run: Uuid::from_u128(id),
        once: true,
        batch_size: 5,
        batch_window: Millis(60_000),
        retry_for: Millis(600_000),
        grace: Millis(10_000),
        source: source(),
        reject_limit: RejectLimit::Count(0),
    };
    let opened = Event::Opened {
        view,
        partitions: ends.partitions().collect(),
        ends: ends.clone(),
    };
    let process = Process {
        run: Run::new(config),
        hive,
        base,
        id: Uuid::from_u128(id),
        ends,
        mine,
        events: [opened].into(),
        positions: BTreeMap::new(),
        windows: BTreeMap::new(),
        hand: Vec::new(),
        paused: false,
        now: Millis(chrono::Utc::now().timestamp_millis()),
    };
    process.play().await
}

impl Process {
    async fn play(mut self) -> Outcome {
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.fetched().unwrap_or_else(|| {
                    self.now = self.now.after(Millis(1_500));
                    Event::Tick
                }),
            };
            for action in self.run.on(event, self.now) {
                if let Some(outcome) = self.perform(action).await {
                    return outcome;
                }
            }
        }
    }

    fn fetched(&mut self) -> Option<Event> {
        if self.paused {
            return None;
        }
        let ends = &self.ends;
        let open =
            |(partition, (_, at)): &(&Partition, &(u64, Offset))| ends.get(**partition).is_some_and(|end| *at < end);
        let (partition, (epoch, start)) = self
            .positions
            .iter()
            .find(open)
            .map(|(partition, at)| (*partition, *at))?;
        let last = ends.get(partition).expect("found above");
        let end = Offset::new((start.get() + RECORDS_PER_FETCH).min(last.get()));
        self.positions.insert(partition, (epoch, end));
        self.hand = (start.get()..end.get()).map(|offset| (partition, offset)).collect();
        Some(Event::Fetched {
            epoch,
            partition,
            range: OffsetRange::new(start, end),
            records: self.hand.len() as u64,
        })
    }

    async fn perform(&mut self, action: Action) -> Option<Outcome> {
        let event = match action {
            Action::ResolveStart { partitions, .. } => Event::StartResolved(
                partitions
                    .into_iter()
                    .map(|partition| (partition, Offset::ZERO))
                    .collect(),
            ),
            Action::Join => Event::Assigned(self.mine.clone()),
            Action::Read { epoch, positions } => {
                let read = positions
                    .into_iter()
                    .map(|(partition, at)| (partition, (epoch, at.offset)));
                self.positions.extend(read);
                return None;
            }
            Action::Take(window) => {
                let hand = std::mem::take(&mut self.hand);
                self.windows.entry(window).or_default().extend(hand);
                return None;
            }
            Action::Discard | Action::AckRevoke => return None,
            Action::Seal { window, ranges, .. } => self.seal(window, ranges).await,
            Action::Prepare { windows, .. } => Event::Prepared {
                windows,
                answer: Ok(()),
            },
            Action::Load { .. } => Event::Loaded(self.load().await),
            Action::Swap(plan) => {
                let answer = match self.hive.commit(&self.base, &plan).await {
                    Committed::Yes(table) => {
                        self.base = table;
                        Swapped::Committed(view(&self.base).expect("rows that go together"))
                    }
                    Committed::Conflict => Swapped::Conflict,
                    Committed::Failed(error) => Swapped::Failed(error.to_string()),
                    Committed::Unknown(why) => Swapped::Unknown(why),
                };
                Event::Swapped {
                    windows: plan.windows.clone(),
                    answer,
                }
            }
            Action::Publish { .. } => Event::Published(self.publish().await),
            Action::Drop { files, .. } => {
                self.hive.store.delete_unused(&files).await;
                return None;
            }
            Action::Pause => {
                self.paused = true;
                return None;
            }
            Action::Resume => {
                self.paused = false;
                return None;
            }
            Action::Finish(outcome) => return Some(outcome),
        };
        self.events.push_back(event);
        None
    }

    async fn publish(&self) -> std::result::Result<(), String> {
        match self.hive.publish().await {
            Ok(()) => Ok(()),
            Err(PublishError::Store(error)) => Err(error.to_string()),
            Err(error @ PublishError::Lost { .. }) => panic!("{error}"),
        }
    }

    async fn load(&mut self) -> std::result::Result<TableView, String> {
        self.publish().await?;
        let table = self.hive.load(&ident()).await.map_err(|error| error.to_string())?;
        self.base = table.expect("a table is never dropped here");
        Ok(view(&self.base).expect("rows that go together"))
    }

    /// Stages a file of the even offsets and one of the odd ones.
    async fn seal(&mut self, window: WindowId, ranges: OffsetRanges) -> Event {
        let records = self.windows.remove(&window).unwrap_or_default();
        let mut files = Vec::new();
        for odd in [0, 1] {
            let rows: Vec<_> = records.iter().filter(|(_, offset)| offset % 2 == odd).collect();
            if rows.is_empty() {
                continue;
            }
            let text: Vec<_> = rows
                .iter()
                .map(|(partition, offset)| format!("{partition} {offset}"))
                .collect();
            let name = format!("{}-{:05}-{odd:05}", self.id.simple(), window.sequence);
            let path = format!("{}/odd={odd}/{name}.parquet", self.hive.staging());
            if self.hive.store.create(&path, text.join("\n").into()).await.is_err() {
                return Event::Failed(Failure::new(Exit::Remote, "the file can't be written"));
            }
            let file = DataFileBuilder::default()
                .content(DataContentType::Data)
                .file_path(path)
                .file_format(DataFileFormat::Parquet)
                .partition(Struct::empty())
                .partition_spec_id(0)
                .record_count(rows.len() as u64)
                .file_size_in_bytes(1)
                .build()
                .expect("all fields are set");
            files.push(WindowFile { spec_id: 0, file });
        }
        let records = records.len() as u64;
        Event::Sealed(SealedWindow {
            id: window,
            ranges,
            files,
            tally: Tally {
                records,
                rows: records,
                ..Tally::default()
            },
            event_times: BTreeMap::new(),
            schemas: Vec::new(),
        })
    }
}

/// A future of a memory store is ready at once.
fn at_once<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("memory doesn't wait")
}

struct Scene {
    bucket: Arc<Bucket>,
    /// What the bucket really holds, without faults.
    real: Arc<Memory>,
    ends: Offsets,
    ledger: Offsets,
    checked: u64,
}

/// The memory behind a bucket, for the one who checks.
#[derive(Debug)]
struct Memory(Arc<Bucket>);

impl Scene {
    /// Panics unless every record is shown at most once, and only what is committed.
    fn check(&mut self) {
        let changes = self.bucket.state().changes;
        if std::mem::replace(&mut self.checked, changes) == changes {
            return;
        }
        let now = self.offsets();
        for (partition, before) in self.ledger.iter() {
            assert!(
                now.get(partition).is_some_and(|now| now >= before),
                "the offsets of {partition} moved back"
            );
        }
        let mut seen = BTreeSet::new();
        for record in self.shown() {
            assert!(seen.insert(record), "{record:?} is shown twice");
            let (partition, offset) = record;
            let end = now.get(partition).unwrap_or(Offset::ZERO);
            assert!(
                offset < end.get(),
                "{record:?} is shown and not committed, the offsets say {end}"
            );
        }
        self.ledger = now;
    }

    fn check_complete(&mut self) {
        self.check();
        assert_eq!(self.ledger, self.ends, "all is committed");
        let all: u64 = self.ends.iter().map(|(_, end)| end.since(Offset::ZERO)).sum();
        assert_eq!(self.shown().len() as u64, all, "all is shown");
        let left = hive::unpublished(&self.rows());
        assert!(left.is_empty(), "{left:?}");
    }

    fn rows(&self) -> Rows {
        at_once(hive(self.real.clone()).rows()).expect("the rows are read")
    }

    fn offsets(&self) -> Offsets {
        let table = at_once(hive(self.real.clone()).load(&ident())).expect("the table is read");
        let ledger = table.and_then(|table| view(&table).expect("rows that go together").ledger);
        ledger.map(|ledger| ledger.offsets).unwrap_or_default()
    }

    fn shown(&self) -> Vec<(Partition, i64)> {
        let objects = &self.bucket.objects;
        let under = Path::from(format!("w/default/{NAME}"));
        let files: Vec<_> = at_once(objects.list(Some(&under)).try_collect::<Vec<_>>()).expect("listed");
        let mut records = Vec::new();
        for file in files {
            let read = at_once(objects.get(&file.location)).expect("read");
            let bytes = at_once(read.bytes()).expect("read");
            for line in String::from_utf8_lossy(&bytes).lines() {
                let (partition, offset) = line.split_once(' ').expect("two numbers");
                let partition = Partition(partition.parse().expect("a number"));
                records.push((partition, offset.parse().expect("a number")));
            }
        }
        records
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Memory {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.0.objects.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(injected())
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.objects.get_opts(at, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.objects.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.objects.copy_opts(from, to, options).await
    }
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A process, and the turn until which it is frozen.
struct Slot {
    running: Running,
    frozen_until: u64,
}

/// Plays one seed; returns how many commits there were and how many processes died.
fn play(seed: u64) -> (u64, u64) {
    let mut dice = Dice(seed);
    let partitions = 1 + dice.roll(3) as i32;
    let length = 4 + dice.roll(30) as i64;
    let ends: Offsets = (0..partitions)
        .map(|partition| (Partition(partition), Offset::new(length)))
        .collect();
    let (fault_in, freeze_in, arrive_in) = (6 + dice.roll(60), 40 + dice.roll(300), 5 + dice.roll(40));
    let runs = 1 + dice.roll(3);
    // Each reads all, as instances of several groups do, or its share.
    let apart = dice.once_in(2);
    let state = State {
        dice: Dice(seed ^ 0xA5A5),
        fault_in,
        in_transit: Vec::new(),
        yielded: false,
        died: false,
        changes: 0,
    };
    let bucket = Arc::new(Bucket {
        objects: InMemory::new(),
        state: Mutex::new(state),
    });
    let mut scene = Scene {
        real: Arc::new(Memory(bucket.clone())),
        bucket: bucket.clone(),
        ends: ends.clone(),
        ledger: Offsets::default(),
        checked: 0,
    };
    let (mut started, mut died) = (0_u128, 0);
    let mut launch = |run: u64, all: bool| -> Slot {
        started += 1;
        let mine = ends
            .partitions()
            .filter(|partition| all || apart || partition.0 as u64 % runs == run)
            .collect();
        let objects = Arc::new(Handle(bucket.clone()));
        Slot {
            running: Box::pin(process(objects, started, ends.clone(), mine)),
            frozen_until: 0,
        }
    };
    let mut slots: Vec<Option<Slot>> = (0..runs).map(|run| Some(launch(run, false))).collect();
    let mut turn = 0;
    while turn < TURNS_WITH_FAULTS {
        turn += 1;
        let index = dice.roll(runs) as usize;
        let slot = slots[index].get_or_insert_with(|| launch(index as u64, false));
        if slot.frozen_until > turn {
            continue;
        }
        if dice.once_in(freeze_in) {
            slot.frozen_until = turn + dice.roll(TURNS_WITH_FAULTS);
        }
        match poll(slot, &bucket) {
            Polled::Yielded => {}
            Polled::Died => {
                died += 1;
                slots[index] = None;
            }
            Polled::Ended(_) => slots[index] = None,
        }
        let mut state = bucket.state();
        if !state.in_transit.is_empty() && dice.once_in(arrive_in) {
            let index = dice.roll(state.in_transit.len() as u64) as usize;
            let request = state.in_transit.remove(index);
            drop(state);
            let _ = at_once(bucket.arrive(&request));
        } else {
            drop(state);
        }
        scene.check();
    }
    // From now on nothing fails; those that were frozen wake, and one comes that reads all that is left.
    bucket.state().fault_in = 0;
    slots.push(Some(launch(0, true)));
    // Taken first: an arrival wants the state as well.
    let in_transit = std::mem::take(&mut bucket.state().in_transit);
    for request in in_transit {
        let _ = at_once(bucket.arrive(&request));
    }
    while slots.iter().any(Option::is_some) {
        turn += 1;
        assert!(turn < TURNS_MAX, "a run wedged");
        let index = dice.roll(slots.len() as u64) as usize;
        let Some(slot) = &mut slots[index] else { continue };
        if let Polled::Ended(outcome) = poll(slot, &bucket) {
            let gave_way = |failure: &Failure| matches!(failure.exit, Exit::Overtaken | Exit::Remote);
            match &outcome {
                Outcome::Failed(failure) if gave_way(failure) => slots[index] = Some(launch(0, true)),
                Outcome::Done => slots[index] = None,
                other => panic!("{other:?}"),
            }
        }
        scene.check();
    }
    scene.check_complete();
    let rows = scene.rows();
    let commits = serde_json::from_str::<serde_json::Value>(&rows["ledger"].value).expect("JSON")["commit"].as_u64();
    (commits.expect("a number"), died)
}

enum Polled {
    Yielded,
    Died,
    Ended(Outcome),
}

/// Lets a process go on up to its next request.
fn poll(slot: &mut Slot, bucket: &Bucket) -> Polled {
    let mut context = Context::from_waker(Waker::noop());
    // Ends: what isn't a request is a wait of a part of a second.
    loop {
        if let Poll::Ready(outcome) = slot.running.as_mut().poll(&mut context) {
            return Polled::Ended(outcome);
        }
        let mut state = bucket.state();
        if std::mem::take(&mut state.died) {
            return Polled::Died;
        }
        if std::mem::take(&mut state.yielded) {
            return Polled::Yielded;
        }
        drop(state);
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn whatever_fails_each_record_is_shown_once() {
    let seeds = std::env::var("APERIO_SIM_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let seeds: u64 = seeds.unwrap_or(SEEDS_DEFAULT);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime for the waits");
    let (next, commits, died) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        // Most of the time they wait.
        for _ in 0..48 {
            scope.spawn(|| {
                let _timers = runtime.enter();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let played = std::panic::catch_unwind(|| play(seed));
                    let (made, dead) = played.unwrap_or_else(|cause| {
                        eprintln!("seed {seed} failed");
                        std::panic::resume_unwind(cause)
                    });
                    commits.fetch_add(made, Ordering::Relaxed);
                    died.fetch_add(dead, Ordering::Relaxed);
                }
            });
        }
    });
    println!("{seeds} seeds, {commits:?} commits, {died:?} processes died");
    assert!(
        commits.into_inner() > 2 * seeds && died.into_inner() > seeds,
        "the schedules commit, and crash"
    );
}
