use std::fs;

use lifeboat_testkit::scratch::Scratch;

use super::*;

#[test]
fn what_is_longer_or_as_long_begins_with_it_and_nothing_else_does() {
    const LENGTH: usize = PIECE * 2 + 100;
    let scratch = Scratch::new().unwrap();
    let file = |name: &str, filled: usize, change: Option<usize>| {
        let mut bytes = vec![7; filled];
        bytes.resize(LENGTH, 0);
        if let Some(at) = change {
            bytes[at] = 8;
        }
        let path = scratch.join(name);
        fs::write(&path, bytes).unwrap();
        File::open(path).unwrap()
    };
    for end in [0, 1, PIECE - 1, PIECE, PIECE + 1, LENGTH - 1, LENGTH] {
        let staged = || file("staged", end, None);
        assert!(begins_with(file("own", end, None), staged()).unwrap(), "as long: {end}");
        if end < LENGTH {
            assert!(begins_with(file("own", end + 1, None), staged()).unwrap(), "{end}");
            // What follows may be left over from a file that was used before.
            assert!(begins_with(file("own", end, Some(LENGTH - 1)), staged()).unwrap());
        }
        if end > 0 {
            assert!(!begins_with(file("own", end - 1, None), staged()).unwrap(), "{end}");
            assert!(!begins_with(file("own", end, Some(end / 2)), staged()).unwrap(), "{end}");
        }
    }
    let short = scratch.join("short");
    fs::write(&short, [7; 10]).unwrap();
    assert!(!begins_with(File::open(short).unwrap(), file("staged", 5, None)).unwrap());
}
