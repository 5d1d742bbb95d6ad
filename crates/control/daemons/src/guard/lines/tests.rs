use super::*;

fn pair() -> (UnixStream, Lines) {
    let (near, far) = UnixStream::pair().unwrap();
    (near, Lines::new(far).unwrap())
}

#[test]
fn lines_come_whole_and_in_order_however_they_are_cut() {
    let (mut near, mut lines) = pair();
    near.write_all(b"1\n2\n\"a").unwrap();
    assert_eq!(lines.receive::<u32>(), [Ok(1), Ok(2)]);
    assert_eq!(lines.receive::<u32>(), []);
    near.write_all(b"\"\n").unwrap();
    assert!(lines.receive::<u32>()[0].is_err());
    drop(near);
    assert_eq!(lines.receive::<u32>(), []);
    assert!(lines.closed());
}

#[test]
fn whoever_sends_no_end_or_reads_nothing_is_given_up() {
    let (mut near, mut lines) = pair();
    let writer = std::thread::spawn(move || {
        let _ = near.write_all(&vec![b'x'; 2 * LONGEST]);
    });
    while !lines.closed() {
        assert_eq!(lines.receive::<u32>(), []);
    }
    drop(lines);
    writer.join().unwrap();

    let (_near, mut lines) = pair();
    for _ in 0..1_000_000 {
        lines.send(&"nobody reads this");
        if lines.closed() {
            return;
        }
    }
    panic!("a full socket took everything");
}
