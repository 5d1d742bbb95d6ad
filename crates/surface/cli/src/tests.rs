//! What holds for the command tree as a whole.

mod schemas;

use clap::CommandFactory;

use crate::arguments::Arguments;

/// Every command of the tree that does something, with the words that name it.
fn leaves(command: &clap::Command, path: &str) -> Vec<(String, clap::Command)> {
    let mut found = Vec::new();
    // What the lab starts by itself is no command of a person.
    let own = |child: &&clap::Command| path.ends_with(" lab") && child.is_hide_set();
    for child in command.get_subcommands().filter(|child| !own(child)) {
        let name = format!("{path} {}", child.get_name());
        if child.has_subcommands() {
            found.extend(leaves(child, &name));
        } else {
            found.push((name, child.clone()));
        }
    }
    found
}

#[test]
fn the_command_tree_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_command_shows_examples_of_itself() {
    let tree = leaves(&Arguments::command(), "lifeboat");
    assert!(!tree.is_empty());
    for (name, mut command) in tree {
        let help = command.render_long_help().to_string();
        let (_, examples) = help.split_once("Examples:\n").expect(&name);
        assert!(examples.contains(&format!("  {name}")), "{name}: {examples}");
    }
}
