use super::*;

#[test]
fn strict_fails_on_what_is_not_protected_yet_and_a_failed_line_always() {
    let checked = |severity: &'static str, verdict| {
        let mut lines = Lines::default();
        lines.about("x");
        lines.warn("a", "b", "c");
        let mut lines = lines.finish();
        lines[0].verdict = verdict;
        let finding = SpecFinding {
            severity,
            path: String::new(),
            message: String::new(),
            hint: String::new(),
            line: 1,
            column: 1,
            excerpt: String::new(),
        };
        let spec = PathBuf::new();
        Checked { spec, findings: vec![finding], lines, failure: None, drawn: Vec::new() }
    };
    let code = |severity, verdict, strict| {
        judge(&checked(severity, verdict), strict).map(|failure| failure.code())
    };
    assert_eq!(code("not-protected", Verdict::Warn, false), None);
    assert_eq!(code("not-protected", Verdict::Warn, true), Some(Code::NotProtectedYet));
    assert_eq!(code("objective", Verdict::NotTested, true), None);
    assert_eq!(code("objective", Verdict::Fail, false), Some(Code::CheckFailed));
    assert_eq!(code("objective", Verdict::Pass, false), None);
}
