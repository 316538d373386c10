//! Whether a REST catalog may have us read and write files of this machine.
//!
//! The catalog says where a table lies, and we write there: `file:///…` from a server elsewhere would be a disk that it has
//! nothing to do with. So local tables are for catalogs that can be thought to share our disk, or where the pipeline file says so.

use std::collections::BTreeMap;

use iceberg::TableIdent;
use iceberg::spec::TableMetadata;
use url::{Host, Url};

use crate::catalog::CatalogError;

/// The catalog property that allows local tables, or forbids them.
const PROPERTY: &str = "aperio.allow-local-files";

/// What of a table's properties says where its files go. Source: Iceberg 1.12 `TableProperties.java`.
const PLACES: [&str; 4] = [
    "write.data.path",
    "write.metadata.path",
    "write.object-storage.path",
    "write.folder-storage.path",
];

/// What a catalog may do with our disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LocalFiles {
    /// Its tables may lie there.
    Allowed,
    /// They may not; holds what the catalog and its warehouse are called, for people.
    Forbidden(String),
}

impl LocalFiles {
    /// Decides by what the pipeline file says: [`PROPERTY`] where it is given; else a local warehouse allows local tables and
    /// one in a bucket doesn't; and where the warehouse is a name, or the catalog's own choice, the catalog must run on this
    /// machine.
    pub fn of(uri: &str, warehouse: Option<&str>, properties: &BTreeMap<String, String>) -> LocalFiles {
        // Else it is a name, which may hold a colon.
        let is_place = |warehouse: &&str| {
            warehouse.starts_with('/') || warehouse.starts_with("file:") || warehouse.contains("://")
        };
        let place = warehouse.filter(is_place);
        let allowed = match (properties.get(PROPERTY), place) {
            (Some(said), _) => said.eq_ignore_ascii_case("true"),
            (None, Some(place)) => is_local(place),
            (None, None) => is_this_machine(uri),
        };
        if allowed {
            return LocalFiles::Allowed;
        }
        LocalFiles::Forbidden(match warehouse {
            Some(warehouse) => format!("`catalog.warehouse` is `{warehouse}`"),
            None => "`catalog.warehouse` isn't set, and the catalog runs elsewhere".to_owned(),
        })
    }

    /// Refuses a table of which anything lies on this machine's disk, if it may not.
    pub fn check(&self, ident: &TableIdent, metadata: &TableMetadata) -> Result<(), CatalogError> {
        let LocalFiles::Forbidden(warehouse) = self else {
            return Ok(());
        };
        let named = PLACES
            .iter()
            .filter_map(|key| Some((*key, metadata.properties().get(*key)?.as_str())));
        let list = metadata
            .current_snapshot()
            .map(|snapshot| ("manifest list", snapshot.manifest_list()));
        let mut all = [("location", metadata.location())].into_iter().chain(named).chain(list);
        match all.find(|(_, location)| is_local(location)) {
            None => Ok(()),
            Some((what, location)) => Err(CatalogError::OnOurDisk {
                table: ident.to_string(),
                what,
                location: location.to_owned(),
                warehouse: warehouse.clone(),
                property: PROPERTY,
            }),
        }
    }
}

/// Says whether a store would take it for a path of the local disk: it does so with all that has no other scheme.
fn is_local(location: &str) -> bool {
    location.starts_with("file:") || !location.contains("://")
}

fn is_this_machine(uri: &str) -> bool {
    let url = Url::parse(uri).ok();
    match url.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use iceberg::TableCreation;
    use iceberg::spec::{FormatVersion, Schema, TableMetadataBuilder, UnboundPartitionSpec};

    use super::*;

    #[test]
    fn local_tables_are_for_catalogs_that_share_our_disk_or_where_the_file_says_so() {
        let check = |uri: &str, warehouse: &str, said: Option<&str>, expect: bool| {
            let said = said.map(|said| (PROPERTY.to_owned(), said.to_owned()));
            let warehouse = Some(warehouse).filter(|warehouse| !warehouse.is_empty());
            let found = LocalFiles::of(uri, warehouse, &said.into_iter().collect());
            assert_eq!(found == LocalFiles::Allowed, expect, "{uri} {warehouse:?}: {found:?}");
        };
        let (here, there) = ("http://127.0.0.1:8181/iceberg", "https://catalog.example/iceberg");
        for warehouse in ["/w", "file:///w", "file:/w"] {
            check(there, warehouse, None, true);
            check(there, warehouse, Some("false"), false);
        }
        for warehouse in ["", "lake", "123456789012:lake/of"] {
            for here in [
                here,
                "http://localhost:8181",
                "http://rest.localhost",
                "http://[::1]:8181",
            ] {
                check(here, warehouse, None, true);
            }
            check(here, warehouse, Some("false"), false);
            for there in [
                there,
                "http://10.0.0.1",
                "http://localhost.example",
                "http://127.0.0.1.example",
                "nowhere",
            ] {
                check(there, warehouse, None, false);
            }
            check(there, warehouse, Some("TRUE"), true);
        }
        for uri in [here, there] {
            check(uri, "s3://b/w", None, false);
            check(uri, "s3://b/w", Some("true"), true);
        }
    }

    #[test]
    fn whatever_of_a_table_is_local_is_refused() {
        let table = |location: &str, properties: &[(&str, &str)]| {
            let properties = properties
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()));
            let creation = TableCreation::builder()
                .name("t".to_owned())
                .location(location.to_owned())
                .schema(Schema::builder().build().expect("a schema"))
                .partition_spec(UnboundPartitionSpec::default())
                .properties(properties.collect::<HashMap<_, _>>())
                .format_version(FormatVersion::V2)
                .build();
            let built = TableMetadataBuilder::from_table_creation(creation).and_then(TableMetadataBuilder::build);
            built.expect("a table").metadata
        };
        let ident = TableIdent::from_strs(["a", "t"]).expect("a name");
        let forbidden = LocalFiles::of("https://c.example", Some("s3://b/w"), &BTreeMap::new());
        forbidden
            .check(&ident, &table("s3://b/w/t", &[("write.data.path", "s3://c")]))
            .expect("all in buckets");
        for local in ["file:///etc", "file:/etc", "/etc", "etc", "FILE"] {
            let error = forbidden
                .check(&ident, &table(local, &[]))
                .expect_err(local)
                .to_string();
            assert!(
                error.contains(&format!("location is `{local}`")) && error.contains("s3://b/w"),
                "{error}"
            );
            LocalFiles::Allowed.check(&ident, &table(local, &[])).expect("allowed");
            for place in PLACES {
                let error = forbidden.check(&ident, &table("s3://b/w/t", &[(place, local)]));
                let error = error.expect_err(local).to_string();
                assert!(error.contains(&format!("{place} is `{local}`")), "{error}");
            }
        }
    }
}
