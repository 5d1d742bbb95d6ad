//! The lab's own `lifeboat.yaml`: one service, two regions, a witness, RPO 0.

use crate::layout::{Domain, ENDPOINT, ENDPOINT_PORT, ETCD_PORT, HEALTH_PORT, Layout, ZONE};
use crate::programs::POSTGRES;

/// What it says.
pub fn text(layout: &Layout) -> String {
    let regions = Domain::REGIONS.map(|region| {
        let url = layout.repository(region);
        format!("  {region}: {{ repository: {{ url: \"file://{}\" }} }}\n", url.display())
    });
    let nodes = Domain::REGIONS.map(|region| node(layout, region));
    let endpoints = Domain::VOTERS
        .map(|domain| format!("\"http://{}:{ETCD_PORT}\"", layout.host(domain)))
        .join(", ");
    format!(
        "# The lab's spec. Local state is each host's own: LIFEBOAT_STATE names it.\n\
         lifeboat: 1\n\nregions:\n{regions}witness: north\n\nencryption:\n  slots:\n    \
         - key_file: \"file:{etc}/vault.key\"\n\nquorum:\n  etcd: {{ endpoints: [{endpoints}] }}\n  \
         lease: 6s\n  renew: 500ms\n  probe_timeout: 500ms\n  store_timeout: 750ms\n  \
         fence_deadline: 1500ms\n  margin: 500ms\n\ntiers:\n  tier-1: {{ rto: 15s, rpo: 0s }}\n\n\
         services:\n  ledger:\n    tier: tier-1\n    home: east\n    standby: west\n    \
         strategy: warm-standby\n    databases:\n      books:\n        engine: postgres\n        \
         nodes:\n{nodes}        endpoint: \"{endpoint}:{ENDPOINT_PORT}\"\n        \
         wal:\n          mode: stream\n          receivers: [east, west]\n          \
         acknowledge: {{ remote: 1, durable: spool, on_loss: block }}\n          \
         flush_every: 500ms\n{traffic}    \
         failover: {{ automatic: true, observers_agree: 2, unhealthy_for: 2s, dwell: 10s }}\n",
        regions = regions.concat(),
        nodes = nodes.concat(),
        etc = layout.settings().display(),
        endpoint = layout.endpoint(),
        traffic = traffic(layout),
    )
}

fn node(layout: &Layout, region: Domain) -> String {
    let host = layout.host(region);
    format!(
        "          {region}-1:\n            region: {region}\n            \
         data_directory: {data}\n            \
         connection: \"host={run} port={port} user=postgres \
         sslrootcert={etc}/ca.pem\"\n            \
         address: \"{host}:{port}\"\n            \
         health: \"{host}:{HEALTH_PORT}\"\n            bin_directory: {POSTGRES}\n",
        data = layout.data(region).display(),
        run = layout.runtime(region).display(),
        etc = layout.settings().display(),
        port = layout.server_port(region),
    )
}

fn traffic(layout: &Layout) -> String {
    let dns = |domain: Domain| {
        let (address, port) = layout.dns(domain);
        format!("\"{address}:{port}\"")
    };
    let servers = Domain::REGIONS.map(dns);
    let targets = Domain::REGIONS.map(|region| format!("{region}: [{}]", layout.balancer(region)));
    format!(
        "    traffic:\n      - record: {ENDPOINT}.\n        driver: rfc2136\n        \
         servers: [{servers}]\n        resolver: {resolver}\n        zone: {ZONE}.\n        \
         tsig: {{ name: lifeboat, algorithm: hmac-sha256, secret: \"file:{etc}/tsig\" }}\n        \
         ttl: 1s\n        targets: {{ {targets} }}\n",
        servers = servers.join(", "),
        resolver = dns(Domain::Clients),
        etc = layout.settings().display(),
        targets = targets.join(", "),
    )
}
