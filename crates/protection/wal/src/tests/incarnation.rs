use lifeboat_model::SystemIdentifier;
use lifeboat_repository::ids::Incarnation;
use lifeboat_telemetry::Code;

use crate::incarnation::{MARKER, Marker};

#[test]
fn a_marker_survives_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Marker::read(folder.path()).unwrap(), None);
    let marker = Marker::new("a/b", SystemIdentifier(u64::MAX), Incarnation(3), true);
    marker.write(folder.path()).unwrap();
    assert_eq!(Marker::read(folder.path()).unwrap(), Some(marker));
    let text = std::fs::read_to_string(folder.path().join(MARKER)).unwrap();
    assert!(text.contains("\"lifeboat_incarnation\": 1"), "{text}");
}

#[test]
fn a_marker_of_a_newer_version_forbids() {
    let folder = tempfile::tempdir().unwrap();
    let mut marker = Marker::new("a/b", SystemIdentifier(1), Incarnation(3), true);
    marker.lifeboat_incarnation = 2;
    marker.write(folder.path()).unwrap();
    assert_eq!(Marker::read(folder.path()).unwrap_err().code(), Code::CloneRefused);
}
