//! All rounds, their medians and ratios, on the terminal and as JSON.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use lifeboat_environment::{Clock, SystemClock};
use serde::Serialize;
use serde_json::json;

use super::Task;
use super::measure::Measured;

/// The contender that the others are compared with.
const OURS: &str = "lifeboat";

/// One round: what each contender took.
#[derive(Debug, Default, Serialize)]
pub struct Round {
    /// By name.
    pub results: BTreeMap<String, Measured>,
}

/// Everything that was measured.
pub struct Report {
    scale: f64,
    cluster: String,
    tasks: Vec<(Task, Vec<Round>)>,
}

/// One number of a measurement.
type Metric = fn(&Measured) -> f64;

/// How another contender compares with ours; above 1 ours is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Ratios {
    of_medians: f64,
    median_of_pairs: f64,
}

impl Report {
    /// Begins a report on a cluster.
    pub fn new(scale: f64, cluster: String) -> Self {
        println!("cluster: {cluster}");
        Self { scale, cluster, tasks: Vec::new() }
    }

    /// Adds a task and prints it.
    pub fn add(&mut self, task: Task, rounds: Vec<Round>) {
        print_task(task, &rounds);
        self.tasks.push((task, rounds));
    }

    /// Writes `target/bench/TIME.json`.
    pub fn write(&self, root: &Path) -> Result<()> {
        let now = SystemClock.now();
        let tasks: Vec<_> = self
            .tasks
            .iter()
            .map(|(task, rounds)| {
                json!({
                    "task": name(*task),
                    "rounds": rounds,
                    "medians": medians(rounds),
                    "ratios": ratios(rounds),
                })
            })
            .collect();
        let document = json!({
            "time": now.to_string(),
            "cluster": self.cluster,
            "scale": self.scale,
            "tasks": tasks,
        });
        let folder = root.join("target/bench");
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}.json", now.as_second()));
        fs::write(&path, format!("{document:#}\n"))?;
        println!("\nwritten: {}", path.display());
        Ok(())
    }
}

fn name(task: Task) -> String {
    task.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

fn print_task(task: Task, rounds: &[Round]) {
    println!("\n{}", name(task));
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["round", "tool", "wall s", "CPU s", "peak MiB", "stored MB"]);
    for (number, round) in rounds.iter().enumerate() {
        for (name, measured) in &round.results {
            table.add_row(row(&(number + 1).to_string(), name, measured));
        }
    }
    for (name, measured) in medians(rounds) {
        table.add_row(row("median", &name, &measured));
    }
    println!("{table}");
    for (name, by_metric) in ratios(rounds) {
        for (metric, Ratios { of_medians, median_of_pairs }) in by_metric {
            println!(
                "{name} / {OURS}, {metric}: {of_medians:.2} of the medians, \
                 {median_of_pairs:.2} median of the pairs"
            );
        }
    }
}

fn row(round: &str, name: &str, measured: &Measured) -> [String; 6] {
    [
        round.to_owned(),
        name.to_owned(),
        format!("{:.2}", measured.wall_seconds),
        format!("{:.2}", measured.cpu_seconds),
        format!("{:.0}", measured.peak_bytes as f64 / 1_048_576.0),
        measured.stored_bytes.map(|bytes| format!("{:.1}", bytes as f64 / 1e6)).unwrap_or_default(),
    ]
}

fn medians(rounds: &[Round]) -> BTreeMap<String, Measured> {
    let names = rounds.first().map(|round| round.results.keys()).into_iter().flatten();
    let of = |name: &str, metric: Metric| {
        median(rounds.iter().filter_map(|round| round.results.get(name)).map(metric).collect())
    };
    names
        .map(|name| {
            let stored = rounds.iter().any(|round| round.results[name].stored_bytes.is_some());
            let measured = Measured {
                wall_seconds: of(name, |one| one.wall_seconds),
                cpu_seconds: of(name, |one| one.cpu_seconds),
                peak_bytes: of(name, |one| one.peak_bytes as f64) as u64,
                stored_bytes: stored
                    .then(|| of(name, |one| one.stored_bytes.unwrap_or(0) as f64) as u64),
            };
            (name.clone(), measured)
        })
        .collect()
}

/// For each other contender and metric, how many times as much it took as ours.
fn ratios(rounds: &[Round]) -> BTreeMap<String, BTreeMap<&'static str, Ratios>> {
    let metrics: [(&str, Metric); 4] = [
        ("wall", |one| one.wall_seconds),
        ("CPU", |one| one.cpu_seconds),
        ("peak memory", |one| one.peak_bytes as f64),
        ("stored", |one| one.stored_bytes.unwrap_or(0) as f64),
    ];
    let mut found: BTreeMap<String, BTreeMap<&'static str, Ratios>> = BTreeMap::new();
    let names = rounds.first().map(|round| round.results.keys()).into_iter().flatten();
    for other in names.filter(|name| *name != OURS) {
        for (metric, value) in metrics {
            let pairs: Vec<(f64, f64)> = rounds
                .iter()
                .filter_map(|round| Some((round.results.get(other)?, round.results.get(OURS)?)))
                .map(|(other, ours)| (value(other), value(ours)))
                .filter(|(_, ours)| *ours > 0.0)
                .collect();
            if !pairs.is_empty() {
                let (others, ours): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
                let of_medians = median(others) / median(ours);
                let median_of_pairs = median(pairs.iter().map(|(o, u)| o / u).collect());
                let ratios = Ratios { of_medians, median_of_pairs };
                found.entry(other.clone()).or_default().insert(metric, ratios);
            }
        }
    }
    found
}

/// The middle value, or the mean of the two in the middle; 0 of nothing.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.get(middle) {
        None => 0.0,
        Some(value) if values.len() % 2 == 1 => *value,
        Some(value) => (value + values[middle - 1]) / 2.0,
    }
}

#[cfg(test)]
mod tests;
