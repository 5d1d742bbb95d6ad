//! Measures what runs once for every byte of a cluster: page checks and WAL scans, on one core.
//!
//! `cargo run --release -p lifeboat-cluster --example throughput`

use std::hint::black_box;

use lifeboat_cluster::page::{BLOCK_SIZE, check_page, checksum};
use lifeboat_environment::{Clock, Random, SeededRandom, SystemClock};

fn main() {
    let blocks = 1 << 15;
    let mut data = vec![0; blocks * BLOCK_SIZE];
    SeededRandom::new(1).fill(&mut data);
    for (block, page) in (0..).zip(data.chunks_exact_mut(BLOCK_SIZE)) {
        page[10..20].copy_from_slice(&[0, 0, 24, 0, 0, 16, 0, 32, 4, 32]);
        let sum = checksum(page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
    }
    let mut best = f64::MAX;
    for _ in 0..9 {
        let start = SystemClock.elapsed();
        for (block, page) in (0..).zip(black_box(&data).chunks_exact(BLOCK_SIZE)) {
            assert!(check_page(page, block, true).is_good());
        }
        best = best.min((SystemClock.elapsed() - start).as_secs_f64());
    }
    println!("page check: {:.2} GB/s", data.len() as f64 / best / 1e9);
}
