use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::AtomicBool;

use futures::future::LocalBoxFuture;
use jiff::Timestamp;
use lifeboat_drivers::{InstanceDriver, Killed, ShutDown, StartAs};
use lifeboat_environment::{
    Clock as _, ManualClock, SeededRandom, SystemClock, SystemRandom, Timer,
};
use lifeboat_quorum::{Instance, Return};
use lifeboat_testkit::haproxy::{Member, Proxy};
use lifeboat_testkit::process::wait_until;

use super::*;

const LOOPBACK: &str = "127.0.0.1:0";
const LONG: Duration = Duration::from_secs(30);

fn start(word: &Word, environment: &Environment) -> Endpoint {
    let (listen, node) = (LOOPBACK.parse().unwrap(), "east-1".parse().unwrap());
    Endpoint::start(listen, node, word.clone(), environment).unwrap()
}

fn real() -> Environment {
    Environment::for_test(Arc::new(SystemClock), Arc::new(SystemRandom))
}

/// Says something and hears all of the answer.
fn say(endpoint: &Endpoint, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(endpoint.address())?;
    stream.set_read_timeout(Some(LONG))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Status and body.
fn ask(endpoint: &Endpoint, path: &str) -> (String, String) {
    let answer = say(endpoint, &format!("GET {path} HTTP/1.1\r\nhost: agent\r\n\r\n")).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().to_owned(), body.to_owned())
}

#[test]
fn each_path_follows_its_own_word() {
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let random = Arc::new(SeededRandom::new(1));
    let environment = Environment::for_test(Arc::<ManualClock>::clone(&clock), random);
    let word = Word::default();
    let endpoint = start(&word, &environment);
    let statuses = || ["/primary", "/replica", "/health"].map(|path| ask(&endpoint, path).0);
    assert_eq!(statuses(), ["503", "503", "503"]);
    assert_eq!(
        ask(&endpoint, "/primary").1,
        "{\"node\":\"east-1\",\"why\":\"this node holds no lease\"}\n"
    );

    clock.advance(Duration::from_secs(10));
    word.agent_until(Duration::from_secs(20));
    assert_eq!(statuses(), ["503", "503", "200"]);
    word.replica_until(Duration::from_secs(11));
    assert_eq!(statuses(), ["503", "200", "200"]);
    word.primary_until(Duration::from_secs(12));
    assert_eq!(statuses(), ["200", "200", "200"]);
    assert_eq!(ask(&endpoint, "/primary").1, "{\"node\":\"east-1\",\"for_ms\":2000}\n");
    // The moment itself is over.
    clock.advance(Duration::from_secs(1));
    assert_eq!(statuses(), ["200", "503", "200"]);
    clock.advance(Duration::from_millis(1250));
    assert_eq!(statuses(), ["503", "503", "200"]);
    let why = "what was known ended 250 ms ago";
    assert_eq!(
        ask(&endpoint, "/primary").1,
        format!("{{\"node\":\"east-1\",\"why\":\"{why}\"}}\n")
    );
    // A wall clock that jumps means nothing; a lease that is given back does.
    word.primary_until(Duration::from_secs(100));
    clock.jump_wall(Timestamp::MAX);
    assert_eq!(statuses(), ["200", "503", "200"]);
    word.primary_until(Duration::ZERO);
    assert_eq!(statuses(), ["503", "503", "200"]);
}

#[test]
fn what_balancers_send_is_understood_and_nothing_else() {
    let word = Word::default();
    let endpoint = start(&word, &real());
    word.primary_until(SystemClock.elapsed() + LONG);
    for (request, status) in [
        // HAProxy's oldest form.
        ("OPTIONS /primary HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
        ("HEAD /primary HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200"),
        ("GET /primary?from=lb HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200"),
        ("POST /primary HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 405"),
        ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 404"),
        ("GET /primary/ HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 404"),
        ("nonsense\r\n\r\n", "HTTP/1.1 400"),
    ] {
        let answer = say(&endpoint, request).unwrap();
        assert!(answer.starts_with(status), "{request}: {answer}");
    }
    let (address, taken) = (endpoint.address(), "east-2".parse().unwrap());
    let failure = Endpoint::start(address, taken, Word::default(), &real()).unwrap_err();
    assert_eq!(failure.code(), Code::SpecInvalid);
    drop(endpoint);
    assert!(TcpStream::connect(address).is_err(), "it listens after its end");
}

/// Clients that say nothing keep nobody from being answered.
#[test]
fn silent_clients_do_not_stop_it() {
    let word = Word::default();
    let endpoint = start(&word, &real());
    let silent: Vec<_> = (0..2 * MOST_CONNECTIONS)
        .map(|_| TcpStream::connect(endpoint.address()).unwrap())
        .collect();
    assert_eq!(ask(&endpoint, "/primary").0, "503");
    drop(silent);
}

/// The agent's loop is blocked for good right after a renewal: the word ends all the same.
#[test]
fn an_agent_that_hangs_is_no_primary_after_its_deadline() {
    let word = Word::default();
    let endpoint = start(&word, &real());
    let deadline = SystemClock.elapsed() + Duration::from_millis(400);
    let seen = AtomicBool::new(false);
    let (mut before, mut after) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                word.primary_until(deadline);
                // No await: nothing on this runtime moves until the client has seen enough.
                while !seen.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        });
        let began = SystemClock.elapsed();
        while after < 20 && SystemClock.elapsed() - began < LONG {
            let asked = SystemClock.elapsed();
            match ask(&endpoint, "/primary").0.as_str() {
                "200" => {
                    before += 1;
                    assert!(asked < deadline, "a primary {:?} too late", asked - deadline);
                }
                _ => after += u32::from(asked >= deadline),
            }
        }
        seen.store(true, Ordering::SeqCst);
    });
    assert!(before > 0, "it was never a primary");
    assert_eq!(after, 20, "the endpoint hung too");
}

/// Whether the other side ends it, instead of leaving it open.
fn is_cut(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 1]) {
        Ok(length) => length == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

/// The same through real HAProxy: when the lease ends, sessions are cut and new ones are refused,
/// although nobody renews, answers or says anything any more.
#[test]
fn haproxy_follows_the_lease_of_a_hanging_agent() {
    let words = [Word::default(), Word::default()];
    let endpoints = words.each_ref().map(|word| start(word, &real()));
    let servers = [(); 2].map(|()| TcpListener::bind(LOOPBACK).unwrap());
    let members = [0, 1].map(|place| Member {
        name: format!("pg-{place}"),
        serves: servers[place].local_addr().unwrap(),
        agent: endpoints[place].address(),
    });
    let proxy = Proxy::start("ledger", &members).unwrap();
    // Until it has asked, HAProxy holds all of them for good.
    let nobody = || Ok(proxy.say("show stat ledger 4 -1")?.matches(",DOWN,").count() == 2);
    assert!(wait_until(LONG, nobody).unwrap(), "HAProxy never asks");
    let refused = || is_cut(&mut proxy.connect().unwrap());
    assert!(refused(), "a client is served although nobody may");

    words[0].primary_until(SystemClock.elapsed() + Duration::from_secs(2));
    let up = || Ok(proxy.say("show stat ledger 4 -1")?.matches(",UP,").count() == 1);
    assert!(wait_until(LONG, up).unwrap(), "HAProxy never sees the lease");
    let mut session = proxy.connect().unwrap();
    let (mut held, _) = servers[0].accept().unwrap();
    held.write_all(b"x").unwrap();
    session.read_exact(&mut [0; 1]).unwrap();

    // Nothing happens here any more but waiting for the end of the session.
    assert!(is_cut(&mut session), "the session goes on");
    assert!(refused(), "a client is served after the lease");
    drop(held);
}

/// What the agent does anyway tells what else it is.
#[test]
fn replicas_and_agents_are_heard_by_what_they_do() {
    let clock = Arc::new(ManualClock::at(Timestamp::UNIX_EPOCH));
    let timer = Hand(Arc::<ManualClock>::clone(&clock));
    clock.advance(Duration::from_secs(1));
    let word = Word::default();
    let until = |moment: &AtomicU64| Duration::from_nanos(moment.load(Ordering::SeqCst)).as_secs();
    let watched = WatchedTimer::new(&timer, word.clone());
    drop(watched.sleep(Duration::from_secs(2)));
    assert_eq!(until(&word.0.agent), 8);

    let shown = std::cell::RefCell::new(Instance::Absent);
    let instance = Shows(&shown);
    let watched = WatchedInstance::new(&instance, &timer, word.clone());
    let standby = |streaming| Instance::Standby {
        timeline: lifeboat_model::Timeline(1),
        received: None,
        replayed: lifeboat_model::Lsn(1),
        replayed_commit: None,
        streaming,
    };
    for (instance, said) in
        [(standby(true), 8), (standby(false), 0), (standby(true), 8), (Instance::Unclear, 0)]
    {
        *shown.borrow_mut() = instance;
        let _ = futures::executor::block_on(watched.inspect());
        assert_eq!(until(&word.0.replica), said);
    }
    // Whoever stops is no primary from then on, whatever the lease says.
    word.primary_until(Duration::from_secs(9));
    let _ = futures::executor::block_on(watched.release());
    assert_eq!(until(&word.0.primary), 0);
    word.primary_until(Duration::from_secs(9));
    let _ = futures::executor::block_on(watched.fence());
    assert_eq!(until(&word.0.primary), 0);
}

struct Hand(Arc<ManualClock>);

impl Timer for Hand {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        self.0.advance(duration);
        Box::pin(futures::future::ready(()))
    }
}

/// Shows what it is told to, and does nothing.
struct Shows<'a>(&'a std::cell::RefCell<Instance>);

fn nothing<'a, T: 'a>() -> LocalBoxFuture<'a, Outcome<T>> {
    let failure = Failure::new(Code::GuardSilent, "there is no guard here");
    Box::pin(futures::future::ready(Err(failure)))
}

impl InstanceDriver for Shows<'_> {
    fn inspect(&self) -> LocalBoxFuture<'_, Outcome<Instance>> {
        Box::pin(futures::future::ready(Ok(self.0.borrow().clone())))
    }

    fn probe(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        nothing()
    }

    fn extend(&self, _: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        nothing()
    }

    fn start(&self, _: StartAs) -> LocalBoxFuture<'_, Outcome<()>> {
        nothing()
    }

    fn follow(&self, _: Option<NodeName>) -> LocalBoxFuture<'_, Outcome<()>> {
        nothing()
    }

    fn synchronize(&self, _: String, _: u64) -> LocalBoxFuture<'_, Outcome<()>> {
        nothing()
    }

    fn promote(&self, _: Duration) -> LocalBoxFuture<'_, Outcome<()>> {
        nothing()
    }

    fn release(&self) -> LocalBoxFuture<'_, Outcome<ShutDown>> {
        nothing()
    }

    fn stop(&self) -> LocalBoxFuture<'_, Outcome<()>> {
        nothing()
    }

    fn fence(&self) -> LocalBoxFuture<'_, Outcome<Killed>> {
        nothing()
    }

    fn come_back(&self, _: NodeName, _: Return) -> LocalBoxFuture<'_, Outcome<String>> {
        nothing()
    }

    fn salvage(&self, _: lifeboat_model::Lsn) -> LocalBoxFuture<'_, Outcome<String>> {
        nothing()
    }

    fn fork(&self) -> LocalBoxFuture<'_, Outcome<Option<lifeboat_model::Lsn>>> {
        nothing()
    }

    fn readiness(&self) -> LocalBoxFuture<'_, Outcome<Vec<String>>> {
        nothing()
    }
}
