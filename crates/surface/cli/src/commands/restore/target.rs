//! What the flags say about the target.

use std::path::PathBuf;

use jiff::Timestamp;
use lifeboat_model::RecoveryTarget;
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::Args;

/// The one target that the flags name.
pub fn target(args: &Args) -> Outcome<RecoveryTarget> {
    let flags = &args.target;
    if let Some(text) = &flags.time {
        return Ok(RecoveryTarget::Time { at: moment(text)?, inclusive: !args.exclusive });
    }
    if let Some(lsn) = flags.lsn {
        return Ok(RecoveryTarget::Lsn(lsn));
    }
    if let Some(xid) = flags.xid {
        return Ok(RecoveryTarget::Xid(xid));
    }
    if let Some(name) = &flags.name {
        return Ok(RecoveryTarget::Name(name.clone()));
    }
    Ok(match (&args.backup, flags.latest, flags.immediate) {
        (_, _, true) => RecoveryTarget::Immediate,
        (Some(name), false, false) => RecoveryTarget::Backup(name.clone()),
        _ => RecoveryTarget::Latest,
    })
}

/// A moment with its zone: "14:03" on the night of a loss is not enough.
pub fn moment(text: &str) -> Outcome<Timestamp> {
    text.trim().parse().map_err(|error: jiff::Error| {
        Failure::new(Code::TargetAmbiguous, format!("`{text}` is not a clear moment"))
            .because(error)
            .hint(
                "Write date, time and zone, as in 2026-11-20T14:03:07Z or \
                 \"2026-11-20 15:03:07+01:00\".",
            )
    })
}

/// `OLD=NEW` of `--tablespace`.
pub fn tablespace(text: &str) -> Result<(String, PathBuf), String> {
    let wrong = "write OLD=NEW, as in /mnt/fast=/mnt/copy or 16401=/mnt/copy";
    let (old, new) = text.split_once('=').ok_or(wrong)?;
    let new = PathBuf::from(new);
    if old.is_empty() || !new.is_absolute() {
        return Err(format!("{wrong}; NEW is an absolute path"));
    }
    Ok((old.to_owned(), new))
}

#[cfg(test)]
mod tests;
