//! Echoed lines can be typed.

use lifeboat_testkit::process::run;

use super::quoted;

#[test]
fn a_shell_takes_the_words_apart_again() {
    let words =
        ["printf", "%s|", "plain", "two words", "", "it's", "\"%p\"", "it's \"$HOME\" \\ x"];
    let mut shell = std::process::Command::new("sh");
    let said = run(shell.arg("-c").arg(quoted(&words))).unwrap().success().unwrap().stdout;
    assert_eq!(said, words[2..].iter().map(|word| format!("{word}|")).collect::<String>());
}

#[test]
fn plain_words_stay_plain() {
    assert_eq!(quoted(&["kill", "-9", "42"]), "kill -9 42");
    assert_eq!(quoted(&["psql", "-c", "SELECT 1"]), "psql -c 'SELECT 1'");
}
