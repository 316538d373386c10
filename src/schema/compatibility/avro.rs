//! Avro: schema resolution, decided for all values at once.
//!
//! Logical types are looked past, as the specification has it, but where both schemas have one and the same number would mean
//! something else: a scale, a unit, a moment or a time on the wall's clock. A decimal may get more digits of the same scale: its
//! bytes stay the same.
//!
//! Source: Apache Avro 1.12 specification, "Schema Resolution", "Aliases", "Logical Types". Names match without their
//! namespace, as they do there and in Java's `SchemaCompatibility`; an alias is a full name.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{Misfit, Rule};
use crate::schema::avro::{
    Avro, AvroSchema, BytesAs, Decimal, Field, FixedAs, IntAs, LongAs, Named, NamedType, StringAs, TimeUnit,
    encode_default, type_name,
};

/// Returns why a schema can't read all that another one wrote.
pub(super) fn misfits(reader: &AvroSchema, writer: &AvroSchema) -> Vec<Misfit> {
    let mut pairs = Pairs {
        reader,
        writer,
        fit: HashMap::new(),
        told: None,
    };
    pairs.settle();
    let mut misfits = Vec::new();
    pairs.told = Some(Told::default());
    pairs.check(&reader.root, &writer.root, "$", &mut misfits);
    // Ends: each pair is pending once.
    while let Some((pair, path)) = pairs.told.as_mut().and_then(|told| told.pending.pop_front()) {
        pairs.named(pair, &path, &mut misfits);
    }
    misfits
}

/// Returns the defaults that aren't of their type, each with its place.
pub(super) fn faults(schema: &AvroSchema) -> Vec<String> {
    let mut faults = Vec::new();
    for named in &schema.named {
        match &named.of {
            NamedType::Record(fields) => {
                for field in fields {
                    let Some(default) = &field.default else { continue };
                    if encode_default(schema, &field.of, default).is_err() {
                        faults.push(format!(
                            "field `{}` of `{}`: the default `{default}` is no {}",
                            field.name,
                            named.name,
                            shown(schema, &field.of)
                        ));
                    }
                }
            }
            NamedType::Enum(symbols) => {
                if let Some(default) = named.default.as_ref().filter(|default| !symbols.contains(default)) {
                    faults.push(format!(
                        "enum `{}`: the default `{default}` is none of its symbols",
                        named.name
                    ));
                }
            }
            NamedType::Fixed(..) => {}
        }
    }
    faults
}

/// What is known of pairs of named types, which may hold themselves: the largest set of pairs that fit each other.
struct Pairs<'a> {
    reader: &'a AvroSchema,
    writer: &'a AvroSchema,
    /// By the indexes of the reader's and the writer's type; taken to fit until it shows that they don't.
    fit: HashMap<(usize, usize), bool>,
    /// Once reasons are asked for; before, each pair is what `fit` says.
    told: Option<Told>,
}

/// Pairs whose reasons are told once, not at each place.
#[derive(Default)]
struct Told {
    seen: HashSet<(usize, usize)>,
    /// With the first place of each.
    pending: VecDeque<((usize, usize), String)>,
}

impl<'a> Pairs<'a> {
    /// Finds every pair, and takes out those that don't fit until the others agree.
    fn settle(&mut self) {
        let (reader, writer) = (self.reader, self.writer);
        self.check(&reader.root, &writer.root, "$", &mut Vec::new());
        // Ends: a pair is added once and taken out once.
        loop {
            let fitting: Vec<_> = self
                .fit
                .iter()
                .filter(|(_, fit)| **fit)
                .map(|(pair, _)| *pair)
                .collect();
            let (before, known) = (fitting.len(), self.fit.len());
            for pair in fitting {
                let mut misfits = Vec::new();
                self.named(pair, "$", &mut misfits);
                if !misfits.is_empty() {
                    self.fit.insert(pair, false);
                }
            }
            let left = self.fit.values().filter(|fit| **fit).count();
            // None was taken out. One that was added since would be one more.
            if left == before && known == self.fit.len() {
                return;
            }
        }
    }

    /// Says whether all values of a type can be read as another one, by what is known of named types.
    fn fits(&mut self, reader: &Avro, writer: &Avro) -> bool {
        let told = self.told.take();
        let mut misfits = Vec::new();
        self.check(reader, writer, "$", &mut misfits);
        self.told = told;
        misfits.is_empty()
    }

    fn check(&mut self, reader: &Avro, writer: &Avro, path: &str, out: &mut Vec<Misfit>) {
        let rule = match (reader, writer) {
            (_, Avro::Union(arms)) => return self.each_arm(reader, arms, path, out),
            (Avro::Union(arms), _) => return self.some_arm(arms, writer, path, out),
            (Avro::Array(reader), Avro::Array(writer)) => {
                return self.check(reader, writer, &format!("{path}[*]"), out);
            }
            (Avro::Map(reader), Avro::Map(writer)) => return self.check(reader, writer, &format!("{path}.*"), out),
            (Avro::Named(reader), Avro::Named(writer)) => {
                let pair = (*reader, *writer);
                match &mut self.told {
                    Some(told) => {
                        if told.seen.insert(pair) {
                            told.pending.push_back((pair, path.to_owned()));
                        }
                        return;
                    }
                    None if *self.fit.entry(pair).or_insert(true) => return,
                    None => Some(Rule::Type),
                }
            }
            (reader, writer) => value(reader, writer),
        };
        if let Some(rule) = rule {
            out.push(Misfit {
                path: path.to_owned(),
                rule,
                reader: shown(self.reader, reader),
                writer: shown(self.writer, writer),
            });
        }
    }

    /// Checks that every arm of a writer's union can be read.
    fn each_arm(&mut self, reader: &Avro, arms: &[Avro], path: &str, out: &mut Vec<Misfit>) {
        for arm in arms {
            if self.fits(reader, arm) {
                continue;
            }
            if self.alike(reader, arm) || matches!(reader, Avro::Union(_)) {
                self.check(reader, arm, path, out);
                continue;
            }
            out.push(Misfit {
                path: path.to_owned(),
                rule: Rule::Union,
                reader: shown(self.reader, reader),
                writer: format!("{}, one type of a union,", shown(self.writer, arm)),
            });
        }
    }

    /// Checks that an arm of the reader's union takes what was written.
    fn some_arm(&mut self, arms: &[Avro], writer: &Avro, path: &str, out: &mut Vec<Misfit>) {
        if arms.iter().any(|arm| self.fits(arm, writer)) {
            return;
        }
        // One that was meant says more than that there is none.
        if let Some(arm) = arms.iter().find(|arm| self.alike(arm, writer)) {
            return self.check(arm, writer, path, out);
        }
        let arms: Vec<_> = arms.iter().map(|arm| shown(self.reader, arm)).collect();
        out.push(Misfit {
            path: path.to_owned(),
            rule: Rule::Union,
            reader: format!("a union of {}", arms.join(", ")),
            writer: shown(self.writer, writer),
        });
    }

    /// Says whether two types differ inside only, if they do.
    fn alike(&self, reader: &Avro, writer: &Avro) -> bool {
        match (reader, writer) {
            (Avro::Named(reader), Avro::Named(writer)) => {
                let (reader, writer) = (&self.reader.named[*reader], &self.writer.named[*writer]);
                std::mem::discriminant(&reader.of) == std::mem::discriminant(&writer.of) && called_alike(reader, writer)
            }
            _ => std::mem::discriminant(reader) == std::mem::discriminant(writer),
        }
    }

    fn named(&mut self, pair: (usize, usize), path: &str, out: &mut Vec<Misfit>) {
        let (reader, writer): (&'a Named, &'a Named) = (&self.reader.named[pair.0], &self.writer.named[pair.1]);
        let mut misfit = |rule, reader: String, writer: String| {
            out.push(Misfit {
                path: path.to_owned(),
                rule,
                reader,
                writer,
            });
        };
        if std::mem::discriminant(&reader.of) != std::mem::discriminant(&writer.of) {
            return misfit(Rule::Type, named_shown(reader), named_shown(writer));
        }
        if !called_alike(reader, writer) {
            return misfit(Rule::Name, named_shown(reader), named_shown(writer));
        }
        match (&reader.of, &writer.of) {
            (NamedType::Enum(known), NamedType::Enum(written)) => {
                let unknown: Vec<_> = written.iter().filter(|symbol| !known.contains(symbol)).collect();
                if !unknown.is_empty() && reader.default.as_ref().is_none_or(|default| !known.contains(default)) {
                    let unknown: Vec<_> = unknown.iter().map(|symbol| format!("`{symbol}`")).collect();
                    let unknown = unknown.join(", ");
                    misfit(Rule::Symbols, format!("no symbol {unknown}"), unknown);
                }
            }
            (NamedType::Fixed(size, of), NamedType::Fixed(written, as_written)) => {
                if size != written {
                    return misfit(Rule::Size, format!("{size} bytes"), format!("{written} bytes"));
                }
                match (of, as_written) {
                    (FixedAs::Decimal(of), FixedAs::Decimal(written)) if !takes(*of, *written) => {
                        misfit(Rule::Decimal, decimal_shown(*of), decimal_shown(*written));
                    }
                    (FixedAs::Decimal(_), FixedAs::Uuid) | (FixedAs::Uuid, FixedAs::Decimal(_)) => {
                        misfit(Rule::Meaning, named_shown(reader), named_shown(writer));
                    }
                    _ => {}
                }
            }
            (NamedType::Record(fields), NamedType::Record(written)) => {
                for field in fields {
                    self.field(field, written, &format!("{path}.{}", field.name), out);
                }
            }
            _ => {}
        }
    }

    fn field(&mut self, field: &Field, written: &[Field], path: &str, out: &mut Vec<Misfit>) {
        let called = |name: &String| written.iter().find(|written| written.name == *name);
        if let Some(written) = called(&field.name).or_else(|| field.aliases.iter().find_map(called)) {
            return self.check(&field.of, &written.of, path, out);
        }
        let of = shown(self.reader, &field.of);
        let (rule, reader) = match &field.default {
            None => (Rule::Default, format!("{of} without a default")),
            Some(default) if encode_default(self.reader, &field.of, default).is_err() => {
                (Rule::DefaultValue, format!("{of} with the default `{default}`"))
            }
            Some(_) => return,
        };
        out.push(Misfit {
            path: path.to_owned(),
            rule,
            reader,
            writer: "no such field".to_owned(),
        });
    }
}

fn called_alike(reader: &Named, writer: &Named) -> bool {
    reader.simple_name() == writer.simple_name() || reader.aliases.contains(&writer.name)
}

/// Returns the rule that types without inner types break, if they do.
fn value(reader: &Avro, writer: &Avro) -> Option<Rule> {
    let kept = |kept: bool| (!kept).then_some(Rule::Meaning);
    match (reader, writer) {
        (Avro::Null, Avro::Null) | (Avro::Boolean, Avro::Boolean) => None,
        (Avro::Int(reader), Avro::Int(writer)) => {
            kept(reader == writer || *reader == IntAs::Plain || *writer == IntAs::Plain)
        }
        (Avro::Long(reader), Avro::Int(writer)) => kept(*reader == LongAs::Plain || *writer == IntAs::Plain),
        (Avro::Long(reader), Avro::Long(writer)) => {
            kept(reader == writer || *reader == LongAs::Plain || *writer == LongAs::Plain)
        }
        (Avro::Float, Avro::Int(_) | Avro::Long(_) | Avro::Float) => None,
        (Avro::Double, Avro::Int(_) | Avro::Long(_) | Avro::Float | Avro::Double) => None,
        (Avro::Bytes(BytesAs::Decimal(reader)), Avro::Bytes(BytesAs::Decimal(writer))) => {
            (!takes(*reader, *writer)).then_some(Rule::Decimal)
        }
        (Avro::Bytes(_), Avro::Bytes(_)) | (Avro::String(_), Avro::String(_)) => None,
        (Avro::Bytes(of), Avro::String(_)) | (Avro::String(_), Avro::Bytes(of)) => kept(*of == BytesAs::Plain),
        _ => Some(Rule::Type),
    }
}

fn takes(reader: Decimal, writer: Decimal) -> bool {
    reader.scale == writer.scale && reader.precision >= writer.precision
}

/// Returns what a type is called to a person.
fn shown(schema: &AvroSchema, of: &Avro) -> String {
    let logical = match of {
        Avro::Named(index) => return named_shown(&schema.named[*index]),
        Avro::Union(arms) => {
            let arms: Vec<_> = arms.iter().map(|arm| shown(schema, arm)).collect();
            return format!("a union of {}", arms.join(", "));
        }
        Avro::Bytes(BytesAs::Decimal(decimal)) => return decimal_shown(*decimal),
        Avro::Int(IntAs::Date) => "date",
        Avro::Int(IntAs::TimeMillis) => "time-millis",
        Avro::Long(LongAs::TimeMicros) => "time-micros",
        Avro::Long(LongAs::Timestamp { unit, zoned }) => match (unit, zoned) {
            (TimeUnit::Millis, true) => "timestamp-millis",
            (TimeUnit::Micros, true) => "timestamp-micros",
            (TimeUnit::Nanos, true) => "timestamp-nanos",
            (TimeUnit::Millis, false) => "local-timestamp-millis",
            (TimeUnit::Micros, false) => "local-timestamp-micros",
            (TimeUnit::Nanos, false) => "local-timestamp-nanos",
        },
        Avro::String(StringAs::Uuid) => "uuid",
        plain => return format!("`{}`", type_name(schema, plain)),
    };
    format!("`{}` ({logical})", type_name(schema, of))
}

fn named_shown(of: &Named) -> String {
    let kind = match &of.of {
        NamedType::Record(_) => "record",
        NamedType::Enum(_) => "enum",
        NamedType::Fixed(..) => "fixed",
    };
    format!("{kind} `{}`", of.name)
}

fn decimal_shown(of: Decimal) -> String {
    format!("decimal({}, {})", of.precision, of.scale)
}
