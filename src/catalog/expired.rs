//! Which metadata files that a table's log lets go of may be deleted.
//!
//! The log is written by whoever may commit to the table, and names files by whole locations: taken at its word, it would have
//! us delete whatever our credentials reach.

use iceberg::spec::TableMetadata;

/// Where a table's metadata files go, where it isn't `{location}/metadata`. Source: Iceberg 1.12 `TableProperties.java`.
const METADATA_PATH: &str = "write.metadata.path";

/// Says whether a file is the table's own to delete: it lies in the folder of the table's metadata files, not below or above
/// it, is called like one, and nothing names it any more.
///
/// What is refused stays where it is, as rubbish at worst.
///
/// - `metadata`: the table's, as of the commit that lets go of the file.
/// - `current`: metadata files that the catalog names or has just named.
pub(super) fn may_be_deleted(metadata: &TableMetadata, current: &[&str], file: &str) -> bool {
    let Some((folder, name)) = file.rsplit_once('/') else {
        return false;
    };
    let own = format!("{}/metadata", metadata.location().trim_end_matches('/'));
    let given = metadata.properties().get(METADATA_PATH);
    let folders = given.map(String::as_str).into_iter().chain([own.as_str()]);
    let is_in = |of: &str| is_plain(of) && unified(of.trim_end_matches('/')) == unified(folder);
    let named = metadata.metadata_log().iter().map(|entry| entry.metadata_file.as_str());
    folders.into_iter().any(is_in)
        && is_metadata_name(name)
        && current
            .iter()
            .copied()
            .chain(named)
            .all(|other| unified(other) != unified(file))
}

/// Says whether it is a name that catalogs give metadata files: Iceberg's `00001-{uuid}.metadata.json` with `.gz` before
/// `.metadata` or, as Java once did, at the end.
fn is_metadata_name(name: &str) -> bool {
    let begin = name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".metadata.json");
    begin.is_some_and(|begin| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        begin.starts_with(|first: char| first.is_ascii_alphanumeric()) && begin.bytes().all(plain)
    })
}

/// Says whether a folder is where it says: no step of its path goes up, or stays.
fn is_plain(folder: &str) -> bool {
    let path = folder.split_once("://").map_or(folder, |(_, path)| path);
    let mut steps = path.trim_end_matches('/').split('/').skip(1);
    !path.trim_matches('/').is_empty() && steps.all(|step| !matches!(step, "" | "." | ".."))
}

/// A location in the one form that stands for others: a local path bare, a bucket as `s3`. As [`crate::store`] reads them.
fn unified(location: &str) -> String {
    for (prefix, bare) in [("file://", ""), ("file:", ""), ("s3a://", "s3://"), ("s3n://", "s3://")] {
        if let Some(rest) = location.strip_prefix(prefix) {
            return format!("{bare}{rest}");
        }
    }
    location.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::TableCreation;
    use iceberg::spec::{FormatVersion, Schema, TableMetadataBuilder, UnboundPartitionSpec};

    use super::*;

    fn table(location: &str, path: Option<&str>) -> TableMetadata {
        let properties = path.map(|path| (METADATA_PATH.to_owned(), path.to_owned()));
        let creation = TableCreation::builder()
            .name("t".to_owned())
            .location(location.to_owned())
            .schema(Schema::builder().build().expect("a schema"))
            .partition_spec(UnboundPartitionSpec::default())
            .properties(properties.into_iter().collect::<HashMap<_, _>>())
            .format_version(FormatVersion::V2)
            .build();
        let built = TableMetadataBuilder::from_table_creation(creation).and_then(TableMetadataBuilder::build);
        let metadata = built.expect("a table").metadata;
        // A commit puts the file that it replaces into the log.
        let again = metadata.into_builder(Some(format!("{location}/metadata/00009-a.metadata.json")));
        let changed = again.set_properties(HashMap::from([("k".to_owned(), "v".to_owned())]));
        changed.and_then(TableMetadataBuilder::build).expect("a table").metadata
    }

    #[track_caller]
    fn check(location: &str, path: Option<&str>, file: &str, expect: bool) {
        let metadata = table(location, path);
        let current = format!("{location}/metadata/00010-b.metadata.json");
        assert_eq!(may_be_deleted(&metadata, &[&current], file), expect, "{file}");
    }

    #[test]
    fn a_table_s_own_old_metadata_files_are_deleted() {
        for name in [
            "00001-6f3c.metadata.json",
            "00001-6f3c.gz.metadata.json",
            "00001-6f3c.metadata.json.gz",
            "v3.metadata.json",
        ] {
            check("/w/t", None, &format!("/w/t/metadata/{name}"), true);
            check("/w/t/", None, &format!("/w/t/metadata/{name}"), true);
            check("s3://b/w/t", None, &format!("s3://b/w/t/metadata/{name}"), true);
            check("s3://b/w/t", None, &format!("s3a://b/w/t/metadata/{name}"), true);
            check("file:/w/t", None, &format!("file:///w/t/metadata/{name}"), true);
            check("/w/t", Some("/m/t/"), &format!("/m/t/{name}"), true);
            // As they were before the property was set.
            check("/w/t", Some("/m/t"), &format!("/w/t/metadata/{name}"), true);
        }
    }

    #[test]
    fn nothing_else_is_deleted_whatever_a_log_says() {
        for file in [
            // Another table, also one whose name begins alike; the warehouse; other folders of the table.
            "/w/t2/metadata/00001-a.metadata.json",
            "/w/t/metadata2/00001-a.metadata.json",
            "/w/other/metadata/00001-a.metadata.json",
            "/w/t/data/00001-a.metadata.json",
            "/w/t/00001-a.metadata.json",
            "/w/00001-a.metadata.json",
            "/w/t/metadata/deeper/00001-a.metadata.json",
            // Paths that lead elsewhere.
            "/w/t/metadata/../../t2/metadata/00001-a.metadata.json",
            "/w/t/../t2/metadata/00001-a.metadata.json",
            "/w/t/metadata/./00001-a.metadata.json",
            "/w/t/metadata//00001-a.metadata.json",
            "/w/t/metadata/..%2f..%2ft2%2fmetadata%2f00001-a.metadata.json",
            "/w/t/metadata/%2e%2e/00001-a.metadata.json",
            "/w/t/metadata/..\\00001-a.metadata.json",
            "w/t/metadata/00001-a.metadata.json",
            "file://host/w/t/metadata/00001-a.metadata.json",
            // Other stores.
            "s3://b/w/t/metadata/00001-a.metadata.json",
            "s3:///w/t/metadata/00001-a.metadata.json",
            // No metadata files.
            "/w/t/metadata/snap-1-a.avro",
            "/w/t/metadata/.metadata.json",
            "/w/t/metadata/..metadata.json",
            "/w/t/metadata/00001-a.metadata.json/",
            "/w/t/metadata/00001-a.metadata.json.gz.gz",
            "/w/t/metadata/version-hint.text",
            "/w/t/metadata/",
            "00001-a.metadata.json",
            "",
            // In use: named by the log, and the table's current one.
            "/w/t/metadata/00009-a.metadata.json",
            "file:///w/t/metadata/00009-a.metadata.json",
            "/w/t/metadata/00010-b.metadata.json",
        ] {
            check("/w/t", None, file, false);
            check("/w/t", Some("/m/t"), file, false);
        }
        let other = "s3://other/w/t/metadata/00001-a.metadata.json";
        check("s3://b/w/t", None, other, false);
        check("s3://b/w/t", None, "s3://b/w/t2/metadata/00001-a.metadata.json", false);
        // Locations that aren't where they say, or all there is.
        check("/w/t/../t2", None, "/w/t/../t2/metadata/00001-a.metadata.json", false);
        check("/w/t", Some("/w/t/../t2"), "/w/t/../t2/00001-a.metadata.json", false);
        check("/w/t", Some("/"), "/00001-a.metadata.json", false);
        check("/w/t", Some(""), "/00001-a.metadata.json", false);
    }
}
