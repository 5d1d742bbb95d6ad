use super::*;

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn a_failure_reads_from_what_to_why_to_what_to_do() {
    let inner = io::Error::other("disk on fire");
    let failure = Failure::new(Code::LocalFile, "cannot write x")
        .because(inner)
        .detail("first\nsecond")
        .hint("Put it out.");
    let expected = [
        "error[LB9003]: cannot write x",
        "  cause: disk on fire",
        "  first",
        "  second",
        "  hint: Put it out.",
        "  explain: lifeboat explain LB9003",
        "",
    ];
    assert_eq!(plain(&failure_text(&failure)), expected.join("\n"));
}

#[test]
fn a_reader_that_went_away_is_no_failure_and_a_full_disk_is() {
    assert!(forgive_broken_pipe(Err(ErrorKind::BrokenPipe.into())).is_ok());
    assert!(forgive_broken_pipe(Err(ErrorKind::StorageFull.into())).is_err());
}

#[test]
fn tables_align_numbers_to_the_right() {
    let rows = vec![["a".to_owned(), "1".to_owned()], ["bcd".to_owned(), "1234".to_owned()]];
    let expected = "Name  Size\na        1\nbcd   1234\n";
    assert_eq!(plain(&table(["Name", ">Size"], rows)), expected);
    assert_eq!(plain(&table(["Name", ">Size"], Vec::new())), "Name  Size\n");
}

#[test]
fn a_page_shows_headings_and_code_without_their_signs() {
    let text = plain(&page("# Title\n\ntext\n```sh\n# comment\n```\n## Part"));
    assert_eq!(text, "Title\n\ntext\n    # comment\nPart\n");
}
