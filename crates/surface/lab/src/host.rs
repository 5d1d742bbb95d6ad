//! A lab in somebody's hands: its units are started and ended, its commands run where they belong.

use std::process::Command;
use std::time::Duration;

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Cancel, Code, Failure, Outcome, Reporter};
use nix::sys::signal::Signal;

use crate::etcd;
use crate::layout::{Domain, Layout};
use crate::process::{self, Identity, Life};
use crate::shell::{self, quoted};
use crate::state::{Held, Unit};

/// A part that does not answer by then never will.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A lab, and who wants something of it.
#[derive(Debug)]
pub struct Host<'a> {
    /// The directory and what is remembered.
    pub held: Held,
    /// Time and chance.
    pub environment: &'a Environment,
    /// Hears each command.
    pub reporter: &'a Reporter,
    /// Set when somebody wants it to stop.
    pub cancel: &'a Cancel,
}

impl Host<'_> {
    /// Names and addresses.
    pub fn layout(&self) -> &Layout {
        &self.held.layout
    }

    /// Starts a unit unless it runs, and remembers that it is to run.
    pub fn start(&mut self, domain: Domain, name: &str) -> Outcome<()> {
        let layout = self.held.layout.clone();
        let unit = self.unit(domain, name)?;
        let runs = unit.process.is_some_and(|process| process.life() != Life::Down);
        if unit.enabled && runs {
            return Ok(());
        }
        unit.enabled = true;
        if !runs {
            unit.process = Some(process::start(&layout, unit)?);
        }
        self.held.save()
    }

    /// Starts a daemon of Lifeboat, in sight.
    pub fn daemon(&mut self, domain: Domain, name: &str) -> Outcome<()> {
        self.reporter.note(format!("[{domain}] $ lifeboat {name} &"));
        self.start(domain, name)
    }

    /// Ends a unit and everything below it at once, and remembers that it is not to run.
    pub fn stop(&mut self, domain: Domain, name: &str) -> Outcome<()> {
        self.kill(domain, name)?;
        self.unit(domain, name)?.enabled = false;
        self.held.save()
    }

    /// Kills a unit with everything below it. It is started again by `heal` or by a boot.
    pub fn kill(&mut self, domain: Domain, name: &str) -> Outcome<()> {
        let Some(process) = self.unit(domain, name)?.process else { return Ok(()) };
        let everything = process::tree(process);
        process::kill_all(|| {
            everything.iter().copied().filter(|one| one.life() != Life::Down).collect()
        })
    }

    /// Asks a unit to end, and waits for it.
    pub fn end(&mut self, domain: Domain, name: &str) -> Outcome<()> {
        let Some(process) = self.unit(domain, name)?.process else { return Ok(()) };
        process.signal(Signal::SIGTERM);
        self.unit(domain, name)?.enabled = false;
        self.held.save()?;
        self.wait_for(&format!("the end of {domain}/{name}"), |_| Ok(process.life() == Life::Down))
    }

    /// The process of a unit, if it runs.
    pub fn process(&self, domain: Domain, name: &str) -> Option<Identity> {
        let process = self.held.state.unit(domain, name)?.process?;
        (process.life() != Life::Down).then_some(process)
    }

    fn unit(&mut self, domain: Domain, name: &str) -> Outcome<&mut Unit> {
        let mut units = self.held.state.units.iter_mut();
        units.find(|unit| unit.domain == domain && unit.name == name).ok_or_else(|| {
            Failure::new(Code::LabFaultUnknown, format!("the lab has no {domain}/{name}"))
                .hint("`lifeboat lab status` names its parts.")
        })
    }

    /// Waits until `done` says yes; fails when a person wants to stop, or when it takes too long.
    pub fn wait_for(
        &self,
        what: &str,
        mut done: impl FnMut(&Self) -> Outcome<bool>,
    ) -> Outcome<()> {
        let clock = self.environment.clock();
        let start = clock.elapsed();
        while !done(self)? {
            self.cancel.check()?;
            if clock.elapsed().saturating_sub(start) > PATIENCE {
                let message = format!("{what} did not happen within {} s", PATIENCE.as_secs());
                return Err(Failure::new(Code::LabPart, message).hint(format!(
                    "The logs lie in {}.",
                    self.layout().root().join("log").display()
                )));
            }
            clock.sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Runs `lifeboat` in a domain, in sight; what it printed.
    pub fn lifeboat(&self, domain: Domain, words: &[&str]) -> Outcome<String> {
        self.reporter.note(format!("[{domain}] $ lifeboat {}", line(words)));
        let said = self.quietly(domain, &[&["lifeboat"], words].concat())?;
        let shown = said.lines().filter(|line| !line.trim().is_empty());
        for line in shown {
            self.reporter.note(format!("    {line}"));
        }
        Ok(said)
    }

    /// Runs another program in a domain, in sight; what it printed.
    pub fn program(&self, domain: Domain, words: &[&str]) -> Outcome<String> {
        self.reporter.note(format!("[{domain}] $ {}", line(words)));
        self.quietly(domain, words)
    }

    /// Runs a program in a domain, out of sight; what it printed.
    pub fn quietly(&self, domain: Domain, words: &[&str]) -> Outcome<String> {
        shell::run(&mut self.command(domain, words))
    }

    /// A program in a domain, still to be run.
    pub fn command(&self, domain: Domain, words: &[&str]) -> Command {
        let mut command = process::within(self.layout(), domain);
        command.args(words);
        command
    }

    /// The answer of a region's PostgreSQL through its socket.
    pub fn sql(&self, region: Domain, database: &str, sql: &str) -> Outcome<String> {
        let run = self.layout().runtime(region).to_string_lossy().into_owned();
        let port = self.layout().server_port(region).to_string();
        let words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", &run, "-p", &port];
        let said = self.quietly(
            region,
            &[&words[..], &["-U", "postgres", "-d", database, "-c", sql]].concat(),
        )?;
        Ok(said.trim_end().to_owned())
    }

    /// Whether a region's PostgreSQL takes writes.
    pub fn is_primary(&self, region: Domain) -> bool {
        crate::postgres::is_primary(self.layout(), region)
    }

    /// Whether a member of etcd answers, and so knows of a majority.
    pub fn etcd_answers(&self, domain: Domain) -> bool {
        etcd::answers(self.layout(), domain)
    }

    /// The units of a domain that are to run and do not.
    pub fn missing(&self, domain: Domain) -> Vec<String> {
        let units = self.held.state.units.iter();
        units
            .filter(|unit| unit.domain == domain && unit.enabled)
            .filter(|unit| unit.process.is_none_or(|process| process.life() == Life::Down))
            .map(|unit| unit.name.clone())
            .collect()
    }

    /// Whether nothing of a domain runs.
    pub fn is_dead(&self, domain: Domain) -> bool {
        process::of_domain(self.layout(), &self.held.state.units, domain).is_empty()
    }

    /// Starts what is to run in a domain and does not.
    pub fn start_enabled(&mut self, domain: Domain) -> Outcome<()> {
        for name in self.missing(domain) {
            self.start(domain, &name)?;
        }
        Ok(())
    }
}

fn line(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}
