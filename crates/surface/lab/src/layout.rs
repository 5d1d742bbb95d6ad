//! Where things of a lab lie: files below one directory, addresses in networks of its own.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lifeboat_telemetry::{Code, Failure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A failure domain of the lab, or the place where its clients are.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// The region where the service is at home.
    East,
    /// The region where it can go.
    West,
    /// The witness.
    North,
    /// Where clients and their resolver are; nothing of Lifeboat runs there.
    Clients,
}

impl Domain {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::East, Self::West, Self::North, Self::Clients];
    /// Those with data.
    pub const REGIONS: [Self; 2] = [Self::East, Self::West];
    /// Those with a vote.
    pub const VOTERS: [Self; 3] = [Self::East, Self::West, Self::North];

    /// Its name, as in the spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::East => "east",
            Self::West => "west",
            Self::North => "north",
            Self::Clients => "clients",
        }
    }

    /// The number in its addresses.
    fn number(self) -> u8 {
        match self {
            Self::East => 1,
            Self::West => 2,
            Self::North => 3,
            Self::Clients => 4,
        }
    }

    /// Whether it has a database.
    pub fn is_region(self) -> bool {
        matches!(self, Self::East | Self::West)
    }

    /// The region that is not this one.
    pub fn other_region(self) -> Self {
        if self == Self::East { Self::West } else { Self::East }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Domain {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Self::ALL.into_iter().find(|domain| domain.name() == text).ok_or_else(|| {
            Failure::new(Code::LabFaultUnknown, format!("the lab has no domain `{text}`"))
                .hint("Its domains are east, west, north and clients.")
        })
    }
}

/// How the domains are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A network namespace, a disk and a cgroup each. Needs root.
    Namespaces,
    /// Addresses 127.NET.DOMAIN.x only.
    Loopback {
        /// The second octet, so that several labs fit on one machine.
        net: u8,
    },
}

/// The names and addresses of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    /// How domains are kept apart.
    pub isolation: Isolation,
}

impl Layout {
    /// The layout of the lab in `root`, an absolute path.
    pub fn new(root: impl Into<PathBuf>, isolation: Isolation) -> Self {
        Self { root: root.into(), isolation }
    }

    /// The directory of the lab.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A word that no other lab of this machine has, from the directory alone: whatever is named
    /// after it is found again, whether or not a state file is left.
    pub fn id(&self) -> String {
        // FNV-1a: stable across versions, which the hasher of the standard library is not.
        let hash = self.root.as_os_str().as_encoded_bytes().iter();
        let hash = hash.fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        format!("{hash:08x}")
    }

    /// The name of a domain's network namespace.
    pub fn namespace(&self, domain: Domain) -> String {
        format!("lb-{}-{domain}", self.id())
    }

    /// The namespace that all others are connected to.
    pub fn hub(&self) -> String {
        format!("lb-{}-hub", self.id())
    }

    /// The cgroup (version 1, freezer) of the lab; a domain's is a folder in it.
    pub fn cgroup(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/freezer").join(format!("lifeboat-lab-{}", self.id()))
    }

    /// Whether a domain has a namespace, a cgroup and, for regions, a disk.
    pub fn has_namespaces(&self) -> bool {
        self.isolation == Isolation::Namespaces
    }

    fn address(&self, domain: Domain, host: u8) -> Ipv4Addr {
        match self.isolation {
            Isolation::Namespaces => Ipv4Addr::new(10, 77, domain.number(), host),
            Isolation::Loopback { net } => Ipv4Addr::new(127, net, domain.number(), host),
        }
    }

    /// The hub's address on a domain's side.
    pub fn gateway(&self, domain: Domain) -> Ipv4Addr {
        self.address(domain, 1)
    }

    /// The host of a domain: PostgreSQL, etcd, agent, controller.
    pub fn host(&self, domain: Domain) -> Ipv4Addr {
        self.address(domain, 10)
    }

    /// The port of a region's PostgreSQL. It listens on all addresses, for both servers have the
    /// same settings: so its port is not the balancer's, and without namespaces not the other's.
    pub fn server_port(&self, domain: Domain) -> u16 {
        match self.isolation {
            Isolation::Namespaces => 5433,
            Isolation::Loopback { net } => 22_000 + u16::from(net) * 8 + u16::from(domain.number()),
        }
    }

    /// The socket of a region's PostgreSQL.
    pub fn socket(&self, domain: Domain) -> PathBuf {
        self.runtime(domain).join(format!(".s.PGSQL.{}", self.server_port(domain)))
    }

    /// The node whose server has this address.
    pub fn node_at(&self, address: IpAddr) -> Option<String> {
        let region = Domain::REGIONS.into_iter().find(|region| address == self.host(*region))?;
        Some(format!("{region}-1"))
    }

    /// The load balancer of a region.
    pub fn balancer(&self, domain: Domain) -> Ipv4Addr {
        self.address(domain, 20)
    }

    /// Where there are load balancers: in the regions, and without namespaces also beside the
    /// clients, for the machine's own resolver knows nothing of the lab's names.
    pub fn balanced(&self) -> Vec<Domain> {
        let mut domains = Domain::REGIONS.to_vec();
        domains.extend((!self.has_namespaces()).then_some(Domain::Clients));
        domains
    }

    /// What observers connect to.
    pub fn endpoint(&self) -> String {
        match self.isolation {
            Isolation::Namespaces => ENDPOINT.to_owned(),
            Isolation::Loopback { .. } => self.balancer(Domain::Clients).to_string(),
        }
    }

    /// The DNS server of a region; for clients, their resolver. BIND listens on addresses that an
    /// interface has and no others, so without namespaces ports tell them apart.
    pub fn dns(&self, domain: Domain) -> (Ipv4Addr, u16) {
        match self.isolation {
            Isolation::Namespaces => (self.address(domain, 53), 53),
            Isolation::Loopback { net } => {
                let port = 20_000 + u16::from(net) * 8 + u16::from(domain.number());
                (Ipv4Addr::LOCALHOST, port)
            }
        }
    }

    /// All addresses of a domain.
    pub fn addresses(&self, domain: Domain) -> [Ipv4Addr; 3] {
        [self.host(domain), self.balancer(domain), self.address(domain, 53)]
    }

    /// Everything of a domain, as routes name it.
    pub fn network(&self, domain: Domain) -> String {
        format!("{}/24", self.address(domain, 0))
    }

    /// The lab's own copy of the binary, which the servers' account can run.
    pub fn binary(&self) -> PathBuf {
        self.root.join("bin/lifeboat")
    }

    /// The spec.
    pub fn spec(&self) -> PathBuf {
        self.root.join("lifeboat.yaml")
    }

    /// The folder of settings.
    pub fn settings(&self) -> PathBuf {
        self.root.join("etc")
    }

    /// The image of a region's disk.
    pub fn image(&self, domain: Domain) -> PathBuf {
        self.root.join(format!("{domain}.img"))
    }

    /// Where everything durable of a domain lies.
    pub fn disk(&self, domain: Domain) -> PathBuf {
        self.root.join(domain.name())
    }

    /// What a boot clears: sockets.
    pub fn runtime(&self, domain: Domain) -> PathBuf {
        self.root.join("run").join(domain.name())
    }

    /// What the processes of a domain say.
    pub fn logs(&self, domain: Domain) -> PathBuf {
        self.root.join("log").join(domain.name())
    }

    /// The data directory of a region's PostgreSQL.
    pub fn data(&self, domain: Domain) -> PathBuf {
        self.disk(domain).join("data")
    }

    /// `LIFEBOAT_STATE` of a domain.
    pub fn state(&self, domain: Domain) -> PathBuf {
        self.disk(domain).join("state")
    }

    /// A region's repository. It stands for a store that both regions reach, so it is on no disk
    /// of theirs.
    pub fn repository(&self, domain: Domain) -> PathBuf {
        self.root.join("repository").join(domain.name())
    }

    /// Where it is while its region is lost.
    pub(crate) fn lost_repository(&self, domain: Domain) -> PathBuf {
        self.root.join("repository").join(format!("{domain}.lost"))
    }

    /// What the clients of the ledger noted.
    pub fn history(&self) -> PathBuf {
        self.root.join("ledger/history.jsonl")
    }
}

/// The port of load balancers.
pub const ENDPOINT_PORT: u16 = 5432;
/// The port of etcd for clients; members speak on the next one.
pub const ETCD_PORT: u16 = 2379;
/// The port of an agent's `GET /primary`.
pub const HEALTH_PORT: u16 = 8008;
/// The zone in which clients find the service.
pub const ZONE: &str = "lab.test";
/// The name by which clients find the service.
pub const ENDPOINT: &str = "ledger.lab.test";
/// The service.
pub const SERVICE: &str = "ledger";
/// Its database, as commands name it.
pub const DATABASE: &str = "ledger/books";
