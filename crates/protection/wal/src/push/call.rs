//! One call at work: the file that was asked for on this thread, what is ready next on others.

use std::path::Path;
use std::time::Duration;

use lifeboat_model::WalFileName;
use lifeboat_telemetry::Outcome;

use super::ahead::Queue;
use super::file::Origin;
use super::identity::Source;
use super::place::Places;
use super::spool::Spool;
use super::{How, PushRequest, file, parts};

/// Two threads compress while a third one waits for the repository. More would take processors
/// from PostgreSQL.
const HELPERS: usize = 2;

/// What the threads of one call share.
pub(crate) struct Call<'a> {
    pub(crate) request: &'a PushRequest<'a>,
    pub(crate) source: &'a Source,
    pub(crate) places: &'a Places<'a>,
    pub(crate) spool: &'a Spool<'a>,
}

impl Call<'_> {
    /// Pushes the file that was asked for on this thread; helpers take from the queue, and so does
    /// this one when it is done.
    pub(crate) fn run(
        &self,
        path: &Path,
        name: WalFileName,
        queue: &Queue,
    ) -> Outcome<(Vec<String>, How)> {
        let clock = self.request.environment.clock();
        let until = clock.elapsed().saturating_add(self.request.ahead.time);
        std::thread::scope(|scope| {
            for _ in 0..HELPERS {
                scope.spawn(|| self.push_ahead(queue, until));
            }
            let answer = self.push_one(path, name);
            if answer.is_ok() {
                self.push_ahead(queue, until);
                self.spool.forget(&name.to_string());
            } else {
                queue.clear();
            }
            answer
        })
    }

    fn push_ahead(&self, queue: &Queue, until: Duration) {
        let clock = self.request.environment.clock();
        while !self.request.cancel.is_requested() && clock.elapsed() < until {
            let Some(name) = queue.next() else { break };
            let path = self.source.directory.join("pg_wal").join(name.to_string());
            match self.push_one(&path, name) {
                Ok(_) => queue.pushed(name),
                Err(failure) => queue.stop(name, &failure),
            }
        }
    }

    fn push_one(&self, path: &Path, name: WalFileName) -> Outcome<(Vec<String>, How)> {
        let keys = &self.request.stream.keys;
        self.request.cancel.check()?;
        let control = &self.source.control;
        let origin = Origin { system: control.system, segment_size: control.wal_segment_size };
        let file = file::read(path, name, origin, keys)?;
        let placed = parts::place(self.places, path, &file, self.request.level)?;
        self.request.environment.failpoints().hit("push.stored")?;
        self.spool.acknowledge(&file.name, &file.identity);
        self.request.environment.failpoints().hit("push.acked")?;
        let how = if placed.new { How::Stored } else { How::Identical };
        Ok((placed.regions, how))
    }
}
