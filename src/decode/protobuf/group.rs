//! The fields of a message into columns: each field's step, and what is done for those that the message lacks.

use std::ops::Range;

use super::super::column::Column;
use super::super::framed::{Bad, BadRecord};
use super::fill::Fill;
use super::map::MapFill;
use super::reader::{BYTES, GROUP, Reader, wire_name};
use super::text;
use crate::schema::protobuf::{Kind, Shape};

/// Numbers below are looked up by their place in a table.
const DENSE_MAX: u32 = 1024;

/// The `oneof`s of a message whose member of the moment is remembered; of others all members are cleared each time.
const ONEOFS: usize = 8;

/// No step.
const NONE: u32 = u32::MAX;

/// How a message's fields go to columns.
#[derive(Debug)]
pub(super) struct Group {
    /// For each number the place of its step.
    dense: Box<[u32]>,
    /// Numbers beyond, ascending, and the places of their steps.
    sparse: Box<[(u32, u32)]>,
    /// For each tag of one byte the place of its step, where that is plain and the wire type is its kind's.
    plain: Box<[u32; 128]>,
    steps: Box<[Step]>,
    /// What is done when all fields are read.
    ends: Box<[(usize, End)]>,
    /// Values that a message without a byte makes.
    weight: usize,
    /// Fields that the schema doesn't have are counted as dropped.
    counted: bool,
}

/// A field, and what is done with it.
#[derive(Debug)]
pub(super) struct Step {
    pub name: Box<str>,
    pub number: u32,
    /// How its kind is written.
    pub wire: u8,
    pub shape: Shape,
    pub act: Act,
    pub oneof: Option<Box<Member>>,
}

/// A field's place in a `oneof`.
#[derive(Debug)]
pub(super) struct Member {
    /// Which one.
    pub slot: usize,
    /// The columns that the field goes to.
    pub columns: Box<[usize]>,
}

/// What is done with a field.
#[derive(Debug)]
pub(super) enum Act {
    /// It goes nowhere.
    Skip { counted: bool },
    /// The last value goes to a column.
    Value(usize, Fill),
    /// A message goes to a column; several are merged.
    Message(usize, Fill),
    /// Each value goes to a list.
    List(usize, Fill),
    /// Each entry goes to a map.
    Map(usize, Box<MapFill>),
    /// All values go to a text column, as JSON: the field of a message, by their places in the schema.
    Gathered {
        column: usize,
        message: usize,
        field: usize,
    },
    /// It goes to several columns, and its own fields to more.
    Route(Box<Route>),
}

/// A field that several columns are filled from.
#[derive(Debug)]
pub(super) struct Route {
    pub into: Vec<Act>,
    /// Its fields go to columns beside its own.
    pub inner: Option<Group>,
    /// Counts the routes of a message.
    pub slot: u32,
}

/// What is done with a column at the end of a message.
#[derive(Debug)]
pub(super) enum End {
    /// Null where nothing came.
    Missing,
    /// The kind's zero where nothing came: the step that fills the column.
    Zero(usize),
    /// This text where nothing came.
    Text(&'static str),
    /// The list is complete.
    List,
    /// The map of this step is complete.
    Map(usize),
}

/// What is known of the fields that came.
struct State {
    /// Where the message began.
    start: usize,
    /// Routes that were taken, by their slots; the last bit stands for all that have no other.
    taken: u64,
    /// The member of each `oneof`.
    members: [u32; ONEOFS],
    /// Steps whose value is final, found by looking ahead; empty where there are none.
    settled: Vec<bool>,
}

/// The value that counts of a field that came several times.
enum Settled {
    Messages(Vec<Range<usize>>),
    Value(usize, u8),
}

impl Group {
    /// Makes a group of steps and ends.
    pub fn new(steps: Vec<Step>, ends: Vec<(usize, End)>, weight: usize, counted: bool) -> Self {
        let last = steps
            .iter()
            .map(|step| step.number)
            .filter(|number| *number < DENSE_MAX)
            .max();
        let mut dense = vec![NONE; last.map_or(0, |last| last as usize + 1)];
        let mut sparse = Vec::new();
        for (step, at) in steps.iter().zip(0..) {
            match dense.get_mut(step.number as usize) {
                Some(place) => *place = at,
                None => sparse.push((step.number, at)),
            }
        }
        sparse.sort_unstable();
        let mut plain = Box::new([NONE; 128]);
        for (step, at) in steps.iter().zip(0..) {
            let tag = (step.number as usize) << 3 | usize::from(step.wire);
            if let Some(place) = plain.get_mut(tag).filter(|_| step.is_plain()) {
                *place = at;
            }
        }
        Group {
            plain,
            dense: dense.into(),
            sparse: sparse.into(),
            steps: steps.into(),
            ends: ends.into(),
            weight,
            counted,
        }
    }

    #[inline]
    fn find(&self, number: u32) -> Option<usize> {
        let at = match self.dense.get(number as usize) {
            Some(at) => *at,
            None => self.find_sparse(number),
        };
        (at != NONE).then_some(at as usize)
    }

    fn find_sparse(&self, number: u32) -> u32 {
        let found = self.sparse.binary_search_by_key(&number, |(number, _)| *number);
        found.map_or(NONE, |at| self.sparse[at].1)
    }

    /// Reads a message's fields, one value for each of its columns, at row `row` of them.
    pub fn run(&self, reader: &mut Reader<'_>, columns: &mut [Column], row: usize) -> Result<(), Bad> {
        reader.spend(self.weight)?;
        let mut state = State {
            start: reader.at,
            taken: 0,
            members: [NONE; ONEOFS],
            settled: Vec::new(),
        };
        // Ends: each field takes a byte at least.
        while reader.at < reader.end {
            // What most fields are is found by one look.
            let tag = reader.at;
            if let Some(short) = reader.short_tag()
                && let Some(step) = self.steps.get(self.plain[usize::from(short)] as usize)
            {
                reader.at += 1;
                match step.read_plain(reader, columns, row) {
                    Ok(true) => continue,
                    Ok(false) => reader.at = tag,
                    Err(bad) => return Err(step.failed(bad)),
                }
            }
            let (number, wire) = reader.tag()?;
            let Some(at) = self.find(number) else {
                reader.dropped += u64::from(self.counted);
                reader.skip(number, wire)?;
                continue;
            };
            let step = &self.steps[at];
            if step.is_plain() && step.wire == wire {
                match step.read_far(reader, columns, row) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(bad) => return Err(step.failed(bad)),
                }
            }
            self.step(at, wire, reader, columns, row, &mut state)
                .map_err(|bad| bad.inside(&step.name))?;
        }
        self.finish(reader, columns, row, state.start)
    }

    fn finish(&self, reader: &mut Reader<'_>, columns: &mut [Column], row: usize, start: usize) -> Result<(), Bad> {
        for (at, end) in &self.ends {
            let column = &mut columns[*at];
            let here = column.len() > row;
            match end {
                End::List => column.push_list(),
                End::Map(step) => {
                    let step = &self.steps[*step];
                    if column.repeats_key()
                        && let Some(map) = step.act.map(*at)
                    {
                        column.truncate(row);
                        let done = map.last_entries(step.number, start, reader, column);
                        done.map_err(|bad| bad.inside(&step.name))?;
                    }
                    column.push_map();
                }
                _ if here => {}
                End::Zero(step) => {
                    let step = &self.steps[*step];
                    let Some(fill) = step.act.fill(*at) else { continue };
                    fill.push_zero(reader.schema, column)
                        .map_err(|bad| bad.inside(&step.name))?;
                }
                End::Text(text) => column.push_bytes(text.as_bytes()),
                End::Missing => {
                    if let Err(failed) = column.push_missing() {
                        return Err(BadRecord::column(failed, &column.name));
                    }
                }
            }
        }
        Ok(())
    }

    fn step(
        &self,
        at: usize,
        wire: u8,
        reader: &mut Reader<'_>,
        columns: &mut [Column],
        row: usize,
        state: &mut State,
    ) -> Result<(), Bad> {
        let step = &self.steps[at];
        if state.settled.get(at) == Some(&true) {
            return reader.skip(step.number, wire);
        }
        if let Act::Skip { counted } = step.act {
            reader.dropped += u64::from(counted);
        } else {
            step.check(wire, reader)?;
        }
        if let Some(member) = &step.oneof {
            self.replace(at, member, columns, row, state);
        }
        let again = match &step.act {
            Act::Message(column, _) => columns[*column].len() > row,
            Act::Route(route) if step.shape.message().is_some() => {
                let bit = 1 << route.slot.min(63);
                let again = state.taken & bit != 0;
                state.taken |= bit;
                again
            }
            _ => false,
        };
        if again {
            self.settle(at, reader, columns, row, state)?;
            return reader.skip(step.number, wire);
        }
        self.act(step, &step.act, wire, reader, columns, row, state.start)
    }

    /// Does what is to be done with one value; the wire type is right.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are a place in a record and a place in a table"
    )]
    fn act(
        &self,
        step: &Step,
        act: &Act,
        wire: u8,
        reader: &mut Reader<'_>,
        columns: &mut [Column],
        row: usize,
        start: usize,
    ) -> Result<(), Bad> {
        match act {
            Act::Skip { .. } => reader.skip(step.number, wire),
            Act::Value(column, fill) => {
                let column = &mut columns[*column];
                if column.len() > row {
                    column.truncate(row);
                }
                fill.run(reader, column)
            }
            Act::Message(column, fill) => one(step.number, wire, fill, reader, &mut columns[*column]),
            Act::List(column, fill) => {
                let item = columns[*column].item();
                if wire == BYTES && step.wire != BYTES {
                    return packed(fill, reader, item).map_err(|bad| bad.inside("element"));
                }
                one(step.number, wire, fill, reader, item).map_err(|bad| bad.inside("element"))
            }
            Act::Map(column, map) => {
                let body = reader.body(step.number, wire)?;
                map.entry(body, reader, &mut columns[*column])
            }
            Act::Gathered { column, message, field } => {
                let column = &mut columns[*column];
                if column.len() == row {
                    let whole = start..reader.end;
                    column.push_text(|out| text::write_field(reader, whole, *message, *field, out))?;
                }
                reader.skip(step.number, wire)
            }
            Act::Route(route) => {
                let value = reader.at;
                for act in &route.into {
                    reader.at = value;
                    self.act(step, act, wire, reader, columns, row, start)?;
                }
                reader.at = value;
                let Some(inner) = &route.inner else {
                    return reader.skip(step.number, wire);
                };
                let body = reader.body(step.number, wire)?;
                let outer = reader.enter(body)?;
                inner.run(reader, columns, row)?;
                reader.leave(outer);
                Ok(())
            }
        }
    }

    /// A member of a `oneof` came: the one before it goes.
    fn replace(&self, at: usize, member: &Member, columns: &mut [Column], row: usize, state: &mut State) {
        let Some(now) = state.members.get_mut(member.slot) else {
            for (other, step) in self.steps.iter().enumerate().filter(|(other, _)| *other != at) {
                if step.oneof.as_ref().is_some_and(|other| other.slot == member.slot) {
                    self.clear(other, columns, row, state);
                }
            }
            return;
        };
        let before = std::mem::replace(now, at as u32);
        if before != NONE && before != at as u32 {
            self.clear(before as usize, columns, row, state);
        }
    }

    fn clear(&self, at: usize, columns: &mut [Column], row: usize, state: &mut State) {
        let step = &self.steps[at];
        let fed = step.oneof.iter().flat_map(|member| member.columns.iter());
        fed.for_each(|column| columns[*column].truncate(row));
        if let Act::Route(route) = &step.act
            && route.slot < 63
        {
            state.taken &= !(1 << route.slot);
        }
    }

    /// A single message came a second time. What its field comes to in the end, or the `oneof` it is in, is looked for ahead,
    /// once: the messages behind each other are their merger.
    #[cold]
    fn settle(
        &self,
        at: usize,
        reader: &mut Reader<'_>,
        columns: &mut [Column],
        row: usize,
        state: &mut State,
    ) -> Result<(), Bad> {
        let slot = self.steps[at].oneof.as_ref().map(|member| member.slot);
        let concerned = |other: usize| match slot {
            None => other == at,
            Some(slot) => self.steps[other]
                .oneof
                .as_ref()
                .is_some_and(|member| member.slot == slot),
        };
        let outer = reader.enter(state.start..reader.end)?;
        let mut last = at;
        let mut settled = Settled::Messages(Vec::new());
        while reader.at < reader.end {
            let (number, wire) = reader.tag()?;
            let Some(found) = self.find(number).filter(|found| concerned(*found)) else {
                reader.skip(number, wire)?;
                continue;
            };
            let step = &self.steps[found];
            if !matches!(step.act, Act::Skip { .. }) {
                step.check(wire, reader)?;
            }
            if step.shape.message().is_none() || matches!(step.act, Act::Skip { .. }) {
                settled = Settled::Value(reader.at, wire);
                reader.skip(number, wire)?;
            } else {
                let body = reader.body(number, wire)?;
                match &mut settled {
                    Settled::Messages(parts) if found == last => parts.push(body),
                    settled => *settled = Settled::Messages(vec![body]),
                }
            }
            last = found;
        }
        reader.leave(outer);
        state.settled.resize(self.steps.len(), false);
        for (other, step) in self.steps.iter().enumerate().filter(|(other, _)| concerned(*other)) {
            state.settled[other] = true;
            match &step.oneof {
                Some(member) => member.columns.iter().for_each(|column| columns[*column].truncate(row)),
                None => step.act.columns(&mut |column| columns[column].truncate(row)),
            }
        }
        let step = &self.steps[last];
        match settled {
            Settled::Value(place, wire) => {
                let outer = reader.enter(place..reader.end)?;
                self.act(step, &step.act, wire, reader, columns, row, state.start)?;
                reader.leave(outer);
                Ok(())
            }
            Settled::Messages(parts) => {
                let value = framed(reader, &parts);
                // Messages inside it may be read again in turn, which doubles the work at each depth.
                reader.spend(value.len())?;
                reader.elsewhere(&value, |reader| {
                    self.act(step, &step.act, BYTES, reader, columns, row, 0)
                })
            }
        }
    }
}

/// Puts the parts of a message behind each other, and the length in front.
pub(super) fn framed(reader: &Reader<'_>, parts: &[Range<usize>]) -> Vec<u8> {
    let mut length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut value = Vec::with_capacity(length + 10);
    while length >= 0x80 {
        value.push(length as u8 | 0x80);
        length >>= 7;
    }
    value.push(length as u8);
    for part in parts {
        value.extend_from_slice(reader.at_place(part.clone()));
    }
    value
}

/// Reads one value, which may be a group.
#[inline]
fn one(number: u32, wire: u8, fill: &Fill, reader: &mut Reader<'_>, column: &mut Column) -> Result<(), Bad> {
    if let Fill::Message(fill) = fill
        && wire == GROUP
    {
        let body = reader.body(number, wire)?;
        let outer = reader.enter(body)?;
        fill.run(reader, column)?;
        reader.leave(outer);
        return Ok(());
    }
    fill.run(reader, column)
}

/// Reads values behind each other.
fn packed(fill: &Fill, reader: &mut Reader<'_>, item: &mut Column) -> Result<(), Bad> {
    let length = reader.bytes()?.len();
    let outer_end = std::mem::replace(&mut reader.end, reader.at);
    reader.at -= length;
    // Ends: each value takes a byte at least.
    while reader.at < reader.end {
        fill.run(reader, item)?;
    }
    reader.end = outer_end;
    Ok(())
}

impl Step {
    /// What the field's values become depends on no other field.
    fn is_plain(&self) -> bool {
        self.oneof.is_none() && matches!(self.act, Act::Value(..) | Act::Message(..) | Act::List(..))
    }

    /// Reads a value of a plain field whose wire type is its kind's; returns `false`, and does nothing, where it is a message
    /// that came before: several are merged.
    #[inline(always)]
    fn read_plain(&self, reader: &mut Reader<'_>, columns: &mut [Column], row: usize) -> Result<bool, Bad> {
        let (Act::Value(at, fill) | Act::Message(at, fill) | Act::List(at, fill)) = &self.act else {
            return Ok(false);
        };
        let mut column = &mut columns[*at];
        match self.act {
            Act::List(..) => column = column.item(),
            _ if column.len() == row => {}
            Act::Message(..) => return Ok(false),
            // The last value counts.
            _ => column.truncate(row),
        }
        fill.run(reader, column)?;
        Ok(true)
    }

    /// The same for a field whose tag has more than one byte.
    #[inline(never)]
    fn read_far(&self, reader: &mut Reader<'_>, columns: &mut [Column], row: usize) -> Result<bool, Bad> {
        self.read_plain(reader, columns, row)
    }

    #[cold]
    fn failed(&self, bad: Bad) -> Bad {
        let bad = match self.act {
            Act::List(..) => bad.inside("element"),
            _ => bad,
        };
        bad.inside(&self.name)
    }

    #[inline]
    fn check(&self, wire: u8, reader: &Reader<'_>) -> Result<(), Bad> {
        let fits = wire == self.wire
            || match self.shape {
                // Several values behind each other, whatever the schema says of it.
                Shape::Repeated(of) if self.wire != BYTES => wire == BYTES && !matches!(of, Kind::Message(_)),
                Shape::Repeated(Kind::Message(_))
                | Shape::Single {
                    of: Kind::Message(_), ..
                } => wire == GROUP,
                _ => false,
            };
        match fits {
            true => Ok(()),
            false => Err(mismatch(reader, reader.schema.shape_name(self.shape), self.wire, wire)),
        }
    }
}

#[cold]
pub(super) fn mismatch(reader: &Reader<'_>, of: String, wanted: u8, wire: u8) -> Bad {
    reader.bad(format!(
        "{of} is written as {}, the record has {}: it was written with another schema",
        wire_name(wanted),
        wire_name(wire)
    ))
}

impl Act {
    /// Tells the columns that the field goes to.
    pub fn columns(&self, tell: &mut dyn FnMut(usize)) {
        match self {
            Act::Skip { .. } => {}
            Act::Value(column, _) | Act::Message(column, _) | Act::List(column, _) | Act::Map(column, _) => {
                tell(*column)
            }
            Act::Gathered { column, .. } => tell(*column),
            Act::Route(route) => {
                route.into.iter().for_each(|act| act.columns(tell));
                let steps = route.inner.iter().flat_map(|inner| inner.steps.iter());
                steps.for_each(|step| step.act.columns(tell));
            }
        }
    }

    /// The fill of a map column.
    fn map(&self, at: usize) -> Option<&MapFill> {
        match self {
            Act::Map(into, map) if *into == at => Some(map),
            Act::Route(route) => route.into.iter().find_map(|act| act.map(at)),
            _ => None,
        }
    }

    /// The fill of a column that a single scalar goes to.
    fn fill(&self, at: usize) -> Option<&Fill> {
        match self {
            Act::Value(into, fill) if *into == at => Some(fill),
            Act::Route(route) => route.into.iter().find_map(|act| act.fill(at)),
            _ => None,
        }
    }
}
