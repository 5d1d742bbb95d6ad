//! All runs, their medians and ratios.

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::ground::{Measured, Receiver};

/// Everything that was measured, in its order.
#[derive(Default)]
pub struct Report {
    runs: Vec<(usize, Receiver, Measured)>,
}

/// One number of a run.
type Metric = fn(&Measured) -> f64;

impl Report {
    /// Adds a run of a pair.
    pub fn add(&mut self, pair: usize, receiver: Receiver, measured: Measured) {
        self.runs.push((pair, receiver, measured));
    }

    /// Prints every run, the ratios of the pairs and the lag.
    pub fn print(&self, mut lags: Vec<f64>) {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(["pair", "receiver", "tps", "WAL MB", "CPU s", "CPU s/GB", "peak MiB"]);
        for (pair, receiver, one) in &self.runs {
            table.add_row([
                pair.to_string(),
                format!("{receiver:?}"),
                format!("{:.0}", one.tps),
                format!("{:.1}", one.wal_bytes as f64 / 1e6),
                format!("{:.2}", one.cpu_seconds),
                format!("{:.2}", one.cpu_per_gb()),
                format!("{:.0}", one.peak_bytes as f64 / 1_048_576.0),
            ]);
        }
        println!("{table}\n");
        println!(
            "lifeboat / pg_receivewal, tps: {:.3} median of the pairs",
            self.ratio(|one| one.tps)
        );
        println!(
            "lifeboat / pg_receivewal, CPU a GB: {:.2} median of the pairs",
            self.ratio(Measured::cpu_per_gb)
        );
        lags.sort_by(f64::total_cmp);
        println!(
            "lag of the repository: median {:.2} s, 99th percentile {:.2} s, of {} looks",
            percentile(&lags, 50),
            percentile(&lags, 99),
            lags.len()
        );
    }

    /// The median over the pairs of ours divided by the peer's.
    fn ratio(&self, metric: Metric) -> f64 {
        let of = |pair: usize, wanted: Receiver| {
            let run = self.runs.iter().find(|(one, who, _)| *one == pair && *who == wanted);
            run.map(|(.., measured)| metric(measured))
        };
        let pairs = self.runs.iter().map(|(pair, ..)| *pair).max().unwrap_or(0);
        let ratio = |pair| Some(of(pair, Receiver::Lifeboat)? / of(pair, Receiver::PgReceivewal)?);
        let mut ratios: Vec<f64> = (1..=pairs).filter_map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        percentile(&ratios, 50)
    }
}

/// Of sorted values; nothing has none.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len().saturating_sub(1) * percent).div_ceil(100);
    sorted.get(at).copied().unwrap_or(f64::NAN)
}
