//! The messages: what is asked, what is changed, and what answers mean.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::TXT;
use hickory_proto::rr::{DNSClass, Name, RData, Record as Entry, RecordType};
use lifeboat_model::{RegionName, ServiceName};
use lifeboat_telemetry::{Code, Failure, Outcome};

use super::super::{Found, LeadsTo, Stamp};
use super::exchange::Peer;

/// The types that a change replaces at the record's own name.
const ADDRESSES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// The names of a record.
pub(super) struct Record {
    /// Its own.
    pub name: Name,
    /// Where its stamp stands.
    pub stamped: Name,
    /// Its zone.
    pub zone: Name,
    /// The service that it belongs to.
    pub service: ServiceName,
    /// How long it may be remembered.
    pub ttl_seconds: u32,
}

/// What one server shows.
pub(super) struct Shown {
    /// What it means.
    pub found: Found,
    /// The longest time for which any part of it may still be remembered.
    pub longest_ttl_seconds: u32,
    /// The very records, for the prerequisites of a change.
    entries: Vec<Entry>,
}

impl Record {
    /// What is asked of a server.
    pub(super) fn questions(&self) -> Vec<Message> {
        let stamp = self.question(&self.stamped, RecordType::TXT, false);
        let mut questions = self.addresses(false);
        questions.push(stamp);
        questions
    }

    /// What clients ask a resolver.
    pub(super) fn questions_for_clients(&self) -> Vec<Message> {
        self.addresses(true)
    }

    fn addresses(&self, recursion: bool) -> Vec<Message> {
        ADDRESSES.into_iter().map(|kind| self.question(&self.name, kind, recursion)).collect()
    }

    fn question(&self, name: &Name, kind: RecordType, recursion: bool) -> Message {
        let mut message = Message::new(0, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = recursion;
        message.add_query(Query::query(name.clone(), kind));
        message
    }

    /// One message: if everything is as it was shown, all of it is replaced.
    pub(super) fn update(
        &self,
        shown: &Shown,
        targets: &BTreeSet<IpAddr>,
        stamp: &Stamp,
    ) -> Message {
        let mut message = Message::new(0, MessageType::Query, OpCode::Update);
        message.add_query(Query::query(self.zone.clone(), RecordType::SOA));
        let places = [
            (&self.name, RecordType::A),
            (&self.name, RecordType::AAAA),
            (&self.stamped, RecordType::TXT),
        ];
        for (name, kind) in places {
            message.add_answers(self.as_it_was(shown, name, kind));
            message.add_authority(emptied(name, kind, DNSClass::ANY));
        }
        // Addresses beside an alias would be ignored without a word.
        message.add_answer(emptied(&self.name, RecordType::CNAME, DNSClass::NONE));
        for address in targets {
            let data = match address {
                IpAddr::V4(address) => RData::A((*address).into()),
                IpAddr::V6(address) => RData::AAAA((*address).into()),
            };
            message.add_authority(Entry::from_rdata(self.name.clone(), self.ttl_seconds, data));
        }
        let text = RData::TXT(TXT::new(vec![stamp.to_string()]));
        message.add_authority(Entry::from_rdata(self.stamped.clone(), self.ttl_seconds, text));
        message
    }

    /// The prerequisites of one name and type: exactly these records, or none.
    fn as_it_was(&self, shown: &Shown, name: &Name, kind: RecordType) -> Vec<Entry> {
        let entries = shown.entries.iter();
        let known = entries.filter(|entry| entry.name == *name && entry.record_type() == kind);
        let known: Vec<_> =
            known.map(|entry| Entry::from_rdata(name.clone(), 0, entry.data.clone())).collect();
        match known.is_empty() {
            true => vec![emptied(name, kind, DNSClass::NONE)],
            false => known,
        }
    }
}

/// A record without content. Of class ANY it takes all records of this type away; of class NONE it
/// says that there are none.
fn emptied(name: &Name, kind: RecordType, class: DNSClass) -> Entry {
    let mut entry = Entry::update0(name.clone(), 0, kind);
    entry.dns_class = class;
    entry
}

impl Shown {
    /// Reads the answers to the questions.
    pub(super) fn of(
        record: &Record,
        answers: &[Message],
        targets: &BTreeMap<RegionName, BTreeSet<IpAddr>>,
    ) -> Self {
        let ours = |entry: &&Entry| entry.name == record.name || entry.name == record.stamped;
        let entries: Vec<Entry> =
            answers.iter().flat_map(|answer| &answer.answers).filter(ours).cloned().collect();
        let at = |name: &Name| {
            let name = name.clone();
            entries.iter().filter(move |entry| entry.name == name)
        };
        let mut addresses = BTreeSet::new();
        let mut alias = None;
        for entry in at(&record.name) {
            match &entry.data {
                RData::A(address) => drop(addresses.insert(IpAddr::V4(address.0))),
                RData::AAAA(address) => drop(addresses.insert(IpAddr::V6(address.0))),
                RData::CNAME(name) => alias = Some(format!("it is an alias of {}", name.0)),
                _ => {}
            }
        }
        let texts: Vec<_> = at(&record.stamped).filter_map(text_of).collect();
        let stamp = match texts.as_slice() {
            [text] => Stamp::read(text),
            _ => None,
        };
        let stamp = stamp.filter(|stamp| stamp.service == record.service);
        let stranger = (stamp.is_none() && !texts.is_empty())
            .then(|| format!("{} holds no stamp of service {}", record.stamped, record.service));
        let leads_to = match alias.or(stranger) {
            Some(what) => LeadsTo::Taken(what),
            None => leads_to(&addresses, targets),
        };
        let ttls = entries.iter().map(|entry| entry.ttl);
        let wrong = ttls.clone().find(|ttl| *ttl != record.ttl_seconds);
        let flaw = wrong.map(|ttl| {
            format!("may be remembered for {ttl} s, and the spec says {} s", record.ttl_seconds)
        });
        let longest_ttl_seconds = ttls.max().unwrap_or(0);
        Self { found: Found { stamp, leads_to, flaw }, longest_ttl_seconds, entries }
    }
}

fn leads_to(
    addresses: &BTreeSet<IpAddr>,
    targets: &BTreeMap<RegionName, BTreeSet<IpAddr>>,
) -> LeadsTo {
    if addresses.is_empty() {
        return LeadsTo::Nowhere;
    }
    let region = targets.iter().find(|(_, targets)| *targets == addresses);
    match region {
        Some((region, _)) => LeadsTo::Region(region.clone()),
        None => {
            let list: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
            LeadsTo::Elsewhere(list.join(", "))
        }
    }
}

fn text_of(entry: &Entry) -> Option<String> {
    match &entry.data {
        RData::TXT(text) => {
            let parts: Vec<_> = text.txt_data.iter().map(|part| part.escape_ascii()).collect();
            Some(parts.iter().map(ToString::to_string).collect())
        }
        _ => None,
    }
}

/// Whether a server's answer may be believed: it holds the zone.
pub(super) fn expect_authority(peer: &Peer, record: &Record, answer: &Message) -> Outcome<()> {
    let metadata = &answer.metadata;
    match metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain if metadata.authoritative => Ok(()),
        ResponseCode::ServFail => Err(peer.garbled("SERVFAIL: it cannot serve the zone now")),
        ResponseCode::FormErr | ResponseCode::NotImp => Err(peer
            .garbled(&format!("it does not understand the question: {}", metadata.response_code))),
        code => Err(no_zone(peer, record, code)),
    }
}

/// What a server says of a change. That it came too late is no failure: both is seen by looking
/// again.
pub(super) fn read_update(peer: &Peer, record: &Record, answer: &Message) -> Outcome<()> {
    match answer.metadata.response_code {
        ResponseCode::NoError
        | ResponseCode::NXRRSet
        | ResponseCode::YXRRSet
        | ResponseCode::NXDomain
        | ResponseCode::YXDomain => Ok(()),
        code @ (ResponseCode::Refused | ResponseCode::NotImp) => {
            let message = format!("{peer} does not let {} be changed: {code}", record.name);
            Err(Failure::new(Code::TrafficDenied, message).hint(format!(
                "Allow the key A and AAAA of {} and TXT of {}, in `update-policy` of the zone.",
                record.name, record.stamped
            )))
        }
        code @ (ResponseCode::NotAuth | ResponseCode::NotZone) => Err(no_zone(peer, record, code)),
        code => Err(peer.garbled(&format!("the change failed there: {code}"))),
    }
}

fn no_zone(peer: &Peer, record: &Record, code: ResponseCode) -> Failure {
    let zone = &record.zone;
    let message = format!("{peer} is not authoritative for {} in {zone}: {code}", record.name);
    Failure::new(Code::TrafficZone, message)
        .hint("Name servers that hold the zone, and the zone itself where it is not the parent.")
}
