//! The answer of a command: rows of text, or a refusal.

use std::fmt::Display;
use std::str::FromStr;

use bytes::Bytes;
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{self, DataRowBody};

use super::message::{MESSAGE_BYTES_MAX, Message, unexpected};
use crate::{Error, ServerError};

/// No command that we send has so many rows.
const ROWS_MAX: usize = 64;

/// One row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(Vec<Option<Bytes>>);

impl Row {
    fn new(body: &DataRowBody) -> Result<Self, Error> {
        let malformed = |_| Error::protocol("a row cannot be read");
        let storage = body.buffer_bytes();
        let field =
            |range: Option<std::ops::Range<usize>>| Ok(range.map(|range| storage.slice(range)));
        body.ranges().map(field).collect().map(Self).map_err(malformed)
    }

    /// A field's bytes; `None` if it is null or missing.
    pub fn bytes(&self, column: usize) -> Option<&Bytes> {
        self.0.get(column)?.as_ref()
    }

    /// A field's text.
    pub fn text(&self, column: usize) -> Result<&str, Error> {
        self.bytes(column)
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .ok_or_else(|| Error::protocol(format!("column {column} of an answer is not text")))
    }

    /// A field that is more than text.
    pub fn parse<T: FromStr<Err: Display>>(&self, column: usize) -> Result<T, Error> {
        let text = self.text(column)?;
        text.parse().map_err(|error: T::Err| {
            Error::protocol(format!("column {column} of an answer cannot be read: {error}"))
        })
    }
}

/// An answer that is coming in.
#[derive(Debug, Default)]
pub(super) struct Answer {
    rows: Vec<Row>,
    size_bytes: usize,
    error: Option<Box<ServerError>>,
}

impl Answer {
    /// An answer that can only say why not.
    pub(super) fn refused(&mut self, error: Box<ServerError>) {
        self.error = Some(error);
    }

    /// The refusal that came so far.
    pub(super) fn into_error(self) -> Option<Box<ServerError>> {
        self.error
    }

    /// What came, as a whole.
    pub(super) fn into_rows(self) -> Result<Vec<Row>, Box<ServerError>> {
        self.error.map_or(Ok(self.rows), Err)
    }

    /// Takes a message; true when the server is ready again and the answer is whole.
    pub(super) fn proceed(&mut self, message: Message) -> Result<bool, Error> {
        use backend::Message as Known;
        match message {
            Message::Known(Known::DataRow(body)) => {
                self.size_bytes += body.buffer().len();
                if self.rows.len() == ROWS_MAX || self.size_bytes > MESSAGE_BYTES_MAX {
                    return Err(Error::protocol("an answer is too long"));
                }
                self.rows.push(Row::new(&body)?);
                Ok(false)
            }
            Message::Known(Known::RowDescription(_) | Known::CommandComplete(_)) => Ok(false),
            Message::Known(Known::ReadyForQuery(_)) => Ok(true),
            message => Err(unexpected(&message, "a command")),
        }
    }
}
