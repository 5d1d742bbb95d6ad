//! From the tree to types, with every mistake reported and none twice.
//!
//! [`section!`] declares the keys of one map of the spec once: as a struct, as what is read, and
//! as JSON Schema. What cannot be read is left out after its finding, so that all the rest can
//! be checked too; a spec with an error is never handed to anyone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use crate::finding::{Findings, Path};
use crate::tree::{Node, Value};
use crate::word::InvalidWord;

/// Something that a value of the spec can become.
pub(crate) trait Read: Sized {
    /// Reads a value; `None` after a finding was added.
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self>;

    /// What it is when the key is left out; `None` if the key must be there.
    fn absent() -> Option<Self> {
        None
    }
}

/// The keys of one map while its section is read.
pub(crate) struct Keys<'a> {
    node: &'a Node,
    path: &'a Path,
}

impl<'a> Keys<'a> {
    /// Checks that the value is a map of known keys, each once.
    pub(crate) fn of(
        node: &'a Node,
        path: &'a Path,
        known: &[&str],
        findings: &mut Findings<'_>,
    ) -> Option<Self> {
        expect_map(node, path, findings)?;
        for (key, value) in node.entries() {
            if !known.contains(&key.text.as_str()) {
                hide_if_secret(&key.text, value, findings);
                findings.error(
                    &path.join(&key.text),
                    key.place,
                    format!("unknown key `{}`", shorten(&key.text)),
                    did_you_mean(&key.text, known, "Known keys here"),
                );
                if let Some(meant) = nearest(&key.text, known) {
                    findings.mark_broken(&path.join(meant));
                }
            }
        }
        Some(Self { node, path })
    }

    /// Reads one key, or what it is when absent.
    pub(crate) fn read<T: Read>(
        &self,
        key: &str,
        default: Option<T>,
        findings: &mut Findings<'_>,
    ) -> Option<T> {
        let path = self.path.join(key);
        let value = self.node.get(key);
        match value {
            Some(node) if !matches!(node.value, Value::Null) => {
                T::read(node, &path, findings).or(default)
            }
            _ => default.or_else(T::absent).or_else(|| {
                if !findings.is_broken(&path) {
                    let place = value.unwrap_or(self.node).place;
                    let message = format!("the key `{key}` is missing");
                    findings.error(&path, place, message, format!("Add `{key}:` here."));
                }
                None
            }),
        }
    }
}

/// A map in which each key stands once; anything else is a finding.
pub(crate) fn expect_map(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<()> {
    let Value::Map(entries) = &node.value else {
        return expected(node, path, "a map of keys and values", findings);
    };
    let mut seen = BTreeMap::new();
    for (key, _) in entries {
        if let Some(first) = seen.insert(key.text.as_str(), key.place.line) {
            findings.error(
                &path.join(&key.text),
                key.place,
                format!("the key `{}` stands twice", shorten(&key.text)),
                format!("It stands in line {first} already: keep one of them."),
            );
        }
    }
    Some(())
}

/// Keeps what looks like a secret under a mistyped key out of the excerpts.
fn hide_if_secret(key: &str, value: &Node, findings: &mut Findings<'_>) {
    let key = key.to_ascii_lowercase();
    let named = ["pass", "secret", "token", "key"].iter().any(|word| key.contains(word));
    if let Value::Text(text) = &value.value
        && named
        && !crate::Secret::is_reference(text)
    {
        findings.hide(value.place, text);
    }
}

/// Reports that a value is not what the key takes.
pub(crate) fn expected<T>(
    node: &Node,
    path: &Path,
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<T> {
    findings.error(
        path,
        node.place,
        format!("expected {what}, found {}", node.describe()),
        hint_for(node, what),
    );
    None
}

fn hint_for(node: &Node, what: &str) -> String {
    match node.value {
        Value::Integer(_) | Value::Fraction(_) | Value::Bool(_) if what.contains("text") => {
            "Put it in quotes.".to_owned()
        }
        _ => format!("Write {what}."),
    }
}

/// The text of a value.
pub(crate) fn text<'a>(
    node: &'a Node,
    path: &Path,
    what: &str,
    findings: &mut Findings<'_>,
) -> Option<&'a str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => expected(node, path, what, findings),
    }
}

/// Reads a word by its `FromStr`.
pub(crate) fn word<T: FromStr<Err = InvalidWord>>(
    node: &Node,
    path: &Path,
    what: &'static str,
    findings: &mut Findings<'_>,
) -> Option<T> {
    match text(node, path, what, findings)?.parse() {
        Ok(word) => Some(word),
        Err(error) => {
            let hint = format!("Write {}.", error.expected());
            findings.error(path, node.place, error.to_string(), hint);
            None
        }
    }
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(
    node: &Node,
    path: &Path,
    choices: &[(&str, T)],
    findings: &mut Findings<'_>,
) -> Option<T> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let said = text(node, path, &format!("one of {}", names.join(", ")), findings)?;
    let found = choices.iter().find(|(name, _)| *name == said).map(|(_, choice)| *choice);
    if found.is_none() {
        findings.error(
            path,
            node.place,
            format!("`{}` is not a value of this key", shorten(said)),
            did_you_mean(said, &names, "Known values"),
        );
    }
    found
}

/// The nearest known word if one is near, and all of them.
pub(crate) fn did_you_mean(said: &str, known: &[&str], title: &str) -> String {
    let guess = nearest(said, known).map(|name| format!("Did you mean `{name}`? "));
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("{}{title}: {list}.", guess.unwrap_or_default())
}

/// The known word that was probably meant.
fn nearest<'a>(said: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &&str| strsim::damerau_levenshtein(said, name);
    let near = |name: &&str| distance(name) <= 1 + name.len().min(said.len()) / 4;
    // The distance of long texts is expensive, and they are no typing errors.
    let known = known.iter().copied().filter(|_| said.len() <= 64);
    known.min_by_key(distance).filter(near)
}

/// A piece of the input that is short enough for a message.
pub(crate) fn shorten(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(40).collect()
}

impl Read for bool {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => expected(node, path, "true or false", findings),
        }
    }
}

macro_rules! read_integer {
    ($($kind:ty),*) => {$(
        impl Read for $kind {
            fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
                let number = match node.value {
                    Value::Integer(number) => <$kind>::try_from(number).ok(),
                    _ => None,
                };
                let what = concat!("a whole number from 0 to ", stringify!($kind));
                let what = what.replace(stringify!($kind), &<$kind>::MAX.to_string());
                number.or_else(|| expected(node, path, &what, findings))
            }
        }
    )*};
}

read_integer!(u8, u16, u32);

impl Read for String {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        text(node, path, "a text", findings).map(str::to_owned)
    }
}

impl Read for PathBuf {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        const WHAT: &str = "an absolute path such as /var/lib/lifeboat";
        let said = text(node, path, WHAT, findings)?;
        if said.starts_with('/') && !said.contains('\0') {
            return Some(Self::from(said));
        }
        findings.error(
            path,
            node.place,
            format!("`{}` is not {WHAT}", shorten(said)),
            "Daemons have no working directory that one could rely on: begin with `/`.",
        );
        None
    }
}

impl<T: Read> Read for Option<T> {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        // Its finding makes the spec unusable; the neighbours shall have theirs too.
        Some(T::read(node, path, findings))
    }

    fn absent() -> Option<Self> {
        Some(None)
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        if !matches!(node.value, Value::List(_)) {
            return expected(node, path, "a list", findings);
        }
        let elements = node.elements().iter().enumerate();
        let read = |(position, element)| T::read(element, &path.item(position), findings);
        Some(elements.filter_map(read).collect())
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

impl<K: FromStr<Err = InvalidWord> + Ord, T: Read> Read for BTreeMap<K, T> {
    fn read(node: &Node, path: &Path, findings: &mut Findings<'_>) -> Option<Self> {
        expect_map(node, path, findings)?;
        let mut map = Self::new();
        for (key, value) in node.entries() {
            let path = path.join(shorten(&key.text));
            let name: Result<K, InvalidWord> = key.text.parse();
            if let Err(error) = &name {
                let hint = format!("Write {}.", error.expected());
                findings.error(&path, key.place, error.to_string(), hint);
            }
            if let (Ok(name), Some(value)) = (name, T::read(value, &path, findings)) {
                map.insert(name, value);
            }
        }
        Some(map)
    }

    fn absent() -> Option<Self> {
        Some(Self::new())
    }
}

/// Reads words of the domain by their `FromStr`.
macro_rules! read_as_word {
    ($($word:ty = $what:literal,)*) => {$(
        impl crate::reader::Read for $word {
            fn read(
                node: &crate::tree::Node,
                path: &crate::finding::Path,
                findings: &mut crate::finding::Findings<'_>,
            ) -> Option<Self> {
                crate::reader::word(node, path, $what, findings)
            }
        }
    )*};
}

/// One map of the spec: its struct, its reading, its schema. `= value` gives a key a default;
/// `Option`, `Vec` and `BTreeMap` keys may be left out anyway.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident {
            $($(#[doc = $doc:literal])+ $key:ident: $kind:ty $(= $default:expr)?,)*
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $key: $kind,)*
        }

        impl crate::reader::Read for $name {
            fn read(
                node: &crate::tree::Node,
                path: &crate::finding::Path,
                findings: &mut crate::finding::Findings<'_>,
            ) -> Option<Self> {
                let _keys = crate::reader::Keys::of(node, path, &[$(stringify!($key)),*], findings)?;
                // All keys are read before the first unreadable one ends the section.
                $(let $key = _keys.read::<$kind>(
                    stringify!($key),
                    crate::reader::section!(@default $($default)?),
                    findings,
                );)*
                Some(Self { $($key: $key?,)* })
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let mut _section = crate::schema::Section::new(concat!($($about),+));
                $(_section.key::<$kind>(
                    stringify!($key),
                    concat!($($doc),+),
                    crate::reader::section!(@default $($default)?),
                    _generator,
                );)*
                _section.finish()
            }
        }
    };
    (@default) => { None };
    (@default $default:expr) => { Some($default) };
}

/// A key that takes one of a few words.
macro_rules! choices {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $text:literal,)+ }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl $name {
            /// The word as the spec has it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.pad(self.as_str())
            }
        }

        impl crate::reader::Read for $name {
            fn read(
                node: &crate::tree::Node,
                path: &crate::finding::Path,
                findings: &mut crate::finding::Findings<'_>,
            ) -> Option<Self> {
                crate::reader::choice(node, path, &[$(($text, Self::$variant)),+], findings)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "enum": [$($text),+] })
            }
        }
    };
}

/// A map with exactly one key, which says what it is.
macro_rules! one_key {
    (
        $(#[doc = $about:literal])+
        pub enum $name:ident {
            $($(#[doc = $doc:literal])+ $variant:ident($kind:ty) = $key:literal,)+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, PartialEq)]
        pub enum $name {
            $($(#[doc = $doc])+ $variant($kind),)+
        }

        impl crate::reader::Read for $name {
            fn read(
                node: &crate::tree::Node,
                path: &crate::finding::Path,
                findings: &mut crate::finding::Findings<'_>,
            ) -> Option<Self> {
                let known = [$($key),+];
                let keys = crate::reader::Keys::of(node, path, &known, findings)?;
                match node.entries() {
                    $([(key, _)] if key.text == $key => {
                        keys.read::<$kind>($key, None, findings).map(Self::$variant)
                    })+
                    // An unknown key was reported.
                    [(key, _)] if !known.contains(&key.text.as_str()) => None,
                    _ => {
                        let what = format!("a map with exactly one of the keys {}", known.join(", "));
                        crate::reader::expected(node, path, &what, findings)
                    }
                }
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let variants = vec![$(crate::schema::variant::<$kind>(
                    $key, concat!($($doc),+), generator,
                )),+];
                schemars::json_schema!({ "description": concat!($($about),+).trim(), "oneOf": variants })
            }
        }
    };
}

pub(crate) use {choices, one_key, read_as_word, section};
