//! The report as tables for a terminal.

use super::Report;
use comfy_table::{CellAlignment, Table, presets};
use std::fmt;

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Highest rate; server and generator share {} cores.", self.cores)?;
        let mut rows = table(&[
            "",
            "hits/s",
            "of bare",
            "aim",
            "p50 ms",
            "p99 ms",
            "p999 ms",
            "server CPU µs a hit",
        ]);
        for highest in &self.highest {
            let measured = &highest.measured;
            rows.add_row([
                highest.subject.to_string(),
                format!("{:.0}", measured.rate),
                format!("{:.2}", highest.of_bare),
                match highest.aim {
                    Some(aim) if highest.of_bare >= aim => format!("{aim:.2} met"),
                    Some(aim) => format!("{aim:.2} missed"),
                    None => String::new(),
                },
                millis(measured.p50),
                millis(measured.p99),
                millis(measured.p999),
                format!("{:.1}", measured.cpu_micros),
            ]);
        }
        writeln!(f, "{rows}\n\nHalf the highest rate; latency from the moment a hit was due.")?;
        let mut rows = table(&[
            "",
            "hits/s",
            "p50 ms",
            "p99 ms",
            "p999 ms",
            "bare p99 ms",
            "fdatasync p50 / p99 ms",
            "fold lag s: first, last third, most",
            "folded after s",
        ]);
        for half in &self.half {
            let (first, last, most) = half.lag;
            rows.add_row([
                half.subject.to_string(),
                format!("{:.0}", half.measured.rate),
                millis(half.measured.p50),
                millis(half.measured.p99),
                millis(half.measured.p999),
                millis(half.bare.p99),
                format!("{} / {}", millis(half.fdatasync.0), millis(half.fdatasync.1)),
                format!("{first:.3}, {last:.3}, {most:.3}"),
                format!("{:.2}", half.drained),
            ]);
        }
        writeln!(f, "{rows}\n")?;
        if let Some(fold) = &self.fold {
            writeln!(
                f,
                "Fold of {:.0} events of {:.0} profiles that waited: {:.2} s from the server's start, {:.0} events a \
                 second of its thread's processor time,\n{:.0} of the process's. {:.1} bytes a fact ({:.0} \
                 facts), {:.1} bytes a profile, {:.0} MiB resident.",
                fold.events,
                fold.profiles,
                fold.seconds,
                fold.per_fold_core_second,
                fold.per_core_second,
                fold.bytes_a_fact,
                fold.facts,
                fold.bytes_a_profile,
                fold.resident / f64::from(1 << 20),
            )?;
        }
        for workers in &self.workers {
            let cpu: Vec<String> = workers.cpu.iter().map(|cpu| format!("{cpu:.1}")).collect();
            writeln!(
                f,
                "Fold on Redis of {:.0} events that waited, by {} workers: {:.2} s from their start, {} s of \
                 processor time.",
                workers.events,
                workers.cpu.len(),
                workers.seconds,
                cpu.join(" and "),
            )?;
        }
        for left_out in &self.left_out {
            writeln!(f, "Not measured: {left_out}")?;
        }
        Ok(())
    }
}

fn table(headers: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(headers);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn millis(seconds: f64) -> String {
    format!("{:.2}", seconds * 1e3)
}
