//! The layers: a module uses those above it in the list of `src/lib.rs`, never one below, and what is pure stays so.

use std::fs;
use std::path::{Path, PathBuf};

/// The last module of the pure ones: what can be tried ten thousand times a second has no side effects.
const PURE_UNTIL: &str = "discover";

/// What no pure module may name: runtimes, clients, clocks, global sources of random numbers.
const IMPURE: [&str; 19] = [
    "tokio::",
    "rdkafka::",
    "rdkafka_sys::",
    "reqwest::",
    "object_store::",
    "sqlx::",
    "iceberg::io",
    "FileIO",
    "std::net",
    "SystemTime::now",
    "Instant::now",
    "Utc::now",
    "Local::now",
    "rand::",
    "getrandom",
    "RandomState::new",
    "new_v4",
    "now_v1",
    "now_v7",
];

#[test]
fn a_module_uses_only_those_above_it() {
    let order = modules();
    let found: Vec<_> = sources(&order)
        .flat_map(|(module, path, text)| upward(&order, &module, &path, &text))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn pure_modules_name_no_side_effects() {
    let order = modules();
    let pure = place_of(&order, PURE_UNTIL) + 1;
    let found: Vec<_> = sources(&order[..pure])
        .flat_map(|(_, path, text)| impure(&path, &text))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn http_clients_begin_in_one_place() {
    let begins = [
        "Client::builder(",
        "ClientBuilder::new(",
        " Client::new(",
        "reqwest::Client::",
        "reqwest::get(",
    ];
    let found: Vec<_> = sources(&modules())
        .filter(|(module, _, _)| module != "http")
        .filter(|(_, _, text)| begins.iter().any(|begin| text.contains(begin)))
        .map(|(_, path, _)| path.display().to_string())
        .collect();
    assert!(
        found.is_empty(),
        "`http::client` follows no redirect, these may: {}",
        found.join(", ")
    );
}

#[test]
fn the_map_names_every_module_in_its_order() {
    let lib = fs::read_to_string(root().join("lib.rs")).expect("lib.rs is there");
    let map: Vec<&str> = lib
        .lines()
        .filter(|line| line.starts_with("//! ") && line[4..].starts_with(|first: char| first.is_ascii_digit()))
        .collect();
    let named: Vec<String> = map
        .iter()
        .flat_map(|line| line.split("[`").skip(1))
        .filter_map(|rest| Some(rest.split_once("`]")?.0.to_owned()))
        .collect();
    assert_eq!(named, modules());
}

#[test]
fn what_breaks_a_rule_is_found() {
    let order = ["units", "run", "kafka"].map(str::to_owned);
    let check = |module: &str, path: &str, text: &str, expect: usize| {
        let found = upward(&order, module, Path::new(path), text);
        assert_eq!(found.len(), expect, "{text}: {found:?}");
    };
    check("run", "run.rs", "use crate::units::Millis;", 0);
    check("run", "run/mod.rs", "use crate::run::window::Window;", 0);
    check("run", "run.rs", "use crate::kafka::Consumer;", 1);
    check(
        "run",
        "run.rs",
        "fn f() -> crate::kafka::Consumer { crate::kafka::make() }",
        2,
    );
    check("run", "run.rs", "use crate::{units, kafka};", 1);
    check("run", "run/window.rs", "use super::window;", 0);
    check("run", "run/window.rs", "use super::super::kafka;", 1);
    check("run", "run.rs", "use super::kafka;", 1);
    assert_eq!(impure(Path::new("a.rs"), "let id = Uuid::now_v7();").len(), 1);
    assert_eq!(impure(Path::new("a.rs"), "let at = now;").len(), 0);
    assert_eq!(
        code("a; // crate::b\n/// crate::c\n#[cfg(test)]\nmod tests {\n d }").trim(),
        "a;"
    );
}

/// The modules of the crate in the order of the map.
fn modules() -> Vec<String> {
    let lib = fs::read_to_string(root().join("lib.rs")).expect("lib.rs is there");
    let names = lib
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    names.map(str::to_owned).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn place_of(order: &[String], module: &str) -> usize {
    let place = order.iter().position(|name| name == module);
    place.unwrap_or_else(|| panic!("`{module}` isn't in the list of src/lib.rs"))
}

/// Every file of the modules: module, path below `src`, code without comments and tests.
fn sources(modules: &[String]) -> impl Iterator<Item = (String, PathBuf, String)> {
    modules.iter().flat_map(|module| {
        let mut files = Vec::new();
        collect(&root().join(format!("{module}.rs")), &mut files);
        collect(&root().join(module), &mut files);
        assert!(!files.is_empty(), "module `{module}` has no file");
        files.into_iter().map(|file| {
            let text = fs::read_to_string(&file).expect("a listed file is read");
            let path = file.strip_prefix(root()).expect("below src").to_owned();
            (module.clone(), path, code(&text))
        })
    })
}

/// Adds a file, or the files of a directory but those that are declared for tests only.
fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.extension().is_some_and(|ending| ending == "rs") {
        files.extend(path.is_file().then(|| path.to_owned()));
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    let parents = [path.join("mod.rs"), path.with_extension("rs")];
    let parent: String = parents
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect();
    let mut entries: Vec<_> = entries
        .map(|entry| entry.expect("a directory is listed").path())
        .collect();
    entries.sort();
    for entry in entries {
        let name = entry
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("names are UTF-8");
        if !parent.contains(&format!("#[cfg(test)]\nmod {name};")) {
            collect(&entry, files);
        }
    }
}

/// The code of a file: without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    let lines = text.lines().map(|line| match line.trim_start().starts_with("//") {
        true => "",
        false => line.split(" // ").next().unwrap_or(line),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// What the file uses that is below its module, with its line.
fn upward(order: &[String], module: &str, path: &Path, text: &str) -> Vec<String> {
    let mine = place_of(order, module);
    // The file is this many modules below the crate's root, so that many `super` reach it.
    let depth = path.components().count() - usize::from(path.ends_with("mod.rs"));
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let at = format!("src/{}:{}", path.display(), number + 1);
        for rest in line.split("crate::").skip(1) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if rest.starts_with('{') {
                found.push(format!(
                    "{at}: one `use` for each module, so that its layer can be seen"
                ));
            } else if order.contains(&name) && place_of(order, &name) > mine {
                found.push(format!(
                    "{at}: `{module}` uses `{name}`, which is below it in src/lib.rs"
                ));
            }
        }
        if line.contains(&"super::".repeat(depth)) {
            found.push(format!("{at}: climbs to the crate's root; write `crate::`"));
        }
    }
    found
}

/// The impure things that a file names, with their line.
fn impure(path: &Path, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate().flat_map(|(number, line)| {
        let words = IMPURE.iter().filter(move |word| line.contains(**word));
        words.map(move |word| format!("src/{}:{}: a pure module names `{word}`", path.display(), number + 1))
    });
    lines.collect()
}
