//! Questions and answers over TCP, signed by TSIG.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::TSigner;
use hickory_proto::rr::rdata::tsig::{TSIG, TsigAlgorithm, TsigError};
use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use super::dns_name;

/// How long one exchange with one server may take.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// How far clocks may be apart; what nsupdate uses.
const FUDGE_SECONDS: u16 = 300;

/// A key that signs updates. Never printed.
pub struct Key {
    /// Its name, as the servers know it.
    pub name: String,
    /// hmac-sha256, hmac-sha384 or hmac-sha512.
    pub algorithm: String,
    /// The key itself, out of its base64.
    pub secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Key").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Key {
    pub(super) fn signer(&self) -> Outcome<TSigner> {
        let algorithm = TsigAlgorithm::from_name(
            hickory_proto::rr::Name::from_ascii(&self.algorithm).unwrap_or_default(),
        );
        let name = dns_name(&self.name)?;
        // Keys that sign a few messages a minute live as long as the process; the library keeps
        // them in plain memory.
        TSigner::new(self.secret.to_vec(), algorithm, name, FUDGE_SECONDS).map_err(|_| {
            let message = format!("the key {} cannot sign by {}", self.name, self.algorithm);
            super::invalid(message)
        })
    }
}

/// A server or resolver.
pub(super) struct Peer {
    address: String,
    signer: Option<TSigner>,
    environment: Environment,
}

/// A question on its way.
struct Sent {
    id: u16,
    bytes: Vec<u8>,
    mac: Option<Vec<u8>>,
}

impl Peer {
    pub(super) fn new(address: &str, signer: Option<TSigner>, environment: &Environment) -> Self {
        Self { address: with_port(address), signer, environment: environment.clone() }
    }

    /// Asks all at once, over one connection; the answers are in order.
    pub(super) async fn ask(&self, questions: Vec<Message>) -> Outcome<Vec<Message>> {
        // No two questions of one connection may have the same number.
        let first = self.environment.random().next_u64() as u16;
        let sent = questions.into_iter().zip(0_u16..);
        let sent = sent.map(|(question, place)| self.seal(question, first.wrapping_add(place)));
        let sent = sent.collect::<Outcome<Vec<_>>>()?;
        let talk = async {
            let answers = self.talk(&sent).await;
            answers.map_err(|error| self.silent().because(error))
        };
        let answers = self.within(PATIENCE, talk).await?;
        sent.iter().zip(answers).map(|(sent, bytes)| self.open(sent, &bytes)).collect()
    }

    /// What it says within `limit`.
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        let late = |_| Err(self.silent().because(format!("nothing for {} ms", limit.as_millis())));
        tokio::time::timeout(limit, work).await.unwrap_or_else(late)
    }

    fn seal(&self, mut message: Message, id: u16) -> Outcome<Sent> {
        message.metadata.id = id;
        if let Some(signer) = &self.signer {
            let sealed = message.finalize(signer, self.now());
            sealed.map_err(|error| self.garbled("the question cannot be signed").because(error))?;
        }
        let mac = message.signature().map(|record| record.data.mac.clone());
        let bytes = message.to_vec();
        let bytes =
            bytes.map_err(|error| self.garbled("the question has no form").because(error))?;
        Ok(Sent { id, bytes, mac })
    }

    async fn talk(&self, sent: &[Sent]) -> std::io::Result<Vec<Vec<u8>>> {
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let mut all = Vec::new();
        for Sent { bytes, .. } in sent {
            let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
            all.extend_from_slice(&length.to_be_bytes());
            all.extend_from_slice(bytes);
        }
        stream.write_all(&all).await?;
        // A server may answer in another order.
        let mut answers: Vec<Option<Vec<u8>>> = vec![None; sent.len()];
        for _ in sent {
            let length = stream.read_u16().await?;
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await?;
            let id = bytes.first_chunk().map(|id| u16::from_be_bytes(*id));
            let place = sent.iter().position(|sent| Some(sent.id) == id);
            let open = place.and_then(|place| answers.get_mut(place));
            let open = open.filter(|answer| answer.is_none());
            *open.ok_or_else(|| std::io::Error::other("an answer to no question"))? = Some(bytes);
        }
        Ok(answers.into_iter().flatten().collect())
    }

    fn open(&self, sent: &Sent, bytes: &[u8]) -> Outcome<Message> {
        let answer = Message::from_vec(bytes)
            .map_err(|error| self.garbled("the answer has no form").because(error))?;
        let asked = Message::from_vec(&sent.bytes)
            .map_err(|error| self.garbled("the question has no form").because(error))?;
        let fits = answer.metadata.message_type == MessageType::Response
            && answer.metadata.op_code == asked.metadata.op_code
            && (answer.queries.is_empty() || answer.queries == asked.queries);
        if !fits {
            return Err(self.garbled("the answer is to another question"));
        }
        if let (Some(mac), Some(signer)) = (&sent.mac, &self.signer) {
            self.verify(signer, mac, &answer, bytes)?;
        }
        Ok(answer)
    }

    fn verify(&self, signer: &TSigner, mac: &[u8], answer: &Message, bytes: &[u8]) -> Outcome<()> {
        let Some(signature) = answer.signature().map(|record| &record.data) else {
            // An unsigned refusal may be forged, but then it only keeps us from acting.
            let harmless = !matches!(
                answer.metadata.response_code,
                ResponseCode::NoError | ResponseCode::NXDomain
            );
            let unsigned = || self.garbled("the answer is not signed");
            return harmless.then_some(()).ok_or_else(unsigned);
        };
        match signature.error {
            Some(TsigError::BadTime) => return Err(self.clocks_differ(server_time(signature))),
            Some(error) => return Err(self.key_refused(signer, error)),
            None => {}
        }
        // The library subtracts one from the other.
        if signature.time < u64::from(signature.fudge) {
            return Err(self.garbled("the answer was signed before time began"));
        }
        let verified = signer.verify_message_byte(bytes, Some(mac), true);
        let (_, _, valid) = verified.map_err(|error| {
            self.garbled("the signature of the answer does not hold").because(error)
        })?;
        if !valid.contains(&self.now()) {
            return Err(self.clocks_differ(Some(signature.time)));
        }
        Ok(())
    }

    /// The wall clock: TSIG knows no other one. A wrong one only keeps this driver from acting.
    fn now(&self) -> u64 {
        self.environment.clock().now().as_second().max(0).cast_unsigned()
    }

    fn silent(&self) -> Failure {
        Failure::new(Code::TrafficSilent, format!("{self} does not answer"))
            .hint("See whether the server runs and TCP reaches it.")
    }

    pub(super) fn garbled(&self, what: &str) -> Failure {
        Failure::new(Code::TrafficAnswer, format!("{self}: {what}"))
            .hint("Ask the server by hand, with `dig +tcp`, and read its log.")
    }

    fn key_refused(&self, signer: &TSigner, error: TsigError) -> Failure {
        let why = match error {
            TsigError::BadKey => "it knows no key of that name and algorithm (BADKEY)".to_owned(),
            TsigError::BadSig => "the secret is another one (BADSIG)".to_owned(),
            TsigError::BadTrunc => "it wants longer signatures (BADTRUNC)".to_owned(),
            TsigError::Unknown(code) => format!("TSIG error {code}"),
            TsigError::BadTime => "its clock is another one (BADTIME)".to_owned(),
        };
        let key = signer.signer_name();
        Failure::new(Code::TrafficKeyRefused, format!("{self} refuses the key {key}: {why}"))
            .hint("Compare name, algorithm and secret of `tsig` with the server's `key` statement.")
    }

    fn clocks_differ(&self, theirs: Option<u64>) -> Failure {
        let apart = theirs.map_or_else(String::new, |theirs| {
            let apart = i128::from(theirs) - i128::from(self.now());
            let direction = if apart < 0 { "behind" } else { "ahead of" };
            format!(": it is {} s {direction} ours", apart.unsigned_abs())
        });
        let message = format!("the clock of {self} is too far from ours{apart}");
        Failure::new(Code::TrafficClock, message).hint(format!(
            "Signatures hold for {FUDGE_SECONDS} s. Set both clocks by NTP; nothing but DNS needs it."
        ))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.address)
    }
}

/// HOST:PORT of what may be a host alone.
fn with_port(address: &str) -> String {
    if let Ok(address) = address.parse::<IpAddr>() {
        return SocketAddr::new(address, 53).to_string();
    }
    match address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        true => address.to_owned(),
        false => format!("{address}:53"),
    }
}

/// The time that a server gives with BADTIME: 48 bits.
fn server_time(signature: &TSIG) -> Option<u64> {
    let bytes: [u8; 6] = signature.other.as_slice().try_into().ok()?;
    Some(bytes.iter().fold(0, |time, byte| time << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests;
