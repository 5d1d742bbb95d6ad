use clap::Parser;
use lifeboat_environment::Environment;
use lifeboat_telemetry::Cancel;

use super::*;
use crate::arguments::Arguments;

/// A spec with two databases; the first has a node in each of two regions, at one path.
fn site<'a>(context: &'a Context, folder: &Path, directories: [&Path; 3]) -> Site<'a> {
    let [east, west, other] = directories.map(|path| path.display().to_string());
    let text = format!(
        "lifeboat: 1
state: {folder}/state
regions:
  east: {{ repository: {{ url: \"file://{folder}/east\" }} }}
  west: {{ repository: {{ url: \"file://{folder}/west\" }} }}
tiers: {{ t: {{ rto: 1h, rpo: 1h }} }}
services:
  pay:
    tier: t
    home: east
    databases:
      ledger:
        engine: postgres
        nodes:
          east-1: {{ region: east, data_directory: {east}, connection: \"host=/tmp\" }}
          west-1: {{ region: west, data_directory: {west}, connection: \"host=/tmp\" }}
      users:
        engine: postgres
        nodes:
          east-1: {{ region: east, data_directory: {other}, connection: \"host=/tmp\" }}
",
        folder = folder.display(),
    );
    let loaded = Spec::load(&text, Path::new("lifeboat.yaml"));
    assert!(loaded.spec.is_some(), "{:#?}", loaded.findings);
    Site::with(context, folder.join("lifeboat.yaml"), loaded.spec.unwrap()).unwrap()
}

fn context(arguments: &[&str]) -> Context {
    let line = ["lifeboat"].iter().chain(arguments).chain(&["schema"]);
    let arguments = Arguments::try_parse_from(line).unwrap();
    Context::new(Environment::system(), arguments.global, Cancel::new())
}

#[test]
fn a_database_must_be_clear() {
    let folder = tempfile::tempdir().unwrap();
    let context = context(&[]);
    let missing = Path::new("/nonexistent");
    let site = site(&context, folder.path(), [missing, missing, missing]);
    let unclear = site.database(None).unwrap_err();
    assert_eq!(unclear.code(), Code::DatabaseUnknown);
    let named = "pay/users".parse().unwrap();
    assert_eq!(site.database(Some(&named)).unwrap().0, named);
    assert!(site.database(Some(&"pay/nothing".parse().unwrap())).is_err());
}

#[test]
fn the_working_directory_decides_where_nothing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Path::new("/nonexistent");
    let working = std::env::current_dir().unwrap();
    let context = context(&[]);
    let site = site(&context, folder.path(), [missing, missing, &working]);
    assert_eq!(site.database(None).unwrap().0.to_string(), "pay/users");
}

#[test]
fn the_region_or_the_data_directory_decides_which_node_is_meant() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Path::new("/nonexistent");
    let ledger: DatabaseId = "pay/ledger".parse().unwrap();
    let node = |flags: &[&str], directories: [&Path; 3]| {
        let context = context(flags);
        let site = site(&context, folder.path(), directories);
        let database = site.spec.database(&ledger).unwrap();
        site.node(&ledger, database).map(|(name, _)| name.to_string())
    };
    let present = folder.path();
    assert_eq!(node(&["--here", "west"], [missing, missing, missing]).unwrap(), "west-1");
    assert_eq!(node(&[], [missing, present, missing]).unwrap(), "west-1");
    assert_eq!(node(&[], [missing, missing, missing]).unwrap_err().code(), Code::RegionUnknown);
    assert_eq!(node(&[], [present, present, missing]).unwrap_err().code(), Code::RegionUnknown);
}

#[test]
fn a_region_that_the_spec_lacks_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = "lifeboat: 1\nregions: { a: { repository: { url: \"file:///x\" } } }\n";
    let spec = Spec::load(text, Path::new("x")).spec.unwrap();
    let context = context(&["--here", "mars"]);
    let failure = Site::with(&context, folder.path().join("x"), spec).err().unwrap();
    assert_eq!(failure.code(), Code::RegionUnknown);
}
