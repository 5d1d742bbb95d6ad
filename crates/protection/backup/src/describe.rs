//! Facts for the manifest.

use lifeboat_cluster::ControlFile;
use lifeboat_cluster::files::Listing;
use lifeboat_model::{Lsn, SegmentName, SegmentSize};
use lifeboat_repository::manifest::{ClusterFacts, Tablespace, WalSpan};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::run::{BackupContext, BackupRequest};
use crate::source::Source;

/// What the cluster is.
pub fn cluster(
    request: &BackupRequest,
    context: &BackupContext<'_>,
    source: &Source,
    control: &ControlFile,
) -> ClusterFacts {
    ClusterFacts {
        system_identifier: control.system.0,
        incarnation: context.stream.incarnation,
        major: control.release.major,
        version: source.facts().version,
        catalog_version: control.release.catalog,
        block_bytes: control.block_size,
        wal_segment_bytes: control.wal_segment_size.bytes() as u32,
        data_checksums: control.data_checksums,
        from_standby: source.facts().in_recovery,
        data_directory: request.data_directory.display().to_string(),
    }
}

/// Tablespaces with their places; a place that is no text cannot be written down.
pub fn tablespaces(listing: &Listing) -> Outcome<Vec<Tablespace>> {
    let named = listing.tablespaces.iter().map(|tablespace| {
        let location = tablespace.location.to_str().ok_or_else(|| {
            let place = tablespace.location.display();
            Failure::new(Code::DataDirectoryInvalid, format!("tablespace path {place} is no UTF-8"))
        })?;
        Ok(Tablespace { oid: tablespace.oid, location: location.to_owned() })
    });
    named.collect()
}

/// Names of the first and the last segment of a span.
pub fn wal_names(wal: &WalSpan, segment_bytes: u32) -> Outcome<[String; 2]> {
    let size = SegmentSize::new(u64::from(segment_bytes)).ok_or_else(|| {
        Failure::new(Code::Internal, format!("a WAL segment of {segment_bytes} bytes"))
    })?;
    let last = Lsn(wal.stop.0.saturating_sub(1).max(wal.start.0));
    Ok([wal.start, last].map(|lsn| SegmentName::from_lsn(wal.timeline, lsn, size).to_string()))
}
