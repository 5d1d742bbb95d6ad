use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use lifeboat_objects::{Location, Options, Store};
use lifeboat_repository::layout;
use lifeboat_repository::object::ObjectType;
use lifeboat_repository::pack::{FRAME_BYTES, FinishedPack, FrameReader, PackReader, decode_frame};
use lifeboat_telemetry::Outcome;
use proptest::prelude::*;

use super::{environment, keys};
use crate::frames::{BootFrames, FrameWriter, LocalRun, PackSink};

#[derive(Default)]
struct Packs(Mutex<BTreeMap<u32, (FinishedPack, Option<BootFrames>)>>);

impl PackSink for Packs {
    fn take(&self, number: u32, pack: FinishedPack, boot: Option<BootFrames>) -> Outcome<()> {
        self.0.lock().unwrap().insert(number, (pack, boot));
        Ok(())
    }
}

/// Reads runs back from the packs.
fn read_back(packs: &Packs, runs: &[LocalRun], size: usize) -> Vec<u8> {
    let (secrets, keys) = keys();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let location = Location::new(&format!("memory:///frames-{}", rand_name())).unwrap();
    let store = Store::open(&location, &environment(), Options::default()).unwrap();
    let packs = packs.0.lock().unwrap();
    let mut out = Vec::new();
    for run in runs {
        let Some(number) = run.pack else {
            out.extend(std::iter::repeat_n(0, run.pages as usize * 8192));
            continue;
        };
        let pack = &packs[&number].0;
        let key = layout::content(keys.stream(), ObjectType::Pack, &pack.digest).unwrap();
        runtime.block_on(store.create(&key, pack.bytes.clone())).unwrap();
        let read_key = secrets.read_key();
        let open = PackReader::open(&store, &keys, Some(&read_key), &pack.digest);
        let reader = runtime.block_on(open).unwrap();
        let (mut frame, mut slot) = (run.frame, run.slot);
        for _ in 0..run.pages {
            if slot == reader.frame(frame).unwrap().slots {
                (frame, slot) = (frame + 1, 0);
            }
            let mut stored = runtime.block_on(reader.fetch(&store, frame, frame)).unwrap().to_vec();
            let mut plain = vec![0; FRAME_BYTES];
            let mut zstd = FrameReader::new().unwrap();
            decode_frame(&reader, frame, &mut stored, &mut zstd, &mut plain).unwrap();
            out.extend_from_slice(&plain[reader.frame(frame).unwrap().slot_range(slot).unwrap()]);
            slot += 1;
        }
    }
    out.truncate(size);
    out
}

fn rand_name() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the mix of zeros, text and noise: what goes in comes out, in few runs.
    #[test]
    fn pages_come_back(kinds in prop::collection::vec(0u8..3, 1..90), tail in 0usize..8192) {
        let (_, keys) = keys();
        let environment = environment();
        let mut bytes = Vec::new();
        for (index, kind) in kinds.iter().enumerate() {
            let page: Vec<u8> = (0..8192u32)
                .map(|at| match kind {
                    0 => 0,
                    1 => b'a' + (index % 20) as u8,
                    _ => (at.wrapping_mul(2_654_435_761).wrapping_add(index as u32) >> 13) as u8,
                })
                .collect();
            bytes.extend_from_slice(&page);
        }
        bytes.extend(std::iter::repeat_n(9, tail));
        let (packs, numbers) = (Packs::default(), AtomicU32::new(0));
        let mut writer = FrameWriter::new(&environment, &keys, &packs, &numbers, 8192, 1).unwrap();
        let mut runs = Vec::new();
        // The reader hands over at most a frame at a time.
        for chunk in bytes.chunks(256 * 1024) {
            writer.add(chunk, &mut runs).unwrap();
        }
        writer.end_unit().unwrap();
        writer.finish().unwrap();
        let pages: u32 = runs.iter().map(|run| run.pages).sum();
        prop_assert_eq!(pages as usize, bytes.len().div_ceil(8192));
        prop_assert!(read_back(&packs, &runs, bytes.len()) == bytes);
    }
}

#[test]
fn neighbours_share_one_run_over_frames_and_boot_frames_are_counted() {
    let (_, keys) = keys();
    let environment = environment();
    let (packs, numbers) = (Packs::default(), AtomicU32::new(0));
    let mut writer = FrameWriter::new(&environment, &keys, &packs, &numbers, 8192, 1).unwrap();
    writer.set_boot(true);
    let mut runs = Vec::new();
    writer.add(&vec![1; 100 * 8192], &mut runs).unwrap();
    writer.end_unit().unwrap();
    writer.set_boot(false);
    let mut others = Vec::new();
    writer.add(&vec![2; 8192], &mut others).unwrap();
    writer.finish().unwrap();
    assert_eq!(runs, [LocalRun { pack: Some(0), frame: 0, slot: 0, pages: 100 }]);
    assert_eq!(others, [LocalRun { pack: Some(0), frame: 4, slot: 0, pages: 1 }]);
    let packs = packs.0.lock().unwrap();
    assert_eq!(packs[&0].1, Some(BootFrames { first: 0, count: 4 }));
}
