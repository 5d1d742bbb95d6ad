//! What the two threads of a receiver know of each other: how far is flushed, how far is shipped.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lifeboat_environment::Clock;
use lifeboat_model::{Lsn, SegmentName, SegmentSize, Timeline};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::reopen::Extent;

/// So many bytes wait for no timer.
pub(crate) const SHIP_AT_ONCE: u64 = 4 << 20;
/// The most that becomes one fragment.
const FRAGMENT_BYTES_MAX: u64 = 8 << 20;
/// How long the shipper sleeps at most, where nobody wakes it.
const TICK: Duration = Duration::from_millis(100);

/// What the shipper does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// Store a history.
    History(Timeline),
    /// Store a whole segment, and give up the one before it.
    Segment(SegmentName),
    /// Store bytes of an unfinished segment; all of them, if no more will come.
    Fragment {
        /// The extent that they belong to.
        extent: Extent,
        /// The first byte.
        start: Lsn,
        /// The byte after the last one there is.
        end: Lsn,
        /// Nothing follows: also a record that is not whole goes out.
        last: bool,
    },
    /// Give up the files of what has ended and is in the repository.
    Forget(Extent),
    /// Everything is shipped, and no more comes.
    Nothing,
}

/// How the shipper stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The newest flushed position.
    pub(crate) flushed: Option<(Timeline, Lsn)>,
    /// Everything up to here of that timeline is in the repository.
    pub(crate) shipped: Lsn,
    /// Bytes that wait.
    pub(crate) waiting: u64,
}

/// Shared by the threads.
pub(crate) struct Ledger {
    state: Mutex<State>,
    moved: Condvar,
    flush_every: Duration,
}

#[derive(Default)]
struct State {
    size: Option<SegmentSize>,
    spans: Vec<Span>,
    histories: BTreeSet<Timeline>,
    /// When the oldest byte that waits was flushed.
    since: Option<Duration>,
    /// No record ended before this: it is not worth another look.
    looked: Option<Lsn>,
    ending: bool,
    failure: Option<Failure>,
    done: bool,
}

/// An extent of the spool on its way.
#[derive(Debug, Clone, Copy)]
struct Span {
    extent: Extent,
    /// Everything before this is in the repository, as fragments at least.
    shipped: Lsn,
    /// Every segment before this is in the repository under its own name.
    stored: Lsn,
    /// Its timeline has ended, or its WAL goes on behind a gap.
    closed: bool,
}

impl Ledger {
    pub(crate) fn new(flush_every: Duration) -> Self {
        Self { state: Mutex::default(), moved: Condvar::new(), flush_every }
    }

    /// Adds an extent that the repository has up to `shipped`, in segments up to `stored`. What was
    /// the last extent grows no more.
    pub(crate) fn add(&self, size: SegmentSize, extent: Extent, shipped: Lsn, stored: Lsn) {
        let mut state = self.state();
        state.size = Some(size);
        if let Some(last) = state.spans.last_mut() {
            last.closed = true;
        }
        let shipped = shipped.max(extent.start);
        let stored = stored.max(extent.start);
        state.spans.push(Span { extent, shipped, stored, closed: false });
        state.looked = None;
        self.moved.notify_all();
    }

    /// The last extent grows no more: what follows does not follow it.
    pub(crate) fn close(&self) {
        if let Some(last) = self.state().spans.last_mut() {
            last.closed = true;
        }
        self.moved.notify_all();
    }

    /// Whether something of a timeline is on its way.
    pub(crate) fn holds(&self, timeline: Timeline) -> bool {
        self.state().spans.iter().any(|span| span.extent.timeline == timeline)
    }

    /// Whether the shipper was asked to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.state().ending
    }

    /// The cluster's segment size.
    pub(crate) fn size(&self) -> Outcome<SegmentSize> {
        let unknown = || Failure::new(Code::Internal, "the segment size is not known");
        self.state().size.ok_or_else(unknown)
    }

    /// The files of an extent are gone.
    pub(crate) fn forgotten(&self, extent: Extent) {
        let mut state = self.state();
        state.spans.retain(|span| span.extent != extent);
        self.moved.notify_all();
    }

    /// Adds a history that is in the spool.
    pub(crate) fn add_history(&self, timeline: Timeline) {
        self.state().histories.insert(timeline);
        self.moved.notify_all();
    }

    /// The last extent has grown: this is durable.
    pub(crate) fn flushed(&self, to: Lsn, clock: &dyn Clock) {
        let mut state = self.state();
        let Some(last) = state.spans.last_mut() else { return };
        if to > last.extent.end {
            last.extent.end = to;
            let due = last.unshipped() >= SHIP_AT_ONCE;
            let first = state.since.is_none();
            state.since.get_or_insert_with(|| clock.elapsed());
            if due || first {
                self.moved.notify_all();
            }
        }
    }

    /// The newest extent, if it is of this timeline.
    pub(crate) fn newest(&self, timeline: Timeline) -> Option<Extent> {
        let state = self.state();
        state.spans.last().map(|span| span.extent).filter(|extent| extent.timeline == timeline)
    }

    /// The position after everything that is flushed.
    pub(crate) fn end(&self) -> Option<(Timeline, Lsn)> {
        self.state().spans.last().map(|span| (span.extent.timeline, span.extent.end))
    }

    /// How far everything is.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.state();
        let last = state.spans.last();
        Standing {
            flushed: last.map(|span| (span.extent.timeline, span.extent.end)),
            shipped: last.map_or(Lsn::ZERO, |span| span.shipped),
            waiting: state.spans.iter().map(Span::unshipped).sum(),
        }
    }

    /// Asks the shipper to ship all there is and to end.
    pub(crate) fn end_soon(&self) {
        self.state().ending = true;
        self.moved.notify_all();
    }

    /// Whether the shipper has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.state().done
    }

    /// The shipper has ended, for this reason if there is one.
    pub(crate) fn done(&self, failure: Option<Failure>) {
        let mut state = self.state();
        state.done = true;
        state.failure = failure;
        self.moved.notify_all();
    }

    /// Why the shipper has ended.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.state().failure.take()
    }

    /// Waits until something changes, at most so long.
    pub(crate) fn wait(&self, at_most: Duration) {
        let state = self.state();
        let _ = self.moved.wait_timeout(state, at_most.min(TICK));
    }

    /// Waits for the next thing to ship.
    pub(crate) fn next(&self, clock: &dyn Clock) -> Work {
        let mut state = self.state();
        loop {
            let now = clock.elapsed();
            if let Some(work) = state.work(now, self.flush_every) {
                return work;
            }
            let waited = state.since.map(|since| now.saturating_sub(since));
            let left = waited.map_or(TICK, |waited| self.flush_every.saturating_sub(waited));
            let (guard, _) = self
                .moved
                .wait_timeout(state, left.clamp(Duration::from_millis(1), TICK))
                .unwrap_or_else(PoisonError::into_inner);
            state = guard;
        }
    }

    /// A history is in the repository.
    pub(crate) fn shipped_history(&self, timeline: Timeline) {
        self.state().histories.remove(&timeline);
        self.moved.notify_all();
    }

    /// Everything before `to` is in the repository.
    pub(crate) fn shipped(&self, extent: Extent, to: Lsn, clock: &dyn Clock) {
        let mut state = self.state();
        if let Some(span) = state.span(extent) {
            span.shipped = span.shipped.max(to);
        }
        state.looked = None;
        state.rest(clock);
        self.moved.notify_all();
    }

    /// No record ends before `at`: waits for more.
    pub(crate) fn nothing_whole(&self, at: Lsn, clock: &dyn Clock) {
        let mut state = self.state();
        state.looked = Some(at);
        state.since = Some(clock.elapsed());
    }

    /// The segment that ends at `to` is in the repository under its own name.
    pub(crate) fn stored(&self, segment: SegmentName, clock: &dyn Clock) {
        let mut state = self.state();
        let Some(end) = state.size.and_then(|size| segment.next(size)?.start(size)) else {
            return;
        };
        let ours = |span: &&mut Span| {
            span.extent.timeline == segment.timeline()
                && span.stored < end
                && end <= span.extent.end
        };
        if let Some(span) = state.spans.iter_mut().find(ours) {
            span.stored = end;
            span.shipped = span.shipped.max(end);
        }
        state.looked = None;
        state.rest(clock);
        self.moved.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn span(&mut self, extent: Extent) -> Option<&mut Span> {
        let same = |span: &&mut Span| {
            (span.extent.timeline, span.extent.start) == (extent.timeline, extent.start)
        };
        self.spans.iter_mut().find(same)
    }

    /// Starts the timer anew for what still waits.
    fn rest(&mut self, clock: &dyn Clock) {
        let waits = self.spans.iter().any(|span| span.unshipped() > 0);
        self.since = waits.then(|| clock.elapsed());
    }

    fn work(&self, now: Duration, flush_every: Duration) -> Option<Work> {
        if let Some(timeline) = self.histories.first() {
            return Some(Work::History(*timeline));
        }
        for span in &self.spans {
            if let Some(segment) = span.next_segment(self.size) {
                return Some(Work::Segment(segment));
            }
            let waits = span.unshipped();
            if waits == 0 && span.closed {
                return Some(Work::Forget(span.extent));
            }
            if waits == 0 {
                continue;
            }
            let last = span.closed || self.ending;
            let waited = self.since.is_none_or(|since| now.saturating_sub(since) >= flush_every);
            let fruitless = self.looked == Some(span.extent.end);
            if last || ((waited || waits >= SHIP_AT_ONCE) && !fruitless) {
                let Extent { end, .. } = span.extent;
                let most = Lsn(span.shipped.0.saturating_add(FRAGMENT_BYTES_MAX));
                let (extent, start, end) = (span.extent, span.shipped, end.min(most));
                return Some(Work::Fragment { extent, start, end, last });
            }
            // Later WAL is worth nothing without this.
            return None;
        }
        self.ending.then_some(Work::Nothing)
    }
}

impl Span {
    fn unshipped(&self) -> u64 {
        self.extent.end.distance_from(self.shipped)
    }

    /// The first segment that is whole and not stored.
    fn next_segment(&self, size: Option<SegmentSize>) -> Option<SegmentName> {
        let size = size?;
        let end = self.stored.checked_add(size.bytes())?;
        (end <= self.extent.end)
            .then(|| SegmentName::from_lsn(self.extent.timeline, self.stored, size))
    }
}
