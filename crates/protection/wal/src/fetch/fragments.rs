//! A segment that no object holds, made of the fragments that receivers shipped.
//!
//! Bytes that two fragments hold must be the same, whichever is used: other ones mean that two
//! servers wrote this part of the history, and nobody can say which of them is meant.

use std::fs::File;
use std::os::unix::fs::FileExt;

use bytes::Bytes;
use lifeboat_model::{Lsn, SegmentName, WalFileName};
use lifeboat_objects::Store;
use lifeboat_repository::ask::ask;
use lifeboat_repository::fragment::{FragmentName, decode_fragment, list_fragments};
use lifeboat_repository::layout;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::archive::{Archive, restart, unwritable};
use crate::coverage::{Assembly, bounds};

/// So many fragments are read at a time; each has at most 8 MiB.
const AT_A_TIME: usize = 4;

/// A fragment in a repository. Writer epochs are a repository's own: two may use one name.
struct Source<'a> {
    name: FragmentName,
    region: &'a str,
    store: &'a Store,
}

impl Archive<'_> {
    /// Writes a segment that one repository has as fragments. As absent as its object where it
    /// has not all of them.
    pub(super) fn assemble(
        &self,
        (region, store): &(String, Store),
        segment: SegmentName,
        file: &mut File,
    ) -> Outcome<()> {
        let sources = self.sources(region, store, segment)?;
        self.make_whole(&sources, segment, file).map(drop)
    }

    /// The same out of the fragments of all repositories that answer. Names their regions.
    pub(super) fn assemble_from_all(
        &self,
        segment: SegmentName,
        file: &mut File,
    ) -> Outcome<String> {
        let lists = self.stores.iter().map(|(region, store)| self.sources(region, store, segment));
        let mut sources: Vec<Source<'_>> = lists.filter_map(Result::ok).flatten().collect();
        sources.sort_by_key(|source| source.name);
        self.make_whole(&sources, segment, file)
    }

    /// Writes the beginning of a segment whose rest is still to come, with zeros behind it.
    pub(super) fn write_tail(
        &self,
        (region, store): &(String, Store),
        segment: SegmentName,
        file: &mut File,
    ) -> Outcome<()> {
        let sources = self.sources(region, store, segment)?;
        let (start, _) = self.bounds(segment)?;
        let assembly = assembly(&sources, start).ok_or_else(|| missing(segment))?;
        self.write(&sources, &assembly, segment, file)
    }

    fn make_whole(
        &self,
        sources: &[Source<'_>],
        segment: SegmentName,
        file: &mut File,
    ) -> Outcome<String> {
        let (start, end) = self.bounds(segment)?;
        let whole = assembly(sources, start).filter(|assembly| assembly.end == end);
        let assembly = whole.ok_or_else(|| missing(segment))?;
        self.write(sources, &assembly, segment, file)?;
        let mut regions: Vec<&str> = sources.iter().map(|source| source.region).collect();
        regions.sort_unstable();
        regions.dedup();
        Ok(regions.join(" and "))
    }

    fn sources<'a>(
        &self,
        region: &'a str,
        store: &'a Store,
        segment: SegmentName,
    ) -> Outcome<Vec<Source<'a>>> {
        let (start, end) = self.bounds(segment)?;
        let listed = list_fragments(store, self.plan.stream, segment.timeline(), start..end);
        let listed = self.wait(listed)?.into_iter().filter(|(name, _)| name.end <= end);
        Ok(listed.map(|(name, _)| Source { name, region, store }).collect())
    }

    fn write(
        &self,
        sources: &[Source<'_>],
        assembly: &Assembly,
        segment: SegmentName,
        file: &mut File,
    ) -> Outcome<()> {
        let mut pieces: Vec<&Source<'_>> = Vec::new();
        for name in &assembly.pieces {
            pieces.extend(sources.iter().find(|source| source.name == *name));
        }
        let (start, _) = self.bounds(segment)?;
        restart(file)?;
        file.set_len(self.plan.wal_segment_bytes).map_err(unwritable)?;
        let mut written = start;
        for group in pieces.chunks(AT_A_TIME) {
            for (source, bytes) in group.iter().zip(self.read(group)?) {
                let plain = self.open_fragment(source, &bytes?)?;
                let known = written.distance_from(source.name.start) as usize;
                let (known, new) = plain.split_at_checked(known).unwrap_or((&plain, &[]));
                compare(file, start, source, known)?;
                let offset = written.distance_from(start);
                file.write_all_at(new, offset).map_err(unwritable)?;
                written = source.name.end;
            }
        }
        let is_used = |one: &Source<'_>| pieces.iter().any(|piece| std::ptr::eq(*piece, one));
        let others = sources.iter().filter(|one| one.name.start < written && !is_used(one));
        let others: Vec<&Source<'_>> = others.collect();
        for group in others.chunks(AT_A_TIME) {
            for (source, bytes) in group.iter().zip(self.read(group)?) {
                // What is damaged or gone cannot contradict.
                let plain = bytes.and_then(|bytes| self.open_fragment(source, &bytes));
                plain.map_or(Ok(()), |plain| compare(file, start, source, &plain))?;
            }
        }
        self.verify(WalFileName::Segment(segment), file)
    }

    fn read(&self, group: &[&Source<'_>]) -> Outcome<Vec<Outcome<Bytes>>> {
        let stream = self.plan.stream;
        let read = group.iter().map(|source| async move {
            source.store.get(&layout::fragment(stream, &source.name)?).await
        });
        let clock = self.environment.clock();
        let left = self.end.saturating_sub(clock.elapsed());
        self.wait(async { Ok(ask(clock, left, read.collect()).await) })
    }

    fn open_fragment(&self, source: &Source<'_>, bytes: &Bytes) -> Outcome<Vec<u8>> {
        let key = self.read_key()?;
        let opened = decode_fragment(&key.keys, &key.read_key, &source.name, bytes);
        Ok(opened.map_err(|failure| failure.within(source.region))?.1)
    }

    fn bounds(&self, segment: SegmentName) -> Outcome<(Lsn, Lsn)> {
        let size = self.plan.segment_size()?;
        let fits = segment.fits(size);
        let bounds = fits.then(|| bounds(segment.number(size), size)).flatten();
        bounds.ok_or_else(|| missing(segment))
    }
}

fn assembly(sources: &[Source<'_>], start: Lsn) -> Option<Assembly> {
    let names: Vec<FragmentName> = sources.iter().map(|source| source.name).collect();
    Assembly::of(&names, start)
}

/// Compares what a fragment repeats with what was written.
fn compare(file: &File, start: Lsn, source: &Source<'_>, plain: &[u8]) -> Outcome<()> {
    let mut written = vec![0; plain.len()];
    file.read_exact_at(&mut written, source.name.start.distance_from(start)).map_err(unwritable)?;
    if written == plain {
        return Ok(());
    }
    let (name, region) = (source.name, source.region);
    let message = format!("fragment {name} of {region} holds other WAL than another fragment");
    Err(Failure::new(Code::SplitBrain, message).hint(
        "Two servers have written this part of the history. Find the second server and stop it; \
         recover to a point before this one.",
    ))
}

fn missing(segment: SegmentName) -> Failure {
    Failure::new(Code::ObjectMissing, format!("fragments do not make all of {segment}"))
}
