//! Keys that contradict each other, or leave something out that others need.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Remarks, database_path, service_path};
use crate::finding::Path;
use crate::spec::{
    Database, Encryption, Engine, Service, StorageAges, TrafficDriver, TrafficRecord, WalMode,
};
use crate::{Reference, ServiceName, Spec};

const SCHEMES: [&str; 6] = ["file", "s3", "gs", "az", "azure", "abfs"];
const TSIG_ALGORITHMS: [&str; 3] = ["hmac-sha256", "hmac-sha384", "hmac-sha512"];

pub(super) fn check(spec: &Spec, remarks: &mut Remarks<'_, '_>) {
    let root = |key: &str| Path::from([key]);
    if spec.lifeboat.is_none() {
        let hint = "Begin the file with `lifeboat: 1`.";
        remarks.error(&root("lifeboat"), "the key `lifeboat` is missing", hint);
    }
    if spec.regions.is_empty() {
        let hint =
            "Add `regions: { east: { repository: { url: \"file:///srv/lifeboat/east\" } } }`.";
        remarks.error(&root("regions"), "there is no region", hint);
    }
    if let Some(witness) = spec.witness.as_ref().filter(|name| spec.regions.contains_key(*name)) {
        let message = format!("`{witness}` is a region and cannot outvote the loss of itself");
        remarks.error(&root("witness"), message, "Name a third failure domain, without data.");
    }
    if let Encryption::Slots(slots) = &spec.encryption
        && slots.slots.is_empty()
    {
        let path = root("encryption").join("slots");
        let hint = "Add `- passphrase: \"file:/etc/lifeboat/passphrase\"`, or write \
                    `encryption: none`.";
        remarks.error(&path, "no slot: nobody could open the vault", hint);
    }
    check_repositories(spec, remarks);
    check_quorum(spec, remarks);
    check_people(spec, remarks);
    for (name, service) in &spec.services {
        // What does not fit an unknown region follows from that one mistake.
        if remarks.findings.is_broken(&service_path(name).join("home")) {
            continue;
        }
        check_service(name, service, spec, remarks);
        for (database, settings) in &service.databases {
            check_database(&database_path(name, database), settings, service, remarks);
        }
    }
}

fn check_repositories(spec: &Spec, remarks: &mut Remarks<'_, '_>) {
    let mut seen = BTreeMap::new();
    for (name, region) in &spec.regions {
        let url = &region.repository.url;
        let path = Path::from(["regions"]).join(name).join("repository").join("url");
        if let Some(other) = seen.insert((url, &region.repository.endpoint), name) {
            let message = format!("regions `{other}` and `{name}` share one repository");
            remarks.error(&path, message, "Give each region a place that dies alone.");
        }
        check_url(url, &path, remarks);
    }
}

fn check_url(url: &Reference, path: &Path, remarks: &mut Remarks<'_, '_>) {
    let text = url.as_written();
    if text.starts_with("${") {
        return;
    }
    match text.split_once("://") {
        Some((scheme, rest)) if SCHEMES.contains(&scheme) => {
            if scheme == "file" && !rest.starts_with('/') {
                let hint = format!("Write three slashes: file:///{rest}.");
                remarks.error(path, "the path of a file repository must be absolute", &hint);
            } else if rest.is_empty() {
                let hint = format!("Write {scheme}://BUCKET/PREFIX.");
                remarks.error(path, "the URL names no bucket", &hint);
            }
        }
        _ => {
            let hint = "Write file:///PATH, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or \
                        az://CONTAINER/PREFIX.";
            remarks.error(path, "this is no URL of a repository", hint);
        }
    }
}

fn check_quorum(spec: &Spec, remarks: &mut Remarks<'_, '_>) {
    let Some(quorum) = &spec.quorum else {
        return;
    };
    let path = Path::from(["quorum"]);
    match (&quorum.etcd, &quorum.local) {
        (Some(_), Some(_)) => {
            remarks.error(&path, "both `etcd` and `local` are given", "Keep one of them.");
        }
        (None, None) => {
            let hint = "Add `etcd: { endpoints: [\"https://…\"] }` or `local: {}`.";
            remarks.error(&path, "neither `etcd` nor `local` is given", hint);
        }
        (Some(etcd), None) if etcd.endpoints.is_empty() => {
            let hint = "Name the client address of each member.";
            remarks.error(&path.join("etcd").join("endpoints"), "no endpoint", hint);
        }
        _ => {}
    }
}

fn check_people(spec: &Spec, remarks: &mut Remarks<'_, '_>) {
    for (name, person) in &spec.people {
        if person.key.strip_prefix("ed25519:").is_none_or(str::is_empty) {
            let path = Path::from(["people"]).join(name).join("key");
            let hint = "Write the person's public key as ed25519:BASE64.";
            remarks.error(&path, "this is no public key", hint);
        }
    }
}

fn check_service(
    name: &ServiceName,
    service: &Service,
    spec: &Spec,
    remarks: &mut Remarks<'_, '_>,
) {
    let path = service_path(name);
    if service.standby.as_ref() == Some(&service.home) {
        let message = format!("`standby` and `home` are both `{}`", service.home);
        remarks.error(&path.join("standby"), message, "Name another region.");
    }
    if depends_on_itself(name, spec) {
        let message = format!("`{name}` waits for itself, directly or through others");
        remarks.error(&path.join("depends_on"), message, "Break the circle.");
    }
    if let Some(failover) = &service.failover {
        let path = path.join("failover");
        if failover.automatic && service.standby.is_none() {
            let hint = "Add `standby:` to the service.";
            remarks.error(&path.join("automatic"), "there is no region to fail over to", hint);
        }
        for (step, approval) in &failover.approve {
            let persons: BTreeSet<_> = approval.of.iter().collect();
            if approval.any == 0 || usize::from(approval.any) > persons.len() {
                let message = format!("any {} of {} persons", approval.any, persons.len());
                let path = path.join("approve").join(step).join("any");
                remarks.error(
                    &path,
                    message,
                    "Ask for at least one, and not for more than there are.",
                );
            }
        }
    }
    for (position, record) in service.traffic.iter().enumerate() {
        check_traffic(&path.join("traffic").item(position), record, service, remarks);
    }
    for (workload, settings) in &service.workloads {
        if let Some(scale) = settings.scale.as_ref().filter(|scale| scale.minimum > scale.active) {
            let message = format!("minimum {} > active {}", scale.minimum, scale.active);
            let path = path.join("workloads").join(workload).join("scale").join("minimum");
            remarks.error(&path, message, "It would never count as serving: lower `minimum`.");
        }
    }
}

fn depends_on_itself(name: &ServiceName, spec: &Spec) -> bool {
    let mut reached = BTreeSet::new();
    let mut open = vec![name];
    while let Some(next) = open.pop() {
        for needed in spec.services.get(next).into_iter().flat_map(|service| &service.depends_on) {
            if needed == name {
                return true;
            }
            if reached.insert(needed) {
                open.push(needed);
            }
        }
    }
    false
}

fn check_traffic(
    path: &Path,
    record: &TrafficRecord,
    service: &Service,
    remarks: &mut Remarks<'_, '_>,
) {
    for region in [Some(&service.home), service.standby.as_ref()].into_iter().flatten() {
        if record.targets.get(region).is_none_or(Vec::is_empty) {
            let message = format!("no address in region `{region}`: traffic could not go there");
            let hint = format!("Add `{region}: [ADDRESS]` to `targets`.");
            remarks.error(&path.join("targets"), message, &hint);
        }
    }
    let nobody = record.server.is_none() && record.servers.is_empty();
    let (missing, key) = match record.driver {
        TrafficDriver::Rfc2136 | TrafficDriver::Haproxy => (nobody, "server"),
        TrafficDriver::Cloudflare => (record.token.is_none(), "token"),
        TrafficDriver::Route53 => (false, ""),
    };
    if missing {
        let message = format!("driver {} needs the key `{key}`", record.driver);
        remarks.error(&path.join(key), message, &format!("Add `{key}:` to this record."));
    }
    for (region, targets) in &record.targets {
        let others = record.targets.iter().filter(|(other, _)| *other != region);
        let shared = |target: &&String| others.clone().any(|(_, theirs)| theirs.contains(target));
        if let Some(target) = targets.iter().find(shared) {
            let message = format!("`{target}` stands in two regions: nobody could tell them apart");
            remarks.error(&path.join("targets").join(region), message, "Leave it in one of them.");
        }
    }
    if record.driver == TrafficDriver::Rfc2136 {
        check_dns(path, record, remarks);
    }
}

fn check_dns(path: &Path, record: &TrafficRecord, remarks: &mut Remarks<'_, '_>) {
    for (region, targets) in &record.targets {
        if let Some(target) = targets.iter().find(|target| target.parse::<IpAddr>().is_err()) {
            let message = format!("`{target}` is no IP address");
            let hint = "Write addresses: DNS UPDATE changes A and AAAA records.";
            remarks.error(&path.join("targets").join(region), message, hint);
        }
    }
    if let Some(tsig) = &record.tsig
        && !TSIG_ALGORITHMS.contains(&tsig.algorithm.as_str())
    {
        let path = path.join("tsig").join("algorithm");
        let message = format!("`{}` does not sign updates", tsig.algorithm);
        remarks.error(&path, message, &format!("Write one of {}.", TSIG_ALGORITHMS.join(", ")));
    }
}

fn check_database(
    path: &Path,
    database: &Database,
    service: &Service,
    remarks: &mut Remarks<'_, '_>,
) {
    check_places(path, database, service, remarks);
    if database.backup.workers == Some(0) {
        let path = path.join("backup").join("workers");
        remarks.error(&path, "workers 0: nobody would do the work", "Set 1 or more.");
    }
    let wal = &database.wal;
    if wal.mode == WalMode::Stream {
        let path = path.join("wal");
        if wal.receivers.is_empty() {
            let hint = "Name the regions that receive, as in `receivers: [east, west]`.";
            remarks.error(&path.join("receivers"), "mode stream, but no receiver", hint);
        }
        let remote: BTreeSet<_> =
            wal.receivers.iter().filter(|region| **region != service.home).collect();
        if let Some(acknowledge) = &wal.acknowledge
            && !wal.receivers.is_empty()
            && usize::from(acknowledge.remote) > remote.len()
        {
            let message = format!(
                "remote {} > {} receivers outside region `{}`: no commit would ever end",
                acknowledge.remote,
                remote.len(),
                service.home
            );
            let hint = "Add receivers or lower `remote`.";
            remarks.error(&path.join("acknowledge").join("remote"), message, hint);
        }
    }
    if let Some(StorageAges { hot, warm, cold }) =
        database.retention.as_ref().and_then(|retention| retention.storage.as_ref())
    {
        let ages: Vec<_> = [hot, warm, cold].into_iter().flatten().collect();
        if !ages.is_sorted() {
            let path = path.join("retention").join("storage");
            let hint = "Let hot end before warm, and warm before cold.";
            remarks.error(&path, "the ages do not grow from hot to cold", hint);
        }
    }
}

/// Each engine says in its own way where it runs.
fn check_places(
    path: &Path,
    database: &Database,
    service: &Service,
    remarks: &mut Remarks<'_, '_>,
) {
    let (engine, home) = (database.engine, &service.home);
    let (wanted, other, has, has_other, at_home) = match engine {
        Engine::Postgres | Engine::Patroni => (
            "nodes",
            "locations",
            !database.nodes.is_empty(),
            !database.locations.is_empty(),
            database.nodes_of(home).next().is_some(),
        ),
        Engine::Rds | Engine::Redshift => (
            "locations",
            "nodes",
            !database.locations.is_empty(),
            !database.nodes.is_empty(),
            database.locations.contains_key(home),
        ),
    };
    if has_other {
        let message = format!("engine {engine} has `{wanted}`, not `{other}`");
        remarks.error(&path.join(other), message, "Remove it, or correct `engine`.");
    }
    if !has {
        let message = format!("engine {engine} needs `{wanted}`");
        remarks.error(&path.join(wanted), message, "Say where the database runs.");
    } else if !at_home {
        let message = format!("`{wanted}` has nothing in the home region `{home}`");
        remarks.error(&path.join(wanted), message, "Add it, or correct `home`.");
    }
}
