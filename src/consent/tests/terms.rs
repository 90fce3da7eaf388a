//! What strings allow, line by line of the contract.

use super::encode::CanadaSection;
use super::encode::Eu;
use super::encode::Form;
use super::encode::SUMMER;
use super::encode::Writer;
use super::encode::gpp;
use super::*;
use crate::model::Consent;
use crate::model::Purposes;

/// We are vendor 7, and two destinations are 21 and 755.
const TERMS: Terms<'_> = Terms { vendor: Some(7), recipients: &[21, 755] };

fn set(purposes: &[u8]) -> Purposes {
    purposes.iter().copied().collect()
}

fn ask(eu: &Eu) -> Result<Consent, Refusal> {
    TERMS.tcf(&Tcf::parse(&eu.text()).unwrap())
}

/// What is allowed with these consents: storage, audiences, look-alikes, and the destinations.
fn uses(consent: &Consent) -> (bool, bool, bool, Vec<u16>) {
    let to: Vec<u16> = [21, 755].into_iter().filter(|id| consent.allows_vendor(*id)).collect();
    (consent.allows_storage(), consent.allows_audiences(), consent.allows_look_alikes(), to)
}

#[test]
fn each_use_needs_its_purposes_and_our_vendor_bit() {
    let eu = Eu::default();
    for (purposes, expected) in [
        (&[1, 3, 4, 9][..], Ok((true, true, true, vec![755]))),
        (&[1, 3, 4], Ok((true, true, false, vec![755]))),
        (&[1, 3, 10], Ok((true, false, true, vec![]))),
        (&[1, 4], Ok((true, false, false, vec![]))),
        (&[1], Ok((true, false, false, vec![]))),
        (&[2, 3, 4, 5, 6, 7, 8, 9, 10, 11], Err(Refusal::Storage)),
        (&[], Err(Refusal::Storage)),
    ] {
        let asked = ask(&Eu { consents: set(purposes), ..eu.clone() });
        assert_eq!(asked.as_ref().map(uses).map_err(|why| *why), expected, "{purposes:?}");
    }
    for form in [Form::Bits, Form::Fixed] {
        let others = Eu { vendors: (vec![6, 8, 755], form), ..eu.clone() };
        assert_eq!(ask(&others), Err(Refusal::Storage));
    }
    let only_us = Eu { vendors: (vec![7], Form::Bits), ..eu };
    assert_eq!(uses(&ask(&only_us).unwrap()), (true, true, true, vec![]));
}

#[test]
fn purposes_1_and_3_to_6_have_no_ground_but_consent() {
    let interest = |purposes: &[u8]| {
        let eu = Eu {
            consents: set(&[1]),
            interests: set(purposes),
            vendor_interests: (vec![7, 755], Form::Fixed),
            ..Eu::default()
        };
        ask(&eu).unwrap().purposes.iter().collect::<Vec<_>>()
    };
    assert_eq!(interest(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 24]), [1, 2, 7, 8, 9, 10, 11]);
    let none = Eu {
        consents: Purposes::default(),
        interests: Purposes::from_bits(u32::MAX),
        vendor_interests: (vec![7, 755], Form::Fixed),
        ..Eu::default()
    };
    assert_eq!(ask(&none), Err(Refusal::Storage));
}

#[test]
fn restrictions_of_the_publisher_hold() {
    let with = |restrictions: &[(u8, u8, Vec<u16>)]| {
        let eu = Eu {
            consents: set(&[1, 3, 4, 9]),
            interests: set(&[9]),
            vendor_interests: (vec![7], Form::Bits),
            restrictions: restrictions.to_vec(),
            ..Eu::default()
        };
        ask(&eu).as_ref().map(uses).map_err(|why| *why)
    };
    let all = (true, true, true, vec![755]);
    assert_eq!(with(&[]), Ok(all.clone()));
    // Not at all, or on another ground than the visitor gave.
    for kind in [0, 2, 3] {
        assert_eq!(with(&[(1, kind, vec![7])]), Err(Refusal::Storage), "{kind}");
        assert_eq!(with(&[(3, kind, (1..=20).collect())]), Ok((true, false, true, vec![])));
        assert_eq!(with(&[(4, kind, vec![755])]), Ok((true, true, true, vec![])));
    }
    // With consent alone: there is one.
    assert_eq!(with(&[(1, 1, vec![7]), (3, 1, vec![7, 755])]), Ok(all.clone()));
    // One of two grounds is left for 9.
    assert_eq!(with(&[(9, 1, vec![7])]), Ok(all.clone()));
    assert_eq!(with(&[(9, 2, vec![7])]), Ok(all.clone()));
    assert_eq!(with(&[(9, 1, vec![7]), (9, 2, vec![7])]), Ok((true, true, false, vec![755])));
    assert_eq!(with(&[(9, 0, vec![7])]), Ok((true, true, false, vec![755])));
    // Of others, and of purposes that nobody has.
    assert_eq!(with(&[(1, 0, vec![6, 8]), (0, 0, vec![7]), (63, 0, vec![7])]), Ok(all));
}

#[test]
fn strings_that_are_not_valid_any_more_are_refused() {
    let eu = Eu::default();
    let made = |created| Eu { created, disclosed: None, ..Eu::default() };
    // 2026-02-28T00:00:00Z.
    let since = 1_772_236_800_000;
    for (eu, why) in [
        (Eu { policy: 3, ..eu.clone() }, Refusal::Policy),
        (Eu { policy: 0, ..eu.clone() }, Refusal::Policy),
        (Eu { is_service_specific: false, ..eu.clone() }, Refusal::Global),
        (Eu { cmp: 0, ..eu.clone() }, Refusal::Cmp),
        (Eu { cmp: 1, ..eu.clone() }, Refusal::Cmp),
        (made(since), Refusal::Undisclosed),
        (made(SUMMER), Refusal::Undisclosed),
        (Eu { disclosed: Some((vec![6, 8, 755], Form::Bits)), ..eu.clone() }, Refusal::Storage),
    ] {
        assert_eq!(ask(&eu), Err(why));
    }
    assert!(ask(&Eu { policy: 4, ..eu.clone() }).is_ok());
    assert!(ask(&made(since - 100)).is_ok());
    // One that we may, but the visitor was not told of.
    let untold = Eu { disclosed: Some((vec![7], Form::Bits)), ..eu.clone() };
    assert_eq!(uses(&ask(&untold).unwrap()), (true, true, true, vec![]));
    let text = Eu { version: 3, ..eu }.text();
    assert_eq!(Tcf::parse(&text), Err(Unreadable::Version));
}

#[test]
fn without_an_id_of_ours_no_string_is_a_consent() {
    let nobody = Terms { vendor: None, recipients: &[755] };
    assert_eq!(nobody.tcf(&Tcf::parse(&Eu::default().text()).unwrap()), Err(Refusal::NoVendor));
    let section = Canada::parse(&CanadaSection::default().text()).unwrap();
    assert_eq!(nobody.canada(&section), Err(Refusal::NoVendor));
}

#[test]
fn the_string_of_the_eu_is_asked_where_it_applies() {
    let text = Eu::default().text();
    let ask = |gdpr, tcf: &str| {
        let signals = Signals { gdpr, tcf: tcf.into(), ..Signals::default() };
        signals.of_tcf(TERMS).map(|consent| consent.is_some())
    };
    assert_eq!(ask(Some(true), &text), Ok(true));
    assert_eq!(ask(None, &text), Ok(true));
    assert_eq!(ask(Some(false), &text), Ok(false));
    assert_eq!(ask(Some(false), "what"), Ok(false));
    assert_eq!(ask(None, ""), Ok(false));
    assert_eq!(ask(Some(true), ""), Err(Refusal::Missing));
    assert_eq!(ask(Some(true), " "), Err(Refusal::Missing));
    assert_eq!(ask(Some(true), "${GDPR_CONSENT_7}"), Err(Unreadable::Character.into()));
    assert_eq!(ask(None, "what"), Err(Unreadable::Version.into()));
}

fn ask_gpp(gpp: &str, sections: &str) -> Result<Option<Consent>, Refusal> {
    let sections = Sections::parse(sections);
    Signals { gpp: gpp.into(), sections, ..Signals::default() }.of_gpp(TERMS)
}

#[test]
fn only_the_sections_that_apply_are_asked() {
    let text = gpp(&[(2, &Eu::default().text()), (6, "1YYN"), (7, "BVQqAAAAAgA"), (8, "broken")]);
    assert_eq!(ask_gpp(&text, ""), Ok(None));
    assert_eq!(ask_gpp(&text, "-1"), Ok(None));
    assert_eq!(ask_gpp(&text, "0"), Ok(None));
    assert_eq!(ask_gpp("anything", ""), Ok(None));
    assert_eq!(ask_gpp(&text, "7"), Ok(None));
    assert!(ask_gpp(&text, "2").unwrap().unwrap().allows_audiences());
    assert!(ask_gpp(&text, "2,7").unwrap().unwrap().allows_audiences());
    assert_eq!(ask_gpp(&text, "6"), Err(Refusal::OptedOut(6)));
    assert_eq!(ask_gpp(&text, "2_6"), Err(Refusal::OptedOut(6)));
    assert!(matches!(ask_gpp(&text, "8"), Err(Refusal::Unreadable(_))));
    assert_eq!(ask_gpp(&text, "9"), Err(Refusal::Section(9)));
    assert_eq!(ask_gpp(&text, "1"), Err(Refusal::Section(1)));
    assert_eq!(ask_gpp(&text, "7, 8, x"), Err(Refusal::Sections));
    assert_eq!(ask_gpp(&text, "7,64"), Err(Refusal::Sections));
    assert_eq!(ask_gpp("", "7"), Err(Refusal::Missing));
    assert_eq!(ask_gpp("DBAA", "7"), Err(Refusal::Section(7)));
    assert_eq!(ask_gpp("1YNN", "6"), Err(Unreadable::Version.into()));
}

#[test]
fn a_section_of_the_eu_is_held_to_the_same_terms() {
    let ask = |eu: Eu| ask_gpp(&gpp(&[(2, &eu.text())]), "2");
    let default = Eu::default();
    assert!(ask(default.clone()).unwrap().is_some());
    assert_eq!(ask(Eu { policy: 2, ..default.clone() }), Err(Refusal::Policy));
    assert_eq!(ask(Eu { consents: set(&[3, 4]), ..default.clone() }), Err(Refusal::Storage));
    assert_eq!(ask(Eu { disclosed: None, ..default }), Err(Refusal::Undisclosed));
}

#[test]
fn canada_knows_express_and_implied_consent() {
    let ask = |section: &CanadaSection| {
        let consent = ask_gpp(&gpp(&[(5, &section.text())]), "5");
        consent.map(|consent| uses(&consent.unwrap()))
    };
    let express = CanadaSection { express: set(&[1, 3, 4]), ..CanadaSection::default() };
    assert_eq!(ask(&express), Ok((true, true, false, vec![755])));
    let implied = CanadaSection {
        express: Purposes::default(),
        implied: set(&[1, 3, 4, 9]),
        vendor_implied: (vec![7, 755], Form::Fibonacci),
        ..CanadaSection::default()
    };
    assert_eq!(ask(&implied), Ok((true, true, true, vec![755])));
    let restricted =
        |kind| CanadaSection { restrictions: vec![(3, kind, vec![7, 755])], ..implied.clone() };
    assert_eq!(ask(&restricted(0)), Ok((true, false, true, vec![])));
    assert_eq!(ask(&restricted(1)), Ok((true, false, true, vec![])));
    assert_eq!(ask(&restricted(2)), Ok((true, true, true, vec![755])));
    // Purposes of one ground and vendors of the other are no consent.
    let crossed = CanadaSection { vendor_implied: (vec![], Form::Bits), ..implied.clone() };
    assert_eq!(ask(&crossed), Err(Refusal::Storage));
    let untold = CanadaSection { disclosed: Some((vec![8], Form::Fibonacci)), ..express.clone() };
    assert_eq!(ask(&untold), Err(Refusal::Storage));
    assert_eq!(ask(&CanadaSection { cmp: 0, ..express }), Err(Refusal::Cmp));
}

#[test]
fn two_strings_allow_what_both_do() {
    let canada = CanadaSection { express: set(&[1, 3, 4]), ..CanadaSection::default() };
    let eu = Eu { consents: set(&[1, 4, 9]), ..Eu::default() };
    let text = gpp(&[(2, &eu.text()), (5, &canada.text())]);
    let both = ask_gpp(&text, "2,5").unwrap().unwrap();
    assert_eq!(both.purposes, set(&[1, 4]));
    assert_eq!(uses(&both), (true, false, false, vec![]));
}

/// A section in which one field has one value, and all others are 2: told, and not opted out.
fn section(id: u16, version: u8, set: Option<(Field, usize, u8)>, gpc: Option<bool>) -> String {
    let mut probe = Writer::default();
    probe.number(version.into(), 6);
    let fields = if id == 7 && version == 1 { 27 } else { 32 };
    for _ in 0..fields {
        probe.number(0, 2);
    }
    let layout = Us::parse(id, &probe.text()).unwrap();
    let mut writer = Writer::default();
    writer.number(version.into(), 6);
    for field in layout.fields() {
        for at in 0..layout.get(field).len() {
            let value = match set {
                Some((other, place, value)) if other == field && place == at => value,
                _ if field == Field::KnownChildSensitiveDataConsents => 0,
                _ => 2,
            };
            writer.number(value.into(), 2);
        }
    }
    let mut text = writer.text();
    if let Some(gpc) = gpc {
        text.push('.');
        text.push_str(&Writer::default().number(1, 2).flag(gpc).text());
    }
    text
}

#[test]
fn the_latest_states_have_sensitive_data_in_a_segment_of_its_own() {
    // Made by the IAB's library.
    for (text, is_opted_out) in [
        ("BQAA", false),
        ("BQAA.AAA", false),
        ("BQCA.AAA", false),
        ("BQBA.AAA", true),
        ("BQAE", true),
        ("BQAQ", true),
    ] {
        for id in 25..=27 {
            assert_eq!(Us::parse(id, text).unwrap().is_opted_out(), is_opted_out, "{id} {text}");
        }
    }
    for wrong in ["BQAA.AAA.AAA", "BQAA.", "BQAA.w", "BQAA.____"] {
        assert_eq!(Us::parse(25, wrong), Err(Unreadable::Segment), "{wrong}");
    }
}

#[test]
fn an_opt_out_in_any_section_of_the_states_is_one() {
    let opt_outs = [Field::SaleOptOut, Field::SharingOptOut, Field::TargetedAdvertisingOptOut];
    let mut seen = 0;
    for (id, version) in (8..=24).map(|id| (id, 1)).chain([(7, 1), (7, 2)]) {
        let ask = |set, gpc| {
            let text = section(id, version, set, gpc);
            let us = Us::parse(id, &text).unwrap();
            let asked = ask_gpp(&gpp(&[(id, &text)]), &id.to_string());
            assert_eq!(
                asked,
                if us.is_opted_out() { Err(Refusal::OptedOut(id)) } else { Ok(None) }
            );
            us.is_opted_out()
        };
        assert!(!ask(None, None) && !ask(None, Some(false)), "{id}");
        assert!(ask(None, Some(true)), "{id}: Global Privacy Control");
        let us = Us::parse(id, &section(id, version, None, None)).unwrap();
        for field in us.fields() {
            for at in 0..us.get(field).len() {
                for value in 0..=2 {
                    let is_opt_out = opt_outs.contains(&field) && value == 1;
                    let is_child = field == Field::KnownChildSensitiveDataConsents && value != 0;
                    let opted_out = ask(Some((field, at, value)), None);
                    assert_eq!(opted_out, is_opt_out || is_child, "{id} {field:?} {at} {value}");
                    seen += usize::from(opted_out);
                }
            }
        }
    }
    // Sale, sharing or targeted advertising where a section has them, and two values for each age of children.
    assert!(seen > 80, "{seen}");
}

#[test]
fn us_privacy_in_a_section_is_an_opt_out_of_sale() {
    for (text, expected) in [
        ("1---", Ok(None)),
        ("1YNN", Ok(None)),
        ("1NNY", Ok(None)),
        ("1YYN", Err(Refusal::OptedOut(6))),
        ("1-y-", Err(Refusal::OptedOut(6))),
        ("present", Err(Unreadable::CutShort.into())),
    ] {
        assert_eq!(ask_gpp(&gpp(&[(6, text)]), "6"), expected, "{text}");
    }
}

#[test]
fn what_applies_is_read_from_a_query_or_a_list() {
    for (text, ids) in [
        ("7", &[7][..]),
        ("2,6", &[2, 6]),
        ("2_6", &[2, 6]),
        (" 8 , 7 ", &[7, 8]),
        ("", &[]),
        ("-1", &[]),
        ("0", &[]),
    ] {
        let sections = Sections::parse(text);
        assert!(sections.iter().eq(ids.iter().copied()), "{text}");
        assert_eq!(sections.is_empty(), ids.is_empty(), "{text}");
        assert!(!sections.is_unreadable(), "{text}");
    }
    for text in ["x", "-2", "64", "7;8", "99999999999999999999", "7,x"] {
        let sections = Sections::parse(text);
        assert!(sections.is_unreadable() && !sections.is_empty(), "{text}");
    }
}

#[test]
fn silence_is_what_says_nothing() {
    let silent = Signals::default();
    assert!(silent.is_silent());
    assert!(Signals { gdpr: Some(false), tcf: "C".into(), ..silent.clone() }.is_silent());
    assert!(Signals { gpp: "DBAA".into(), ..silent.clone() }.is_silent());
    assert!(!Signals { gdpr: Some(true), ..silent.clone() }.is_silent());
    assert!(!Signals { tcf: "C".into(), ..silent.clone() }.is_silent());
    assert!(!Signals { sections: Sections::parse("7"), ..silent.clone() }.is_silent());
    assert!(!Signals { sale_opt_out: true, ..silent }.is_silent());
}
