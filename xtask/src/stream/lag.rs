//! How far a repository in a directory lags behind the server that is streamed into it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, ensure};
use lifeboat_environment::{Clock, SystemClock};
use lifeboat_model::Lsn;
use lifeboat_repository::fragment::FragmentName;
use lifeboat_testkit::postgres::Cluster;
use walkdir::WalkDir;

/// Between two looks at the server and at the repository.
const PAUSE: Duration = Duration::from_millis(50);
/// What is not there by then, after the load, is counted as it stands.
const PATIENCE: Duration = Duration::from_secs(10);

/// A watch that runs until it is ended.
pub struct Lag {
    done: Arc<AtomicBool>,
    watch: JoinHandle<Result<Vec<f64>>>,
}

impl Lag {
    /// Notes what the server has flushed, again and again, and how long it takes until a fragment
    /// holds it.
    pub fn watch(streams: &Path, cluster: &Cluster) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let (streams, until) = (streams.to_owned(), Arc::clone(&done));
        let (sockets, port) = (cluster.sockets().to_owned(), cluster.port());
        let psql = cluster.installation().client_command("psql");
        let watch = std::thread::spawn(move || {
            let mut psql = psql?;
            psql.args(["-XAtq", "-U", "postgres", "-d", "postgres", "-h"]).arg(sockets);
            psql.args(["-p", &port.to_string(), "-c", "SELECT pg_current_wal_flush_lsn()"]);
            let mut open: VecDeque<(Duration, Lsn)> = VecDeque::new();
            let (mut lags, mut ended) = (Vec::new(), None);
            loop {
                if until.load(Ordering::Relaxed) && ended.is_none() {
                    ended = Some(SystemClock.elapsed());
                }
                if ended.is_none() {
                    let at = SystemClock.elapsed();
                    let lsn = lifeboat_testkit::process::run(&mut psql)?.success()?.stdout;
                    open.push_back((at, lsn.trim().parse()?));
                }
                let shipped = shipped(&streams);
                let now = SystemClock.elapsed();
                while let Some((at, _)) = open.front().filter(|(_, lsn)| *lsn <= shipped) {
                    lags.push((now - *at).as_secs_f64());
                    open.pop_front();
                }
                let waited = ended.is_some_and(|ended| now > ended + PATIENCE);
                if (ended.is_some() && open.is_empty()) || waited {
                    lags.extend(open.iter().map(|(at, _)| (now - *at).as_secs_f64()));
                    ensure!(!lags.is_empty(), "the lag was never looked at");
                    return Ok(lags);
                }
                SystemClock.sleep(PAUSE);
            }
        });
        Self { done, watch }
    }

    /// Ends the watch; every lag that was seen.
    pub fn end(self) -> Result<Vec<f64>> {
        self.done.store(true, Ordering::Relaxed);
        self.watch.join().map_err(|_| anyhow::anyhow!("the watch of the lag panicked"))?
    }
}

/// The end of the newest fragment.
fn shipped(streams: &Path) -> Lsn {
    let files = WalkDir::new(streams).into_iter().flatten();
    let names = files.filter_map(|file| name_of(file.path()));
    names.map(|name| name.end).max().unwrap_or(Lsn::ZERO)
}

fn name_of(path: &Path) -> Option<FragmentName> {
    let path: PathBuf = path.components().rev().take(3).collect();
    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    match parts.as_slice() {
        [name, timeline, folder] if folder == "fragments" => {
            format!("{timeline}/{name}").parse().ok()
        }
        _ => None,
    }
}
