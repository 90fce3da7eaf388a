//! Every string of the IAB's and Prebid's test material decodes to what the IAB's own libraries decode.

use serde_json::Value;
use serde_json::json;

use super::*;
use crate::model::Purposes;
use crate::model::time::format_rfc3339;

pub(super) const TCF: &str = include_str!("golden/tcf_strings_decoded.tsv");
pub(super) const GPP: &str = include_str!("golden/gpp_strings_decoded.tsv");
pub(super) const MADE: &str = include_str!("golden/gpp_strings_made.tsv");

/// The rows behind the header, cut into columns.
pub(super) fn rows(table: &str) -> impl Iterator<Item = Vec<&str>> {
    table.lines().skip(1).map(|line| line.split('\t').collect())
}

fn joined(ids: impl Iterator<Item = u16>) -> String {
    ids.map(|id| id.to_string()).collect::<Vec<_>>().join(",")
}

fn text(letters: [char; 2]) -> String {
    letters.iter().collect()
}

/// The columns of a row from the version on.
fn columns(tcf: &Tcf) -> Vec<String> {
    let purposes = |purposes: Purposes| joined(purposes.iter().map(u16::from));
    let features = (1..=12).filter(|at| tcf.special_features >> (at - 1) & 1 == 1);
    let mut restrictions: Vec<_> = tcf.restrictions.iter().map(|r| (r.purpose, r.kind)).collect();
    restrictions.sort_unstable();
    restrictions.dedup();
    vec![
        "2".to_owned(),
        tcf.head.policy_version.to_string(),
        tcf.head.cmp_id.to_string(),
        tcf.head.vendor_list_version.to_string(),
        text(tcf.head.language),
        text(tcf.publisher_country),
        tcf.is_service_specific.to_string(),
        purposes(tcf.consents),
        purposes(tcf.interests),
        joined(features),
        tcf.vendor_consents.iter().count().to_string(),
        joined(tcf.vendor_consents.iter().take(20)),
        tcf.vendor_interests.iter().count().to_string(),
        restrictions.len().to_string(),
        format_rfc3339(tcf.head.created),
    ]
}

#[test]
fn strings_of_the_eu_decode_as_iabtcf_decodes_them() {
    let (mut decoded, mut refused) = (0, 0);
    for row in rows(TCF) {
        let string = row[0];
        let Some(why) = row[2].strip_prefix("DECODE_ERROR ") else {
            let tcf = Tcf::parse(string).unwrap_or_else(|why| panic!("{string}: {why}"));
            assert_eq!(columns(&tcf), row[2..], "{string}");
            decoded += 1;
            continue;
        };
        refused += 1;
        if why.contains("for cmpId") {
            // An id that no platform has is read, and allows nothing.
            let terms = Terms { vendor: Some(1), recipients: &[] };
            assert_eq!(terms.tcf(&Tcf::parse(string).unwrap()), Err(Refusal::Cmp), "{string}");
        } else {
            let expected =
                if why.contains("endVendorId") { Unreadable::Range } else { Unreadable::CutShort };
            assert_eq!(Tcf::parse(string), Err(expected), "{string}");
        }
    }
    assert_eq!((decoded, refused), (30, 25));
}

fn flags(set: u64, count: u32) -> Value {
    (0..count).map(|at| set >> at & 1 == 1).collect()
}

fn purposes(set: Purposes) -> Value {
    flags(set.bits().into(), 24)
}

fn ids(vendors: Option<&Vendors>) -> Value {
    vendors.map_or(json!([]), |vendors| vendors.iter().collect())
}

fn header(head: &Head) -> Value {
    json!({
        "Created": format_rfc3339(head.created),
        "LastUpdated": format_rfc3339(head.updated),
        "CmpId": head.cmp_id,
        "CmpVersion": head.cmp_version,
        "ConsentScreen": head.consent_screen,
        "ConsentLanguage": text(head.language),
        "VendorListVersion": head.vendor_list_version,
    })
}

/// What the library shows of a publisher's segment that is not there.
fn publisher(segment: &Option<PublisherPurposes>) -> PublisherPurposes {
    let absent = PublisherPurposes {
        consents: Purposes::default(),
        interests: Purposes::default(),
        custom: 0,
        custom_consents: 0,
        custom_interests: 0,
    };
    segment.clone().unwrap_or(absent)
}

/// Purpose, kind and vendors of each restriction.
fn restrictions(all: &[Restriction]) -> Value {
    let same = |a: &Restriction, b: &Restriction| (a.purpose, a.kind) == (b.purpose, b.kind);
    let ids = |of: &[Restriction]| -> Value { of.iter().flat_map(|r| r.first..=r.last).collect() };
    all.chunk_by(same).map(|of| json!([of[0].purpose, of[0].kind, ids(of)])).collect()
}

fn with(mut value: Value, more: Value) -> Value {
    let Value::Object(more) = more else { panic!() };
    value.as_object_mut().unwrap().extend(more);
    value
}

fn eu(text_of_it: &str) -> Value {
    let tcf = Tcf::parse(text_of_it).unwrap();
    let own = publisher(&tcf.publisher);
    let custom = u32::from(own.custom);
    with(
        header(&tcf.head),
        json!({
            "Version": 2,
            "PolicyVersion": tcf.head.policy_version,
            "IsServiceSpecific": tcf.is_service_specific,
            "UseNonStandardStacks": tcf.uses_non_standard_texts,
            "SpecialFeatureOptins": flags(tcf.special_features.into(), 12),
            "PurposeConsents": purposes(tcf.consents),
            "PurposeLegitimateInterests": purposes(tcf.interests),
            "PurposeOneTreatment": tcf.purpose_one_treatment,
            "PublisherCountryCode": text(tcf.publisher_country),
            "VendorConsents": ids(Some(&tcf.vendor_consents)),
            "VendorLegitimateInterests": ids(Some(&tcf.vendor_interests)),
            "PublisherRestrictions": restrictions(&tcf.restrictions),
            "PublisherPurposesSegmentType": 3,
            "PublisherConsents": purposes(own.consents),
            "PublisherLegitimateInterests": purposes(own.interests),
            "NumCustomPurposes": own.custom,
            "PublisherCustomConsents": flags(own.custom_consents, custom),
            "PublisherCustomLegitimateInterests": flags(own.custom_interests, custom),
            "VendorsAllowedSegmentType": 2,
            "VendorsAllowed": ids(tcf.allowed.as_ref()),
            "VendorsDisclosedSegmentType": 1,
            "VendorsDisclosed": ids(tcf.disclosed.as_ref()),
        }),
    )
}

fn canada(text_of_it: &str) -> Value {
    let canada = Canada::parse(text_of_it).unwrap();
    let own = publisher(&canada.publisher);
    let custom = u32::from(own.custom);
    with(
        header(&canada.head),
        json!({
            "Version": 1,
            "TcfPolicyVersion": canada.head.policy_version,
            "UseNonStandardStacks": canada.uses_non_standard_texts,
            "SpecialFeatureExpressConsent": flags(canada.special_features.into(), 12),
            "PurposesExpressConsent": purposes(canada.express),
            "PurposesImpliedConsent": purposes(canada.implied),
            "VendorExpressConsent": ids(Some(&canada.vendor_express)),
            "VendorImpliedConsent": ids(Some(&canada.vendor_implied)),
            "PubRestrictions": restrictions(&canada.restrictions),
            "PubPurposesSegmentType": 3,
            "PubPurposesExpressConsent": purposes(own.consents),
            "PubPurposesImpliedConsent": purposes(own.interests),
            "NumCustomPurposes": own.custom,
            "CustomPurposesExpressConsent": flags(own.custom_consents, custom),
            "CustomPurposesImpliedConsent": flags(own.custom_interests, custom),
            "DisclosedVendorsSegmentType": 1,
            "DisclosedVendors": ids(canada.disclosed.as_ref()),
        }),
    )
}

fn usp(text_of_it: &str) -> Value {
    let usp = Usp::parse(text_of_it).unwrap();
    let letter = |said: Option<bool>| said.map_or("-", |yes| if yes { "Y" } else { "N" });
    json!({
        "Version": 1,
        "Notice": letter(usp.notice),
        "OptOutSale": letter(usp.sale_opt_out),
        "LspaCovered": letter(usp.covered),
    })
}

/// A section of the United States as the library shows it: where it has no segment for Global Privacy Control, the
/// library of some states shows one that says no.
fn us(id: u16, text_of_it: &str, expected: &Value) -> Value {
    let us = Us::parse(id, text_of_it).unwrap();
    let mut shown = json!({ "Version": us.version });
    let object = shown.as_object_mut().unwrap();
    for field in us.fields() {
        let values = us.get(field);
        // Of the longer layout under the first version the library shows what the shorter one has.
        let shown = match field {
            Field::SensitiveDataProcessing if id == 7 && us.version == 1 => &values[..12],
            Field::KnownChildSensitiveDataConsents if id == 7 && us.version == 1 => &values[..2],
            _ => values,
        };
        let value = if let [one] = shown { json!(one) } else { json!(shown) };
        object.insert(format!("{field:?}"), value);
    }
    if expected.get("GpcSegmentType").is_some() {
        object.insert("GpcSegmentType".to_owned(), json!(1));
        object.insert("Gpc".to_owned(), json!(us.gpc.unwrap_or(false)));
    } else if let Some(gpc) = us.gpc {
        object.insert("Gpc".to_owned(), json!(gpc));
    }
    shown
}

#[test]
fn sections_of_gpp_decode_as_iabgpp_decodes_them() {
    let names = [
        (2, "tcfeuv2"),
        (5, "tcfcav1"),
        (6, "uspv1"),
        (7, "usnat"),
        (8, "usca"),
        (9, "usva"),
        (10, "usco"),
        (11, "usut"),
        (12, "usct"),
        (13, "usfl"),
        (14, "usmt"),
        (15, "usor"),
        (16, "ustx"),
        (17, "usde"),
        (18, "usia"),
        (19, "usne"),
        (20, "usnh"),
        (21, "usnj"),
        (22, "ustn"),
        (23, "usmn"),
    ];
    let mut seen = Vec::new();
    for row in rows(GPP).chain(rows(MADE)) {
        let gpp = Gpp::parse(row[0]).unwrap_or_else(|why| panic!("{}: {why}", row[0]));
        if row[2].starts_with("DECODE_ERROR") {
            // The library reads no section where one is wrong. That one is no string of its kind here either.
            assert_eq!(gpp.ids().collect::<Vec<_>>(), [2, 6]);
            assert_eq!(Usp::parse(gpp.section(6).unwrap()), Err(Unreadable::CutShort));
            continue;
        }
        assert_eq!(joined(gpp.ids()), row[2], "{}", row[0]);
        let expected: Value = serde_json::from_str(row[3]).unwrap();
        let expected = expected.as_object().unwrap();
        assert_eq!(expected.len(), gpp.ids().count());
        for id in gpp.ids() {
            let name = names.iter().find(|(known, _)| *known == id).unwrap().1;
            let section = gpp.section(id).unwrap();
            let shown = match id {
                2 => eu(section),
                5 => canada(section),
                6 => usp(section),
                _ => us(id, section, &expected[name]),
            };
            assert_eq!(shown, expected[name], "{name} of {}", row[0]);
            seen.push(id);
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, names.map(|(id, _)| id));
}
