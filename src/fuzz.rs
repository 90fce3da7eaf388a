//! What reads bytes of strangers, and of a disk that may be damaged: one function each, which returns whatever the bytes.
//!
//! `loadtest/fuzz` tries what nobody thought of; a test here tries again what was kept of it.

use crate::bitmap::Block;
use crate::bitmap::DayColumn;
use crate::bitmap::TraitColumns;
use crate::collect::fuzz;
use crate::config::Overrides;
use crate::consent::Sections;
use crate::consent::Signals;
use crate::consent::Terms;
use crate::consent::is_sale_opt_out;
use crate::ingest::canonical::Agents;
use crate::ingest::canonical::Dropped;
use crate::ingest::canonical::Import;
use crate::ingest::canonical::import_lines;
use crate::model::NamespaceOrder;
use crate::model::Record;
use crate::rules;
use crate::rules::SegmentFile;

/// What reads bytes.
type Target = fn(&[u8]);

/// Every target, by the name of its folder in the corpus.
pub const TARGETS: [(&str, Target); 18] = [
    ("agent", agent),
    ("columns", columns),
    ("consent", consent),
    ("cookie", fuzz::cookie),
    ("events", fuzz::events),
    ("forwarded", fuzz::forwarded),
    ("import", import),
    ("inflate", fuzz::inflate),
    ("lookup", fuzz::lookup),
    ("matomo", fuzz::matomo),
    ("pixel", fuzz::pixel),
    ("record", record),
    ("rule", rule),
    ("segment", fuzz::segment),
    ("segment_file", segment_file),
    ("settings", settings),
    ("snowplow", fuzz::snowplow),
    ("unomi", fuzz::unomi),
];

/// Runs a target on bytes.
pub fn run(target: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.expect("a target of that name").1(bytes);
}

/// A user agent.
fn agent(bytes: &[u8]) {
    Agents::default().judge(&String::from_utf8_lossy(bytes));
}

/// Images of columns, as they are on disk. What can be read is written as what is read as the same.
fn columns(bytes: &[u8]) {
    let mut again = Vec::new();
    if let Ok(day) = DayColumn::decode(bytes) {
        day.encode(&mut again);
        assert_eq!(DayColumn::decode(&again).map(|day| day.len()), Ok(day.len()));
    }
    again.clear();
    if let Ok(columns) = TraitColumns::decode(bytes) {
        columns.encode(&mut again);
        assert!(TraitColumns::decode(&again).is_ok());
    }
    again.clear();
    if let Ok(block) = Block::decode_rest(bytes) {
        block.encode_rest(&mut again);
        assert!(Block::decode_rest(&again).is_ok());
    }
}

/// Strings of consent; the first byte chooses the sections that apply.
fn consent(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let terms = Terms { vendor: Some(7), recipients: &[21, 755] };
    let ids = bytes.first().map(|id| id.to_string()).unwrap_or_default();
    for sections in [Sections::parse(&text), Sections::parse(&format!("2,5,6,7,{ids}"))] {
        let tcf = text.as_ref().into();
        let gpp = text.as_ref().into();
        let said = Signals { gdpr: Some(true), tcf, gpp, sections, ..Signals::default() };
        let _ = (said.of_tcf(terms), said.of_gpp(terms), is_sale_opt_out(&text));
    }
}

/// Lines of an import.
fn import(bytes: &[u8]) {
    let order = NamespaceOrder::default();
    let import = Import {
        name: "i",
        received: 1_700_000_000_000,
        order: &order,
        phone_countries: &[("s", "DE")],
    };
    let (mut agents, mut dropped) = (Agents::default(), Dropped::default());
    let taken = import_lines(&import, 1, bytes, &mut agents, &mut dropped);
    assert!(taken.events.len() + taken.rejected.len() <= usize::try_from(taken.lines).unwrap_or(0));
    let (record, mut again) = (Record::Import(taken), Vec::new());
    record.encode(&mut again);
    assert_eq!(Record::decode(&again).as_ref(), Ok(&record));
}

/// A record of the journal.
fn record(bytes: &[u8]) {
    let _ = Record::glance(bytes, &mut |_, glance| {
        let _ = (glance.name().len(), glance.owner(), glance.event());
        std::ops::ControlFlow::Continue(())
    });
    if let Ok(record) = Record::decode(bytes) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(Record::decode(&again).as_ref(), Ok(&record));
    }
}

/// A rule: what is printed of one without errors says the same.
fn rule(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (rule, diagnostics) = rules::parse(&text);
    let _ = rules::render("rule", &text, &diagnostics);
    if !rules::has_errors(&diagnostics) {
        let printed = rules::print(&rule);
        let (again, wrong) = rules::parse(&printed);
        assert!(!rules::has_errors(&wrong), "{printed}");
        assert_eq!(rules::print(&again), printed);
    }
}

/// A file of a segment.
fn segment_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (_, diagnostics) = SegmentFile::parse("id", &text);
    let _ = rules::to_json("id.toml", &text, &diagnostics);
    if !rules::has_errors(&diagnostics) {
        let (formatted, wrong) = SegmentFile::format("id", &text);
        assert!(!rules::has_errors(&wrong), "{formatted}");
    }
}

/// A setting, as the command line takes it.
fn settings(bytes: &[u8]) {
    let set = String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect();
    let _ = crate::config::read(None, &Overrides { environment: Vec::new(), set });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn what_was_kept_of_fuzzing_is_read() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/fuzz/corpus");
        for (name, target) in TARGETS {
            let folder = corpus.join(name);
            let files = fs::read_dir(&folder).unwrap_or_else(|_| panic!("{}", folder.display()));
            let mut count = 0;
            for file in files {
                target(&fs::read(file.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }

    #[test]
    fn every_target_can_be_fuzzed() {
        let manifest = include_str!("../loadtest/fuzz/Cargo.toml");
        for (name, _) in TARGETS {
            assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
        }
    }
}
