//! The settings of the programs of others.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_environment::Environment;
use lifeboat_telemetry::Outcome;

use super::tls;
use crate::disk::{make_folder, write};
use crate::layout::{Domain, ENDPOINT, ENDPOINT_PORT, HEALTH_PORT, Isolation, Layout, ZONE};

/// The key that signs changes of the zone.
const TSIG_NAME: &str = "lifeboat";

/// The names of the lab's world end with its zone: a server with a root of its own never asks
/// those of the world outside, as BIND does when it starts.
const ROOT: &str = "$TTL 60\n@ SOA ns. hostmaster. 1 60 60 600 1\n@ NS ns.\nns. A 127.0.0.1\n";

/// Writes all of them, and the secrets that they and the spec refer to.
pub fn write_settings(layout: &Layout, environment: &Environment) -> Outcome<()> {
    let etc = layout.settings();
    make_folder(layout, &etc)?;
    let mut secret = [0; 32];
    environment.random().fill(&mut secret);
    let secret = STANDARD.encode(secret);
    write(layout, &etc.join("tsig"), &secret)?;
    let mut vault = [0; 32];
    environment.random().fill(&mut vault);
    write(layout, &etc.join("vault.key"), &STANDARD.encode(vault))?;
    tls::server(layout, &tls::authority(layout)?)?;
    for domain in Domain::REGIONS {
        let dns = layout.disk(domain).join("dns");
        make_folder(layout, &dns)?;
        write(layout, &dns.join("zone.db"), &zone(layout, domain))?;
        write(layout, &dns.join("root.db"), ROOT)?;
        let named = authoritative(layout, domain, &secret);
        write(layout, &etc.join(format!("named-{domain}.conf")), &named)?;
    }
    for domain in Domain::ALL {
        let balancer = balancer(layout, domain);
        write(layout, &etc.join(format!("haproxy-{domain}.cfg")), &balancer)?;
    }
    make_folder(layout, &layout.disk(Domain::Clients).join("dns"))?;
    write(layout, &etc.join("named-clients.conf"), &resolver(layout))?;
    for domain in Domain::ALL {
        // A region's own server knows the zone; others ask the resolver that clients have.
        let (server, _) = layout.dns(if domain.is_region() { domain } else { Domain::Clients });
        let text = format!("nameserver {server}\noptions timeout:1 attempts:2\n");
        write(layout, &etc.join(format!("resolv-{domain}.conf")), &text)?;
        // The C library of every account reads it.
        let path = etc.join(format!("resolv-{domain}.conf"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&path, mode)
            .map_err(|error| crate::state::local("cannot publish", &path).because(error))?;
    }
    Ok(())
}

fn zone(layout: &Layout, domain: Domain) -> String {
    let (address, _) = layout.dns(domain);
    format!(
        "$TTL 60\n@ SOA ns.{ZONE}. hostmaster.{ZONE}. 1 60 60 600 1\n@ NS ns.{ZONE}.\nns A {address}\n"
    )
}

fn named(layout: &Layout, domain: Domain, options: &str, rest: &str) -> String {
    let directory = layout.disk(domain).join("dns");
    let (directory, (address, port)) = (directory.display(), layout.dns(domain));
    format!(
        "options {{\n    directory \"{directory}\";\n    pid-file none;\n    \
         session-keyfile none;\n    listen-on port {port} {{ {address}; }};\n    \
         listen-on-v6 {{ none; }};\n    allow-transfer {{ none; }};\n    notify no;\n    \
         {options}\n}};\ncontrols {{ }};\n{rest}"
    )
}

/// Each region's server stands for itself: there is no transfer that a lost region could stop.
fn authoritative(layout: &Layout, domain: Domain, secret: &str) -> String {
    let rest = format!(
        "zone \".\" {{\n    type primary;\n    file \"root.db\";\n}};\n\
         key \"{TSIG_NAME}.\" {{ algorithm hmac-sha256; secret \"{secret}\"; }};\n\
         zone \"{ZONE}\" {{\n    type primary;\n    file \"zone.db\";\n    update-policy {{\n        \
         grant {TSIG_NAME}. name {ENDPOINT}. A AAAA;\n        \
         grant {TSIG_NAME}. name _lifeboat.{ENDPOINT}. TXT;\n    }};\n}};\n"
    );
    named(layout, domain, "recursion no; dnssec-validation no;", &rest)
}

fn resolver(layout: &Layout) -> String {
    let servers = Domain::REGIONS.iter().fold(String::new(), |mut list, region| {
        let (address, port) = layout.dns(*region);
        let _ = write!(list, "{address} port {port}; ");
        list
    });
    let options = format!(
        "recursion yes; allow-recursion {{ any; }}; allow-query-cache {{ any; }}; \
         dnssec-validation no; prefetch 0; forward only; max-ncache-ttl 1; \
         forwarders {{ {servers}}};"
    );
    named(layout, Domain::Clients, &options, "")
}

/// Both servers stand behind each region's balancer, so that a client with an old answer of DNS
/// gets through as long as both regions live; agents say which one is the primary.
fn balancer(layout: &Layout, domain: Domain) -> String {
    let socket = layout.runtime(domain).join("haproxy.sock");
    let servers = Domain::REGIONS.iter().fold(String::new(), |mut list, region| {
        let (host, port) = (layout.host(*region), layout.server_port(*region));
        let _ = writeln!(list, "  server {region}-1 {host}:{port} check port {HEALTH_PORT}");
        list
    });
    format!(
        "global\n  stats socket {socket} mode 600 level admin\n  maxconn 500\n  nbthread 1\n\
         defaults\n  mode tcp\n  timeout connect 1s\n  timeout check 500ms\n  timeout client 1h\n  \
         timeout server 1h\n  retries 0\n\
         frontend ledger\n  bind {address}:{ENDPOINT_PORT}\n  \
         tcp-request connection reject if {{ nbsrv(ledger) eq 0 }}\n  default_backend ledger\n\
         backend ledger\n  option httpchk GET /primary\n  http-check expect status 200\n  \
         default-server inter 250ms fastinter 100ms downinter 250ms rise 1 fall 2 init-addr none \
         on-marked-down shutdown-sessions\n{servers}",
        socket = socket.display(),
        address = layout.balancer(domain),
    )
}

/// What the servers are set to. A standby is a copy, settings included: `standby create` changes
/// its port and its socket's folder, and everything else holds for both.
pub(crate) fn database(layout: &Layout) -> String {
    format!(
        "listen_addresses = '*'
port = {port}
unix_socket_directories = '{run}'
ssl = on
ssl_cert_file = '{certificate}'
ssl_key_file = '{key}'
dynamic_shared_memory_type = mmap
shared_buffers = 32MB
max_connections = 60
wal_level = replica
wal_log_hints = on
wal_keep_size = 256MB
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_retrieve_retry_interval = 200ms
log_line_prefix = '%m [%p] %q%u@%h '
",
        port = layout.server_port(Domain::East),
        run = layout.runtime(Domain::East).display(),
        certificate = tls::certificate(layout).display(),
        key = tls::key(layout).display(),
    )
}

/// Who may connect: only what is in the lab can reach it.
pub(crate) fn access(layout: &Layout) -> String {
    let network = match layout.isolation {
        Isolation::Namespaces => "10.77.0.0/16",
        Isolation::Loopback { .. } => "127.0.0.0/8",
    };
    format!(
        "local all all trust\nlocal replication all trust\nhost all all {network} trust\n\
         host replication all {network} trust\n"
    )
}
