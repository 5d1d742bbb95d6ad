use super::*;

#[test]
fn a_line_tells_step_bytes_and_rate() {
    let step = Step {
        name: "copying files".to_owned(),
        total_bytes: 4096,
        done_bytes: 1024,
        started: Duration::from_secs(1),
        ..Step::default()
    };
    let line = progress_line(&step, Duration::from_secs(2));
    assert_eq!(line, "copying files: 1.0 KiB of 4.0 KiB (1.0 KiB/s)");
}

#[test]
fn the_templates_of_the_bar_are_valid() {
    for template in [TEMPLATE_OPEN, TEMPLATE_TOTAL] {
        assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
    }
}
