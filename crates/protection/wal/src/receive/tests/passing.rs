//! What segments changed is noted for each, and nothing is passed over.

use lifeboat_model::Timeline;
use lifeboat_repository::changes::{ChangesName, decode_changes};
use lifeboat_repository::layout;

use super::script::{Server, Stage};
use super::written::{SEGMENT, Wal};
use crate::changes::{ChangeMap, Span, TimeIndex};

/// The spans that were noted, in order.
fn spans(stage: &Stage) -> Vec<(ChangesName, Span)> {
    let keys = &stage.world.stream.keys;
    let names = stage.objects("changes").into_iter().map(|name| name.parse().unwrap());
    let read = |name: ChangesName| {
        let key = layout::changes(keys.stream(), &name).unwrap();
        let changes = decode_changes(keys, &name, &stage.object(&key)).unwrap();
        let (map, times) =
            (ChangeMap::decode(&changes.map).unwrap(), TimeIndex::decode(&changes.times).unwrap());
        assert_eq!(map.span(), times.span());
        (name, map.span())
    };
    names.map(read).collect()
}

fn assert_adjacent(spans: &[(ChangesName, Span)]) {
    let of_one_timeline = |pair: &&[(ChangesName, Span)]| {
        pair[0].0.segment.timeline() == pair[1].0.segment.timeline()
    };
    for pair in spans.windows(2).filter(of_one_timeline) {
        assert_eq!(pair[0].1.to, pair[1].1.from, "{} to {}", pair[0].0, pair[1].0);
    }
}

#[test]
fn spans_follow_each_other_over_restarts_and_a_promotion() {
    let stage = Stage::new();
    let mut wal = Wal::new(1, 3 * SEGMENT, 17);
    wal.grow(3 * SEGMENT + 400_000);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    let first = spans(&stage);
    assert_eq!(first.len(), 3, "one for each whole segment");
    assert_eq!(first[0].1.from, wal.start);

    wal.grow(2 * SEGMENT);
    stage.receive(vec![Server::of(wal.clone())]).0.unwrap();
    let second = spans(&stage);
    assert_eq!(second.len(), 5);
    assert_adjacent(&second);

    let server = Server::of(wal.clone()).promoted(2, wal.end(), 5, 2 * SEGMENT);
    stage.receive(vec![server]).0.unwrap();
    let third = spans(&stage);
    assert!(third.iter().any(|(_, span)| span.timeline == Timeline(2)));
    assert_adjacent(&third);
    let stored = stage.objects("wal").iter().filter(|name| !name.ends_with(".history")).count();
    assert_eq!(third.len(), stored);
}
