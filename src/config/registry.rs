//! Resolves `schemaRegistry`: where the registry is, who we are to it, and which subjects are meant.

use std::collections::BTreeSet;
use std::path::Path;

use url::Url;

use super::choices::SubjectStrategy;
use super::file::{Registry, RegistryEntry};
use super::names::{absolute, required};
use super::pipeline::{RegistryAuth, RegistryConfig, SubjectNaming};
use super::problem::{Problem, did_you_mean};
use super::report::Report;
use super::secret::Secret;
use super::tree::{self, Surroundings};

const URL_HINT: &str = "write it like `http://registry:8081`, or several separated by commas";

/// Resolves `schemaRegistry`; `at` is its path.
pub(super) fn registry(entry: Registry, at: &str, directory: &Path, report: &mut Report<'_>) -> RegistryConfig {
    let (entry, url_at) = match entry {
        Registry::Url(url) => (
            RegistryEntry {
                url: Some(url),
                ..RegistryEntry::default()
            },
            at.to_owned(),
        ),
        Registry::Full(entry) => (*entry, format!("{at}.url")),
    };
    let (urls, named) = match entry.url {
        Some(url) if url_at == at || !url.trim().is_empty() => addresses(&url, &url_at, report),
        url => {
            required(url, at, "url", report);
            (vec![], None)
        }
    };
    let auth = auth(entry.username, entry.password, entry.token, named, at, report);
    let file = |path: Option<String>| path.map(|path| absolute(&path, directory));
    let config = RegistryConfig {
        auth,
        ca: file(entry.ca),
        cert: file(entry.cert),
        key: file(entry.key),
        subject: subject(entry.subject_strategy, entry.subject, at, report),
        urls,
    };
    check_files(&config, at, report);
    config
}

/// Keys of `schemaRegistry` that are about access, besides `url`.
const ACCESS_KEYS: [&str; 6] = ["username", "password", "token", "ca", "cert", "key"];

/// Reads a registry from an address and some keys; see [`registry_access`](super::registry_access).
pub(super) fn access(
    url: &str,
    keys: &[(String, String)],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<RegistryConfig, Vec<Problem>> {
    // No file: where problems are told the path alone says what is meant.
    let (file, at) = (Path::new("command line"), "schemaRegistry");
    let directory = std::env::current_dir().unwrap_or_default();
    let mut written = serde_json::Map::from_iter([("url".to_owned(), url.into())]);
    let mut unknown = Vec::new();
    for (key, value) in keys {
        match ACCESS_KEYS.contains(&key.as_str()) {
            true => drop(written.insert(key.clone(), value.as_str().into())),
            false => unknown.push(key),
        }
    }
    // JSON is YAML.
    let text = serde_json::json!({at: written}).to_string();
    let around = Surroundings {
        variable,
        directory: &directory,
    };
    let mut problems = Vec::new();
    let root = tree::parse(file, &text, &around, &mut problems);
    if let (Some(root), true) = (root, problems.is_empty()) {
        let mut report = Report::new(file, &root, BTreeSet::new());
        for key in unknown {
            let hint = did_you_mean(key, ACCESS_KEYS).unwrap_or_else(|| format!("it takes {}", ACCESS_KEYS.join(", ")));
            report.add(&format!("{at}.{key}"), "is no such key", Some(&hint));
        }
        let entry: Result<RegistryEntry, _> = serde_json::from_value(root.to_json()[at].clone());
        match entry {
            Ok(entry) => {
                let config = registry(Registry::Full(Box::new(entry)), at, &directory, &mut report);
                problems = report.into_problems();
                if problems.is_empty() {
                    return Ok(config);
                }
            }
            // Not serde's own text, which may quote a secret.
            Err(_) => {
                report.add(at, "holds something that is no text", None);
                problems = report.into_problems();
            }
        }
    }
    Err(problems)
}

/// Takes the addresses apart, and the user out of them.
fn addresses(text: &str, at: &str, report: &mut Report<'_>) -> (Vec<String>, Option<RegistryAuth>) {
    let mut urls = Vec::new();
    let mut users: Vec<RegistryAuth> = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        if part.is_empty() {
            report.add(at, "has an empty entry", Some(URL_HINT));
            continue;
        }
        let url = Url::parse(part).ok();
        // `http://user:12/34@host` is read as a port and a path; nothing of a password may go on as an address.
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && !url.path().contains('@'));
        // Neither the address nor the parser's words are shown: a password may be in both.
        let Some(mut url) = url else {
            report.add(at, "is not an HTTP address", Some(URL_HINT));
            continue;
        };
        if url.query().is_some() || url.fragment().is_some() {
            let hint = "leave out what begins with `?` or `#`";
            report.add(at, "has more than a registry's address", Some(hint));
        }
        if !url.username().is_empty() || url.password().is_some() {
            users.push(RegistryAuth::Basic {
                username: decoded(url.username()),
                password: Secret::new(decoded(url.password().unwrap_or_default())),
            });
            // Both fail for addresses without a host only, and an HTTP address has one.
            let _ = url.set_username("");
            let _ = url.set_password(None);
        }
        urls.push(url.as_str().trim_end_matches('/').to_owned());
    }
    if users.windows(2).any(|pair| pair[0] != pair[1]) {
        let hint = "they are one registry's: write `username` and `password` once, beside `url`";
        report.add(at, "names several users", Some(hint));
    }
    (urls, users.pop())
}

fn auth(
    username: Option<String>,
    password: Option<Secret>,
    token: Option<Secret>,
    named: Option<RegistryAuth>,
    at: &str,
    report: &mut Report<'_>,
) -> RegistryAuth {
    for (key, empty) in [
        ("username", username.as_deref() == Some("")),
        ("token", token.as_ref().is_some_and(|token| token.expose().is_empty())),
    ] {
        if empty {
            report.add(&format!("{at}.{key}"), "is empty", None);
        }
    }
    let beside = [
        ("username", username.is_some()),
        ("password", password.is_some()),
        ("token", token.is_some()),
    ];
    if named.is_some() {
        for (key, _) in beside.into_iter().filter(|(_, there)| *there) {
            let message = format!("`{key}` contradicts the user in the URL");
            report.add(&format!("{at}.{key}"), &message, Some("keep one of the two"));
        }
    } else if token.is_some() {
        for (key, _) in beside[..2].iter().filter(|(_, there)| *there) {
            let message = format!("`{key}` contradicts `token`");
            report.add(&format!("{at}.{key}"), &message, Some("keep one of the two"));
        }
    } else if username.is_some() != password.is_some() {
        let (there, lacking) = match username {
            Some(_) => ("username", "password"),
            None => ("password", "username"),
        };
        let message = format!("`{there}` needs `{lacking}`");
        let hint = format!("add `{lacking}`, or write a bearer token as `token`");
        report.add(&format!("{at}.{lacking}"), &message, Some(&hint));
    }
    match (named, token, username, password) {
        (Some(named), ..) => named,
        (None, Some(token), ..) => RegistryAuth::Bearer(token),
        (None, None, Some(username), Some(password)) => RegistryAuth::Basic { username, password },
        (None, None, ..) => RegistryAuth::None,
    }
}

fn check_files(config: &RegistryConfig, at: &str, report: &mut Report<'_>) {
    let files = [
        ("ca", config.ca.is_some()),
        ("cert", config.cert.is_some()),
        ("key", config.key.is_some()),
    ];
    // An address that can't be read may have been meant as any.
    let plain = !config.urls.is_empty() && config.urls.iter().all(|url| url.starts_with("http://"));
    if plain {
        for (key, _) in files.into_iter().filter(|(_, there)| *there) {
            report.add(
                &format!("{at}.{key}"),
                &format!("`{key}` contradicts `http://`"),
                Some("write an `https://` address or leave it out"),
            );
        }
    } else if config.cert.is_some() != config.key.is_some() {
        let (there, lacking) = match config.cert {
            Some(_) => ("cert", "key"),
            None => ("key", "cert"),
        };
        let hint = format!("name a PEM file in `{lacking}`; it may be the same one");
        let message = format!("`{there}` needs `{lacking}`");
        report.add(&format!("{at}.{lacking}"), &message, Some(&hint));
    }
}

fn subject(
    strategy: Option<SubjectStrategy>,
    subject: Option<String>,
    at: &str,
    report: &mut Report<'_>,
) -> SubjectNaming {
    if let Some(subject) = subject {
        let path = format!("{at}.subject");
        if subject.is_empty() {
            report.add(&path, "is empty", Some("leave it out for the topic's"));
        }
        if strategy.is_some() {
            report.add(
                &path,
                "`subject` contradicts `subjectStrategy`",
                Some("keep one of the two"),
            );
        }
        return SubjectNaming::Named(subject);
    }
    match strategy {
        None | Some(SubjectStrategy::Topic) => SubjectNaming::Topic,
        Some(SubjectStrategy::Record) => SubjectNaming::Record,
        Some(SubjectStrategy::TopicRecord) => SubjectNaming::TopicRecord,
    }
}

/// Undoes percent-encoding; what isn't encoded right stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    // Ends: every turn takes a byte off `rest`.
    while let [first, after @ ..] = rest {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resolves what is written behind `schemaRegistry:` in `/etc/p/a.yaml`.
    fn resolved(text: &str) -> (RegistryConfig, Vec<String>) {
        let directory = Path::new("/etc/p");
        let variable = |name: &str| (name == "PASSWORD").then(|| "hunter2".to_owned());
        let around = Surroundings {
            variable: &variable,
            directory,
        };
        let (file, mut problems) = (Path::new("a.yaml"), Vec::new());
        let root = tree::parse(file, &format!("schemaRegistry: {text}"), &around, &mut problems).expect("YAML");
        assert_eq!(problems, vec![], "{text}");
        let entry = serde_json::from_value(root.to_json()["schemaRegistry"].clone()).expect(text);
        let mut report = Report::new(file, &root, BTreeSet::new());
        let config = registry(entry, "schemaRegistry", directory, &mut report);
        let problems = report.into_problems();
        let json = serde_json::to_string(&problems).expect("JSON");
        assert!(!format!("{config:?} {json}").contains("hunter"), "{json}");
        let shown = |problem: &super::super::Problem| problem.to_string().replacen("a.yaml:1: schemaRegistry", "", 1);
        (config, problems.iter().map(shown).collect())
    }

    fn good(text: &str) -> RegistryConfig {
        let (config, problems) = resolved(text);
        assert_eq!(problems, Vec::<String>::new(), "{text}");
        config
    }

    fn basic(username: &str, password: &str) -> RegistryAuth {
        RegistryAuth::Basic {
            username: username.to_owned(),
            password: Secret::new(password),
        }
    }

    #[test]
    fn a_url_alone_is_enough() {
        let expect = RegistryConfig {
            urls: vec!["http://registry:8081".to_owned()],
            auth: RegistryAuth::None,
            ca: None,
            cert: None,
            key: None,
            subject: SubjectNaming::Topic,
        };
        assert_eq!(good("\"http://registry:8081\""), expect);
        assert_eq!(good("{url: \"http://registry:8081/\"}"), expect);
        let several = good("\"https://a, http://b:81/apis/ccompat/v7/ \"");
        assert_eq!(several.urls, ["https://a", "http://b:81/apis/ccompat/v7"]);
    }

    #[test]
    fn credentials_are_taken_out_of_the_url() {
        let found = good("\"http://u%40x:hunter2%2C%25@a/p,http://b,http://u%40x:hunter2%2C%25@c\"");
        assert_eq!(found.urls, ["http://a/p", "http://b", "http://c"]);
        assert_eq!(found.auth, basic("u@x", "hunter2,%"));
        assert_eq!(good("\"http://token@a\"").auth, basic("token", ""));
        for (text, expect) in [("%4", "%4"), ("%zz%", "%zz%"), ("%+1a+", "%+1a+"), ("%C3%A9", "é")] {
            assert_eq!(decoded(text), expect);
        }
    }

    #[test]
    fn what_is_written_arrives() {
        let found = good(
            "{url: \"https://a\", username: u, password: \"${PASSWORD}\", ca: ../ca.pem, cert: c.pem, key: /k.pem, subjectStrategy: topic-record}",
        );
        assert_eq!(found.auth, basic("u", "hunter2"));
        assert_eq!(
            [found.ca.as_deref(), found.cert.as_deref(), found.key.as_deref()],
            [Some("/etc/ca.pem"), Some("/etc/p/c.pem"), Some("/k.pem")]
        );
        assert_eq!(found.subject, SubjectNaming::TopicRecord);
        let found = good("{url: \"http://a\", token: \"${PASSWORD}\", subject: s}");
        assert_eq!(found.auth, RegistryAuth::Bearer(Secret::new("hunter2")));
        assert_eq!(found.subject, SubjectNaming::Named("s".to_owned()));
        for (text, expect) in [("topic", SubjectNaming::Topic), ("record", SubjectNaming::Record)] {
            let found = good(&format!("{{url: \"http://a\", subjectStrategy: {text}}}"));
            assert_eq!(found.subject, expect);
        }
        assert_eq!(
            good("{url: \"http://a\", username: u, password: \"\"}").auth,
            basic("u", "")
        );
    }

    fn check(text: &str, expect: &[&str]) {
        assert_eq!(resolved(text).1, expect, "{text}");
    }

    #[test]
    fn contradictions_are_reported() {
        const HINT: &str = "write it like `http://registry:8081`, or several separated by commas";
        check("{username: u, password: p}", &[".url: `url` is required"]);
        check("{url: \" \"}", &[".url: `url` is empty"]);
        check("\"\"", &[&format!(": has an empty entry; {HINT}")]);
        check("\"http://a,,http://b\"", &[&format!(": has an empty entry; {HINT}")]);
        for text in [
            "registry:8081",
            "ftp://a",
            "http://",
            "http://u:hunter/2@a",
            "http://u:12/hunter@a",
            "http://u:hunter,2@a",
        ] {
            let (_, problems) = resolved(&format!("{{url: \"{text}\"}}"));
            assert_eq!(problems[0], format!(".url: is not an HTTP address; {HINT}"), "{text}");
        }
        check(
            "\"http://a?x=y\"",
            &[": has more than a registry's address; leave out what begins with `?` or `#`"],
        );
        check(
            "\"http://u:hunter2@a,http://u:hunter3@b\"",
            &[": names several users; they are one registry's: write `username` and `password` once, beside `url`"],
        );
        check(
            "{url: \"http://u:hunter2@a\", username: u, password: hunter2}",
            &[
                ".username: `username` contradicts the user in the URL; keep one of the two",
                ".password: `password` contradicts the user in the URL; keep one of the two",
            ],
        );
        check(
            "{url: \"http://a\", token: hunter2, username: u}",
            &[".username: `username` contradicts `token`; keep one of the two"],
        );
        check(
            "{url: \"http://a\", password: hunter2}",
            &[".username: `password` needs `username`; add `username`, or write a bearer token as `token`"],
        );
        check(
            "{url: \"http://a\", username: u}",
            &[".password: `username` needs `password`; add `password`, or write a bearer token as `token`"],
        );
        check(
            "{url: \"http://a\", token: \"\", username: \"\"}",
            &[
                ".username: is empty",
                ".token: is empty",
                ".username: `username` contradicts `token`; keep one of the two",
            ],
        );
        check(
            "{url: \"https://a\", cert: c.pem}",
            &[".key: `cert` needs `key`; name a PEM file in `key`; it may be the same one"],
        );
        check(
            "{url: \"https://a\", key: k.pem}",
            &[".cert: `key` needs `cert`; name a PEM file in `cert`; it may be the same one"],
        );
        check(
            "{url: \"http://a\", ca: c.pem}",
            &[".ca: `ca` contradicts `http://`; write an `https://` address or leave it out"],
        );
        check(
            "{url: \"http://a\", subject: s, subjectStrategy: topic}",
            &[".subject: `subject` contradicts `subjectStrategy`; keep one of the two"],
        );
        check(
            "{url: \"http://a\", subject: \"\"}",
            &[".subject: is empty; leave it out for the topic's"],
        );
    }

    #[test]
    fn a_command_line_names_a_registry_as_a_file_does() {
        let variable = |name: &str| (name == "PASSWORD").then(|| "hunter2".to_owned());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let found = access("http://u:${PASSWORD}@a", &[], &variable).expect("an address");
        assert_eq!(
            (found.urls, found.auth),
            (vec!["http://a".to_owned()], basic("u", "hunter2"))
        );
        let keys = [pair("username", "u"), pair("password", "${PASSWORD}")];
        let found = access("http://a,http://b", &keys, &variable).expect("addresses");
        assert_eq!(found.auth, basic("u", "hunter2"));
        for (url, keys, expect) in [
            ("a", vec![], "schemaRegistry.url: is not an HTTP address"),
            (
                "http://a",
                vec![pair("usrname", "u")],
                "schemaRegistry.usrname: is no such key; did you mean `username`?",
            ),
            (
                "http://a",
                vec![pair("subject", "s")],
                "schemaRegistry.subject: is no such key; it takes username,",
            ),
            (
                "http://u:${SECRET}@a",
                vec![],
                "the environment variable `SECRET` is not set",
            ),
        ] {
            let problems = access(url, &keys, &variable).expect_err(url);
            assert!(problems[0].to_string().contains(expect), "{problems:?}");
        }
    }
}
