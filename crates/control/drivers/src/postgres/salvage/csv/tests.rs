use super::line;

#[test]
fn null_and_nothing_are_told_apart_and_quotes_survive() {
    let row = [Some("plain"), None, Some(""), Some("a \"b\", c"), Some("two\nlines")];
    assert_eq!(line(row.into_iter()), "plain,,\"\",\"a \"\"b\"\", c\",\"two\nlines\"\n");
}
