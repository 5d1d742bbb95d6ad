//! What a process has used, by /proc.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process.
#[derive(Debug, Clone, Copy)]
pub struct Used(u32);

impl Used {
    /// Of a process.
    pub fn of(process: u32) -> Self {
        Self(process)
    }

    /// The processor time of all its threads, in the kernel too.
    pub fn processor(self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name before it may hold spaces.
        let (_, fields) = text.rsplit_once(')').context("/proc/PID/stat has no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks = ticks.collect::<Result<Vec<_>, _>>()?.iter().sum::<u64>();
        let a_second = sysconf(SysconfVar::CLK_TCK)?.context("no CLK_TCK")?;
        Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
    }

    /// For how long its one thread was ready to run and had no core: what else runs on the machine.
    pub fn waited(self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/schedstat", self.0))?;
        let nanoseconds = text.split_whitespace().nth(1).context("/proc/PID/schedstat is short")?;
        Ok(Duration::from_nanos(nanoseconds.parse()?))
    }

    /// Its memory at the worst time so far, in MiB.
    pub fn peak_mib(self) -> Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()).context("no VmHWM")?;
        Ok(kib.parse::<f64>()? / 1024.0)
    }
}
