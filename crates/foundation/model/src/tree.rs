//! A YAML text as a tree in which every key and value knows its place.
//!
//! serde stops at the first value that does not fit its type. A spec with five mistakes shall
//! give five findings, so the text becomes this tree first, and the tree becomes types.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, NonFiniteFloatPolicy};

use crate::finding::{Path, Place};

/// A spec of a large company has some thousand lines; what is longer is no spec.
pub(crate) const MAX_BYTES: usize = 1 << 20;
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 100_000;
/// Aliases are allowed and few; each one is copied where it stands.
const MAX_ALIASES: usize = 200;
const MAX_REPLAYED: usize = 20_000;

/// A value and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// A whole number; wide enough for both signs.
    Integer(i128),
    /// A fraction, only to be named in a finding.
    Fraction(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; a key may stand twice.
    Map(Vec<(Key, Node)>),
}

/// A key and where it begins.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

impl Node {
    /// The entries of a map, none for anything else.
    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The elements of a list, none for anything else.
    pub(crate) fn elements(&self) -> &[Node] {
        match &self.value {
            Value::List(elements) => elements,
            _ => &[],
        }
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
    }

    /// The place of what a path leads to, or of the deepest step that exists.
    pub(crate) fn locate(&self, path: &Path) -> Place {
        let mut node = self;
        for step in &path.0 {
            let position = step.trim_matches(['[', ']']).parse::<usize>().ok();
            let element = position.and_then(|position| node.elements().get(position));
            match element.or_else(|| node.get(step)) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }

    /// What the value is, for a message. Texts are not repeated: one could be a secret.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Integer(value) => format!("the number {value}"),
            Value::Fraction(value) => format!("the number {value}"),
            Value::Text(text) if matches!(text.as_str(), ".nan" | ".inf" | "-.inf") => {
                format!("`{text}`")
            }
            Value::Text(_) => "a text".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

/// Why a text is no tree.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// Parses a text within the limits.
pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut alias_limits = AliasLimits::default();
    alias_limits.max_total_replayed_events = MAX_REPLAYED;
    let options = serde_saphyr::options! {
        alias_limits: alias_limits,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_aliases: MAX_ALIASES,
            max_documents: 1,
        },
        // The visitor sees both; the reader reports the second.
        duplicate_keys: DuplicateKeyPolicy::LastWins,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| SyntaxError {
        place: error.location().map_or(Place::START, |location| place(&location)),
        message: explain(error.without_snippet()),
    })
}

fn explain(error: &serde_saphyr::Error) -> String {
    let serde_saphyr::Error::Budget { breach, .. } = error else {
        let text = error.to_string();
        let text = text.lines().next().unwrap_or_default();
        let reason = text.rsplit_once(" at line ").map_or(text, |(reason, _)| reason);
        return format!("this is no readable YAML: {reason}");
    };
    match breach {
        BudgetBreach::Depth { .. } => format!("nested deeper than {MAX_DEPTH} levels"),
        BudgetBreach::Documents { .. } => "more than one YAML document".to_owned(),
        BudgetBreach::Aliases { .. } | BudgetBreach::AliasAnchorRatio { .. } => {
            format!("more than {MAX_ALIASES} aliases, or too many of one anchor")
        }
        _ => format!("more than {MAX_NODES} keys and values"),
    }
}

fn place(location: &serde_saphyr::Location) -> Place {
    let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    Place { line: count(location.line()), column: count(location.column()) }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(source)?;
        Ok(Self { place: place(&spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Self, D::Error> {
        source.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Fraction(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = source.next_element()? {
            elements.push(element);
        }
        Ok(Value::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut source: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = source.next_key::<Spanned<String>>()? {
            let key = Key { place: place(&key.referenced), text: key.value };
            entries.push((key, source.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}
