//! Applications: they write through the service's name, and remember what was acknowledged.

use std::time::Duration;

use lifeboat_environment::Timer;
use lifeboat_model::DatabaseName;

use crate::dns::{NameServer, Resolver, TTL};
use crate::executor::{HostId, ProcessId};
use crate::plant::Plant;
use crate::postgres::{Request, Written};

const ANSWER: Duration = Duration::from_millis(2500);

/// Starts an application that writes to a database for ever.
pub fn start(
    plant: &Plant,
    database: &DatabaseName,
    servers: &[NameServer],
    host: HostId,
    pause: Duration,
) -> ProcessId {
    let process = plant.sim.process(host, &format!("{}/client", plant.sim.host_name(host)));
    let resolver = Resolver::new(plant, servers, process, TTL);
    let timer = plant.sim.timer(process);
    let (plant, database) = (plant.clone(), database.clone());
    plant.clone().sim.spawn(process, async move {
        loop {
            if let Some(region) = resolver.resolve().await {
                let nodes = plant.nodes_of(&database);
                if let Some(node) = nodes.iter().find(|node| node.region == region) {
                    // A session lasts for as long as it works, whatever the name says meanwhile.
                    while write(&plant, process, node).await {
                        timer.sleep(plant.sim.between(pause / 4, pause * 2)).await;
                    }
                }
            }
            timer.sleep(Duration::from_millis(150)).await;
        }
    });
    process
}

/// One commit; whether it was acknowledged.
async fn write(plant: &Plant, process: ProcessId, node: &crate::postgres::Node) -> bool {
    let id = plant.id();
    let write = |reply| Request::Write { id, local: false, reply };
    match node.address.ask(process, ANSWER, write).await {
        Ok(Written::Committed) => {
            plant.checks.heard(&node.database, id);
            true
        }
        // A timeout is neither yes nor no.
        Ok(Written::ReadOnly) | Err(_) => false,
    }
}
