//! From a writer's schema and the table's columns to a plan; what can't go together is told in full.

use std::sync::Arc;

use iceberg::spec::{NestedField, PrimitiveType, Type};

use super::super::room;
use super::super::target::{Dropped, Target, targets};
use super::fill::{Absent, Fill, Group, Inner, Rescale, Route, Step};
use super::{Program, Root};
use crate::config::types;
use crate::schema::avro::{
    self, Avro, AvroSchema, BytesAs, Decimal, Field, FixedAs, IntAs, LongAs, NamedType, PRECISION_MAX, StringAs,
    TimeUnit,
};
use crate::schema::{RowPlan, UnknownFields, VALUE};

/// Compiles a plan for records of `writer`.
///
/// A column is filled by the field of its name; by the one of its name in other letters' case; or by the one that the
/// column's field in `newest` has as an alias. A column without a field gets the default that `newest` has for it, or null.
///
/// Where columns aren't declared, a value goes to a column of its own type or of one that the Avro specification lets it be
/// promoted to. To a declared column goes whatever JSON of that value would.
///
/// - `newest`: the newest schema of the same record that is known; it is the specification's "reader's schema".
/// - `more`: a path, and a column behind those of the plan that it goes to as text.
///
/// # Errors
/// Every difference between schema and table, for a person.
pub(in super::super) fn compile(
    writer: &Arc<AvroSchema>,
    newest: Option<&Arc<AvroSchema>>,
    plan: &RowPlan,
    more: Option<(&[String], &NestedField)>,
) -> Result<Program, Vec<String>> {
    let mut compiler = Compiler {
        writer,
        newest: newest.unwrap_or(writer),
        declared: plan.unknown == UnknownFields::Declared,
        dropped: Dropped::of(plan),
        inside: Vec::new(),
        differences: Vec::new(),
        sparse: false,
        flat_fields: 0,
    };
    let (targets, reserved) = targets(plan, more);
    let root = compiler.root(&targets, &reserved, plan.flatten);
    match compiler.differences.is_empty() {
        true => Ok(Program {
            schema: writer.clone(),
            root,
            sparse: compiler.sparse,
        }),
        false => Err(compiler.differences),
    }
}

/// The counterpart of a writer's type in the newest schema.
type Reader<'c> = Option<&'c Avro>;

struct Compiler<'c> {
    writer: &'c Arc<AvroSchema>,
    newest: &'c Arc<AvroSchema>,
    declared: bool,
    dropped: Dropped,
    /// The writer's records that the current place is inside.
    inside: Vec<usize>,
    differences: Vec<String>,
    sparse: bool,
    /// Those that were looked at.
    flat_fields: usize,
}

impl<'c> Compiler<'c> {
    fn root(&mut self, targets: &[Target<'_>], reserved: &[String], flatten: bool) -> Root {
        let writer: &'c AvroSchema = self.writer;
        let newest: &'c AvroSchema = self.newest;
        let Some((index, fields)) = writer.record(&writer.root) else {
            return self.value(targets);
        };
        let reader = newest.record(&newest.root).map(|(_, fields)| fields);
        self.inside.push(index);
        let group = match flatten {
            true => self.flat("", fields, reader, targets, reserved),
            false => self.routed("", fields, reader, targets, reserved),
        };
        self.inside.pop();
        match &writer.root {
            Avro::Union(arms) => match arms.iter().position(|arm| *arm == Avro::Null) {
                Some(null) if arms.len() == 2 => Root::RecordOrNull { null, record: group },
                _ => {
                    self.differences
                        .push("values are a union of one record alone".to_owned());
                    Root::Record(group)
                }
            },
            _ => Root::Record(group),
        }
    }

    /// Values that aren't records go to the column `value`.
    fn value(&mut self, targets: &[Target<'_>]) -> Root {
        let writer: &'c AvroSchema = self.writer;
        let newest: &'c AvroSchema = self.newest;
        let found = targets.iter().find(|target| target.path == [VALUE]);
        let Some(target) = found else {
            if self.dropped == Dropped::Refused && writer.root != Avro::Null {
                self.differences.push(format!(
                    "the table has no column `{VALUE}` for values that aren't records"
                ));
            }
            // Columns of other names are null, or say that they are required.
            self.sparse = true;
            return Root::Value {
                column: None,
                fill: Fill::Null,
            };
        };
        let fill = self.fill(VALUE, &writer.root, Some(&newest.root), target.field);
        // Columns beside it stay null.
        self.sparse = targets.len() > 1;
        Root::Value {
            column: Some(target.column),
            fill,
        }
    }

    /// The fields of a record at the root, or inside it where a column's `from` leads there.
    fn routed(
        &mut self,
        path: &str,
        fields: &'c [Field],
        reader: Option<&'c [Field]>,
        targets: &[Target<'_>],
        reserved: &[String],
    ) -> Group {
        let mut of_field: Vec<Vec<Target<'_>>> = fields.iter().map(|_| Vec::new()).collect();
        let mut absent = Vec::new();
        for target in targets {
            let Some((name, rest)) = target.path.split_first() else {
                continue;
            };
            match matching(name, fields, reader) {
                Some(at) => of_field[at].push(Target { path: rest, ..*target }),
                // What is inside a field that isn't there has no default of its own.
                None if rest.is_empty() => absent.push((target.column, self.absent(name, reader, target.field))),
                None => absent.push((target.column, Absent::Null)),
            }
        }
        let steps = fields.iter().zip(of_field).map(|(field, targets)| {
            let name = format!("{path}{}", field.name);
            let counterpart = counterpart(field, reader).map(|reader| &reader.of);
            let (here, below): (Vec<_>, Vec<_>) = targets.into_iter().partition(|target| target.path.is_empty());
            let step = match (here.as_slice(), below.is_empty()) {
                ([], true) => self.unplaced(&name, &field.of, reserved, path.is_empty()),
                ([target], true) => {
                    let fill = self.fill(&name, &field.of, counterpart, target.field);
                    Step::Into(target.column, fill)
                }
                _ => {
                    let into = here
                        .iter()
                        .map(|target| (target.column, self.fill(&name, &field.of, counterpart, target.field)));
                    let into = into.collect();
                    let inner = match below.is_empty() {
                        true => None,
                        false => Some(self.inner(&format!("{name}."), &field.of, counterpart, &below)),
                    };
                    Step::Route(Box::new(Route { into, inner }))
                }
            };
            (field.name.as_str().into(), step)
        });
        let steps = steps.collect();
        Group {
            steps,
            absent: absent.into(),
        }
    }

    /// The fields inside a field, for columns whose `from` leads there.
    fn inner(&mut self, path: &str, of: &'c Avro, reader: Reader<'c>, targets: &[Target<'_>]) -> Inner {
        let writer: &'c AvroSchema = self.writer;
        let newest: &'c AvroSchema = self.newest;
        let reader = reader.and_then(|of| newest.record(of)).map(|(_, fields)| fields);
        self.sparse = true;
        let Some((index, fields)) = writer.record(of) else {
            // No record, so none of its fields: their columns are null, or say that they are required.
            return Inner::None(of.clone());
        };
        self.inside.push(index);
        let mut group = self.routed(path, fields, reader, targets, &[]);
        self.inside.pop();
        // Found at the end of the record, where the whole field may be null.
        group.absent = group
            .absent
            .into_iter()
            .filter(|(_, absent)| !matches!(absent, Absent::Null))
            .collect();
        in_union(of, group)
    }

    /// `flatten`: the fields of a record, those of records inside it named `a_b`.
    fn flat(
        &mut self,
        prefix: &str,
        fields: &'c [Field],
        reader: Option<&'c [Field]>,
        targets: &[Target<'_>],
        reserved: &[String],
    ) -> Group {
        self.sparse = true;
        let mut absent = Vec::new();
        let steps = fields.iter().map(|field| {
            let name = format!("{prefix}{}", field.name);
            // The newest schema may call it otherwise.
            let newer = counterpart(field, reader);
            let now = newer.map(|newer| format!("{prefix}{}", newer.name));
            let of = newer.map(|newer| &newer.of);
            let step = self.flat_step(&name, now.as_deref(), &field.of, of, targets, reserved);
            (field.name.as_str().into(), step)
        });
        let steps: Box<[_]> = steps.collect();
        if prefix.is_empty() {
            let mut taken = vec![0; targets.len()];
            steps.iter().for_each(|(_, step)| count_targets(step, &mut taken));
            for target in targets {
                match taken[target.column] {
                    0 => {
                        let filled = self.absent(&target.path.join("_"), reader, target.field);
                        if !matches!(filled, Absent::Null) {
                            absent.push((target.column, filled));
                        }
                    }
                    1 => {}
                    times => self.differences.push(format!(
                        "{times} fields would be column `{}` with `nested: flatten`",
                        target.field.name
                    )),
                }
            }
        }
        Group {
            steps,
            absent: absent.into(),
        }
    }

    /// `flatten`: a value whose column would be called `name`, or `now` by the newest schema.
    fn flat_step(
        &mut self,
        name: &str,
        now: Option<&str>,
        of: &'c Avro,
        reader: Reader<'c>,
        targets: &[Target<'_>],
        reserved: &[String],
    ) -> Step {
        let writer: &'c AvroSchema = self.writer;
        let newest: &'c AvroSchema = self.newest;
        self.flat_fields += 1;
        if self.flat_fields > room::FLAT_FIELDS_MAX {
            if self.flat_fields == room::FLAT_FIELDS_MAX + 1 {
                self.differences.push(room::too_many_fields());
            }
            return Step::Skip {
                of: of.clone(),
                counted: false,
            };
        }
        let called = |name: &str| -> Vec<Target<'_>> {
            let lower = name.to_lowercase();
            let exact = targets.iter().any(|target| target.path.join("_") == name);
            let fits = |joined: String| match exact {
                true => joined == name,
                false => joined.to_lowercase() == lower,
            };
            targets
                .iter()
                .filter(|target| fits(target.path.join("_")))
                .copied()
                .collect()
        };
        let mut here = called(name);
        if let (true, Some(now)) = (here.is_empty(), now) {
            here = called(now);
        }
        let below = format!("{}_", now.unwrap_or(name)).to_lowercase();
        let further = targets
            .iter()
            .any(|target| target.path.join("_").to_lowercase().starts_with(&below));
        match here.as_slice() {
            [target] if !further => return Step::Into(target.column, self.fill(name, of, reader, target.field)),
            [] => {}
            _ if !further => {
                let into = here
                    .iter()
                    .map(|target| (target.column, self.fill(name, of, reader, target.field)));
                let into = into.collect();
                return Step::Route(Box::new(Route { into, inner: None }));
            }
            _ => {}
        }
        let prefix = format!("{}_", now.unwrap_or(name));
        let inner = match of {
            Avro::Union(arms) if writer.sole(arms).is_none() => {
                let names = avro::arm_names(writer, arms);
                let arms = arms
                    .iter()
                    .zip(names)
                    .map(|(arm, name)| self.flat_step(&format!("{prefix}{name}"), None, arm, None, targets, reserved));
                Inner::Arms(arms.collect())
            }
            _ => match writer.record(of) {
                Some((index, fields)) if !avro::as_text(&writer.named[index], index, &self.inside) => {
                    self.inside.push(index);
                    let reader = reader.and_then(|of| newest.record(of)).map(|(_, fields)| fields);
                    let group = self.flat(&prefix, fields, reader, targets, reserved);
                    self.inside.pop();
                    in_union(of, group)
                }
                _ if here.is_empty() => return self.unplaced(name, of, reserved, true),
                _ => Inner::None(of.clone()),
            },
        };
        let into = here
            .iter()
            .map(|target| (target.column, self.fill(name, of, reader, target.field)));
        Step::Route(Box::new(Route {
            into: into.collect(),
            inner: Some(inner),
        }))
    }

    /// The fields of a record that is a struct column.
    fn group(
        &mut self,
        path: &str,
        index: usize,
        fields: &'c [Field],
        reader: Option<&'c [Field]>,
        columns: &[Arc<NestedField>],
    ) -> Group {
        self.inside.push(index);
        let mut column_of: Vec<Option<usize>> = vec![None; fields.len()];
        let mut absent = Vec::new();
        for (at, column) in columns.iter().enumerate() {
            match matching(&column.name, fields, reader) {
                Some(field) if column_of[field].is_none() => column_of[field] = Some(at),
                _ => absent.push((at, self.absent(&column.name, reader, column))),
            }
        }
        let steps = fields.iter().zip(column_of).map(|(field, at)| {
            let name = format!("{path}.{}", field.name);
            let step = match at {
                Some(at) => {
                    let counterpart = counterpart(field, reader).map(|reader| &reader.of);
                    Step::Into(at, self.fill(&name, &field.of, counterpart, &columns[at]))
                }
                None => self.unplaced(&name, &field.of, &[], false),
            };
            (field.name.as_str().into(), step)
        });
        let steps = steps.collect();
        self.inside.pop();
        Group {
            steps,
            absent: absent.into(),
        }
    }

    fn unplaced(&mut self, name: &str, of: &Avro, reserved: &[String], top: bool) -> Step {
        let typeless = match of {
            Avro::Null => true,
            Avro::Union(arms) => arms.iter().all(|arm| *arm == Avro::Null),
            _ => false,
        };
        let ours = top && reserved.contains(&name.to_lowercase());
        if self.dropped == Dropped::Refused && !typeless && !ours {
            self.differences
                .push(format!("field `{name}` has no column in the table"));
        }
        Step::Skip {
            of: of.clone(),
            counted: self.dropped != Dropped::Ignored,
        }
    }

    fn absent(&mut self, name: &str, reader: Option<&'c [Field]>, column: &NestedField) -> Absent {
        let newest: &'c Arc<AvroSchema> = self.newest;
        let field = reader.and_then(|fields| named(name, fields)).map(|(_, field)| field);
        let Some((field, default)) = field.and_then(|field| Some((field, field.default.as_ref()?))) else {
            return Absent::Null;
        };
        let Ok(bytes) = avro::encode_default(newest, &field.of, default) else {
            // A default that doesn't fit its type is none.
            return Absent::Null;
        };
        let mut compiler = Compiler {
            writer: newest,
            newest,
            declared: self.declared,
            dropped: Dropped::Ignored,
            inside: Vec::new(),
            differences: Vec::new(),
            sparse: false,
            flat_fields: 0,
        };
        let fill = compiler.fill(name, &field.of, Some(&field.of), column);
        match compiler.differences.is_empty() && !matches!(bytes.as_slice(), []) {
            true => Absent::Default {
                bytes: bytes.into(),
                fill,
                schema: newest.clone(),
            },
            false => Absent::Null,
        }
    }

    /// How values of a type are read into a column; a difference where they can't.
    fn fill(&mut self, path: &str, of: &'c Avro, reader: Reader<'c>, column: &NestedField) -> Fill {
        if let Some(fill) = self.fitting(path, of, reader, &column.field_type) {
            return fill;
        }
        let wanted = avro_text(self.writer, of);
        let held = types::text(&column.field_type);
        let why = format!("column `{path}` is {held} in the table, but {wanted} in the schema");
        if !self.differences.contains(&why) {
            self.differences.push(why);
        }
        Fill::Null
    }

    fn fitting(&mut self, path: &str, of: &'c Avro, reader: Reader<'c>, column: &Type) -> Option<Fill> {
        let writer: &'c AvroSchema = self.writer;
        if let Avro::Union(arms) = of {
            return self.union(path, arms, reader, column);
        }
        let newest: &'c AvroSchema = self.newest;
        match (of, column) {
            (Avro::Null, _) => Some(Fill::Null),
            (Avro::Array(items), Type::List(list)) => {
                let reader = match reader.map(|of| through(newest, of)) {
                    Some(Avro::Array(items)) => Some(&**items),
                    _ => None,
                };
                let item = self.fill(&format!("{path}.element"), items, reader, &list.element_field);
                Some(Fill::List {
                    item: Box::new(item),
                    empty: writer.takes_no_bytes(items),
                    values: room::values(&list.element_field.field_type),
                })
            }
            (Avro::Map(values), Type::Map(map))
                if matches!(&*map.key_field.field_type, Type::Primitive(PrimitiveType::String)) =>
            {
                let reader = match reader.map(|of| through(newest, of)) {
                    Some(Avro::Map(values)) => Some(&**values),
                    _ => None,
                };
                let value = self.fill(&format!("{path}.value"), values, reader, &map.value_field);
                Some(Fill::Map {
                    value: Box::new(value),
                    values: 1 + room::values(&map.value_field.field_type),
                })
            }
            (Avro::Named(index), Type::Struct(columns)) => match &writer.named[*index].of {
                NamedType::Record(fields) => {
                    let reader = reader.and_then(|of| newest.record(of)).map(|(_, fields)| fields);
                    Some(Fill::Struct(self.group(path, *index, fields, reader, columns.fields())))
                }
                _ => self.arm(path, of, columns.fields()),
            },
            (of, Type::Struct(columns)) => self.arm(path, of, columns.fields()),
            (of, Type::Primitive(column)) => self.primitive(of, column),
            _ => None,
        }
    }

    /// A value into the field of a struct that was made for a union.
    fn arm(&mut self, path: &str, of: &'c Avro, columns: &[Arc<NestedField>]) -> Option<Fill> {
        let name = avro::type_name(self.writer, of);
        let at = columns.iter().position(|column| column.name == name)?;
        let fill = self.fill(&format!("{path}.{name}"), of, None, &columns[at]);
        Some(Fill::Arm(at, Box::new(fill)))
    }

    fn union(&mut self, path: &str, arms: &'c [Avro], reader: Reader<'c>, column: &Type) -> Option<Fill> {
        let writer: &'c AvroSchema = self.writer;
        if writer.sole(arms).is_some() || arms.iter().all(|arm| *arm == Avro::Null) {
            let arms = arms.iter().map(|arm| match arm {
                Avro::Null => Some(Fill::Null),
                arm => self.fitting(path, arm, reader, column),
            });
            return arms.collect::<Option<Box<[_]>>>().map(Fill::Union);
        }
        match column {
            Type::Struct(columns) => {
                let names = avro::arm_names(writer, arms);
                let arms = arms.iter().zip(&names).map(|(arm, name)| {
                    if *arm == Avro::Null {
                        return None;
                    }
                    let at = columns.fields().iter().position(|column| column.name == *name);
                    let Some(at) = at else {
                        if self.dropped == Dropped::Refused {
                            self.differences
                                .push(format!("`{path}.{name}` has no column in the table"));
                        }
                        return None;
                    };
                    Some((
                        at,
                        self.fill(&format!("{path}.{name}"), arm, None, &columns.fields()[at]),
                    ))
                });
                Some(Fill::Arms(arms.collect()))
            }
            Type::Primitive(PrimitiveType::String) if self.declared => Some(Fill::Text(Avro::Union(arms.to_vec()))),
            _ => None,
        }
    }

    fn primitive(&mut self, of: &'c Avro, column: &PrimitiveType) -> Option<Fill> {
        use PrimitiveType as P;
        let declared = self.declared;
        Some(match (of, column) {
            (Avro::Boolean, P::Boolean) => Fill::Boolean,
            (Avro::Int(IntAs::TimeMillis), P::Time) => Fill::TimeMillis,
            (Avro::Int(IntAs::Plain | IntAs::Date), P::Date) => Fill::Int,
            (Avro::Int(_), P::Int) => Fill::Int,
            (Avro::Int(_), P::Long) => Fill::IntToLong,
            (Avro::Int(_), P::Float) => Fill::IntToFloat,
            (Avro::Int(_), P::Double) => Fill::IntToDouble,
            (Avro::Int(IntAs::Plain) | Avro::Long(LongAs::Plain), P::Decimal { scale, .. }) if declared => {
                Fill::LongToDecimal(power(*scale)?)
            }
            (Avro::Long(LongAs::TimeMicros), P::Time) => Fill::TimeMicros,
            (Avro::Long(LongAs::Timestamp { unit, zoned: true }), P::Timestamptz | P::TimestamptzNs)
            | (Avro::Long(LongAs::Timestamp { unit, zoned: false }), P::Timestamp | P::TimestampNs) => {
                let nanos = matches!(column, P::TimestamptzNs | P::TimestampNs);
                match (unit, nanos) {
                    (TimeUnit::Micros, false) | (TimeUnit::Nanos, true) => Fill::Long,
                    (TimeUnit::Millis, false) | (TimeUnit::Micros, true) => Fill::Times(1000),
                    (TimeUnit::Millis, true) => Fill::Times(1_000_000),
                    (TimeUnit::Nanos, false) => Fill::Floor(1000),
                }
            }
            // Epoch milliseconds, as of a number in JSON.
            (Avro::Int(IntAs::Plain) | Avro::Long(LongAs::Plain), P::Timestamp | P::Timestamptz) if declared => {
                Fill::Times(1000)
            }
            (Avro::Long(_), P::Long) => Fill::Long,
            (Avro::Long(LongAs::Plain), P::Int) if declared => Fill::LongToInt,
            (Avro::Long(_), P::Float) => Fill::LongToFloat,
            (Avro::Long(_), P::Double) => Fill::LongToDouble,
            (Avro::Float, P::Float) => Fill::Float,
            (Avro::Float, P::Double) => Fill::FloatToDouble,
            (Avro::Double, P::Double) => Fill::Double,
            (Avro::Double, P::Float) if declared => Fill::DoubleToFloat,
            (Avro::Bytes(BytesAs::Decimal(of)), P::Decimal { scale, precision }) => {
                Fill::DecimalBytes(rescale(*of, *precision, *scale, declared)?)
            }
            (Avro::Bytes(BytesAs::Decimal(of)), P::String) if declared || of.precision > PRECISION_MAX => {
                Fill::Text(Avro::Bytes(BytesAs::Decimal(*of)))
            }
            (Avro::Bytes(BytesAs::Plain), P::Binary | P::String) => Fill::Bytes,
            (Avro::String(StringAs::Plain), P::String | P::Binary) => Fill::Bytes,
            (Avro::String(StringAs::Uuid), P::String) => Fill::Bytes,
            (Avro::String(StringAs::Uuid), P::Uuid) => Fill::Parsed,
            (Avro::String(_), P::Uuid | P::Date | P::Time | P::Timestamp | P::Timestamptz | P::Decimal { .. })
                if declared =>
            {
                Fill::Parsed
            }
            (Avro::Named(index), column) => return self.named(*index, column),
            (of, P::String) if declared => Fill::Text(of.clone()),
            _ => return None,
        })
    }

    fn named(&mut self, index: usize, column: &PrimitiveType) -> Option<Fill> {
        use PrimitiveType as P;
        let named = &self.writer.named[index];
        let declared = self.declared;
        Some(match (&named.of, column) {
            (NamedType::Enum(symbols), P::String) => Fill::Enum(bytes(symbols)),
            (NamedType::Enum(symbols), P::Date | P::Uuid | P::Decimal { .. }) if declared => {
                Fill::EnumParsed(bytes(symbols))
            }
            (NamedType::Fixed(size, FixedAs::Plain), P::Binary) if !avro::has_width(*size) => Fill::Fixed(*size),
            (NamedType::Fixed(0, _), P::Binary) => Fill::Fixed(0),
            (NamedType::Fixed(size, FixedAs::Decimal(of)), P::Decimal { scale, precision }) => {
                Fill::DecimalFixed(*size, rescale(*of, *precision, *scale, declared)?)
            }
            (NamedType::Fixed(_, FixedAs::Decimal(of)), P::String) if declared || of.precision > PRECISION_MAX => {
                Fill::Text(Avro::Named(index))
            }
            (NamedType::Fixed(_, FixedAs::Uuid), P::Uuid) => Fill::Fixed(16),
            (NamedType::Fixed(size, FixedAs::Plain), P::Fixed(width)) if *size as u64 == *width => Fill::Fixed(*size),
            (NamedType::Fixed(size, _), P::Binary) if declared => Fill::Fixed(*size),
            (NamedType::Record(_), P::String) if declared || avro::as_text(named, index, &self.inside) => {
                Fill::Text(Avro::Named(index))
            }
            (_, P::String) if declared => Fill::Text(Avro::Named(index)),
            _ => return None,
        })
    }
}

/// Wraps the plan of a record for the type that it is found in.
fn in_union(of: &Avro, group: Group) -> Inner {
    match of {
        Avro::Union(arms) => Inner::InUnion {
            record: arms.iter().position(|arm| *arm != Avro::Null).unwrap_or(usize::MAX),
            arms: arms.clone(),
            group,
        },
        _ => Inner::Record(group),
    }
}

/// Counts the fields that go to each column; of a union's arms one has a value.
fn count_targets(step: &Step, taken: &mut [usize]) {
    match step {
        Step::Into(at, _) => taken[*at] += 1,
        Step::Skip { .. } => {}
        Step::Route(route) => {
            route.into.iter().for_each(|(at, _)| taken[*at] += 1);
            match &route.inner {
                Some(Inner::Record(group) | Inner::InUnion { group, .. }) => {
                    group.steps.iter().for_each(|(_, step)| count_targets(step, taken));
                }
                Some(Inner::Arms(arms)) => arms.iter().for_each(|step| count_targets(step, taken)),
                Some(Inner::None(_)) | None => {}
            }
        }
    }
}

/// Finds the writer's field for a column's name.
fn matching(name: &str, fields: &[Field], reader: Option<&[Field]>) -> Option<usize> {
    let found = named(name, fields).map(|(at, _)| at);
    let found = found.or_else(|| {
        let reader = reader?;
        let (_, now) = named(name, reader)?;
        // A name that another field has now isn't a former one of this.
        let mut former = now
            .aliases
            .iter()
            .filter(|alias| reader.iter().all(|field| field.name != **alias));
        former.find_map(|alias| fields.iter().position(|field| field.name == *alias))
    });
    // A table that wasn't renamed with the schema.
    found.or_else(|| {
        fields
            .iter()
            .position(|field| field.aliases.iter().any(|alias| alias == name))
    })
}

/// Finds the field of a name, as it is written or else in letters of another case.
fn named<'f>(name: &str, fields: &'f [Field]) -> Option<(usize, &'f Field)> {
    let lower = name.to_lowercase();
    let exact = fields.iter().position(|field| field.name == name);
    let at = exact.or_else(|| fields.iter().position(|field| field.name.to_lowercase() == lower))?;
    Some((at, &fields[at]))
}

/// Finds the newest schema's field for one of the writer's, by its name or by an alias.
fn counterpart<'f>(field: &Field, reader: Option<&'f [Field]>) -> Option<&'f Field> {
    let reader = reader?;
    let exact = reader.iter().find(|other| other.name == field.name);
    exact.or_else(|| reader.iter().find(|other| other.aliases.contains(&field.name)))
}

/// Looks through a union of one type with null.
fn through<'f>(schema: &'f AvroSchema, of: &'f Avro) -> &'f Avro {
    match of {
        Avro::Union(arms) => schema.sole(arms).unwrap_or(of),
        of => of,
    }
}

fn rescale(of: Decimal, precision: u32, scale: u32, declared: bool) -> Option<Rescale> {
    let fits = of.scale == scale && of.precision <= precision;
    if !fits && !declared {
        return None;
    }
    Some(Rescale {
        times: power(scale.saturating_sub(of.scale))?,
        by: power(of.scale.saturating_sub(scale))?,
    })
}

fn power(scale: u32) -> Option<i128> {
    10i128.checked_pow(scale)
}

fn bytes(symbols: &[String]) -> Box<[Box<[u8]>]> {
    symbols.iter().map(|symbol| symbol.as_bytes().into()).collect()
}

/// Returns what a type is called to a person.
fn avro_text(schema: &AvroSchema, of: &Avro) -> String {
    match of {
        Avro::Int(IntAs::Date) => "date".to_owned(),
        Avro::Int(IntAs::TimeMillis) => "time-millis".to_owned(),
        Avro::Long(LongAs::TimeMicros) => "time-micros".to_owned(),
        Avro::Long(LongAs::Timestamp { unit, zoned }) => {
            let unit = match unit {
                TimeUnit::Millis => "millis",
                TimeUnit::Micros => "micros",
                TimeUnit::Nanos => "nanos",
            };
            format!("{}timestamp-{unit}", if *zoned { "" } else { "local-" })
        }
        Avro::Bytes(BytesAs::Decimal(Decimal { precision, scale })) => format!("decimal({precision}, {scale})"),
        Avro::String(StringAs::Uuid) => "uuid".to_owned(),
        Avro::Union(arms) if schema.sole(arms).is_some() => avro_text(schema, schema.sole(arms).unwrap_or(of)),
        Avro::Union(arms) => {
            let arms: Vec<_> = arms.iter().map(|arm| avro_text(schema, arm)).collect();
            format!("[{}]", arms.join(", "))
        }
        Avro::Named(index) => {
            let named = &schema.named[*index];
            let kind = match &named.of {
                NamedType::Record(_) => "record",
                NamedType::Enum(_) => "enum",
                NamedType::Fixed(_, FixedAs::Decimal(of)) => {
                    return format!("decimal({}, {})", of.precision, of.scale);
                }
                NamedType::Fixed(..) => "fixed",
            };
            format!("{kind} {}", named.name)
        }
        of => avro::type_name(schema, of).to_owned(),
    }
}
