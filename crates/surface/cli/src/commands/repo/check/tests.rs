use super::*;

fn region(name: &str, damaged: bool) -> RegionChecked {
    let one = || Damage { object: "x".to_owned(), what: "gone".to_owned(), backups: Vec::new() };
    RegionChecked {
        region: name.to_owned(),
        place: String::new(),
        objects: 1,
        bytes: 1,
        read: 1,
        backups: 1,
        damage: damaged.then(one).into_iter().collect(),
        lacks: Vec::new(),
        leftovers: Vec::new(),
    }
}

#[test]
fn another_region_is_recommended_only_if_all_of_it_was_read() {
    let hint = |regions: &[RegionChecked], read_data| {
        let failure = damage(regions, read_data).unwrap();
        failure.hint_text().unwrap().to_owned()
    };
    let (east, west) = (region("east", true), region("west", false));
    assert!(damage(&[region("east", false)], true).is_none());
    assert!(hint(&[east, west], true).contains("Restore from west"));
    let (east, west) = (region("east", true), region("west", false));
    assert!(!hint(&[east, west], false).contains("west"));
    let (east, west) = (region("east", true), region("west", true));
    assert!(!hint(&[east, west], true).contains("Restore from"));
}
