//! Any bytes end in a value or a reason, with little memory and soon.

use proptest::collection::vec;
use proptest::prelude::*;
use std::time::Duration;
use std::time::Instant;

use super::encode::Eu;
use super::encode::Form;
use super::encode::Writer;
use super::encode::gpp;
use super::golden;
use super::*;

/// The most bytes that a decoded string holds for each byte of its text. The worst is a section of Canada with
/// restrictions as bits of which every other is set: 3 ranges of 6 bytes a character, in a vector twice as long.
const HELD_PER_BYTE: usize = 40;

fn held(vendors: &[Option<&Vendors>], restrictions: &Vec<Restriction>) -> usize {
    let vendors: usize = vendors.iter().flatten().map(|vendors| vendors.heap()).sum();
    vendors + restrictions.capacity() * size_of::<Restriction>()
}

/// Gives a text to all decoders, and returns the bytes that what they made of it holds.
fn decode(text: &str) -> usize {
    let mut most = 0;
    if let Ok(tcf) = Tcf::parse(text) {
        let vendors = [
            Some(&tcf.vendor_consents),
            Some(&tcf.vendor_interests),
            tcf.disclosed.as_ref(),
            tcf.allowed.as_ref(),
        ];
        most = most.max(held(&vendors, &tcf.restrictions));
        let _ = Terms { vendor: Some(7), recipients: &[1, 755] }.tcf(&tcf);
    }
    if let Ok(canada) = Canada::parse(text) {
        let vendors =
            [Some(&canada.vendor_express), Some(&canada.vendor_implied), canada.disclosed.as_ref()];
        most = most.max(held(&vendors, &canada.restrictions));
        let _ = Terms { vendor: Some(7), recipients: &[1, 755] }.canada(&canada);
    }
    for id in 0..30 {
        let _ = Us::parse(id, text).map(|us| us.is_opted_out());
    }
    let _ = Usp::parse(text);
    if let Ok(gpp) = Gpp::parse(text) {
        assert!(gpp.ids().count() <= text.len());
        let mut sections = Sections::default();
        sections.add(Some(2));
        sections.add(gpp.ids().next().map(i64::from));
        let signals =
            Signals { gpp: text.into(), tcf: text.into(), sections, ..Signals::default() };
        let terms = Terms { vendor: Some(7), recipients: &[] };
        let _ = (signals.of_gpp(terms), signals.of_tcf(terms));
    }
    most
}

#[track_caller]
fn assert_bounded(text: &str) {
    let held = decode(text);
    assert!(held <= HELD_PER_BYTE * text.len(), "{held} bytes of {}: {text}", text.len());
}

/// Strings that are whole, and parts of them.
fn whole() -> Vec<String> {
    let strings = golden::rows(golden::TCF).chain(golden::rows(golden::GPP));
    let strings = strings.chain(golden::rows(golden::MADE));
    let mut whole: Vec<String> = strings.map(|row| row[0].to_owned()).collect();
    let sections = whole.iter().flat_map(|text| text.split('~').skip(1).map(str::to_owned));
    let sections: Vec<String> = sections.collect();
    whole.extend(sections);
    whole
}

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";

fn character() -> impl Strategy<Value = char> {
    prop::sample::select(ALPHABET).prop_map(char::from)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_text_is_taken(text in any::<String>()) {
        assert_bounded(&text);
    }

    #[test]
    fn any_characters_of_a_string_are_taken(
        start in prop::sample::select(&["", "C", "B", "DBAB", "DBAC"][..]),
        rest in vec(character(), 0..600),
    ) {
        let text: String = start.chars().chain(rest).collect();
        assert_bounded(&text);
    }

    #[test]
    fn a_string_that_was_tampered_with_is_taken(
        at in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), 0u8..4, character()), 1..6),
    ) {
        let whole = whole();
        let mut text: Vec<char> = whole[at.index(whole.len())].chars().collect();
        for (place, kind, character) in changes {
            if text.is_empty() {
                break;
            }
            let place = place.index(text.len());
            match kind {
                0 => text[place] = character,
                1 => text.truncate(place),
                2 => text.insert(place, character),
                _ => drop(text.remove(place)),
            }
        }
        assert_bounded(&text.into_iter().collect::<String>());
    }
}

#[test]
fn a_string_cut_anywhere_is_refused_or_whole() {
    for row in golden::rows(golden::TCF) {
        let core = row[0].split('.').next().unwrap();
        for cut in 0..core.len() {
            assert_bounded(&core[..cut]);
        }
        assert_eq!(Tcf::parse(&core[..35]), Err(Unreadable::CutShort));
    }
}

/// Ranges of all vendors, as many as a string has room for.
fn crowded() -> Vec<String> {
    let mut core = Writer::default();
    // All up to the vendors, with every platform and policy in order.
    core.number(2, 6).number(1, 36).number(1, 36).number(10, 12).number(1, 18).number(0, 12);
    core.number(1, 12).number(5, 6).flag(true).flag(false).set(0, 12).set(0, 48).flag(false);
    core.letters(['A', 'A']);
    let mut ranges = core.clone();
    ranges.number(65_535, 16).flag(true).number(700, 12);
    for _ in 0..700 {
        ranges.flag(true).number(1, 16).number(65_535, 16);
    }
    ranges.number(0, 17).number(0, 12);
    let mut restrictions = core.clone();
    restrictions.number(0, 17).number(0, 17).number(450, 12);
    for _ in 0..450 {
        restrictions.number(3, 6).number(0, 2).number(1, 12);
        restrictions.flag(true).number(1, 16).number(65_535, 16);
    }
    let mut promise = core;
    promise.number(65_535, 16).flag(true).number(4_095, 12);
    let sparse = Eu { vendors: ((1..9_000).step_by(2).collect(), Form::Bits), ..Eu::default() };
    let many: Vec<(u16, &str)> = (1..1_000).map(|id| (id * 2, "A")).collect();
    let mut everything = Writer::default();
    everything.number(3, 6).number(1, 6).number(1, 12).flag(true).fibonacci(1).fibonacci(65_534);
    vec![
        ranges.text(),
        restrictions.text(),
        promise.text(),
        sparse.text(),
        gpp(&many),
        format!("{}~A", everything.text()),
        ".".repeat(MAX_STRING),
        format!("DBAA{}", "~".repeat(MAX_STRING - 4)),
        "C".repeat(MAX_STRING),
        "_".repeat(MAX_STRING),
    ]
}

#[test]
fn ranges_that_are_declared_cost_what_they_take_to_write() {
    let crowded = crowded();
    for text in &crowded {
        assert!(text.len() <= MAX_STRING, "{}", text.len());
        assert_bounded(text);
    }
    // They are what they are called: the first two decode, to all vendors and to no purpose for any.
    let all = Tcf::parse(&crowded[0]).unwrap();
    assert_eq!((all.vendor_consents.iter().count(), all.vendor_consents.heap() / 4), (65_535, 700));
    assert_eq!(Tcf::parse(&crowded[1]).unwrap().restrictions.len(), 450);
    assert_eq!(Tcf::parse(&crowded[2]), Err(Unreadable::CutShort));
    assert_eq!(Gpp::parse(&crowded[5]), Err(Unreadable::Sections));
}

#[test]
fn no_string_takes_long() {
    for text in crowded() {
        let once = || {
            let started = Instant::now();
            decode(&text);
            started.elapsed()
        };
        // 1 ms each is the promise of an optimised build, and this one takes some 30 times as long.
        let best = (0..5).map(|_| once()).min().unwrap();
        assert!(best < Duration::from_millis(60), "{best:?} for {}", &text[..20]);
    }
}

#[test]
fn what_is_longer_than_4_kib_is_not_read() {
    let long = "C".repeat(MAX_STRING + 1);
    assert_eq!(Tcf::parse(&long), Err(Unreadable::TooLong));
    assert_eq!(Canada::parse(&long), Err(Unreadable::TooLong));
    assert_eq!(Gpp::parse(&long), Err(Unreadable::TooLong));
    assert_eq!(Us::parse(7, &long), Err(Unreadable::TooLong));
}

#[test]
fn each_thing_wrong_is_told_by_its_name() {
    let whole = Eu::default().text();
    let core = whole.split('.').next().unwrap();
    let no_range = Eu { vendors: (vec![0, 3], Form::Fixed), ..Eu::default() };
    for (text, why) in [
        ("", Unreadable::CutShort),
        ("BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA", Unreadable::Version),
        ("DBABMA", Unreadable::Version),
        ("C+", Unreadable::Character),
        ("Cé", Unreadable::Character),
        (&format!("{whole}="), Unreadable::Character),
        (&format!("{core}."), Unreadable::CutShort),
        (&format!("{core}.{core}"), Unreadable::Segment),
        (&format!("{core}.IAAA.IAAA"), Unreadable::Segment),
        (&format!("{core}.________"), Unreadable::Segment),
        (&no_range.text(), Unreadable::Range),
    ] {
        assert_eq!(Tcf::parse(text), Err(why), "{text}");
    }
    for (text, why) in [
        ("", Unreadable::CutShort),
        ("CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA", Unreadable::Version),
        ("DBABMA", Unreadable::Sections),
        ("DBABMA~x~y", Unreadable::Sections),
        ("DCABMA~x", Unreadable::Version),
        ("DBA", Unreadable::CutShort),
        ("DBAB!~x", Unreadable::Character),
    ] {
        assert_eq!(Gpp::parse(text), Err(why), "{text}");
    }
    for (id, text, why) in [
        (7, "BAAAAAAAABA.QA.QA", Unreadable::Segment),
        (7, "BAAAAAAAABA.AA", Unreadable::Segment),
        (7, "DAAAAAAAABAA", Unreadable::Version),
        (7, "BPAAAAAAABA", Unreadable::Value),
        (8, "CAAAAABA", Unreadable::Version),
        (8, "BAAAA", Unreadable::CutShort),
        (6, "BAAAAABA", Unreadable::Version),
        (28, "BAAAAABA", Unreadable::Version),
    ] {
        assert_eq!(Us::parse(id, text), Err(why), "{id} {text}");
    }
    for (text, why) in [
        ("1YN", Unreadable::CutShort),
        ("2YNN", Unreadable::Version),
        ("1YXN", Unreadable::Value),
        ("present", Unreadable::CutShort),
    ] {
        assert_eq!(Usp::parse(text), Err(why), "{text}");
    }
}
