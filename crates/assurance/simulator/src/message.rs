//! Requests between processes: asked over the network, answered over the network, or never.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::future::{Either, select};
use lifeboat_environment::Timer;

use crate::executor::{HostId, ProcessId};
use crate::network::Network;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// Nobody listens there: nothing was done.
    Refused,
    /// Nothing came back in time: it may have been done.
    Timeout,
}

/// Where requests to a process go; lives as long as the world, not as the process.
pub struct Address<Q> {
    /// Who answers.
    pub process: ProcessId,
    network: Network,
    /// Which start of the process listens, and what it has not read yet.
    inbox: Rc<RefCell<Option<Inbox<Q>>>>,
}

struct Inbox<Q> {
    incarnation: u32,
    queue: VecDeque<Q>,
    waker: Option<Waker>,
}

impl<Q> Clone for Address<Q> {
    fn clone(&self) -> Self {
        Self { process: self.process, network: self.network.clone(), inbox: Rc::clone(&self.inbox) }
    }
}

impl<Q: 'static> Address<Q> {
    /// The address of a process; nobody listens yet.
    pub fn new(network: &Network, process: ProcessId) -> Self {
        Self { process, network: network.clone(), inbox: Rc::default() }
    }

    /// The process starts to listen; what came for an earlier start is lost.
    pub fn listen(&self) -> Listener<Q> {
        let incarnation = self.network.sim().incarnation(self.process);
        *self.inbox.borrow_mut() = Some(Inbox { incarnation, queue: VecDeque::new(), waker: None });
        Listener { inbox: Rc::clone(&self.inbox) }
    }

    /// The process stops listening, while it lives.
    pub fn close(&self) {
        *self.inbox.borrow_mut() = None;
    }

    /// Puts a request before the process; gives it back if nobody listens.
    pub fn deliver(&self, request: Q) -> Option<Q> {
        let mut inbox = self.inbox.borrow_mut();
        let incarnation = self.network.sim().incarnation(self.process);
        match inbox.as_mut().filter(|inbox| inbox.incarnation == incarnation) {
            None => Some(request),
            Some(inbox) => {
                inbox.queue.push_back(request);
                if let Some(waker) = inbox.waker.take() {
                    waker.wake();
                }
                None
            }
        }
    }

    /// Sends a request that has no answer.
    pub fn send(&self, from: HostId, request: Q) {
        let (address, to) = (self.clone(), self.network.sim().host_of(self.process));
        self.network.send(from, to, move || {
            address.deliver(request);
        });
    }

    /// Asks and waits for the answer, for `timeout` by the clock of whoever asks.
    pub async fn ask<A: 'static>(
        &self,
        asker: ProcessId,
        timeout: Duration,
        request: impl FnOnce(Reply<A>) -> Q,
    ) -> Result<A, Unanswered> {
        let sim = self.network.sim();
        let (from, to) = (sim.host_of(asker), sim.host_of(self.process));
        let slot = Rc::new(RefCell::new(Slot { answer: None, waker: None }));
        let reply = Reply { network: self.network.clone(), from, to, slot: Rc::clone(&slot) };
        let (address, refusal) = (self.clone(), reply.clone());
        let request = request(reply);
        self.network.send(from, to, move || {
            if address.deliver(request).is_some() {
                refusal.put(Err(Unanswered::Refused));
            }
        });
        let sleep = sim.timer(asker).sleep(timeout);
        match select(Answer { slot }, sleep).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => Err(Unanswered::Timeout),
        }
    }
}

/// What a process reads its requests from.
pub struct Listener<Q> {
    inbox: Rc<RefCell<Option<Inbox<Q>>>>,
}

impl<Q> Listener<Q> {
    /// The next request; waits for ever once nobody listens.
    pub async fn next(&mut self) -> Q {
        futures::future::poll_fn(|context| match self.inbox.borrow_mut().as_mut() {
            None => Poll::Pending,
            Some(inbox) => match inbox.queue.pop_front() {
                Some(request) => Poll::Ready(request),
                None => {
                    inbox.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            },
        })
        .await
    }
}

struct Slot<A> {
    answer: Option<Result<A, Unanswered>>,
    waker: Option<Waker>,
}

/// The way back. A reply that is dropped tells nothing: messages get lost in silence.
pub struct Reply<A> {
    network: Network,
    from: HostId,
    to: HostId,
    slot: Rc<RefCell<Slot<A>>>,
}

impl<A> Clone for Reply<A> {
    fn clone(&self) -> Self {
        Self {
            network: self.network.clone(),
            from: self.from,
            to: self.to,
            slot: Rc::clone(&self.slot),
        }
    }
}

impl<A: 'static> Reply<A> {
    /// Sends the answer; the first one to arrive counts.
    pub fn send(&self, answer: A) {
        self.put(Ok(answer));
    }

    /// Nobody is there who could answer.
    pub fn refuse(&self) {
        self.put(Err(Unanswered::Refused));
    }

    fn put(&self, answer: Result<A, Unanswered>) {
        let slot = Rc::clone(&self.slot);
        self.network.send(self.to, self.from, move || {
            let mut slot = slot.borrow_mut();
            if slot.answer.is_none() {
                slot.answer = Some(answer);
                if let Some(waker) = slot.waker.take() {
                    waker.wake();
                }
            }
        });
    }
}

struct Answer<A> {
    slot: Rc<RefCell<Slot<A>>>,
}

impl<A> Future for Answer<A> {
    type Output = Result<A, Unanswered>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.slot.borrow_mut();
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}
