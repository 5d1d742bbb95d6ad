//! One shape for every failure that leaves a crate: what happened, why, what to do (ADR 0002).

use std::error::Error;
use std::fmt;

use crate::{Code, Kind};

/// The result of an operation that can fail towards a person.
pub type Outcome<T> = Result<T, Failure>;

/// A failure with a stable code, a message and a hint. Never holds a secret.
#[derive(Debug)]
pub struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    code: Code,
    message: String,
    hint: Option<String>,
    cause: Option<Box<dyn Error + Send + Sync>>,
    details: Vec<String>,
}

impl Failure {
    /// A failure; the message is a lowercase fragment that says what happened and to what.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self(Box::new(Inner { code, message, hint: None, cause: None, details: Vec::new() }))
    }

    /// Adds what to do, as a sentence.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause, printed after the message.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds one line to the list printed below the message (findings, damaged objects, skipped
    /// regions).
    #[must_use]
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.0.details.push(line.into());
        self
    }

    /// Adds many lines.
    #[must_use]
    pub fn details(mut self, lines: impl IntoIterator<Item = String>) -> Self {
        self.0.details.extend(lines);
        self
    }

    /// Puts the step that failed in front of the message: `context: message`.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.0.message = format!("{context}: {}", self.0.message);
        self
    }

    /// The stable code.
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// What the failure asks for.
    pub fn kind(&self) -> Kind {
        self.0.code.kind()
    }

    /// What happened, without the cause.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref().or_else(|| self.0.code.usual_hint())
    }

    /// The lines below the message.
    pub fn detail_lines(&self) -> &[String] {
        &self.0.details
    }

    /// Message and every cause in one line.
    pub fn full_message(&self) -> String {
        let mut text = self.0.message.clone();
        let mut cause = self.0.cause.as_deref().map(|cause| cause as &dyn Error);
        while let Some(error) = cause {
            let said = error.to_string();
            // Libraries often repeat their source in their own message.
            if !text.contains(&said) {
                text.push_str(": ");
                text.push_str(&said);
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.full_message())
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

impl From<lifeboat_environment::FailpointError> for Failure {
    fn from(error: lifeboat_environment::FailpointError) -> Self {
        Self::new(Code::Failpoint, error.to_string())
    }
}
