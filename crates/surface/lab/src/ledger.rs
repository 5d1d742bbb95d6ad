//! The application of the lab: clients that write into the ledger and note every answer.
//!
//! Some go the way of any client, by name through DNS and a load balancer, and come again when
//! they are turned away. Others sit in a region and keep one session for as long as it lives, over
//! TCP and over the socket: they are who a bad fence would let through.

mod history;
mod name;
mod session;
mod writer;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome};

use crate::layout::{Domain, Layout};
use crate::state::local;

pub use history::{Answer, Entry, History, Way};

/// What clients write into. The application is no superuser.
pub const SCHEMA: &str = "
CREATE ROLE ledger LOGIN;
CREATE TABLE entries (
    writer text,
    session bigint,
    sequence bigint,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (writer, session, sequence)
);
GRANT SELECT, INSERT ON entries TO ledger;
CREATE PROCEDURE write_on(own text, session bigint, first bigint, number int)
LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 0 .. number - 1 LOOP
        INSERT INTO entries (writer, session, sequence) VALUES (own, session, first + i);
        COMMIT;
        RAISE NOTICE 'committed % %', first + i, pg_walfile_name(pg_current_wal_insert_lsn());
    END LOOP;
END $$;
";

/// How often what was noted is written down.
const FLUSH: Duration = Duration::from_millis(100);

/// How a client reaches a server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Road {
    /// By name: the resolver, then a load balancer.
    Endpoint(SocketAddr),
    /// Straight to a server's address.
    Tcp(SocketAddr),
    /// Through this socket.
    Socket(PathBuf),
}

/// One client.
#[derive(Debug, Clone)]
struct Client {
    name: String,
    /// In whose network it sits.
    domain: Domain,
    way: Way,
    road: Road,
}

fn clients(layout: &Layout) -> Vec<Client> {
    let mut all = Vec::new();
    for number in 1..=4 {
        all.push(Client {
            name: format!("client-{number}"),
            domain: Domain::Clients,
            way: Way::Endpoint,
            road: Road::Endpoint(layout.dns(Domain::Clients).into()),
        });
    }
    for region in Domain::REGIONS {
        let tcp = Road::Tcp((layout.host(region), layout.server_port(region)).into());
        let socket = Road::Socket(layout.socket(region));
        for (name, way, road) in [
            ("tcp", Way::Single, &tcp),
            ("socket", Way::Single, &socket),
            ("pipeline", Way::Pipeline, &tcp),
            ("procedure", Way::Procedure, &socket),
        ] {
            let name = format!("{region}-{name}");
            all.push(Client { name, domain: region, way, road: road.clone() });
        }
    }
    all
}

/// Runs all clients until it is told to end; what they note goes to the history.
pub fn run(layout: &Layout, environment: &Environment, cancel: &Cancel) -> Outcome<()> {
    let path = layout.history();
    let file = fs::File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(|error| local("cannot open", &path).because(error))?;
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads: Vec<_> = clients(layout)
            .into_iter()
            .map(|client| {
                let sender = sender.clone();
                scope.spawn(move || writer::run(layout, &client, environment, cancel, &sender))
            })
            .collect();
        drop(sender);
        let noted = history::note(file, &receiver, FLUSH);
        // A history that cannot be written ends everybody.
        if noted.is_err() {
            cancel.request();
        }
        for thread in threads {
            let ended = thread.join().unwrap_or_else(|_| {
                Err(Failure::new(Code::Internal, "a client of the ledger panicked"))
            });
            ended?;
        }
        noted.map_err(|error| local("cannot write", &path).because(error))
    })
}
