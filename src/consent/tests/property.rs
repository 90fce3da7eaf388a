//! What was encoded is what is decoded.

use proptest::collection::btree_set;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::encode::CanadaSection;
use super::encode::Eu;
use super::encode::Form;
use super::encode::Writer;
use super::encode::gpp;
use super::*;
use crate::model::Purposes;

fn purposes() -> impl Strategy<Value = Purposes> {
    any::<u32>().prop_map(Purposes::from_bits)
}

/// Ids that lie in clusters, so that both runs and single ones come up.
fn ids(max: u16) -> impl Strategy<Value = Vec<u16>> {
    let cluster = (1..=max, 0u16..40);
    vec(cluster, 0..8).prop_map(move |clusters| {
        let mut ids: Vec<u16> = clusters
            .into_iter()
            .flat_map(|(from, more)| from..=from.saturating_add(more).min(max))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    })
}

/// Vendors in a form whose length a string can have.
fn vendors(range: Form) -> impl Strategy<Value = (Vec<u16>, Form)> {
    prop_oneof![
        ids(1_500).prop_map(|ids| (ids, Form::Bits)),
        ids(u16::MAX).prop_map(move |ids| (ids, range)),
    ]
}

fn restrictions() -> impl Strategy<Value = Vec<(u8, u8, Vec<u16>)>> {
    vec((0u8..64, 0u8..4, ids(3_000).prop_filter("some", |ids| !ids.is_empty())), 0..5)
}

fn written(vendors: &Vendors) -> Vec<u16> {
    vendors.iter().collect()
}

/// Restrictions with their ranges written out, in order.
fn spread(restrictions: &[Restriction]) -> Vec<(u8, u8, u16)> {
    let each = restrictions
        .iter()
        .flat_map(|r| (r.first..=r.last).map(|vendor| (r.purpose, r.kind, vendor)));
    each.collect()
}

fn expected(restrictions: &[(u8, u8, Vec<u16>)]) -> Vec<(u8, u8, u16)> {
    let each = restrictions.iter().flat_map(|(purpose, kind, vendors)| {
        vendors.iter().map(|vendor| (*purpose, *kind, *vendor))
    });
    each.collect()
}

fn eu() -> impl Strategy<Value = Eu> {
    let head = (0i64..1 << 36, 0u16..4_096, 0u8..64, any::<bool>(), 0u16..4_096);
    let own = (purposes(), purposes(), 0u8..64, any::<u64>(), any::<u64>()).prop_map(
        |(consents, interests, custom, a, b)| {
            let mask = (1u64 << custom) - 1;
            (consents, interests, custom, a & mask, b & mask)
        },
    );
    let letter = || prop::char::range('A', 'Z');
    (
        head,
        (purposes(), purposes(), [letter(), letter()]),
        (vendors(Form::Fixed), vendors(Form::Fixed), restrictions()),
        (option::of(vendors(Form::Fixed)), option::of(own)),
    )
        .prop_map(
            |(head, (consents, interests, country), (vendors, own, kept), (told, publisher))| Eu {
                version: 2,
                created: head.0 * 100,
                cmp: head.1,
                policy: head.2,
                is_service_specific: head.3,
                special_features: head.4,
                consents,
                interests,
                country,
                vendors,
                vendor_interests: own,
                restrictions: kept,
                disclosed: told,
                publisher,
            },
        )
}

proptest! {
    #[test]
    fn a_string_of_the_eu_comes_back(eu in eu()) {
        let text = eu.text();
        prop_assume!(text.len() <= MAX_STRING);
        let tcf = Tcf::parse(&text).unwrap();
        prop_assert_eq!((tcf.head.created, tcf.head.updated), (eu.created, eu.created));
        prop_assert_eq!((tcf.head.cmp_id, tcf.head.policy_version), (eu.cmp, eu.policy));
        prop_assert_eq!((tcf.head.cmp_version, tcf.head.consent_screen), (1, 2));
        prop_assert_eq!(tcf.is_service_specific, eu.is_service_specific);
        prop_assert_eq!(tcf.special_features, eu.special_features);
        prop_assert_eq!((tcf.consents, tcf.interests), (eu.consents, eu.interests));
        prop_assert_eq!(tcf.publisher_country, eu.country);
        prop_assert_eq!(written(&tcf.vendor_consents), eu.vendors.0);
        prop_assert_eq!(written(&tcf.vendor_interests), eu.vendor_interests.0);
        prop_assert_eq!(spread(&tcf.restrictions), expected(&eu.restrictions));
        prop_assert_eq!(tcf.disclosed.as_ref().map(written), eu.disclosed.map(|(ids, _)| ids));
        let publisher = tcf.publisher.map(|own| {
            (own.consents, own.interests, own.custom, own.custom_consents, own.custom_interests)
        });
        prop_assert_eq!(publisher, eu.publisher);
    }

    #[test]
    fn a_section_of_canada_comes_back(
        (express, implied) in (purposes(), purposes()),
        vendors in (vendors(Form::Fibonacci), vendors(Form::Fibonacci)),
        restrictions in restrictions(),
        disclosed in option::of(vendors(Form::Fibonacci)),
    ) {
        let section = CanadaSection {
            express,
            implied,
            vendor_express: vendors.0,
            vendor_implied: vendors.1,
            restrictions,
            disclosed,
            ..CanadaSection::default()
        };
        let text = section.text();
        prop_assume!(text.len() <= MAX_STRING);
        let canada = Canada::parse(&text).unwrap();
        prop_assert_eq!((canada.express, canada.implied), (express, implied));
        prop_assert_eq!(written(&canada.vendor_express), section.vendor_express.0);
        prop_assert_eq!(written(&canada.vendor_implied), section.vendor_implied.0);
        prop_assert_eq!(spread(&canada.restrictions), expected(&section.restrictions));
        prop_assert_eq!(canada.disclosed.as_ref().map(written), section.disclosed.map(|(ids, _)| ids));
    }

    #[test]
    fn ids_are_in_a_set_or_not_as_they_were_written((ids, form) in vendors(Form::Fixed), asked in any::<u16>()) {
        let eu = Eu { vendors: (ids.clone(), form), ..Eu::default() };
        let text = eu.text();
        prop_assume!(text.len() <= MAX_STRING);
        let vendors = Tcf::parse(&text).unwrap().vendor_consents;
        for id in ids.iter().copied().chain([asked, 0, 1, u16::MAX]) {
            prop_assert_eq!(vendors.contains(id), ids.contains(&id), "{}", id);
        }
    }

    #[test]
    fn every_number_comes_back_from_its_fibonacci_coding(values in vec(1u16.., 1..20)) {
        let mut writer = Writer::default();
        for value in &values {
            writer.fibonacci(*value);
        }
        let text = writer.text();
        let mut bits = super::bits::Bits::new(&text).unwrap();
        for value in values {
            prop_assert_eq!(bits.fibonacci(), Ok(value));
        }
    }

    #[test]
    fn a_header_names_its_sections(ids in btree_set(1u16..2_000, 0..40)) {
        let names: Vec<(u16, String)> = ids.iter().map(|id| (*id, format!("section{id}"))).collect();
        let sections: Vec<(u16, &str)> = names.iter().map(|(id, name)| (*id, name.as_str())).collect();
        let text = gpp(&sections);
        let read = Gpp::parse(&text).unwrap();
        prop_assert!(read.ids().eq(ids.iter().copied()));
        for (id, name) in &names {
            prop_assert_eq!(read.section(*id), Some(name.as_str()));
        }
        prop_assert_eq!(read.section(0), None);
    }

    #[test]
    fn a_section_of_the_states_comes_back(
        id in 7u16..=24,
        version in 1u8..=2,
        values in vec(0u8..3, 32),
        gpc in option::of(any::<bool>()),
    ) {
        prop_assume!(id == 7 || version == 1);
        // The fields of a section are as many as the layout has, whatever they are called.
        let layout = Us::parse(id, &blank(id, version)).unwrap();
        let count: usize = layout.fields().map(|field| layout.get(field).len()).sum();
        let mut core = Writer::default();
        core.number(version.into(), 6);
        for value in &values[..count] {
            core.number((*value).into(), 2);
        }
        let mut text = core.text();
        if let Some(gpc) = gpc {
            let mut segment = Writer::default();
            text.push('.');
            text.push_str(&segment.number(1, 2).flag(gpc).text());
        }
        let us = Us::parse(id, &text).unwrap();
        let read: Vec<u8> = us.fields().flat_map(|field| us.get(field).to_vec()).collect();
        prop_assert_eq!(read, &values[..count]);
        prop_assert_eq!((us.version, us.gpc), (version, gpc));
    }
}

/// A section without a word: as long as the section's own layout.
fn blank(id: u16, version: u8) -> String {
    let mut writer = Writer::default();
    writer.number(version.into(), 6);
    let fields = if id == 7 && version == 1 { 27 } else { 32 };
    for _ in 0..fields {
        writer.number(0, 2);
    }
    writer.text()
}

#[test]
fn a_section_of_canada_that_an_older_library_wrote_comes_back() {
    for (express, implied) in [
        (vec![12, 24, 48], vec![18, 30]),
        ((1..300).collect::<Vec<_>>(), vec![700]),
        (vec![1_000], (900..1_000).collect()),
    ] {
        let section = CanadaSection {
            vendor_express: (express.clone(), Form::Fixed),
            vendor_implied: (implied.clone(), Form::Fixed),
            restrictions: vec![(2, 0, vec![30, 31])],
            disclosed: Some((vec![3, 900], Form::Fixed)),
            ..CanadaSection::default()
        };
        let canada = Canada::parse(&section.text()).unwrap();
        assert_eq!(written(&canada.vendor_express), express);
        assert_eq!(written(&canada.vendor_implied), implied);
        assert_eq!(spread(&canada.restrictions), [(2, 0, 30), (2, 0, 31)]);
        assert_eq!(canada.disclosed.as_ref().map(written), Some(vec![3, 900]));
    }
}

#[test]
fn the_examples_of_the_specification_for_fibonacci_numbers_are_read() {
    for (bits, value) in
        [("11", 1), ("011", 2), ("0011", 3), ("1011", 4), ("00011", 5), ("10011", 6), ("01011", 7)]
    {
        let mut writer = Writer::default();
        for bit in bits.chars() {
            writer.flag(bit == '1');
        }
        let text = writer.text();
        assert_eq!(super::bits::Bits::new(&text).unwrap().fibonacci(), Ok(value), "{bits}");
    }
}
