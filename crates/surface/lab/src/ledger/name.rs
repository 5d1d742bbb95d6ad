//! The way of a client to a server: it asks the resolver each time that it connects.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};
use lifeboat_environment::Environment;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// A resolver that does not answer by then is asked again.
const PATIENCE: Duration = Duration::from_millis(1500);

/// The addresses of a name.
pub(super) async fn addresses(
    server: SocketAddr,
    name: &str,
    environment: &Environment,
) -> Result<Vec<IpAddr>, String> {
    let id = u16::try_from(environment.random().next_u64() & 0xffff).unwrap_or_default();
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(name).map_err(|error| error.to_string())?;
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name, RecordType::A));
    let bytes = question.to_vec().map_err(|error| error.to_string())?;
    let asked = async {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        socket.connect(server).await?;
        socket.send(&bytes).await?;
        let mut buffer = vec![0; 4096];
        let length = socket.recv(&mut buffer).await?;
        buffer.truncate(length);
        std::io::Result::Ok(buffer)
    };
    let answer = timeout(PATIENCE, asked).await;
    let answer = answer.map_err(|_| "the resolver does not answer".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let answer = Message::from_vec(&answer).map_err(|error| error.to_string())?;
    if answer.metadata.id != id {
        return Err("the resolver answered another question".to_owned());
    }
    let addresses = answer.answers.iter().filter_map(|record| match &record.data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        _ => None,
    });
    Ok(addresses.collect())
}
