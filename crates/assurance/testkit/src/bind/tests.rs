use super::*;

const RECORD: &str = "db.lifeboat.test.";

#[test]
fn a_zone_is_changed_seen_lost_and_kept() -> Result<()> {
    let zone = Zone::with(&[RECORD]);
    let mut server = Server::authoritative(&zone)?;
    assert!(server.ask(RECORD, "A")?.is_empty());
    server.edit(&["update add db.lifeboat.test. 5 A 127.0.1.10"])?;
    assert_eq!(server.ask(RECORD, "A")?, ["db.lifeboat.test. 5 IN A 127.0.1.10"]);

    server.freeze()?;
    assert!(server.ask(RECORD, "A").is_err());
    server.thaw()?;
    assert_eq!(server.data(RECORD, "A")?, ["127.0.1.10"]);

    server.kill();
    assert!(server.ask(RECORD, "A").is_err());
    server.revive()?;
    assert_eq!(server.data(RECORD, "A")?, ["127.0.1.10"]);
    Ok(())
}

#[test]
fn a_resolver_remembers_for_as_long_as_it_may() -> Result<()> {
    let server = Server::authoritative(&Zone::with(&[RECORD]))?;
    let resolver = Server::caching(&[&server])?;
    server.edit(&["update add db.lifeboat.test. 3 A 127.0.1.10"])?;
    assert_eq!(resolver.data(RECORD, "A")?, ["127.0.1.10"]);
    server.edit(&[
        "update delete db.lifeboat.test. A",
        "update add db.lifeboat.test. 3 A 127.0.2.10",
    ])?;
    assert_eq!(resolver.data(RECORD, "A")?, ["127.0.1.10"]);
    let moved = wait_until(START, || Ok(resolver.data(RECORD, "A")? == ["127.0.2.10"]))?;
    assert!(moved, "the resolver still answers what it remembers");
    Ok(())
}
