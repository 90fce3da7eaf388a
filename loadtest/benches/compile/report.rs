//! What was found: answers compared, times side by side, and ratios beside their targets.

use crate::refresh::Refreshed;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// How long a question took, and how many members each of its rules has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) ms: f64,
    pub(crate) counts: Vec<u64>,
}

/// By engine and question.
pub(crate) type Found = BTreeMap<String, BTreeMap<String, Asked>>;

/// A ratio of two times, and what it is to be at least.
struct Target {
    question: &'static str,
    engine: &'static str,
    least: f64,
}

const ENGINES: [(&str, &str); 8] = [
    ("throng", "Throng"),
    ("throng sizes", "sizes only"),
    ("throng midday", "cut at noon"),
    ("clickhouse", "ClickHouse, events"),
    ("clickhouse_bitmaps", "ClickHouse, bitmaps"),
    ("duckdb", "DuckDB"),
    ("croaring", "CRoaring"),
    ("roaring sliced", "roaring, bit-sliced"),
];

const TARGETS: [Target; 8] = [
    Target { question: "R1", engine: "croaring", least: 1.0 },
    Target { question: "R2", engine: "croaring", least: 1.0 },
    Target { question: "R3", engine: "roaring sliced", least: 8.0 },
    Target { question: "R4", engine: "roaring sliced", least: 100.0 },
    Target { question: "R6", engine: "clickhouse", least: 150.0 },
    Target { question: "R6", engine: "duckdb", least: 150.0 },
    Target { question: "R6b", engine: "clickhouse_bitmaps", least: 25.0 },
    Target { question: "R6b", engine: "croaring", least: 5.0 },
];

/// How much faster a refresh of one profile in a hundred is to be than all asked anew.
const REFRESH: f64 = 20.0;
/// The bytes that a fact is to take at most, where there are many.
const BYTES: f64 = 2.5;
/// What times take beside it.
const TIMES: f64 = 4.0;

/// All that was measured.
pub(crate) struct Report {
    pub(crate) events: usize,
    pub(crate) visitors: u32,
    pub(crate) build_seconds: f64,
    pub(crate) refreshed: Vec<Refreshed>,
    /// Where there are many facts of a trait, day and block, and where there are few: of what windows of whole days read,
    /// and of all with times and values.
    pub(crate) bytes_a_fact: [[f64; 2]; 2],
    pub(crate) found: Found,
}

impl Report {
    /// Answers that are not those of Throng.
    pub(crate) fn differing(&self) -> Vec<String> {
        let mut differing = Vec::new();
        for (engine, asked) in &self.found {
            let is_midday = engine.ends_with("midday");
            let ours = &self.found[if is_midday { "throng midday" } else { "throng" }];
            for (question, theirs) in asked {
                let ours = &ours[question].counts;
                if *ours != theirs.counts {
                    let pairs = ours.iter().zip(&theirs.counts).enumerate();
                    let first = pairs.into_iter().find(|(_, (ours, theirs))| ours != theirs);
                    differing.push(format!("{question}: {engine}: rule, ours, theirs: {first:?}"));
                }
            }
        }
        differing
    }

    fn ms(&self, engine: &str, question: &str) -> Option<f64> {
        self.found.get(engine)?.get(question).map(|asked| asked.ms)
    }

    /// Each target with what was reached, where that was measured.
    fn reached(&self) -> impl Iterator<Item = (&Target, f64)> {
        TARGETS.iter().filter_map(|target| {
            let theirs = self.ms(target.engine, target.question)?;
            Some((target, theirs / self.ms("throng", target.question)?))
        })
    }

    pub(crate) fn json(&self) -> Value {
        let ratios = self.reached().map(|(target, ratio)| {
            json!({
                "question": target.question, "engine": target.engine, "ratio": ratio,
                "target": target.least, "reached": ratio >= target.least,
            })
        });
        let [many, few] = self.bytes_a_fact;
        let refreshed = self.refreshed.iter().map(|refreshed| {
            json!({
                "when": refreshed.when, "ms": refreshed.ms, "anew_ms": refreshed.anew_ms,
                "ratio": refreshed.ratio(), "target": REFRESH,
            })
        });
        json!({
            "events": self.events, "visitors": self.visitors, "build_seconds": self.build_seconds,
            "refreshed": refreshed.collect::<Vec<_>>(),
            "bytes_a_fact": many[0], "bytes_a_fact_target": BYTES, "bytes_a_fact_where_few": few[0],
            "bytes_a_fact_with_times": many[1], "bytes_a_fact_with_times_target": BYTES + TIMES,
            "bytes_a_fact_with_times_where_few": few[1],
            "ratios": ratios.collect::<Vec<_>>(), "found": self.found,
        })
    }

    pub(crate) fn text(&self) -> String {
        let mut times = comfy_table::Table::new();
        times.load_style(comfy_table::presets::NOTHING);
        let there: Vec<_> = ENGINES.iter().filter(|(e, _)| self.found.contains_key(*e)).collect();
        times.set_header(["ms"].into_iter().chain(there.iter().map(|(_, name)| *name)));
        for question in self.found["throng"].keys() {
            let cells = there.iter().map(|(engine, _)| match self.ms(engine, question) {
                Some(ms) if ms < 10.0 => format!("{ms:.2}"),
                Some(ms) => format!("{ms:.0}"),
                None => String::new(),
            });
            times.add_row([question.clone()].into_iter().chain(cells));
        }
        let mut ratios = comfy_table::Table::new();
        ratios.load_style(comfy_table::presets::NOTHING);
        ratios.set_header(["THRONG AGAINST", "", "RATIO", "TARGET", ""]);
        let verdict = |reached: bool| if reached { "reached" } else { "missed" };
        for (target, ratio) in self.reached() {
            let name = ENGINES.iter().find(|(engine, _)| *engine == target.engine);
            ratios.add_row([
                target.question.to_owned(),
                name.map_or("", |(_, name)| name).to_owned(),
                format!("{ratio:.1}"),
                format!("≥ {}", target.least),
                verdict(ratio >= target.least).to_owned(),
            ]);
        }
        for refreshed in &self.refreshed {
            let Refreshed { when, ms, anew_ms } = *refreshed;
            ratios.add_row([
                "R6".to_owned(),
                format!("all anew ({anew_ms:.0} ms), where {when} ({ms:.1} ms)"),
                format!("{:.1}", refreshed.ratio()),
                format!("≥ {REFRESH}"),
                verdict(refreshed.ratio() >= REFRESH).to_owned(),
            ]);
        }
        let [many, few] = self.bytes_a_fact;
        let limits = [("bytes a fact", BYTES), ("with times and values", BYTES + TIMES)];
        for (place, (name, limit)) in limits.into_iter().enumerate() {
            ratios.add_row([
                name.to_owned(),
                format!("({:.0} where a day of a block has fewer than 100)", few[place]),
                format!("{:.1}", many[place]),
                format!("≤ {limit}"),
                verdict(many[place] <= limit).to_owned(),
            ]);
        }
        let mut text = String::new();
        let _ = write!(
            text,
            "{} events of {} visitors, 200 traits, 30 days, one thread; columns built in {:.1} s\n\n\
             {times}\n\n{ratios}",
            self.events, self.visitors, self.build_seconds
        );
        text
    }
}
