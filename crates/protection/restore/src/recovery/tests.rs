use super::{new_incarnation, shell_word};

#[test]
fn odd_words_reach_the_shell_whole() {
    for text in ["plain", "two words", "it's", "a\"b", "$HOME", "100%f", "back\\slash", "`x`"] {
        // PostgreSQL turns %% into % before the shell sees it.
        let command = format!("printf %s {}", shell_word(text).replace("%%", "%"));
        let said = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), text);
    }
    assert_eq!(shell_word("50%p"), "'50%%p'");
}

#[test]
fn no_copy_is_the_first_life() {
    let environment = lifeboat_environment::Environment::system();
    let numbers: std::collections::BTreeSet<u64> =
        (0..100).map(|_| new_incarnation(&environment)).collect();
    assert_eq!(numbers.len(), 100);
    assert!(numbers.iter().all(|number| *number > 1));
}
