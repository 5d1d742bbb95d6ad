//! The network between hosts: late, lossy, out of order, cut one way or both.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::executor::{HostId, Sim};

/// How one direction between two hosts behaves.
#[derive(Debug, Clone, Copy)]
pub struct Link {
    /// The quickest a message gets there.
    pub least: Duration,
    /// The slowest; messages overtake each other in between.
    pub most: Duration,
    /// How many of a thousand messages are lost.
    pub lost_permille: u64,
    /// Nothing gets through.
    pub cut: bool,
}

/// The network; clones are handles to the same one.
#[derive(Clone)]
pub struct Network {
    sim: Sim,
    links: Rc<RefCell<BTreeMap<(HostId, HostId), Link>>>,
    usual: Link,
}

impl Network {
    /// A network whose links between hosts behave like this.
    pub fn new(sim: Sim, usual: Link) -> Self {
        Self { sim, links: Rc::default(), usual }
    }

    /// Carries a message. What is on its way when a link is cut is lost too.
    pub fn send(&self, from: HostId, to: HostId, deliver: impl FnOnce() + 'static) {
        if from == to {
            let late = self.sim.between(Duration::from_micros(20), Duration::from_micros(120));
            self.sim.after(late, deliver);
            return;
        }
        let link = self.link(from, to);
        let lost = self.sim.chance(|chance| chance.permille(link.lost_permille));
        let late = self.sim.between(link.least, link.most);
        if link.cut || lost {
            return;
        }
        let network = self.clone();
        self.sim.after(late, move || {
            if !network.link(from, to).cut {
                deliver();
            }
        });
    }

    /// How one direction behaves now.
    pub fn link(&self, from: HostId, to: HostId) -> Link {
        self.links.borrow().get(&(from, to)).copied().unwrap_or(self.usual)
    }

    /// Changes one direction.
    pub fn set(&self, from: HostId, to: HostId, change: impl FnOnce(&mut Link)) {
        let mut links = self.links.borrow_mut();
        change(links.entry((from, to)).or_insert(self.usual));
    }

    /// Everything as it was.
    pub fn heal(&self) {
        self.links.borrow_mut().clear();
    }

    /// The simulation.
    pub fn sim(&self) -> &Sim {
        &self.sim
    }
}
