//! `lifeboat wal receive`: WAL of the primary into this region's repository, record by record.

use std::time::Duration;

use lifeboat_model::spec::{Database, Durable, PostgresNode, WalMode, default_flush_every};
use lifeboat_model::{ByteSize, Compression, DatabaseId, RegionName};
use lifeboat_objects::Blocking;
use lifeboat_repository::access::Access;
use lifeboat_repository::enroll::newest_binding;
use lifeboat_repository::keys::{WriterKey, WriterStream};
use lifeboat_telemetry::{Code, Failure, Outcome, bytes};
use lifeboat_wal::receive::{Node, ReceiveRequest, Received as Answer, SPOOL_LIMIT, receive};
use lifeboat_wal::receiver_name;
use schemars::JsonSchema;
use serde::Serialize;

use crate::context::Context;
use crate::output::Report;
use crate::site::Site;

/// How long one operation of the store may take; the receiver itself tries for ever.
const STORE_DEADLINE: Duration = Duration::from_secs(30);

/// Receive WAL of the primary into this region's repository, as it is written
///
/// Runs until it is stopped. WAL is acknowledged once it is durable as `wal.acknowledge.durable`
/// says, so that commits can wait for it (`synchronous_standby_names`). SIGTERM and Ctrl-C ship
/// what was flushed and exit 0, or 5 if the repository did not take all of it. After a disaster,
/// `--drain` ships what this host still has and ends.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  lifeboat wal receive payments/ledger --here west
  lifeboat wal receive payments/ledger --here west --drain")]
pub struct Args {
    /// The database, as SERVICE/DATABASE; without it the only one
    #[arg(value_name = "DB")]
    database: Option<DatabaseId>,
    /// The control epoch to work for; one that is sealed is refused
    #[arg(long, value_name = "N", default_value_t = 0)]
    epoch: u64,
    /// Ship what the spool holds, connect to no server, and end
    #[arg(long)]
    drain: bool,
    /// The most that the spool takes of the disk [default: 1GiB]
    #[arg(long, value_name = "SIZE")]
    spool_limit: Option<ByteSize>,
}

/// How far a receiver came.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Received {
    /// `SERVICE/DATABASE`.
    database: String,
    /// The region that it received in.
    region: String,
    /// The timeline of the last durable position; null if nothing was ever received.
    timeline: Option<u32>,
    /// The last durable position.
    durable_lsn: Option<String>,
    /// Bytes that only the spool on this host holds.
    waiting_bytes: u64,
    /// WAL that was lost.
    gaps: Vec<Gap>,
    #[serde(skip)]
    failure: Option<Failure>,
}

/// WAL that the server removed before it was received.
#[derive(Debug, Serialize, JsonSchema)]
struct Gap {
    /// The timeline before it.
    timeline: u32,
    /// Its first position.
    from_lsn: String,
    /// The timeline behind it.
    to_timeline: u32,
    /// The first position behind it.
    to_lsn: String,
}

impl Report for Received {
    const COMMAND: &'static str = "wal receive";

    fn text(&self) -> String {
        let Self { database, region, .. } = self;
        let held = match (&self.durable_lsn, self.timeline) {
            (Some(lsn), Some(timeline)) => format!("durable up to {lsn} of timeline {timeline}"),
            _ => "nothing was received".to_owned(),
        };
        let waiting = match self.waiting_bytes {
            0 => String::new(),
            waiting => format!(", {} only in the spool", bytes(waiting)),
        };
        format!("{database} in {region}: {held}{waiting}\n")
    }

    fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}

/// Receives.
pub fn run(args: &Args, context: &Context) -> Outcome<Received> {
    let site = Site::open(context)?;
    let blocking = Blocking::new()?;
    let access = site.access(&blocking);
    let (id, database) = site.database(args.database.as_ref())?;
    let region = region(&site, &id, database)?;
    let (writer, stream) = writer_stream(&access, &id)?;
    let store = site.access_within(&blocking, STORE_DEADLINE);
    let wal = &database.wal;
    let durable = wal.acknowledge.as_ref().map_or(Durable::Spool, |settings| settings.durable);
    let name = receiver_name(&id, &region);
    tell(context, database, &id, &region);
    let nodes = nodes(context, database, &region, &name)?;
    let objectives = site.spec.services.get(&id.service);
    let objectives = objectives.and_then(|service| site.spec.objectives(service));
    let rpo = objectives.map(|objectives| objectives.rpo).unwrap_or_default();
    let answer = receive(&ReceiveRequest {
        environment: &context.environment,
        cancel: &context.cancel,
        reporter: &context.reporter,
        blocking: &blocking,
        database: &id.to_string(),
        region: region.as_str(),
        host: &host(),
        name: &name,
        writer: &writer,
        stream: &stream,
        nodes: &nodes,
        state: &site.state,
        level: match database.backup.compression {
            Compression::None => 0,
            Compression::Zstd(level) => i32::from(level),
        },
        flush_every: wal.flush_every.unwrap_or_else(|| default_flush_every(rpo)).duration(),
        durable,
        epoch: args.epoch,
        spool_limit: args.spool_limit.map_or(SPOOL_LIMIT, |limit| limit.0),
        drain: args.drain,
        open: &|| store.repository(&region),
    })?;
    Ok(Received::new(answer, &id, &region))
}

/// Where this process receives.
pub fn region(site: &Site<'_>, id: &DatabaseId, database: &Database) -> Outcome<RegionName> {
    match &site.here {
        Some(here) => Ok(here.clone()),
        None => site.node(id, database).map(|(_, node)| node.region.clone()),
    }
}

/// This host's writer key and the stream in it. A key that is not bound yet is bound now, to the
/// cluster that the repositories know, if a slot opens.
pub fn writer_stream(access: &Access<'_>, id: &DatabaseId) -> Outcome<(WriterKey, WriterStream)> {
    let database = id.to_string();
    let writer = WriterKey::load(&access.writer_path())?;
    if let Some(stream) = writer.stream(&database) {
        let stream = stream.clone();
        return Ok((writer, stream));
    }
    let mut regions = access.regions()?;
    let Some(binding) = access.blocking.run(newest_binding(&regions, &database))? else {
        let message = format!("{database} is not bound to a cluster yet");
        return Err(Failure::new(Code::WriterKeyIncomplete, message)
            .hint("Run `lifeboat key enroll` or take a backup on the host of the database."));
    };
    access.writer_stream(&mut regions, &database, binding.body.system_identifier)
}

/// What the spec says otherwise is no error: a receiver may be tried before it is relied on.
fn tell(context: &Context, database: &Database, id: &DatabaseId, region: &RegionName) {
    let wal = &database.wal;
    if wal.mode != WalMode::Stream {
        context.reporter.warn(format!("the spec says that {id} archives: wal.mode is not stream"));
    } else if !wal.receivers.contains(region) {
        context.reporter.warn(format!("{region} is not among wal.receivers of {id} in the spec"));
    }
}

/// How each node is reached from here: those of this region first, by their `connection`. Nodes of
/// other regions by their `address`, with role, password and TLS of their `connection`; unless
/// that says otherwise, WAL crosses regions over TLS with a verified name.
pub fn nodes(
    context: &Context,
    database: &Database,
    here: &RegionName,
    name: &str,
) -> Outcome<Vec<Node>> {
    let mut nodes = Vec::new();
    let mut left_out = Vec::new();
    let all =
        |own: bool| database.nodes.iter().filter(move |(_, node)| (node.region == *here) == own);
    for (node_name, node) in all(true).chain(all(false)) {
        let local = node.region == *here;
        let data_directory = local.then(|| node.data_directory.clone());
        let mut add = |config: Outcome<lifeboat_wire::Config>| match config {
            Ok(mut config) => {
                name.clone_into(&mut config.application_name);
                let (name, data_directory) = (node_name.to_string(), data_directory.clone());
                nodes.push(Node { name, config, data_directory });
            }
            Err(failure) => left_out.push(format!("{node_name}: {failure}")),
        };
        if local {
            add(connection(context, node));
        }
        if node.address.is_some() {
            add(remote(context, node));
        } else if !local {
            left_out.push(format!("{node_name}: it has no address"));
        }
    }
    for line in &left_out {
        context.reporter.warn(format!("a node cannot be received from: {line}"));
    }
    match nodes.is_empty() {
        false => Ok(nodes),
        true => Err(Failure::new(Code::SpecInvalid, "no node of the database can be reached")
            .details(left_out)
            .hint("Give the nodes an `address`, and variables of their `connection` a value.")),
    }
}

fn connection(context: &Context, node: &PostgresNode) -> Outcome<lifeboat_wire::Config> {
    let text = node.connection.resolve(&context.environment)?;
    lifeboat_wire::Config::parse(&text).map_err(|error| error.at("`connection`"))
}

fn remote(context: &Context, node: &PostgresNode) -> Outcome<lifeboat_wire::Config> {
    let mut config = connection(context, node)?;
    if !node.connection.as_written().contains("sslmode=") {
        config.tls.mode = lifeboat_wire::TlsMode::VerifyFull;
    }
    let Some(address) = &node.address else { return Ok(config) };
    let address = address.resolve(&context.environment)?;
    let invalid = || {
        Failure::new(Code::SpecInvalid, format!("{address:?} is no address"))
            .hint("Write it as HOST:PORT.")
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    config.host = lifeboat_wire::Host::Tcp(host.to_owned());
    config.port = port.parse().map_err(|_| invalid())?;
    config.address = None;
    Ok(config)
}

fn host() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    host.trim().to_owned()
}

impl Received {
    fn new(answer: Answer, id: &DatabaseId, region: &RegionName) -> Self {
        let failure = failure(&answer);
        let gaps = answer.gaps.iter().map(|gap| Gap {
            timeline: gap.timeline.0,
            from_lsn: gap.from.to_string(),
            to_timeline: gap.to_timeline.0,
            to_lsn: gap.to.to_string(),
        });
        Self {
            database: id.to_string(),
            region: region.to_string(),
            timeline: answer.flushed.map(|(timeline, _)| timeline.0),
            durable_lsn: answer.flushed.map(|(_, lsn)| lsn.to_string()),
            waiting_bytes: answer.waiting_bytes,
            gaps: gaps.collect(),
            failure,
        }
    }
}

fn failure(answer: &Answer) -> Option<Failure> {
    if !answer.gaps.is_empty() {
        let lines = answer.gaps.iter().map(ToString::to_string);
        return Some(
            Failure::new(Code::WalGap, "WAL was lost while this receiver ran")
                .details(lines)
                .hint("Take a backup now: no moment from the gap on can be restored without it."),
        );
    }
    let waiting = answer.waiting_bytes;
    let message = format!("{} are in the spool of this host only", bytes(waiting));
    let hint = "Run `lifeboat wal receive --drain` here once the repository answers.";
    (waiting > 0).then(|| {
        let failure = Failure::new(Code::RegionSkipped, message).hint(hint);
        match &answer.trouble {
            Some(trouble) => failure.detail(trouble.full_message()),
            None => failure,
        }
    })
}
