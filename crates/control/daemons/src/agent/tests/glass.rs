//! Writing by a person's permission, while there is no quorum (ADR 0016).

use lifeboat_drivers::Grant;

use super::*;

/// East-1 is a standby of a west that is lost; the permission is for epoch 4.
fn site() -> Site {
    let site = Site::new(3);
    let Settings { service, keys, database, .. } = &site.settings;
    let west = Service { home: name("west"), ..service.clone() };
    let (record, _) = first_epoch(&west, keys, 3, Timestamp::UNIX_EPOCH).unwrap();
    let record = record.apply(Transition::Serve).unwrap();
    let transaction = Transaction::new()
        .put(keys.epoch(&service.name), &record)
        .delete(keys.desired(&service.name, database, &name("east-1")));
    site.store.change(transaction).unwrap();
    site.instance.stream(true);
    site
}

fn permit(site: &Site, boot: String, until: Duration) {
    let grant = Grant {
        service: name("payments"),
        database: name("ledger"),
        node: name("east-1"),
        epoch: 4,
        required: Some(Lsn(100)),
        boot,
        until_ms: until.as_millis().try_into().unwrap(),
        ends_at: Timestamp::UNIX_EPOCH,
        given_at: Timestamp::UNIX_EPOCH,
        by: "somebody@somewhere".to_owned(),
        statement: "the old primary cannot write".to_owned(),
    };
    site.memory.permit(&grant).unwrap();
}

const HOUR: Duration = Duration::from_secs(3600);

impl Agent<'_> {
    /// A turn without an answer of the store.
    async fn turn_alone(&self) {
        for _ in 0..4 {
            self.renew_once().await;
            self.do_once().await;
        }
    }
}

#[test]
fn a_permission_promotes_without_the_store_and_ends_by_itself() {
    let site = site();
    site.agent(async |agent| {
        agent.turn_alone().await;
        assert!(!site.instance.is_primary(), "nobody permits it");
        permit(&site, Grant::this_boot(), HOUR);
        agent.turn_alone().await;
        assert!(!site.instance.is_primary(), "its streaming ends first");
        site.instance.stream(false);
        agent.turn_alone().await;
        assert!(site.instance.is_primary());
        assert_eq!(site.memory.highest().unwrap().epoch, 4, "nothing below is carried out again");
        let until = site.instance.deadline().unwrap();
        assert!(until > site.timer.elapsed() && until <= HOUR);
        site.timer.pass(HOUR - Duration::from_secs(1));
        agent.turn_alone().await;
        assert_eq!(site.instance.deadline(), Some(HOUR), "never beyond its end");
        site.timer.pass(Duration::from_secs(2));
        agent.turn_alone().await;
        assert_eq!(site.instance.deadline(), Some(HOUR));
        agent.turn().await;
        assert!(!site.instance.is_primary(), "and what nobody permits is killed");
    });
}

#[test]
fn a_permission_of_another_start_of_the_host_is_none() {
    let site = site();
    permit(&site, "another".to_owned(), HOUR);
    site.instance.stream(false);
    site.agent(async |agent| {
        agent.turn_alone().await;
        assert!(!site.instance.is_primary());
    });
}

#[test]
fn the_store_comes_back_older_and_then_adopts() {
    let site = site();
    permit(&site, Grant::this_boot(), HOUR);
    site.instance.stream(false);
    site.archive_for("east", 4);
    site.agent(async |agent| {
        agent.turn_alone().await;
        agent.turn().await;
        agent.ask().await;
        agent.turn().await;
        assert!(site.instance.is_primary(), "its record is no reason to kill");
        assert!(agent.refusal(&agent.record().unwrap().0).is_some());
        assert!(!site.has_lease());
        // `lifeboat apply --adopt`, and then upkeep.
        let Settings { service, keys, database, node, .. } = &site.settings;
        let (record, _) = first_epoch(service, keys, 5, Timestamp::UNIX_EPOCH).unwrap();
        site.store.change(Transaction::new().put(keys.epoch(&service.name), &record)).unwrap();
        agent.turn().await;
        assert!(site.instance.is_primary() && agent.grant().is_some(), "until it has its order");
        let goal = Goal::Primary { required: None, synchronous_standby_names: String::new() };
        let order = Desired { token: Token { epoch: 5, ..Token::default() }, goal };
        let key = keys.desired(&service.name, database, node);
        site.store.change(Transaction::new().put(key, &order)).unwrap();
        agent.turn().await;
        assert!(site.instance.is_primary() && site.has_lease());
        assert!(agent.grant().is_none(), "an order of a higher epoch ends it for ever");
    });
}

#[test]
fn whoever_went_on_above_it_ends_it() {
    let site = site();
    permit(&site, Grant::this_boot(), HOUR);
    site.instance.stream(false);
    site.agent(async |agent| {
        agent.turn_alone().await;
        assert!(site.instance.is_primary());
        site.archive_for("west", 5);
        agent.ask().await;
        assert!(agent.grant().is_none());
        agent.turn().await;
        assert!(!site.instance.is_primary());
    });
}
