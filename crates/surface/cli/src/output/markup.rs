//! Colours, tables and pages. The stream strips the colours where no terminal reads them.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use jiff::Timestamp;
use owo_colors::{OwoColorize, Style};

/// How good a thing is, as a colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Good,
    /// A person should look.
    Doubtful,
    /// Wrong.
    Bad,
    /// Not known.
    Unknown,
}

impl Mark {
    /// The text in the colour of the mark.
    pub fn paint(self, text: &str) -> String {
        let style = Style::new().bold();
        let style = match self {
            Self::Good => style.green(),
            Self::Doubtful => style.yellow(),
            Self::Bad => style.red(),
            Self::Unknown => style.dimmed(),
        };
        text.style(style).to_string()
    }
}

/// The text in bold.
pub fn strong(text: &str) -> String {
    text.bold().to_string()
}

/// The text as a label.
pub fn emphasis(text: &str) -> String {
    text.cyan().to_string()
}

/// A moment as people read it: UTC, in whole seconds.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A table with a heading; columns whose heading starts with `>` are aligned to the right.
pub fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(headings.map(|heading| heading.trim_start_matches('>')));
    for row in rows {
        table.add_row(row);
    }
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 2));
        if heading.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let text = table.trim_fmt();
    let (heading, rows) = text.split_once('\n').unwrap_or((&text, ""));
    format!("{}\n{rows}{}", strong(heading), if rows.is_empty() { "" } else { "\n" })
}

/// A page of Markdown as a terminal shows it: headings stand out, code is set apart.
pub fn page(markdown: &str) -> String {
    let mut text = String::new();
    let mut in_code = false;
    for line in markdown.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
            continue;
        }
        let shown = match line.trim_start_matches('#') {
            _ if in_code => emphasis(&format!("    {line}")),
            heading if heading.len() < line.len() => strong(heading.trim()),
            plain => plain.to_owned(),
        };
        text.push_str(&shown);
        text.push('\n');
    }
    text
}
