use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use lifeboat_environment::Timer;

use crate::chance::Chance;
use crate::executor::Sim;
use crate::message::{Address, Unanswered};
use crate::network::{Link, Network};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn link() -> Link {
    Link { least: ms(5), most: ms(20), lost_permille: 0, cut: false }
}

/// Three processes that tick and tell, one of them killed, one frozen for a while.
fn story(seed: u64) -> (String, Vec<(u64, &'static str)>) {
    let sim = Sim::new(Chance::new(seed));
    let told: Rc<RefCell<Vec<(u64, &'static str)>>> = Rc::default();
    for name in ["a", "b", "c"] {
        let host = sim.host(name, Duration::from_secs(100), 0);
        let process = sim.process(host, name);
        let (timer, told, clock) = (sim.timer(process), Rc::clone(&told), sim.clone());
        sim.spawn(process, async move {
            loop {
                timer.sleep(ms(100)).await;
                told.borrow_mut().push((clock.now().as_millis() as u64, name));
            }
        });
        let handle = sim.clone();
        match name {
            "a" => sim.after(ms(450), move || handle.kill(process)),
            "b" => {
                sim.after(ms(250), move || handle.freeze(process));
                let handle = sim.clone();
                sim.after(ms(750), move || handle.thaw(process));
            }
            _ => {}
        }
    }
    sim.run_until(ms(1000));
    let told = told.take();
    let hash = sim.hash();
    sim.end();
    (hash, told)
}

#[test]
fn a_seed_gives_one_history_and_another_seed_another() {
    assert_eq!(story(7), story(7));
    assert_ne!(story(7).0, story(8).0);
}

#[test]
fn a_dead_process_does_nothing_and_a_frozen_one_goes_on_later() {
    let (_, told) = story(1);
    let of =
        |name| told.iter().filter(|line| line.1 == name).map(|line| line.0).collect::<Vec<_>>();
    assert_eq!(of("a").len(), 4);
    assert!(of("b").iter().all(|at| !(250..750).contains(at)), "{told:?}");
    assert!(of("b").iter().any(|at| (750..760).contains(at)), "{told:?}");
    assert_eq!(of("c").len(), 9);
}

#[test]
fn a_clock_that_drifts_shows_it_and_wakes_by_it() {
    let sim = Sim::new(Chance::new(1));
    let host = sim.host("slow", Duration::from_secs(5), -50_000);
    let process = sim.process(host, "slow");
    let woken = Rc::new(RefCell::new(Duration::ZERO));
    let (timer, seen, handle) = (sim.timer(process), Rc::clone(&woken), sim.clone());
    sim.spawn(process, async move {
        timer.sleep(Duration::from_secs(95)).await;
        *seen.borrow_mut() = handle.now();
    });
    sim.run_until(Duration::from_secs(200));
    assert!(*woken.borrow() >= Duration::from_secs(100));
    assert!(*woken.borrow() < Duration::from_millis(100_001));
    assert_eq!(sim.timer(process).elapsed(), Duration::from_secs(195));
    sim.reboot_clock(host);
    assert_eq!(sim.timer(process).elapsed(), Duration::ZERO);
    sim.end();
}

#[test]
fn requests_are_answered_refused_or_lost() {
    let sim = Sim::new(Chance::new(3));
    let (here, there) = (sim.host("here", ms(0), 0), sim.host("there", ms(0), 0));
    let network = Network::new(sim.clone(), link());
    let (asker, server) = (sim.process(here, "asker"), sim.process(there, "server"));
    let address: Address<(u32, crate::message::Reply<u32>)> = Address::new(&network, server);
    let answers: Rc<RefCell<Vec<Result<u32, Unanswered>>>> = Rc::default();
    let start = {
        let (address, sim) = (address.clone(), sim.clone());
        move || {
            let mut listener = address.listen();
            sim.spawn(server, async move {
                loop {
                    let (number, reply) = listener.next().await;
                    reply.send(number + 1);
                }
            });
        }
    };
    start();
    let ask = |number: u32| {
        let (address, answers) = (address.clone(), Rc::clone(&answers));
        sim.spawn(asker, async move {
            let answer = address.ask(asker, ms(100), |reply| (number, reply)).await;
            answers.borrow_mut().push(answer);
        });
        sim.run_until(sim.now() + ms(200));
    };
    ask(1);
    sim.kill(server);
    ask(2);
    start();
    ask(3);
    network.set(there, here, |link| link.cut = true);
    ask(4);
    network.heal();
    sim.freeze(server);
    ask(5);
    sim.thaw(server);
    ask(6);
    let wanted = [
        Ok(2),
        Err(Unanswered::Refused),
        Ok(4),
        Err(Unanswered::Timeout),
        Err(Unanswered::Timeout),
        Ok(7),
    ];
    assert_eq!(*answers.borrow(), wanted);
    sim.end();
}

#[test]
fn a_task_that_spins_is_found() {
    let sim = Sim::new(Chance::new(3));
    let host = sim.host("here", ms(0), 0);
    let process = sim.process(host, "spinner");
    sim.spawn(process, async {
        loop {
            let mut yielded = false;
            futures::future::poll_fn(|context| {
                if std::mem::replace(&mut yielded, true) {
                    return std::task::Poll::Ready(());
                }
                context.waker().wake_by_ref();
                std::task::Poll::Pending
            })
            .await;
        }
    });
    sim.run_until(ms(10));
    assert!(sim.failure().is_some());
    sim.end();
}
