//! `lifeboat explain`: the page of an error code.

use lifeboat_telemetry::{Code, Failure, Outcome};
use schemars::JsonSchema;
use serde::Serialize;

use crate::output::{self, Report};

/// How alike two codes must be for one to be suggested for the other.
const LIKENESS: f64 = 0.75;
/// How many codes are suggested.
const SUGGESTIONS: usize = 5;

/// Explain an error code: what happened, why, and what to do
///
/// Every failure that Lifeboat prints has a code, as in `error[LB4001]`. Its page says what the
/// failure means and how to end it. Without a matching code, codes that look alike or whose
/// title holds the word are named.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  lifeboat explain LB4001\n  lifeboat explain 4001")]
pub struct Args {
    /// The code, in any case, with or without `LB`
    code: String,
}

/// The page of an error code.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Explanation {
    /// The code, as in `LB4001`.
    code: String,
    /// One line that names the failure.
    title: String,
    /// The exit code of a command that ends with this failure.
    exit_code: u8,
    /// The page, as Markdown.
    page: String,
}

impl Report for Explanation {
    const COMMAND: &'static str = "explain";

    fn text(&self) -> String {
        output::page(&self.page)
    }
}

/// Finds the page.
pub fn run(args: &Args) -> Outcome<Explanation> {
    let asked = args.code.trim().trim_start_matches("error[").trim_end_matches(']');
    let code = Code::find(asked)
        .or_else(|| Code::find(&format!("LB{asked}")))
        .ok_or_else(|| unknown(asked))?;
    Ok(Explanation {
        code: code.text().to_owned(),
        title: code.title().to_owned(),
        exit_code: code.kind().exit_code(),
        page: code.page().to_owned(),
    })
}

fn unknown(asked: &str) -> Failure {
    let near: Vec<String> =
        near(asked).into_iter().map(|code| format!("{code}  {}", code.title())).collect();
    let hint = if near.is_empty() {
        "Codes have the form LB4001; they stand behind the word error."
    } else {
        "Perhaps one of the codes above is meant."
    };
    Failure::new(Code::Usage, format!("there is no error code {asked}")).hint(hint).details(near)
}

/// The codes that are most alike, or whose title speaks of what was asked.
fn near(asked: &str) -> Vec<Code> {
    let upper = asked.to_uppercase();
    let likeness = |code: &Code| {
        let numbers = strsim::normalized_damerau_levenshtein(&code.text()[2..], &upper);
        strsim::normalized_damerau_levenshtein(code.text(), &upper).max(numbers)
    };
    let word = asked.to_lowercase();
    let speaks = |code: &Code| word.len() > 2 && code.title().to_lowercase().contains(&word);
    let mut codes: Vec<Code> = Code::ALL.to_vec();
    codes.retain(|code| likeness(code) >= LIKENESS || speaks(code));
    codes.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    codes.truncate(SUGGESTIONS);
    codes
}
