//! Texts and secrets that the spec names and the host holds.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use lifeboat_environment::Environment;
use lifeboat_telemetry::{Code, Failure, Outcome};
use zeroize::Zeroizing;

use crate::finding::{self, Findings};
use crate::reader;
use crate::tree::Node;
use crate::word::{InvalidWord, schema_as_text};

const REFERENCE: &str = "a text in which variables stand as ${NAME}";
const SECRET: &str = "a reference to a secret: ${NAME}, file:/PATH or command:/PROGRAM ARGUMENTS";
/// Larger than any key, password or certificate chain.
const MAX_SECRET: u64 = 64 << 10;

/// A text that may hold `${NAME}`; resolved where it is used, so that a spec loads everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference(String);

impl Reference {
    /// The text as the spec has it.
    pub fn as_written(&self) -> &str {
        &self.0
    }

    /// The text with its variables replaced.
    pub fn resolve(&self, environment: &Environment) -> Outcome<String> {
        let mut resolved = String::new();
        let mut rest = self.0.as_str();
        while let Some((before, name, after)) = next_variable(rest) {
            resolved.push_str(before);
            resolved.push_str(variable(name, environment)?);
            rest = after;
        }
        resolved.push_str(rest);
        Ok(resolved)
    }

    /// A password that stands in a connection text or URL instead of a variable.
    fn literal_password(text: &str) -> Option<&str> {
        let in_url = text.split_once("://").and_then(|(_, rest)| {
            let authority = rest.split(['/', '?', '#']).next()?;
            Some(authority.rsplit_once('@')?.0.split_once(':')?.1)
        });
        let in_words = || {
            let mut words = text.split(|at: char| at.is_whitespace() || matches!(at, '?' | '&'));
            words.find_map(|word| word.strip_prefix("password="))
        };
        in_url.or_else(in_words).filter(|password| {
            !password.is_empty() && !password.trim_matches('\'').starts_with("${")
        })
    }
}

impl FromStr for Reference {
    type Err = InvalidWord;

    fn from_str(text: &str) -> Result<Self, InvalidWord> {
        let mut rest = text;
        while let Some((_, _, after)) = next_variable(rest) {
            rest = after;
        }
        let whole = !rest.contains("${") && !text.is_empty() && !text.contains('\0');
        whole.then(|| Self(text.to_owned())).ok_or_else(|| InvalidWord::new(text, REFERENCE))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

schema_as_text!(
    Reference,
    "Reference",
    "A text; ${NAME} stands for an environment variable.",
    ".+"
);

impl reader::Read for Reference {
    fn read(node: &Node, path: &finding::Path, findings: &mut Findings<'_>) -> Option<Self> {
        let text = reader::text(node, path, "a text", findings)?;
        if let Some(password) = Self::literal_password(text) {
            findings.hide(node.place, password);
            findings.error(
                path,
                node.place,
                "a password stands in the spec",
                "Write it as ${NAME} and set that variable, or use a password file (~/.pgpass).",
            );
            return None;
        }
        reader::word(node, path, REFERENCE, findings)
    }
}

/// Where a secret is to be found. It never holds the secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// `${NAME}`: an environment variable.
    Variable(String),
    /// `file:PATH`: a file without its last line end.
    File(PathBuf),
    /// `command:ARGV`: what a program prints, without its last line end. Words are separated by
    /// blanks; there is no shell.
    Command(Vec<String>),
}

impl Secret {
    /// The path of a `file:` secret.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }

    /// Whether a text names a secret instead of being one.
    pub(crate) fn is_reference(text: &str) -> bool {
        Self::parse(text).is_some()
    }

    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return path.starts_with('/').then(|| Self::File(PathBuf::from(path)));
        }
        if let Some(line) = text.strip_prefix("command:") {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            return (!words.is_empty()).then_some(Self::Command(words));
        }
        match next_variable(text) {
            Some(("", name, "")) => Some(Self::Variable(name.to_owned())),
            _ => None,
        }
    }

    /// The secret's bytes, wiped when dropped.
    pub fn resolve(&self, environment: &Environment) -> Outcome<Zeroizing<Vec<u8>>> {
        let mut bytes = match self {
            Self::Variable(name) => Zeroizing::new(variable(name, environment)?.into()),
            Self::File(path) => File::open(path)
                .and_then(read_limited)
                .map_err(|error| self.unavailable().because(error))?,
            Self::Command(words) => self.run(words)?,
        };
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(self.unavailable().because("it is empty"));
        }
        Ok(bytes)
    }

    /// The secret as text.
    pub fn resolve_text(&self, environment: &Environment) -> Outcome<Zeroizing<String>> {
        let bytes = self.resolve(environment)?;
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| self.unavailable().because("it is not UTF-8 text"))?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    fn run(&self, words: &[String]) -> Outcome<Zeroizing<Vec<u8>>> {
        let fail = |error: io::Error| self.unavailable().because(error);
        let (program, arguments) = words.split_first().ok_or_else(|| self.unavailable())?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(fail)?;
        let output = child.stdout.take().map(read_limited).transpose();
        if output.is_err() {
            // It printed too much and would wait for a reader for ever.
            let _ = child.kill();
        }
        let status = child.wait().map_err(fail)?;
        let output = output.map_err(fail)?.unwrap_or_default();
        match status.success() {
            true => Ok(output),
            false => Err(self.unavailable().because(format!("it ended with {status}"))),
        }
    }

    fn unavailable(&self) -> Failure {
        Failure::new(Code::SecretUnavailable, format!("cannot resolve the secret {self}"))
            .hint("Make what the reference names readable for this user.")
    }
}

impl fmt::Display for Secret {
    /// The reference; of a command the program alone, for an argument may be a secret itself.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(formatter, "${{{name}}}"),
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Command(words) => {
                let program = words.first().map(String::as_str).unwrap_or_default();
                let more = if words.len() > 1 { " …" } else { "" };
                write!(formatter, "command:{program}{more}")
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Secret({self})")
    }
}

schema_as_text!(
    Secret,
    "Secret",
    "A reference to a secret, never the secret: ${NAME}, file:/PATH or command:/PROGRAM ARGUMENTS.",
    r"^(\$\{[A-Za-z_][A-Za-z0-9_]*\}|file:/.+|command:.+)$"
);

impl reader::Read for Secret {
    fn read(node: &Node, path: &finding::Path, findings: &mut Findings<'_>) -> Option<Self> {
        let text = reader::text(node, path, SECRET, findings)?;
        let secret = Self::parse(text);
        if secret.is_none() {
            findings.hide(node.place, text);
            findings.error(
                path,
                node.place,
                "expected a reference to a secret, found another text",
                format!("Secrets never stand in the spec: write {SECRET}."),
            );
        }
        secret
    }
}

/// The text before the next `${NAME}`, the name, and the text after it.
fn next_variable(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("${")?;
    let (name, after) = rest.split_once('}')?;
    let plain = |at: char| at.is_ascii_alphanumeric() || at == '_';
    let named = name.chars().all(plain) && name.starts_with(|at: char| !at.is_ascii_digit());
    named.then_some((before, name, after))
}

fn variable<'a>(name: &str, environment: &'a Environment) -> Outcome<&'a str> {
    environment.variable(name).ok_or_else(|| {
        Failure::new(Code::SecretUnavailable, format!("the variable {name} is not set"))
            .hint(format!("Set {name} in the environment of this process."))
    })
}

fn read_limited(source: impl io::Read) -> io::Result<Zeroizing<Vec<u8>>> {
    // Reserved at once: a buffer that grows would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET as usize + 1));
    source.take(MAX_SECRET + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(io::Error::other(format!("it is larger than {MAX_SECRET} bytes")));
    }
    Ok(bytes)
}
