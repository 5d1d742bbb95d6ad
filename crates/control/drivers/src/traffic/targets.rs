//! From the spec to drivers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lifeboat_environment::Environment;
use lifeboat_model::spec::{Service, TrafficDriver as Kind, TrafficRecord, Tsig};
use lifeboat_model::{RegionName, ServiceName, Spec};
use lifeboat_telemetry::{Code, Failure, Outcome};
use zeroize::Zeroizing;

use super::TrafficDriver;
use super::haproxy::{self, Haproxy};
use super::rfc2136::{Key, Rfc2136, Settings};

/// The drivers of a service's records, in the order of the spec. Resolves references and secrets.
/// Records of [`records_without_driver`] are left out.
pub fn traffic_drivers(
    spec: &Spec,
    service: &ServiceName,
    environment: &Environment,
) -> Outcome<Vec<Box<dyn TrafficDriver>>> {
    let records = spec.services.get(service).map(|service| service.traffic.as_slice());
    let mut drivers: Vec<Box<dyn TrafficDriver>> = Vec::new();
    for record in records.unwrap_or_default() {
        match record.driver {
            Kind::Rfc2136 => drivers.push(Box::new(dns(service, record, environment)?)),
            Kind::Haproxy => drivers.push(Box::new(proxy(service, record, environment)?)),
            Kind::Route53 | Kind::Cloudflare => {}
        }
    }
    Ok(drivers)
}

/// The records that this version cannot move, by name. Loading the spec says the same, as NOT
/// PROTECTED YET.
pub fn records_without_driver(service: &Service) -> Vec<String> {
    let ours = [Kind::Rfc2136, Kind::Haproxy];
    let records = service.traffic.iter().filter(|record| !ours.contains(&record.driver));
    records.map(|record| format!("{} ({})", record.record, record.driver)).collect()
}

/// All servers of a record.
fn servers(record: &TrafficRecord, environment: &Environment) -> Outcome<Vec<String>> {
    let all = record.server.iter().chain(&record.servers);
    all.map(|server| server.resolve(environment)).collect()
}

fn dns(
    service: &ServiceName,
    record: &TrafficRecord,
    environment: &Environment,
) -> Outcome<Rfc2136> {
    let targets = record.targets.iter().map(|(region, targets)| {
        let addresses = targets.iter().map(|target| address(&record.record, target));
        Ok((region.clone(), addresses.collect::<Outcome<BTreeSet<_>>>()?))
    });
    let targets = targets.collect::<Outcome<BTreeMap<RegionName, _>>>()?;
    let optional = |reference: &Option<lifeboat_model::Reference>| {
        reference.as_ref().map(|reference| reference.resolve(environment)).transpose()
    };
    let settings = Settings {
        service: service.clone(),
        record: record.record.clone(),
        zone: optional(&record.zone)?,
        ttl: record.ttl.duration(),
        targets,
        servers: servers(record, environment)?,
        resolver: optional(&record.resolver)?,
        key: record.tsig.as_ref().map(|tsig| key(tsig, environment)).transpose()?,
    };
    Rfc2136::new(settings, environment)
}

fn proxy(
    service: &ServiceName,
    record: &TrafficRecord,
    environment: &Environment,
) -> Outcome<Haproxy> {
    let targets = record.targets.iter();
    let targets = targets.map(|(region, names)| (region.clone(), names.iter().cloned().collect()));
    Haproxy::new(haproxy::Settings {
        service: service.clone(),
        backend: record.record.clone(),
        targets: targets.collect(),
        sockets: servers(record, environment)?,
    })
}

fn address(record: &str, target: &str) -> Outcome<IpAddr> {
    target.parse().map_err(|error| {
        let message = format!("the target `{target}` of {record} is no IP address");
        Failure::new(Code::SpecInvalid, message).hint("Write addresses.").because(error)
    })
}

fn key(tsig: &Tsig, environment: &Environment) -> Outcome<Key> {
    let text = tsig.secret.resolve_text(environment)?;
    // The cause would show a part of the secret.
    let secret = STANDARD.decode(text.trim()).map_err(|_| {
        let message = format!("the secret of the key {} is not in base64", tsig.name);
        Failure::new(Code::SecretUnavailable, message)
            .hint("Store it as `tsig-keygen` prints it, without quotes.")
    })?;
    let secret = Zeroizing::new(secret);
    Ok(Key { name: tsig.name.clone(), algorithm: tsig.algorithm.clone(), secret })
}

#[cfg(test)]
mod tests;
