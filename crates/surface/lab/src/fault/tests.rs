use super::*;

fn parse(line: &str) -> Outcome<Fault> {
    let mut words = line.split(' ').map(str::to_owned);
    let name = words.next().unwrap();
    Fault::parse(&name, &words.collect::<Vec<_>>())
}

#[test]
fn each_kind_can_be_typed_alone_and_is_typed_again_as_it_reads() {
    for kind in KINDS {
        let fault = parse(kind.name).unwrap();
        assert_eq!(fault.kind(), kind.name);
        assert_eq!(parse(&fault.text()).unwrap(), fault, "{}", fault.text());
    }
}

#[test]
fn words_say_where_and_how_much() {
    use Domain::{Clients, East, North, West};
    let is = |line: &str, fault: Fault| assert_eq!(parse(line).unwrap(), fault);
    is("kill west/agent", Fault::Kill(West, "agent".to_owned()));
    is("freeze west", Fault::FreezeDomain(West));
    is("freeze east/postgres", Fault::Freeze(East, "postgres".to_owned()));
    is("one-way north clients", Fault::OneWay(North, Clients));
    is("slow-link east north 200ms", Fault::SlowLink(East, North, Duration::from_millis(200)));
    is("lossy-link east west 5%", Fault::LossyLink(East, West, 5));
    is("clock-jump west 1h back", Fault::ClockJump(West, -3600));
}

#[test]
fn what_nobody_knows_is_refused_with_what_there_is() {
    for (line, hint) in [
        ("explode", "etcd-leader"),
        ("isolate south", "east, west, north"),
        ("kill east/printer", "break kill [DOMAIN/PART]"),
        ("full-disk north", "break full-disk"),
        ("lossy-link east west 101%", "break lossy-link"),
        ("slow-link east west soon", "break slow-link"),
        ("etcd-leader east", "break etcd-leader"),
    ] {
        let failure = parse(line).unwrap_err();
        assert_eq!(failure.code(), Code::LabFaultUnknown);
        let found = failure.hint_text().unwrap();
        assert!(found.contains(hint), "{line}: {found}");
    }
}

#[test]
fn without_root_what_needs_it_is_refused_by_name() {
    let isolation = crate::layout::Isolation::Loopback { net: 99 };
    let layout = Layout::new("/nowhere/lab", isolation);
    for line in ["partition", "isolate", "slow-link", "full-disk", "power-loss", "freeze east"] {
        let failure = parse(line).unwrap().check(&layout).unwrap_err();
        assert_eq!(failure.code(), Code::LabFaultRefused);
        let name = line.split(' ').next().unwrap();
        assert!(failure.message().contains(&format!("cannot inject {name}")), "{failure}");
    }
    for line in ["kill", "freeze east/agent", "etcd-leader", "region", "reboot", "pg-ctl-start"] {
        parse(line).unwrap().check(&layout).unwrap();
    }
}
