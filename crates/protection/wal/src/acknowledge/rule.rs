//! `synchronous_standby_names` as a rule that can be reasoned about.

use std::collections::BTreeSet;
use std::fmt;

/// For whom a commit waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Whether the first of the list that are there count, instead of any.
    first: bool,
    needed: usize,
    names: Vec<String>,
}

impl Rule {
    /// Any `needed` of these names.
    pub fn any(needed: usize, names: impl IntoIterator<Item = String>) -> Self {
        Self { first: false, needed, names: names.into_iter().collect() }
    }

    /// Reads the setting; `None` if it is none, or empty, under which no commit waits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = Words(text);
        let mut next = words.next()?;
        let mut first = true;
        if let Word::Plain(word) = &next {
            let any = word.eq_ignore_ascii_case("any");
            if any || word.eq_ignore_ascii_case("first") {
                // Without a number behind it, it is the name of a standby.
                let mut ahead = Words(words.0);
                if let Some(Word::Plain(number)) = ahead.next()
                    && is_number(&number)
                {
                    first = !any;
                    (words, next) = (ahead, Word::Plain(number));
                }
            }
        }
        let mut rest = Words(words.0);
        if let (Word::Plain(number), Some(Word::Mark('('))) = (&next, rest.next()) {
            let names = list(rest.next()?, &mut rest, Some(')'))?;
            return Some(Self { first, needed: number.parse().ok()?, names });
        }
        Some(Self { first: true, needed: 1, names: list(next, &mut words, None)? })
    }

    /// How many it asks for.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// Whom it names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether PostgreSQL would take this application name for one of its names.
    pub fn counts(&self, application_name: &str) -> bool {
        self.names.iter().any(|name| name == "*" || name.eq_ignore_ascii_case(application_name))
    }

    /// How many of these names every acknowledged commit has reached at least.
    pub fn guarantees(&self, names: &[String]) -> usize {
        if self.names.iter().any(|name| name == "*") {
            return 0;
        }
        let known = |name: &&String| names.iter().any(|other| other.eq_ignore_ascii_case(name));
        let others = self.names.iter().filter(|name| !known(name)).count();
        self.needed.saturating_sub(others)
    }

    /// Whether those that stream now can acknowledge under it.
    pub fn is_met_by(&self, streaming: &BTreeSet<String>) -> bool {
        self.members(streaming).len() >= self.needed
    }

    fn members<'a>(&self, streaming: &'a BTreeSet<String>) -> BTreeSet<&'a String> {
        streaming.iter().filter(|name| self.counts(name)).collect()
    }

    /// The rule between this one and `next`: whatever is acknowledged under it satisfies both.
    /// `None` if none is needed: one of them implies the other, or nothing is acknowledged now.
    pub fn on_the_way_to(&self, next: &Self, streaming: &BTreeSet<String>) -> Option<Self> {
        let implied = next.guarantees(&self.names) >= self.needed
            || self.guarantees(&next.names) >= next.needed;
        if implied || !self.is_met_by(streaming) || !next.is_met_by(streaming) {
            return None;
        }
        let (old, new) = (self.members(streaming), next.members(streaming));
        let needed = (self.needed + new.difference(&old).count())
            .max(next.needed + old.difference(&new).count());
        Some(Self::any(needed, old.union(&new).map(|name| (*name).clone())))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |name: &String| match name.as_str() {
            "*" => "*".to_owned(),
            name => format!("\"{}\"", name.replace('"', "\"\"")),
        };
        let names: Vec<String> = self.names.iter().map(quoted).collect();
        let kind = if self.first { "FIRST" } else { "ANY" };
        write!(formatter, "{kind} {} ({})", self.needed, names.join(", "))
    }
}

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit())
}

/// The names from `word` on, up to `end`.
fn list(mut word: Word, words: &mut Words<'_>, end: Option<char>) -> Option<Vec<String>> {
    let mut names = Vec::new();
    loop {
        match word {
            Word::Plain(name) | Word::Quoted(name) => names.push(name),
            Word::Mark(_) => return None,
        }
        match (words.next(), end) {
            (Some(Word::Mark(',')), _) => word = words.next()?,
            (Some(Word::Mark(found)), Some(end)) if found == end => {
                return words.next().is_none().then_some(names);
            }
            (None, None) => return Some(names),
            _ => return None,
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Word {
    Plain(String),
    Quoted(String),
    Mark(char),
}

/// The words of the setting, as PostgreSQL's own scanner takes them.
struct Words<'a>(&'a str);

impl Iterator for Words<'_> {
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        let text = self.0.trim_start();
        let mut letters = text.chars();
        match letters.next()? {
            mark @ ('(' | ')' | ',') => {
                self.0 = letters.as_str();
                Some(Word::Mark(mark))
            }
            '"' => {
                let mut name = String::new();
                loop {
                    match letters.next()? {
                        '"' if letters.as_str().starts_with('"') => {
                            letters.next();
                            name.push('"');
                        }
                        '"' => break,
                        letter => name.push(letter),
                    }
                }
                self.0 = letters.as_str();
                Some(Word::Quoted(name))
            }
            _ => {
                let ends = |at: char| at.is_whitespace() || matches!(at, '(' | ')' | ',' | '"');
                let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
                self.0 = rest;
                Some(Word::Plain(word.to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
