//! How long a create and a get of 1 MiB take in a directory: `latency DIRECTORY`.
#![expect(clippy::print_stdout, reason = "this is what the example is for")]

use std::time::Duration;

use bytes::Bytes;
use lifeboat_environment::Environment;
use lifeboat_objects::{Blocking, Key, Location, Options, Store};
use lifeboat_telemetry::{Code, Failure, Outcome};

const ROUNDS: u32 = 200;

fn main() -> Outcome<()> {
    let Some(directory) = std::env::args().nth(1) else {
        return Err(Failure::new(Code::Usage, "name an empty directory"));
    };
    let environment = Environment::system();
    let location = Location::new(&format!("file://{directory}"))?;
    let store = Store::open(&location, &environment, Options::default())?;
    let blocking = Blocking::new()?;
    blocking.run(store.create_root())?;
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let key = |round: u32| Key::new(format!("latency/{round}"));

    let time = |work: &dyn Fn(u32) -> Outcome<()>| -> Outcome<Duration> {
        let start = environment.clock().elapsed();
        for round in 0..ROUNDS {
            work(round)?;
        }
        Ok(environment.clock().elapsed().saturating_sub(start) / ROUNDS)
    };
    let created = time(&|round| blocking.run(store.create(&key(round)?, bytes.clone())).map(drop))?;
    let read = time(&|round| blocking.run(store.get(&key(round)?)).map(drop))?;
    let found = time(&|round| blocking.run(store.stat(&key(round)?)).map(drop))?;
    println!("create {created:?}, get {read:?}, stat {found:?} (mean of {ROUNDS}, 1 MiB)");
    Ok(())
}
