//! Questions to the members of etcd, each from inside its own domain.

use lifeboat_telemetry::{Code, Failure, Outcome};

use crate::http;
use crate::layout::{Domain, ETCD_PORT, Layout};

/// Whether a member answers, and so knows of a majority.
pub fn answers(layout: &Layout, domain: Domain) -> bool {
    // A linearizable read: one that a member cannot answer alone.
    let question = Some("{\"key\":\"bGFi\"}");
    let address = (layout.host(domain), ETCD_PORT);
    http::ask(layout, domain, address, "/v3/kv/range", question)
        .is_ok_and(|answer| answer.code == 200)
}

/// The domain of the member that leads, by its own word.
pub fn leader(layout: &Layout) -> Option<Domain> {
    Domain::VOTERS.into_iter().find(|domain| {
        let address = (layout.host(*domain), ETCD_PORT);
        let path = "/v3/maintenance/status";
        let Ok(answer) = http::ask(layout, *domain, address, path, Some("{}")) else {
            return false;
        };
        let status: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
        let member = &status["header"]["member_id"];
        answer.code == 200 && member.is_string() && *member == status["leader"]
    })
}

/// The leader, where there must be one.
pub fn require_leader(layout: &Layout) -> Outcome<Domain> {
    leader(layout).ok_or_else(|| {
        Failure::new(Code::LabFaultRefused, "no member of etcd leads at the moment")
            .hint("Try again in a second; `lifeboat lab status` shows the members.")
    })
}
