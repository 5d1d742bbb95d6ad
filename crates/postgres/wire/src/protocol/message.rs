//! Cutting the server's bytes into messages.

use bytes::BytesMut;
use postgres_protocol::message::backend::{self, Header};

use crate::Error;

/// The longest message that is taken. A server sends WAL in pieces of 16 blocks (128 KiB), and a
/// timeline's history is shorter than 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;

/// START_REPLICATION's answer; `postgres-protocol` does not know it.
const COPY_BOTH_RESPONSE: u8 = b'W';

/// A message of the server.
pub(super) enum Message {
    CopyBoth,
    Known(backend::Message),
}

/// Takes the next message off the front; `None` if it has not come as a whole.
pub(super) fn decode(inbox: &mut BytesMut) -> Result<Option<Message>, Error> {
    let malformed = |error: std::io::Error| Error::Protocol(error.to_string().into());
    let Some(header) = Header::parse(inbox).map_err(malformed)? else { return Ok(None) };
    // The length counts itself, but not the tag.
    let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES_MAX {
        return Err(Error::protocol(format!("a message of {length} bytes is too long")));
    }
    if inbox.len() <= length {
        return Ok(None);
    }
    if header.tag() == COPY_BOTH_RESPONSE {
        let _formats = inbox.split_to(length + 1);
        return Ok(Some(Message::CopyBoth));
    }
    let message = backend::Message::parse(inbox).map_err(malformed)?;
    Ok(message.map(Message::Known))
}

/// The message's name, for those who did not expect it.
pub(super) fn unexpected(message: &Message, during: &str) -> Error {
    use backend::Message as Known;
    let name = match message {
        Message::CopyBoth => "CopyBothResponse",
        Message::Known(Known::CopyData(_)) => "CopyData",
        Message::Known(Known::CopyDone) => "CopyDone",
        Message::Known(Known::CommandComplete(_)) => "CommandComplete",
        Message::Known(Known::DataRow(_)) => "DataRow",
        Message::Known(Known::RowDescription(_)) => "RowDescription",
        Message::Known(Known::ReadyForQuery(_)) => "ReadyForQuery",
        Message::Known(_) => "a message",
    };
    Error::Protocol(format!("{name} came during {during}").into())
}
