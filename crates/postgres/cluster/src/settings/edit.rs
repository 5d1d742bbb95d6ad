//! Changes to configuration files, byte for byte the same elsewhere.

use super::syntax::parse_line;

/// Puts a `#` before each line that sets one of `names` (in lower case). Lines that cannot be
/// read stay as they are.
pub fn comment_out(content: &[u8], names: &[&str]) -> Vec<u8> {
    let mut changed = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let setting = parse_line(String::from_utf8_lossy(line).trim_end_matches('\n'));
        if let Ok(Some((name, _))) = setting
            && names.contains(&name.as_str())
        {
            changed.push(b'#');
        }
        changed.extend_from_slice(line);
    }
    changed
}

/// Appends settings between two marker lines that carry `title`. A block of the same title that
/// an earlier run wrote is replaced, so that doing it again changes nothing.
pub fn append_block(content: &[u8], title: &str, settings: &[(&str, String)]) -> Vec<u8> {
    let (begin, end) = (format!("# BEGIN {title}"), format!("# END {title}"));
    let mut changed = Vec::with_capacity(content.len() + 256);
    let mut inside = false;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii_end();
        if text == begin.as_bytes() {
            inside = true;
        }
        if !inside {
            changed.extend_from_slice(line);
        }
        if text == end.as_bytes() {
            inside = false;
        }
    }
    if !changed.is_empty() && !changed.ends_with(b"\n") {
        changed.push(b'\n');
    }
    let mut block = format!("{begin}\n");
    for (name, value) in settings {
        block.push_str(&format!("{name} = {}\n", quote(value)));
    }
    block.push_str(&format!("{end}\n"));
    changed.extend_from_slice(block.as_bytes());
    changed
}

/// A value as PostgreSQL reads it back, whatever it holds.
pub fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for it in value.chars() {
        match it {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}
