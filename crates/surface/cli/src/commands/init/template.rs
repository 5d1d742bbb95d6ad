//! The spec that `init` writes.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use jiff::Timestamp;
use lifeboat_model::RegionName;

use super::Found;

/// A commented spec for the clusters; `here` is the region of this machine.
pub fn spec(clusters: &[Found], here: Option<&RegionName>, now: Timestamp) -> String {
    let home = here.map_or("east", RegionName::as_str);
    let other = if home == "west" { "east" } else { "west" };
    let date = now.strftime("%Y-%m-%d");
    let mut text = format!(
        r#"# What Lifeboat protects, written by `lifeboat init` on {date} after a look at this machine.
# Lines marked EDIT need a person. `lifeboat check` says what is still wrong and what to change.
# Durations: 500ms 15s 5m 4h 35d. Sizes: 64MiB. Secrets are references, never values: ${{NAME}},
# file:/PATH or command:/PROGRAM ARGUMENTS. `lifeboat schema` prints every key.
lifeboat: 1

# Failure domains, each with a repository; every backup goes to all of them. A repository on the
# disk of the database protects against mistakes, not against the loss of the machine.
regions:
  {home}: {{ repository: {{ url: "file:///srv/lifeboat/{home}" }} }}    # EDIT: another disk or store near {home}
  {other}: {{ repository: {{ url: "file:///srv/lifeboat/{other}" }} }}    # EDIT: s3://BUCKET/PREFIX, gs:// or az:// far away

# Repositories are encrypted. Any one slot opens them; without a slot nothing can be restored.
encryption:
  slots:
    - passphrase: "file:/etc/lifeboat/passphrase"    # EDIT: make this file (0600), keep a copy elsewhere
    - recovery_key: {{}}                               # shown once by `lifeboat repo create`: print it

# Objectives: how long a recovery may take, and how much may be lost.
tiers:
  tier-2: {{ rto: 30m, rpo: 5m }}

services:
  main:                # EDIT: the name of the application
    tier: tier-2
    home: {home}
    databases:
"#
    );
    if clusters.is_empty() {
        let mut example = Found::new(Path::new("/var/lib/postgresql/17/main"), "");
        example.version = Some("17".to_owned());
        text.push_str("      # EDIT: no cluster was found on this machine; this is an example.\n");
        database(&mut text, "ledger", home, &example);
    }
    let mut names = BTreeSet::new();
    for cluster in clusters {
        database(&mut text, &name(cluster, &mut names), home, cluster);
    }
    text
}

fn database(text: &mut String, name: &str, region: &str, cluster: &Found) {
    let mut remarks = vec![format!("found by {}", cluster.found_by)];
    remarks.extend(cluster.version.as_ref().map(|version| format!("PostgreSQL {version}")));
    if !cluster.running {
        remarks.push("not running".to_owned());
    }
    if !cluster.readable {
        remarks.push("not readable by the user who ran init".to_owned());
    }
    let connection =
        format!("host={} port={} user=postgres", cluster.socket_directory.display(), cluster.port);
    let programs = match &cluster.bin_directory {
        Some(directory) => format!(", bin_directory: {}", quote(directory)),
        None => String::new(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "      {name}:    # {}
        engine: postgres
        nodes:
          {region}-1: {{ region: {region}, data_directory: {}, connection: \"{connection}\"{programs} }}
        backup: {{ compression: zstd-1 }}    # workers: 2, rate_limit: 200MiB/s
        # In postgresql.conf: archive_mode = on, archive_timeout = 1min,
        # archive_command = 'lifeboat --spec SPEC --here {region} wal push \"%p\"'; `check` prints it.
        wal: {{ mode: archive, every: 1m }}",
        remarks.join(", "),
        quote(&cluster.data_directory),
    );
}

/// A path as a YAML text, whatever it holds.
fn quote(path: &Path) -> String {
    let text = path.display().to_string();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A name that no other cluster has: Debian's, else one made from version or port.
fn name(cluster: &Found, taken: &mut BTreeSet<String>) -> String {
    let version = cluster.version.as_deref().unwrap_or("postgres");
    let base = cluster.name.clone().unwrap_or_else(|| "postgres".to_owned());
    let candidates =
        [base.clone(), format!("{base}-{version}"), format!("{base}-{}", cluster.port)];
    let plain = |text: &String| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let mut numbered = (1..).map(|number| format!("database-{number}"));
    let free = candidates.into_iter().filter(plain).find(|name| !taken.contains(name));
    let chosen = free.or_else(|| numbered.find(|name| !taken.contains(name))).unwrap_or(base);
    taken.insert(chosen.clone());
    chosen
}
