//! `aperio sync-points reset`: shows what moving the offsets does, asks, and moves them.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

use super::super::output::{Columns, counted, grouped, say};
use super::super::run::{chosen, span};
use super::super::{Refused, block_on};
use crate::config;
use crate::error::{Exit, Failure};
use crate::offsets::{Offset, Partition};
use crate::shell::reset::{Preview, Target};
use crate::table::admit::Source;
use crate::table::admit::reset::Move;
use crate::units::Millis;

/// The arguments of `aperio sync-points reset`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ResetArgs {
    /// The pipeline file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The table whose offsets are moved
    #[arg(long, value_name = "NAME")]
    table: String,
    /// Where to: earliest, latest, a time as 2024-01-01T00:00:00Z (of Kafka's record timestamps), an offset, or group:NAME
    #[arg(long, value_name = "WHERE", value_parser = target)]
    to: Target,
    /// Only this partition; may be repeated
    #[arg(long = "partition", value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Don't ask
    #[arg(long)]
    yes: bool,
    /// How long something remote may be down before the command gives up
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = span)]
    retry_for: Millis,
}

pub(in crate::cli) fn run(args: ResetArgs) -> Result<u8, Refused> {
    let mut pipelines = chosen(config::load(&[args.file])?, std::slice::from_ref(&args.table))?;
    let pipeline = pipelines.pop().expect("a name that no table has was refused");
    if let Some(other) = pipelines.pop() {
        let what = format!("`{}` names several tables", args.table);
        let hint = format!("write `{}` or `{}`", other.full_name(), pipeline.full_name());
        return Err(Failure::new(Exit::Config, what).hint(hint).into());
    }
    let title = format!(
        "{} from topic {}, group {}",
        pipeline.full_name(),
        pipeline.source.topic,
        pipeline.source.group
    );
    let name = pipeline.full_name();
    let partitions: Vec<_> = args.partitions.into_iter().map(Partition).collect();
    block_on(async move {
        let preview = Preview::make(pipeline, &args.to, &partitions, args.retry_for).await?;
        if preview.is_empty() {
            say(&format!(
                "{title}\nnothing to move: the table holds these offsets already"
            ));
            return Ok(Exit::Done as u8);
        }
        say(&format!("{title}\n{}", text(&preview)));
        if !args.yes && !agreed(&name)? {
            say("nothing was changed");
            return Ok(Exit::Done as u8);
        }
        let snapshot = preview.commit().await?;
        let snapshot = snapshot.map_or(String::new(), |id| format!(" by snapshot {id}"));
        say(&format!("moved{snapshot}; the next run reads on from there"));
        Ok(Exit::Done as u8)
    })?
    .map_err(|failure: Failure| failure.into())
}

/// Asks on the terminal.
///
/// # Errors
/// Exit code 2 where there is none.
fn agreed(table: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        let what = format!("nobody can be asked whether the offsets of `{table}` should be moved");
        return Err(Failure::new(Exit::Config, what)
            .detail("standard input is no terminal; nothing was changed")
            .hint("if the above is what you want, run it again with `--yes`"));
    }
    // The question goes where the terminal is looked at, also when the preview is piped away.
    let mut terminal = std::io::stderr().lock();
    let _ = write!(terminal, "Move the offsets of `{table}`? [y/N] ").and_then(|()| terminal.flush());
    let mut answer = String::new();
    // What can't be read is no consent.
    let _ = std::io::stdin().lock().read_line(&mut answer);
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn text(preview: &Preview) -> String {
    let reset = &preview.reset;
    let mut columns = Columns::new(&[">partition", ">from", ">to", "records"]);
    for (partition, found) in &reset.moves {
        columns.row(vec![
            partition.to_string(),
            found.from.map_or("-".to_owned(), |from| from.to_string()),
            found.to.to_string(),
            effect(found),
        ]);
    }
    let mut lines = vec![columns.text(2)];
    let sum = |of: fn(&Move) -> u64| reset.moves.values().map(of).sum::<u64>();
    let (doubled, skipped) = (sum(|found| found.doubled), sum(|found| found.skipped));
    for (count, what) in [(doubled, "in the table twice"), (skipped, "skipped")] {
        if count > 0 {
            lines.push(format!("in all up to {} will be {what}", counted(count, "record")));
        }
    }
    if let Some(other) = &preview.other_source {
        lines.push(format!(
            "note: the offsets in the table are those of another topic ({}); its rows stay, and it is read on from {}",
            named(other),
            named(&preview.source)
        ));
    }
    if let Some(problem) = &preview.problem {
        lines.push(format!(
            "note: what the table holds isn't known, so these numbers leave out what of it is read again: {problem}"
        ));
    }
    if doubled > 0 {
        lines.push("note: dead letters that are stored aren't stored twice".to_owned());
    }
    match preview.members {
        None | Some(0) => {}
        Some(count) => lines.push(format!(
            "note: {} of the group {} at work; its next commit is refused, and it reads on from the new offsets within a minute",
            counted(count as u64, "member"),
            if count == 1 { "is" } else { "are" }
        )),
    }
    lines.join("\n")
}

fn effect(found: &Move) -> String {
    match (found.doubled, found.skipped) {
        (0, 0) => "none".to_owned(),
        (doubled, 0) => format!("{} read again", grouped(doubled)),
        (_, skipped) => format!("{} skipped", grouped(skipped)),
    }
}

fn named(source: &Source) -> String {
    let mut text = format!("`{}`", source.topic);
    if let Some(id) = &source.topic_id {
        text.push_str(&format!(" with id {id}"));
    }
    if let Some(cluster) = &source.cluster_id {
        text.push_str(&format!(" in cluster {cluster}"));
    }
    text
}

fn target(text: &str) -> Result<Target, String> {
    let wrong = || {
        "write `earliest`, `latest`, a time with its zone like `2024-01-01T00:00:00Z`, an offset, or `group:NAME`"
            .to_owned()
    };
    match text.trim() {
        "earliest" => Ok(Target::Earliest),
        "latest" => Ok(Target::Latest),
        text => match (text.strip_prefix("group:"), text.parse::<i64>()) {
            (Some(""), _) => Err(wrong()),
            (Some(group), _) => Ok(Target::Group(group.to_owned())),
            (None, Ok(offset)) if offset >= 0 => Ok(Target::Offset(Offset::new(offset))),
            (None, _) => {
                let time = chrono::DateTime::parse_from_rfc3339(text).map_err(|_| wrong())?;
                Ok(Target::Timestamp(Millis(time.timestamp_millis())))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_where_is_read() {
        let check = |text: &str, expect: Option<Target>| assert_eq!(target(text).ok(), expect, "{text}");
        check("earliest", Some(Target::Earliest));
        check("latest", Some(Target::Latest));
        check("0", Some(Target::Offset(Offset::ZERO)));
        check("8812", Some(Target::Offset(Offset::new(8812))));
        check("group:other-app", Some(Target::Group("other-app".into())));
        check("1970-01-01T00:00:01Z", Some(Target::Timestamp(Millis(1_000))));
        check("1970-01-01T01:00:01+01:00", Some(Target::Timestamp(Millis(1_000))));
        for wrong in ["", "-1", "group:", "Earliest", "2024-01-01", "99999999999999999999"] {
            check(wrong, None);
        }
    }

    #[test]
    fn an_effect_is_told_in_a_few_words() {
        let told = |doubled, skipped| {
            let (from, to) = (None, Offset::ZERO);
            effect(&Move {
                from,
                to,
                doubled,
                skipped,
            })
        };
        assert_eq!(
            [told(0, 0), told(1_200, 0), told(0, 7)],
            ["none", "1,200 read again", "7 skipped"]
        );
    }
}
