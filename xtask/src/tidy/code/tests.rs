use super::*;

fn findings(path: &str, text: &str) -> Vec<String> {
    let file = File { path: path.to_owned(), text: text.to_owned() };
    check_file(&file).into_iter().map(|finding| finding.to_string()).collect()
}

/// A function that is `lines` long, both braces counted.
fn function(lines: usize) -> String {
    format!("fn long() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
}

#[test]
fn functions_end_at_seventy_lines() {
    assert!(findings("crates/a/b/src/x.rs", &function(70)).is_empty());
    let found = findings("crates/a/b/src/x.rs", &function(71));
    assert_eq!(found, ["crates/a/b/src/x.rs:1: fn long has 71 lines; the limit is 70"]);
    assert!(findings("crates/a/b/src/x/tests.rs", &function(71)).is_empty());
    assert!(findings("crates/a/b/src/tests/x.rs", &function(71)).is_empty());
}

#[test]
fn methods_and_defaults_are_functions() {
    let method = format!("struct A;\nimpl A {{\n{}}}\n", function(71));
    assert_eq!(findings("crates/a/b/src/x.rs", &method).len(), 1);
    let default = format!("trait A {{\n{}}}\n", function(71));
    assert_eq!(findings("crates/a/b/src/x.rs", &default).len(), 1);
}

#[test]
fn files_and_flows_have_their_limits() {
    let lines = |count: usize| "// A line.\n".repeat(count);
    assert!(findings("crates/a/b/src/x.rs", &lines(700)).is_empty());
    assert_eq!(findings("crates/a/b/src/x.rs", &lines(701)).len(), 1);
    assert!(findings("crates/a/b/src/run.rs", &lines(250)).is_empty());
    assert_eq!(findings("crates/a/b/src/run.rs", &lines(251)).len(), 1);
    assert!(findings("tests/src/flows.rs", &lines(701)).is_empty());
}

#[test]
fn empty_names_are_refused() {
    assert_eq!(findings("crates/a/b/src/lib.rs", "mod utils;\n").len(), 1);
    assert_eq!(findings("crates/a/b/src/lib.rs", "mod x { mod types {} }\n").len(), 1);
    assert!(findings("crates/a/b/src/lib.rs", "mod units;\n").is_empty());
}

#[test]
fn allow_is_refused_wherever_it_hides() {
    for text in [
        "#[allow(dead_code)]\nfn a() {}\n",
        "#![allow(dead_code)]\n",
        "#[cfg_attr(test, allow(dead_code))]\nfn a() {}\n",
        "fn a() {\n    #[allow(unused)]\n    let b = 1;\n}\n",
    ] {
        assert_eq!(findings("crates/a/b/src/x.rs", text).len(), 1, "{text}");
    }
    let fine = "#[expect(dead_code, reason = \"not yet\")]\nfn allow() {}\n";
    assert!(findings("crates/a/b/src/x.rs", fine).is_empty());
}

#[test]
fn serde_attributes_that_spoil_messages_are_refused() {
    let field = "struct A {\n    #[serde(default, flatten)]\n    b: B,\n}\n";
    assert_eq!(findings("crates/a/b/src/x.rs", field).len(), 1);
    assert_eq!(findings("crates/a/b/src/x.rs", "#[serde(untagged)]\nenum A {}\n").len(), 1);
    assert!(findings("crates/a/b/src/x.rs", "#[serde(tag = \"t\")]\nenum A {}\n").is_empty());
}

#[test]
fn unfinished_code_is_refused() {
    let unfinished = ["to", "do!()"].concat();
    assert_eq!(findings("crates/a/b/src/x.rs", &format!("fn a() {{ {unfinished} }}")).len(), 1);
    assert_eq!(findings("crates/a/b/src/x.rs", "fn a() { unimplemented!() }").len(), 1);
}

#[test]
fn tests_inside_of_a_file_are_refused() {
    assert_eq!(findings("crates/a/b/src/x.rs", "#[cfg(test)]\nmod tests {}\n").len(), 1);
    assert!(findings("crates/a/b/src/x.rs", "#[cfg(test)]\nmod tests;\n").is_empty());
}

#[test]
fn what_cannot_be_parsed_is_named() {
    assert!(findings("crates/a/b/src/x.rs", "fn {")[0].contains("cannot be parsed"));
}
