use std::collections::BTreeSet;

use lifeboat_cluster::files::Fork;
use lifeboat_cluster::wal::Fact;
use proptest::prelude::*;

use super::*;

mod bytes;

const TIMELINE: Timeline = Timeline::FIRST;

fn file(filenode: u32) -> RelationFile {
    RelationFile { tablespace: 1663, database: 5, filenode }
}
