//! A receiver: spools, acknowledges, ships, and is sealed, by production's rule of seals.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::future::LocalBoxFuture;
use lifeboat_drivers::ReceiverDriver;
use lifeboat_environment::Timer;
use lifeboat_model::{DatabaseId, DatabaseName, RegionName};
use lifeboat_quorum::SealStatus;
use lifeboat_telemetry::{Code, Failure, Outcome};
use lifeboat_wal::receive::Seal;
use lifeboat_wal::receiver_name;

use crate::executor::{HostId, ProcessId, SimTimer};
use crate::message::{Address, Reply};
use crate::mutant::Mutant;
use crate::plant::Plant;
use crate::postgres::{self, Streamed};
use crate::repository;
use crate::wal::{self, Log, Record, Tip};

const ANSWER: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(100);
const SEALS_WITHIN: Duration = Duration::from_secs(2);

/// What a running receiver is told.
pub enum Order {
    /// Seal yourself; answered once it holds.
    Seal {
        /// For this epoch.
        epoch: u64,
        /// Once it holds.
        reply: Reply<()>,
    },
}

/// What is on its disk.
#[derive(Default)]
struct Spool {
    log: Log,
    /// Up to here it was flushed: what a loss of power leaves.
    flushed: usize,
    /// Up to here it was shipped.
    shipped: usize,
    seal: Option<Seal>,
}

/// The place of a receiver; lives as long as the world.
pub struct Place {
    /// Whose WAL.
    pub database: DatabaseName,
    /// Where.
    pub region: RegionName,
    /// Its process.
    pub process: ProcessId,
    name: String,
    host: HostId,
    address: Address<Order>,
    spool: RefCell<Spool>,
    runs: Cell<Option<(u64, u32)>>,
    /// What is wrong with it on purpose.
    pub mutant: Option<Mutant>,
}

impl Place {
    /// A receiver's place on a host; nothing runs.
    pub fn new(
        plant: &Plant,
        id: &DatabaseId,
        region: &RegionName,
        host: HostId,
        mutant: Option<Mutant>,
    ) -> Rc<Self> {
        let sim = &plant.sim;
        let process = sim.process(host, &format!("{region}/receiver-{}", id.database));
        Rc::new(Self {
            database: id.database.clone(),
            region: region.clone(),
            process,
            name: receiver_name(id, region),
            host,
            address: Address::new(&plant.network, process),
            spool: RefCell::default(),
            runs: Cell::new(None),
            mutant,
        })
    }

    /// Its process is gone, and what was not flushed with the power.
    pub fn die(&self, plant: &Plant, power: bool) {
        plant.sim.kill(self.process);
        if power {
            let mut spool = self.spool.borrow_mut();
            let flushed = spool.flushed;
            spool.log.truncate(flushed);
            spool.shipped = spool.shipped.min(flushed);
        }
    }

    /// For which epoch it runs, if it does.
    pub fn runs_for(&self, plant: &Plant) -> Option<u64> {
        let current = plant.sim.incarnation(self.process);
        self.runs.get().filter(|(_, incarnation)| *incarnation == current).map(|(epoch, _)| epoch)
    }

    fn is_sealed_for(&self, epoch: u64) -> bool {
        let spool = self.spool.borrow();
        let obeys = self.mutant != Some(Mutant::AcknowledgeAfterSeal);
        obeys && spool.seal.as_ref().is_some_and(|seal| seal.forbids(epoch))
    }

    /// Persists a seal: production's rule on what the spool has.
    async fn seal(&self, plant: &Plant, timer: &SimTimer, epoch: u64) {
        let (least, most) = plant.disk(self.host);
        timer.sleep(plant.sim.between(least, most)).await;
        let mut spool = self.spool.borrow_mut();
        let end = spool.log.len();
        spool.flushed = end;
        let flushed = Some((wal::timeline(spool.log.timeline()), wal::lsn(end)));
        if let Some(seal) = Seal::next(spool.seal.as_ref(), epoch, flushed) {
            spool.seal = Some(seal);
            let said = format!("is sealed for epoch {epoch} at {}", wal::lsn(end));
            plant.sim.note_of(self.process, said);
        }
    }

    /// Ships one piece; whether everything lies in the repository.
    async fn ship(&self, plant: &Plant, asker: ProcessId) -> bool {
        loop {
            let (from, behind, records) = {
                let spool = self.spool.borrow();
                let behind = spool.shipped.checked_sub(1);
                let behind = behind.and_then(|last| spool.log.records().get(last));
                let behind = behind.map_or(0, |record| record.id);
                (spool.shipped, behind, spool.log.after(spool.shipped, 500))
            };
            if records.is_empty() {
                return true;
            }
            let Some(repository) = plant.repository(&self.region) else { return false };
            let (database, sent) = (self.database.clone(), records.clone());
            let ask = |reply| repository::Request::Ship { database, behind, records: sent, reply };
            if repository.address.ask(asker, ANSWER, ask).await.is_err() {
                return false;
            }
            let mut spool = self.spool.borrow_mut();
            // The spool may have been cut to another timeline meanwhile.
            let end = from + records.len();
            let same = spool.log.records().get(end - 1).map(|record| record.id);
            if spool.shipped == from && same == records.last().map(|record| record.id) {
                spool.shipped = end;
            }
        }
    }
}

/// Starts the process of a receiver for an epoch.
fn start(plant: &Plant, place: &Rc<Place>, epoch: u64) {
    plant.sim.kill(place.process);
    place.runs.set(Some((epoch, plant.sim.incarnation(place.process))));
    let mut listener = place.address.listen();
    let timer = plant.sim.timer(place.process);
    let (ship_plant, ship_place, ship_timer) = (plant.clone(), Rc::clone(place), timer.clone());
    plant.sim.spawn(place.process, async move {
        loop {
            ship_timer.sleep(ship_plant.tuning.ship).await;
            ship_place.ship(&ship_plant, ship_place.process).await;
        }
    });
    let (plant, place) = (plant.clone(), Rc::clone(place));
    let receiving = receive(plant.clone(), Rc::clone(&place), timer.clone(), epoch);
    plant.clone().sim.spawn(place.process, async move {
        let mut receiving = Box::pin(receiving);
        loop {
            let order = Box::pin(listener.next());
            match futures::future::select(order, receiving).await {
                futures::future::Either::Left((Order::Seal { epoch, reply }, rest)) => {
                    // The stream is not polled while this holds: nothing is acknowledged.
                    place.seal(&plant, &timer, epoch).await;
                    receiving = rest;
                    reply.send(());
                }
                futures::future::Either::Right(((), _)) => {
                    place.runs.set(None);
                    plant.sim.note_of(place.process, "ends: it is sealed");
                    return;
                }
            }
        }
    });
}

/// Receives until it is sealed.
async fn receive(plant: Plant, place: Rc<Place>, timer: SimTimer, epoch: u64) {
    // What one before it wrote and did not flush is flushed before it counts.
    flush_all(&plant, &place, &timer).await;
    loop {
        let mut streamed = false;
        for node in plant.nodes_of(&place.database) {
            while !place.is_sealed_for(epoch) && stream(&plant, &place, &timer, &node, epoch).await
            {
                streamed = true;
            }
        }
        if place.is_sealed_for(epoch) {
            return;
        }
        if !streamed {
            timer.sleep(PAUSE).await;
        }
    }
}

/// One round of a stream: says what is flushed, takes what is new, flushes it.
async fn stream(
    plant: &Plant,
    place: &Rc<Place>,
    timer: &SimTimer,
    node: &postgres::Node,
    epoch: u64,
) -> bool {
    let (tip, flushed) = (place.spool.borrow().log.tip(), place.spool.borrow().flushed);
    let name = place.name.clone();
    plant.checks.acknowledges(plant, &name, tip.length, flushed);
    let epoch = (place.mutant != Some(Mutant::OldEpochReceived)).then_some(epoch);
    let ask = |reply| postgres::Request::Stream { name, tip, epoch, reply };
    match node.address.ask(place.process, ANSWER, ask).await {
        Ok(Streamed::Data(records)) => {
            flush(plant, place, timer, tip, &records).await;
            true
        }
        // What leads nowhere is shipped before it is given up.
        Ok(Streamed::Diverged(theirs)) => {
            if place.ship(plant, place.process).await {
                let mut spool = place.spool.borrow_mut();
                let common = spool.log.common(&theirs);
                spool.log.truncate(common);
                spool.flushed = spool.flushed.min(common);
                spool.shipped = spool.shipped.min(common);
                return true;
            }
            false
        }
        Ok(Streamed::NotPrimary) | Err(_) => false,
    }
}

async fn flush_all(plant: &Plant, place: &Rc<Place>, timer: &SimTimer) {
    let (least, most) = plant.disk(place.host);
    timer.sleep(plant.sim.between(least, most)).await;
    let mut spool = place.spool.borrow_mut();
    spool.flushed = spool.log.len();
}

async fn flush(plant: &Plant, place: &Rc<Place>, timer: &SimTimer, from: Tip, records: &[Record]) {
    let (least, most) = plant.disk(place.host);
    let takes = plant.sim.between(least, most);
    place.spool.borrow_mut().log.extend_from(from, records);
    if place.mutant == Some(Mutant::AcknowledgeBeforeFlush) {
        let (timer, late) = (timer.clone(), takes + Duration::from_millis(400));
        let (sim, place) = (plant.sim.clone(), Rc::clone(place));
        let process = place.process;
        return sim.spawn(process, async move {
            timer.sleep(late).await;
            let mut spool = place.spool.borrow_mut();
            spool.flushed = spool.log.len();
        });
    }
    timer.sleep(takes).await;
    let mut spool = place.spool.borrow_mut();
    spool.flushed = spool.log.len();
}

/// A receiver in the hands of its region's agent.
pub struct SimReceiver {
    plant: Plant,
    place: Rc<Place>,
    agent: ProcessId,
    timer: SimTimer,
    /// Says that it is sealed, and does nothing for it: what a wrong driver would do.
    pub lies: bool,
}

impl SimReceiver {
    /// The receiver at `place`, for the agent's process.
    pub fn new(plant: &Plant, place: &Rc<Place>, agent: ProcessId) -> Self {
        let timer = plant.sim.timer(agent);
        Self { plant: plant.clone(), place: Rc::clone(place), agent, timer, lies: false }
    }

    async fn received(&self, epoch: u64) -> Outcome<()> {
        self.timer.sleep(Duration::from_millis(5)).await;
        if self.place.is_sealed_for(epoch) {
            let message = format!("the receiver is sealed for epoch {epoch}");
            return Err(Failure::new(Code::ReceiverSealed, message));
        }
        if self.place.runs_for(&self.plant) != Some(epoch) {
            start(&self.plant, &self.place, epoch);
        }
        Ok(())
    }

    async fn sealed(&self, epoch: u64) -> Outcome<SealStatus> {
        if self.lies {
            let shipped = self.place.ship(&self.plant, self.agent).await;
            let log = &self.place.spool.borrow().log;
            self.plant.checks.sealed(&self.place.name, epoch, log.len());
            let timeline = Some(wal::timeline(log.timeline()));
            return Ok(SealStatus { epoch, timeline, flushed: Some(wal::lsn(log.len())), shipped });
        }
        if self.place.runs_for(&self.plant).is_some() {
            let ask = |reply| Order::Seal { epoch, reply };
            let answer = self.place.address.ask(self.agent, SEALS_WITHIN, ask).await;
            answer.map_err(|_| {
                Failure::new(Code::DeadlineExceeded, "the running receiver did not seal itself")
            })?;
        } else {
            self.place.seal(&self.plant, &self.timer, epoch).await;
        }
        let shipped = self.place.ship(&self.plant, self.agent).await;
        let spool = self.place.spool.borrow();
        let seal = spool.seal.as_ref().filter(|seal| seal.forbids(epoch));
        let seal = seal.ok_or_else(|| Failure::new(Code::Internal, "it is not sealed"))?;
        let (epoch, timeline, flushed) = (seal.epoch, seal.timeline, seal.flushed);
        let length = flushed.map_or(0, wal::length);
        self.plant.checks.sealed(&self.place.name, epoch, length);
        Ok(SealStatus { epoch, timeline, flushed, shipped })
    }
}

impl ReceiverDriver for SimReceiver {
    fn receive(&self, epoch: u64) -> LocalBoxFuture<'_, Outcome<()>> {
        Box::pin(self.received(epoch))
    }

    fn seal(&self, epoch: u64) -> LocalBoxFuture<'_, Outcome<SealStatus>> {
        Box::pin(self.sealed(epoch))
    }

    fn running(&self) -> Option<u64> {
        self.place.runs_for(&self.plant)
    }
}
