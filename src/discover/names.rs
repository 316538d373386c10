//! Which topics are looked at, and what their tables are called.

use std::collections::HashSet;

/// The longest name of a table: with `_dead_letters` behind it, it is still a directory's, which may have 255 bytes.
const TABLE_BYTES_MAX: usize = 200;

/// The topics that are looked at, and those that aren't unless they are named.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Looked at, in the order of their names.
    pub taken: Vec<String>,
    /// Left out, and why.
    pub left_out: Vec<(String, &'static str)>,
}

/// Chooses among topics.
///
/// - `topics`: all there are; `patterns`: names, in which `*` stands for any characters and `?` for one. Without patterns all
///   are taken but those that a platform or a program keeps for itself, and dead letters.
///
/// # Errors
/// The pattern that no topic matches.
pub fn select(topics: &[String], patterns: &[String]) -> Result<Selection, String> {
    let mut selection = Selection::default();
    let unmatched = |pattern: &&String| !topics.iter().any(|topic| matches(pattern, topic));
    if let Some(pattern) = patterns.iter().find(unmatched) {
        return Err(pattern.clone());
    }
    for topic in topics {
        if patterns.iter().any(|pattern| matches(pattern, topic)) {
            selection.taken.push(topic.clone());
        } else if patterns.is_empty() {
            match kept_for(topic) {
                Some(why) => selection.left_out.push((topic.clone(), why)),
                None => selection.taken.push(topic.clone()),
            }
        }
    }
    selection.taken.sort_unstable();
    Ok(selection)
}

/// Says why nobody wants a table of a topic, by its name.
fn kept_for(topic: &str) -> Option<&'static str> {
    let lower = topic.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let dead = words
        .iter()
        .any(|word| matches!(*word, "dlq" | "dlt" | "deadletter" | "deadletters"))
        || words
            .windows(2)
            .any(|pair| pair[0] == "dead" && matches!(pair[1], "letter" | "letters"));
    if lower.starts_with("__") {
        return Some("Kafka's own");
    }
    if lower == "_schemas" || lower.starts_with("_confluent") {
        return Some("the platform's own");
    }
    if matches!(lower.as_str(), "connect-configs" | "connect-offsets" | "connect-status") {
        return Some("Kafka Connect's own");
    }
    if lower.ends_with("-changelog") || lower.ends_with("-repartition") {
        return Some("of a Kafka Streams application");
    }
    dead.then_some("dead letters")
}

/// Says whether a text is what a pattern stands for. Takes at most the product of their lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where to go on if what follows the last `*` doesn't match: behind it, and one character later.
    let mut again: Option<(usize, usize)> = None;
    // Ends: `from` grows, or goes back to a place that is later each time.
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                again = Some((at, from));
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((behind, start)) = again else { return false };
                (at, from) = (behind, start + 1);
                again = Some((behind, start + 1));
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// Names the tables of topics, in their order: words in lower case with `_` between them, each name once, and none that
/// another table's dead letters have.
pub fn tables<'a>(topics: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut taken = HashSet::new();
    let letters = |name: &str| format!("{name}_dead_letters");
    let table = |topic: &str| {
        let plain = identifier(topic);
        let numbered = (2..).map(|number| format!("{plain}_{number}"));
        let mut candidates = std::iter::once(plain.clone()).chain(numbered);
        // Ends: only finitely many are taken.
        let name = candidates
            .find(|name| !taken.contains(name) && !taken.contains(&letters(name)))
            .expect("numbers don't end");
        taken.insert(letters(&name));
        taken.insert(name.clone());
        name
    };
    topics.into_iter().map(table).collect()
}

/// What engines take for a name without quotes: `[a-z_][a-z0-9_]*`.
fn identifier(topic: &str) -> String {
    let mut name = String::with_capacity(topic.len());
    let mut before = ' ';
    for c in topic.chars() {
        let word_starts = c.is_ascii_uppercase() && (before.is_ascii_lowercase() || before.is_ascii_digit());
        let apart = word_starts || !c.is_ascii_alphanumeric();
        if apart && !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    name.truncate(TABLE_BYTES_MAX);
    let name = name.trim_end_matches('_');
    match name.chars().next() {
        None => "topic".to_owned(),
        Some(first) if first.is_ascii_digit() => format!("topic_{name}"),
        Some(_) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(topics: &[&str], patterns: &[&str]) -> Result<Selection, String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        select(&owned(topics), &owned(patterns))
    }

    #[test]
    fn what_programs_keep_for_themselves_is_left_out_unless_it_is_named() {
        let topics = [
            "orders",
            "_schemas",
            "orders.DLQ",
            "a-dead-letters",
            "x-changelog",
            "__consumer_offsets",
            "dead-pool",
            "connect-status",
        ];
        let found = chosen(&topics, &[]).expect("no pattern");
        assert_eq!(found.taken, ["dead-pool", "orders"]);
        let left: Vec<&str> = found.left_out.iter().map(|(_, why)| *why).collect();
        let expect = [
            "the platform's own",
            "dead letters",
            "dead letters",
            "of a Kafka Streams application",
            "Kafka's own",
            "Kafka Connect's own",
        ];
        assert_eq!(left, expect);
        let found = chosen(&topics, &["orders*"]).expect("it matches");
        assert_eq!(
            (found.taken, found.left_out),
            (vec!["orders".to_owned(), "orders.DLQ".to_owned()], vec![])
        );
        assert_eq!(chosen(&topics, &["orders", "ordr*"]), Err("ordr*".to_owned()));
        assert_eq!(chosen(&[], &[]), Ok(Selection::default()));
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, text, expect) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "a", true),
            ("*.v?", "orders.v2", true),
            ("*.v?", "orders.v", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbXbcd", false),
            ("?", "", false),
        ] {
            assert_eq!(matches(pattern, text), expect, "{pattern} {text}");
        }
        let (pattern, text) = ("*a".repeat(100), "a".repeat(99));
        assert!(!matches(&pattern, &text));
    }

    #[test]
    fn tables_have_names_that_engines_take() {
        for (topic, expect) in [
            ("orders", "orders"),
            ("shop.orders-v1", "shop_orders_v1"),
            ("UserEvents", "user_events"),
            ("ACMEOrders2Go", "acmeorders2_go"),
            ("-", "topic"),
            ("..a..b..", "a_b"),
            ("2024-events", "topic_2024_events"),
            ("_x_", "x"),
        ] {
            assert_eq!(identifier(topic), expect);
        }
        let topics = [
            "a.b",
            "a-b",
            "a_b_2",
            "orders",
            "orders-dead-letters",
            "x_dead_letters",
            "x",
        ];
        let expect = [
            "a_b",
            "a_b_2",
            "a_b_2_2",
            "orders",
            "orders_dead_letters_2",
            "x_dead_letters",
            "x_2",
        ];
        assert_eq!(tables(topics), expect);
    }
}
