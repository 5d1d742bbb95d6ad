//! `lifeboat enroll` over a real etcd that speaks TLS.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lifeboat_environment::Environment;
use lifeboat_model::Spec;
use lifeboat_quorum::{Authority, Commit, StoreError, Transaction};
use lifeboat_testkit::etcd::Cluster;
use serde_json::Value;

use crate::lifeboat;

/// A host with a state directory of its own.
struct Host<'a> {
    root: &'a Path,
    name: &'a str,
}

impl<'a> Host<'a> {
    fn new(root: &'a Path, name: &'a str, cluster: &Cluster) -> Result<Self> {
        let shown = root.display();
        let endpoints = cluster.endpoints().join("\", \"");
        let spec = format!(
            "lifeboat: 1
state: {shown}/{name}
regions:
  east: {{ repository: {{ url: \"file://{shown}/repository-east\" }} }}
  west: {{ repository: {{ url: \"file://{shown}/repository-west\" }} }}
witness: north
encryption: none
quorum:
  etcd: {{ endpoints: [\"{endpoints}\"], ca: {shown}/admin/authority.pem }}
tiers: {{ t: {{ rto: 1h, rpo: 1h }} }}
services:
  pay:
    tier: t
    home: east
    standby: west
    databases:
      ledger:
        engine: postgres
        nodes:
          east-1: {{ region: east, data_directory: /srv/east, connection: \"host=/run\" }}
          west-1: {{ region: west, data_directory: /srv/west, connection: \"host=/run\" }}
        wal: {{ mode: archive, every: 30m }}
"
        );
        fs::write(root.join(format!("{name}.yaml")), spec)?;
        Ok(Self { root, name })
    }

    fn run(&self, words: &[&str], input: &str) -> Result<Output> {
        let spec = self.root.join(format!("{}.yaml", self.name));
        let mut command = lifeboat(words);
        command.arg("--spec").arg(spec);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("no pipe")?.write_all(input.as_bytes())?;
        Ok(child.wait_with_output()?)
    }

    fn ok(&self, words: &[&str], input: &str) -> Result<String> {
        let output = self.run(words, input)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The store as a daemon of this host opens it, and one change.
    async fn put(&self, key: &str) -> Result<Result<Commit, StoreError>> {
        let spec = Spec::open(&self.root.join(format!("{}.yaml", self.name)))?.accept()?;
        let mut quorum = spec.quorum.context("no quorum")?;
        quorum.store_timeout = "10s".parse().ok().context("a time")?;
        let state = self.root.join(self.name);
        let store = lifeboat_quorum::open(&quorum, &state, &Environment::system())?;
        store.read("lifeboat/", 0).await?;
        Ok(store.commit(Transaction::new().put(key, &"x")).await)
    }
}

#[tokio::test]
async fn an_administrator_enrolls_hosts_by_tokens_that_work_once() -> Result<()> {
    let cluster = Cluster::secure()?;
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let (admin, east, north) = (
        Host::new(root, "admin", &cluster)?,
        Host::new(root, "east", &cluster)?,
        Host::new(root, "north", &cluster)?,
    );
    // The members were certified before etcd is given its users.
    fs::create_dir(root.join("admin"))?;
    cluster.authority()?.save(&root.join("admin").join(Authority::FILE))?;
    admin.ok(&["enroll", "authority"], "")?;
    let told = admin.ok(&["--json", "enroll", "authority", "--etcd"], "")?;
    let told: Value = serde_json::from_str(&told)?;
    ensure!(told["result"]["etcd"] == true && told["result"]["new"] == false, "{told}");
    admin.ok(&["enroll", "authority", "--etcd"], "")?;
    let member = root.join("member");
    fs::create_dir(&member)?;
    let to = member.display().to_string();
    admin.ok(&["enroll", "server", "etcd-1", "10.1.0.5", "--to", &to], "")?;
    ensure!(member.join("etcd-1.pem").is_file() && member.join("etcd-1.key").is_file());

    let node = "pay/ledger/east-1";
    let agent = admin.ok(&["enroll", "invite", "agent", "east", "--node", node], "")?;
    let controller = admin.ok(&["enroll", "invite", "controller", "north"], "")?;
    ensure!(east.ok(&["enroll", "host"], &agent)?.contains("agent-east"));
    ensure!(north.ok(&["enroll", "host"], &controller)?.contains("controller-north"));
    for token in [agent.as_str(), "lifeboat-0-0", ""] {
        let again = east.run(&["enroll", "host"], token)?;
        let said = String::from_utf8_lossy(&again.stderr).into_owned();
        ensure!(again.status.code() == Some(4) && said.contains("LB7007"), "{token}: {said}");
        ensure!(token.is_empty() || !said.contains(token.trim()), "the token is in a message");
    }

    let key = |name: &str| format!("lifeboat/services/pay/{name}");
    for (host, own, others) in [
        (&east, key("status/ledger/east-1"), key("status/ledger/west-1")),
        (&north, key("epoch"), key("lease/ledger")),
    ] {
        let made = host.put(&own).await?;
        ensure!(matches!(made, Ok(Commit::Done(_))), "{own}: {made:?}");
        let refused = host.put(&others).await?;
        ensure!(matches!(refused, Err(StoreError::Denied(_))), "{others}: {refused:?}");
    }
    // A new service gives new rights, and nobody is invited again.
    let spec = root.join("admin.yaml");
    let text = fs::read_to_string(&spec)?;
    let books = text.split_once("  pay:").map(|(_, rest)| format!("  books:{rest}"));
    fs::write(&spec, format!("{text}{}", books.context("a spec")?.replace("/srv/", "/srv/b-")))?;
    let books = "lifeboat/services/books/epoch";
    ensure!(matches!(north.put(books).await?, Err(StoreError::Denied(_))));
    let said = admin.ok(&["enroll", "refresh"], "")?;
    ensure!(said.contains("agent-east") && said.contains("controller-north"), "{said}");
    tokio::time::sleep(Duration::from_millis(100)).await;
    ensure!(matches!(north.put(books).await?, Ok(Commit::Done(_))));
    Ok(())
}
