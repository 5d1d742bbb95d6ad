//! One line, one setting: `name = value # comment`.

use super::SettingsError;

/// One setting or include directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// In lower case, as PostgreSQL compares names.
    pub name: String,
    /// Without quotes and escapes.
    pub value: String,
    /// Counted from 1.
    pub line: usize,
}

/// Reads the settings of one file, in order; includes are settings with the names `include`,
/// `include_if_exists` and `include_dir`.
pub fn parse(content: &[u8]) -> Result<Vec<Setting>, SettingsError> {
    let mut settings = Vec::new();
    for (line, text) in (1..).zip(content.split(|byte| *byte == b'\n')) {
        let text = String::from_utf8_lossy(text);
        match parse_line(&text) {
            Ok(None) => {}
            Ok(Some((name, value))) => settings.push(Setting { name, value, line }),
            Err(reason) => return Err(SettingsError { line, reason }),
        }
    }
    Ok(settings)
}

/// The name and value in a line; `None` if it is empty or a comment.
pub(super) fn parse_line(line: &str) -> Result<Option<(String, String)>, &'static str> {
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|it: char| !is_name_part(it)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if !name.starts_with(|it: char| it.is_alphabetic() || it == '_') {
        return Err("it must start with a name");
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').map_or(rest, str::trim_start);
    let (value, rest) = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => {
            let end = rest.find(|it: char| it.is_whitespace() || it == '#').unwrap_or(rest.len());
            let (value, rest) = rest.split_at(end);
            (value.to_owned(), rest)
        }
    };
    let rest = rest.trim_start();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err("something follows the value");
    }
    Ok(Some((name.to_ascii_lowercase(), value)))
}

fn is_name_part(it: char) -> bool {
    it.is_alphanumeric() || matches!(it, '_' | '$' | '.')
}

/// Reads up to the closing quote; gives the value and what follows.
fn unquote(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let end = rest.find(['\'', '\\']).ok_or("a quote is not closed")?;
        let (plain, special) = rest.split_at(end);
        value.push_str(plain);
        let mut special = special.chars();
        if special.next() == Some('\'') {
            rest = special.as_str();
            match rest.strip_prefix('\'') {
                Some(after) => rest = after,
                None => return Ok((value, rest)),
            }
            value.push('\'');
        } else {
            rest = unescape(special.as_str(), &mut value).ok_or("a quote is not closed")?;
        }
    }
}

/// Reads what follows a backslash.
fn unescape<'a>(text: &'a str, value: &mut String) -> Option<&'a str> {
    let octal = text.chars().take(3).take_while(|it| it.is_digit(8)).count();
    if octal > 0 {
        let (digits, rest) = text.split_at(octal);
        let code = u32::from_str_radix(digits, 8).ok()? & 0xFF;
        value.push(char::from_u32(code)?);
        return Some(rest);
    }
    let mut rest = text.chars();
    value.push(match rest.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        other => other,
    });
    Some(rest.as_str())
}
