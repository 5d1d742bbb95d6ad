//! What would endanger data: the only findings that are refused although the spec is readable.

use super::{Remarks, service_path};
use crate::finding::{Path, Severity};
use crate::spec::{Encryption, OnQuorumLoss, Quorum, Slot, Slots};
use crate::{Spec, TimeSpan};

pub(super) fn check(spec: &Spec, remarks: &mut Remarks<'_, '_>) {
    if let Some(quorum) = &spec.quorum {
        check_lease(quorum, remarks);
    }
    check_slots(spec, remarks);
    let [quorum_unclear, witness_unclear] =
        ["quorum", "witness"].map(|key| remarks.findings.is_broken(&Path::from([key])));
    for (name, service) in &spec.services {
        let Some(failover) = service.failover.as_ref().filter(|failover| failover.automatic) else {
            continue;
        };
        let path = service_path(name).join("failover").join("automatic");
        let mut refuse = |message: &str, hint: &str| {
            remarks.add(Severity::Unsafe, &path, message.to_owned(), hint);
        };
        let quorum = spec.quorum.as_ref();
        if quorum.is_none_or(|quorum| quorum.etcd.is_none()) && !quorum_unclear {
            refuse(
                "automatic failover needs a quorum store with members in three failure domains",
                "Add `quorum.etcd`, or set `automatic: false` and let a person decide.",
            );
        }
        if spec.witness.is_none() && !witness_unclear {
            refuse(
                "automatic failover needs a third failure domain that can outvote a lost region",
                "Name it with `witness:`, or set `automatic: false` and let a person decide.",
            );
        }
        if quorum.is_some_and(|quorum| quorum.on_quorum_loss == OnQuorumLoss::Serve) {
            refuse(
                "with `on_quorum_loss: serve` the old primary would go on writing after a failover",
                "Set `quorum.on_quorum_loss: stop`, or `automatic: false`.",
            );
        }
        if failover.observers_agree < 2 {
            refuse(
                "a single observer cannot tell a lost region from its own lost network",
                "Set `observers_agree` to 2 or more, or `automatic: false`.",
            );
        }
    }
}

/// A vault whose only slots are of kinds that this version does not make would stay shut for ever.
fn check_slots(spec: &Spec, remarks: &mut Remarks<'_, '_>) {
    let Encryption::Slots(Slots { slots, .. }) = &spec.encryption else {
        return;
    };
    let not_made = |slot: &Slot| matches!(slot, Slot::Kms(_) | Slot::Command(_));
    if !slots.is_empty() && slots.iter().all(not_made) {
        remarks.add(
            Severity::Unsafe,
            &Path::from(["encryption", "slots"]),
            "this version makes none of these slots: nobody could open the vault".to_owned(),
            "Add a passphrase, a key_file or a recovery_key.",
        );
    }
}

/// R8: two attempts to renew, the kill and the margin fit into one lease.
fn check_lease(quorum: &Quorum, remarks: &mut Remarks<'_, '_>) {
    let Quorum { lease, renew, probe_timeout, store_timeout, fence_deadline, margin, .. } = quorum;
    let section = Path::from(["quorum"]);
    let path = section.join("lease");
    if remarks.findings.is_broken(&section) {
        return;
    }
    let attempt = renew.saturating_add(*probe_timeout).saturating_add(*store_timeout);
    let kill = fence_deadline.saturating_add(*margin);
    let needed = attempt.saturating_add(attempt).saturating_add(kill);
    if needed > *lease {
        remarks.add(
            Severity::Unsafe,
            &path,
            format!(
                "2 x (renew {renew} + probe_timeout {probe_timeout} + store_timeout \
                 {store_timeout}) + fence_deadline {fence_deadline} + margin {margin} = {needed} \
                 > lease {lease}"
            ),
            &format!(
                "Set `lease` to {needed} or more, or shorten the others: else two nodes could \
                 write at once."
            ),
        );
    }
    let least = TimeSpan::from_millis(lease.millis().div_ceil(20));
    if *margin < least {
        remarks.add(
            Severity::Unsafe,
            &section.join("margin"),
            format!("margin {margin} < 5 % of lease {lease} = {least}"),
            &format!("Set `margin` to {least} or more: two clocks may run at different speed."),
        );
    }
}
