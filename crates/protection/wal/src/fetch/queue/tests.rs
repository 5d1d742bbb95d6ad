use std::fs;

use lifeboat_testkit::scratch::Scratch;

use super::*;

#[test]
fn what_was_opened_is_delivered_although_its_name_is_gone() {
    let scratch = Scratch::new().unwrap();
    let (path, destination) = (scratch.join("waiting"), scratch.join("RECOVERYXLOG"));
    for removed in [false, true] {
        fs::write(&path, [7; 1000]).unwrap();
        let file = File::open(&path).unwrap();
        if removed {
            fs::remove_file(&path).unwrap();
        }
        deliver(file, &path, &destination).unwrap();
        assert_eq!(fs::read(&destination).unwrap(), [7; 1000]);
        assert!(!path.exists());
        fs::remove_file(&destination).unwrap();
    }
}
