//! Short commands of the machine, with what they said if they fail.

use std::process::{Command, Output, Stdio};

use lifeboat_telemetry::{Code, Failure, Outcome};

/// Runs a command to its end; its output.
pub fn run(command: &mut Command) -> Outcome<String> {
    let output = attempt(command)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let message = format!("`{}` ended with {}", shown(command), output.status);
        return Err(Failure::new(Code::LabPart, message).details(lines(&said)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command whose end is not known.
pub fn attempt(command: &mut Command) -> Outcome<Output> {
    command.stdin(Stdio::null()).output().map_err(|error| {
        Failure::new(Code::LabPart, format!("cannot start `{}`", shown(command))).because(error)
    })
}

/// Runs a program of the machine; its output.
pub fn tool(program: &str, words: &[&str]) -> Outcome<String> {
    run(Command::new(program).args(words))
}

/// A command as somebody would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// A word as a shell would take it.
pub fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_owned(), std::borrow::Cow::into_owned)
}

fn lines(text: &str) -> impl Iterator<Item = String> {
    text.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
}
