//! Measures what runs once for every byte of a cluster: page checks and WAL scans, on one core.
//!
//! `cargo run --release -p lifeboat-cluster --example throughput [SEGMENT…]`

use std::hint::black_box;
use std::path::Path;

use lifeboat_cluster::page::{BLOCK_SIZE, check_page, checksum};
use lifeboat_cluster::wal::{identify_segment, scan};
use lifeboat_environment::{Clock, Random, SeededRandom, SystemClock};

fn main() {
    check_pages();
    for path in std::env::args_os().skip(1) {
        scan_segment(Path::new(&path));
    }
}

fn check_pages() {
    let blocks = 1 << 15;
    let mut data = vec![0; blocks * BLOCK_SIZE];
    SeededRandom::new(1).fill(&mut data);
    for (block, page) in (0..).zip(data.chunks_exact_mut(BLOCK_SIZE)) {
        page[10..20].copy_from_slice(&[0, 0, 24, 0, 0, 16, 0, 32, 4, 32]);
        let sum = checksum(page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
    }
    let seconds = best_of_nine(|| {
        for (block, page) in (0..).zip(black_box(&data).chunks_exact(BLOCK_SIZE)) {
            assert!(check_page(page, block, true).is_good());
        }
    });
    println!("page check: {:.2} GB/s", data.len() as f64 / seconds / 1e9);
}

#[expect(clippy::expect_used, reason = "a measurement of a missing file has no meaning")]
fn scan_segment(path: &Path) {
    let name = path.file_name().and_then(|name| name.to_str()).expect("a segment's name");
    let segment = std::fs::read(path).expect("a segment");
    let identity = identify_segment(&segment, name.parse().expect("a segment's name"))
        .expect("a segment that fits its name");
    let seconds = best_of_nine(|| {
        black_box(scan(black_box(&segment), &identity));
    });
    let summary = scan(&segment, &identity);
    println!("{name}: {:.2} ms, {} commits", seconds * 1e3, summary.commits);
}

fn best_of_nine(work: impl Fn()) -> f64 {
    let once = |_| {
        let start = SystemClock.elapsed();
        work();
        (SystemClock.elapsed() - start).as_secs_f64()
    };
    (0..9).map(once).fold(f64::MAX, f64::min)
}
