//! The server of a database that writes, wherever it runs now.

use lifeboat_environment::Environment;
use lifeboat_model::spec::{Database, PostgresNode};
use lifeboat_model::{DatabaseId, NodeName, RegionName};
use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::connect::{Connection, connect, connect_at};

/// A server that is not in recovery.
pub struct WritingServer {
    /// Its node in the spec.
    pub node: NodeName,
    /// The region that writes.
    pub region: RegionName,
    /// A session on it.
    pub connection: Connection,
}

/// Asks the node of this region first, as a process beside it would; then the others, where the
/// spec says that they can be reached.
pub async fn find(
    id: &DatabaseId,
    database: &Database,
    here: Option<&RegionName>,
    environment: &Environment,
) -> Outcome<WritingServer> {
    let mut nodes: Vec<_> = database.nodes.iter().collect();
    nodes.sort_by_key(|(_, node)| here != Some(&node.region));
    let mut answers = Vec::new();
    for (name, node) in nodes {
        match ask(node, here, environment).await {
            Ok(Some(connection)) => {
                let (node, region) = (name.clone(), node.region.clone());
                return Ok(WritingServer { node, region, connection });
            }
            Ok(None) => answers.push(format!("{name}: it is a standby")),
            Err(failure) => answers.push(format!("{name}: {failure}")),
        }
    }
    let message = format!("no server of {id} answers that writes");
    Err(Failure::new(Code::ClusterUnreachable, message).details(answers).hint(
        "Run it on the host of the writing server with --here, or give the nodes an `address` \
         that can be reached from here.",
    ))
}

async fn ask(
    node: &PostgresNode,
    here: Option<&RegionName>,
    environment: &Environment,
) -> Outcome<Option<Connection>> {
    let settings = node.connection.resolve(environment)?;
    // `connection` is meant for processes beside the node: from elsewhere it may lead to another
    // server.
    let beside = here.is_none_or(|here| *here == node.region);
    let connection = match &node.address {
        Some(address) if !beside => connect_at(&settings, &address.resolve(environment)?).await?,
        _ => connect(&settings).await?,
    };
    let writes = connection.text("SELECT (NOT pg_is_in_recovery())::text").await? == "true";
    Ok(writes.then_some(connection))
}
