use super::*;

#[test]
fn a_notice_of_the_procedure_names_its_row_and_timeline() {
    assert_eq!(committed("committed 17 0000000300000000000000A1"), Some((17, Some(3))));
    assert_eq!(committed("committed x 0000000300000000000000A1"), None);
    assert_eq!(committed("relation exists, skipping"), None);
}

#[test]
fn what_is_not_answered_is_unknown_and_ends_the_session() {
    let told = judge(None);
    assert_eq!(told.answer, Answer::Unknown);
    assert!(told.is_over);
}
