//! May this hit be recorded? Judged from the signals, before any id is made.
//!
//! What strings say is known to `consent`; here it meets the site's regime, the browser's headers and our own
//! opt-out. A string that applies and cannot be read is a refusal, as it would be without one.

use super::query::decode;
use crate::config::ConsentRegime;
use crate::config::Site;
use crate::consent::Refusal;
use crate::consent::Sections;
use crate::consent::Signals;
use crate::consent::Terms;
use crate::consent::is_sale_opt_out;
use crate::model::Consent;
use crate::model::Outcome;

/// What a browser says about consent by its headers and cookies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Browser {
    /// `Sec-GPC: 1`.
    pub(super) gpc: bool,
    /// `DNT: 1`.
    pub(super) dnt: bool,
    /// Our opt-out cookie.
    pub(super) opted_out: bool,
}

/// The signal that decided; the first of these where there are several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    OptOut,
    Gpc,
    UsPrivacy,
    Gdpr,
    Gpp,
    Dnt,
    Silence,
}

impl Signal {
    pub(super) const ALL: [Self; 7] =
        [Self::OptOut, Self::Gpc, Self::UsPrivacy, Self::Gdpr, Self::Gpp, Self::Dnt, Self::Silence];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OptOut => "opt_out",
            Self::Gpc => "gpc",
            Self::UsPrivacy => "us_privacy",
            Self::Gdpr => "gdpr",
            Self::Gpp => "gpp",
            Self::Dnt => "dnt",
            Self::Silence => "silence",
        }
    }

    /// What becomes of a hit that this signal refused.
    pub(super) fn outcome(self) -> Outcome {
        if self == Self::OptOut { Outcome::OptedOut } else { Outcome::RefusedConsent }
    }
}

/// What may be done with a hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Record it, with what the visitor allowed where a signal asked for it.
    Record(Option<Box<Consent>>),
    /// Record it, and mark its profile as opted out of activation.
    RecordMarked,
    /// Record nothing of it: by which signal, and why, where that is a string.
    Refuse(Signal, Option<Refusal>),
}

impl Judgement {
    /// What may be done with a hit of which two things are said: what either refuses is refused.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (refused @ Self::Refuse(..), _) | (_, refused @ Self::Refuse(..)) => refused,
            (Self::RecordMarked, _) | (_, Self::RecordMarked) => Self::RecordMarked,
            (Self::Record(Some(one)), Self::Record(Some(other))) => {
                Self::Record(Some(Box::new(one.and(&other))))
            }
            (Self::Record(one), Self::Record(other)) => Self::Record(one.or(other)),
        }
    }
}

/// Judges a hit of a site. `recipients` are the vendor ids of destinations, ascending.
pub(super) fn judge(
    site: &Site,
    browser: Browser,
    said: &Signals<'_>,
    recipients: &[u16],
) -> Judgement {
    if site.consent == ConsentRegime::None {
        let marked = browser.gpc || browser.opted_out || said.withdrawn;
        return if marked { Judgement::RecordMarked } else { Judgement::Record(None) };
    }
    let refused = [
        (browser.opted_out || said.withdrawn, Signal::OptOut),
        (browser.gpc, Signal::Gpc),
        (said.sale_opt_out, Signal::UsPrivacy),
    ];
    if let Some((_, signal)) = refused.into_iter().find(|(says, _)| *says) {
        return Judgement::Refuse(signal, None);
    }
    let is_dnt = browser.dnt && !site.ignore_dnt;
    let allowed = match allowed(site, said, recipients) {
        Ok(allowed) => allowed,
        // That the site does not say which vendor it is hides nothing that the visitor says.
        Err((_, why)) if !is_visitors(Some(why)) && is_dnt => {
            return Judgement::Refuse(Signal::Dnt, None);
        }
        Err((signal, why)) => return Judgement::Refuse(signal, Some(why)),
    };
    if is_dnt {
        return Judgement::Refuse(Signal::Dnt, None);
    }
    // That somebody did not opt out is no consent.
    if allowed.is_none() && site.consent == ConsentRegime::OptIn {
        return Judgement::Refuse(Signal::Silence, None);
    }
    Judgement::Record(allowed.map(Box::new))
}

/// Whether a refusal is the visitor's. That a site does not say which vendor it is tells nothing of them: nobody is to be
/// opted out for good by a setting that is missing.
pub(super) fn is_visitors(why: Option<Refusal>) -> bool {
    why != Some(Refusal::NoVendor)
}

/// What the strings allow that apply; `None` where none of them asks for consent.
fn allowed(
    site: &Site,
    said: &Signals<'_>,
    recipients: &[u16],
) -> Result<Option<Consent>, (Signal, Refusal)> {
    let terms = Terms { vendor: site.tcf_vendor, recipients };
    let tcf = said.of_tcf(terms).map_err(|why| (Signal::Gdpr, why));
    let gpp = said.of_gpp(terms).map_err(|why| (Signal::Gpp, why));
    // What the visitor says comes first.
    let (tcf, gpp) = match (tcf, gpp) {
        (Err(tcf), Err(gpp)) if !is_visitors(Some(tcf.1)) => return Err(gpp),
        (tcf, gpp) => (tcf?, gpp?),
    };
    Ok(match (tcf, gpp) {
        (Some(tcf), Some(gpp)) => Some(tcf.and(&gpp)),
        (tcf, gpp) => tcf.or(gpp),
    })
}

/// Whether a visitor says now that nobody may be told of it. Whose site it is may not be known: then no vendor's consent is
/// ours.
pub(super) fn says_no(site: Option<&Site>, said: &Signals<'_>) -> bool {
    let terms = Terms { vendor: site.and_then(|site| site.tcf_vendor), recipients: &[] };
    let forbids = |allowed: Result<Option<Consent>, Refusal>| match allowed {
        Ok(allowed) => allowed.is_some_and(|consent| !consent.allows_audiences()),
        Err(_) => true,
    };
    said.sale_opt_out
        || said.withdrawn
        || forbids(said.of_tcf(terms))
        || forbids(said.of_gpp(terms))
}

/// Takes a parameter of a query, still encoded, where it is a signal.
pub(super) fn take_signal<'a>(said: &mut Signals<'a>, key: &str, value: &'a str) {
    match key {
        "gdpr" => {
            said.gdpr = match decode(value).trim() {
                "" => None,
                // A macro that nobody filled in.
                text if text.contains(['$', '{', '[', '%']) => None,
                text => {
                    Some(!["0", "false", "n", "no"].iter().any(|no| text.eq_ignore_ascii_case(no)))
                }
            };
        }
        "gdpr_consent" => said.tcf = decode(value),
        "gpp" => said.gpp = decode(value),
        "gpp_sid" => said.sections = Sections::parse(&decode(value)),
        "us_privacy" => said.sale_opt_out = is_sale_opt_out(&decode(value)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::consent::tests::encode::Eu;
    use crate::consent::tests::encode::gpp;

    const RECIPIENTS: [u16; 2] = [21, 755];

    fn site(consent: ConsentRegime) -> Site {
        Site { consent, tcf_vendor: Some(7), ..Config::default().sites[0].clone() }
    }

    fn judged(consent: ConsentRegime, browser: Browser, said: &Signals<'_>) -> Judgement {
        judge(&site(consent), browser, said, &RECIPIENTS)
    }

    fn consent(purposes: &[u8]) -> Option<Box<Consent>> {
        let purposes = purposes.iter().copied().collect();
        Some(Box::new(Consent { purposes, vendors: vec![755] }))
    }

    fn tcf(eu: &Eu) -> Signals<'static> {
        Signals { gdpr: Some(true), tcf: eu.text().into(), ..Signals::default() }
    }

    fn us(text: &str) -> Signals<'static> {
        let sections = Sections::parse("7");
        Signals { gpp: gpp(&[(7, text)]).into(), sections, ..Signals::default() }
    }

    #[test]
    fn each_regime_takes_each_signal_as_the_contract_says() {
        use Judgement::Record;
        use Judgement::RecordMarked;
        let no = |signal| Judgement::Refuse(signal, None);
        let why = |signal, why| Judgement::Refuse(signal, Some(why));
        let nobody = Browser::default();
        let silent = Signals::default();
        let purposes =
            |purposes: &[u8]| Eu { consents: purposes.iter().copied().collect(), ..Eu::default() };
        let all: Vec<u8> = (1..=11).collect();
        let gdpr = Signals { gdpr: Some(true), ..silent.clone() };
        let not_gdpr = Signals { gdpr: Some(false), tcf: "what".into(), ..silent.clone() };
        let sale = Signals { sale_opt_out: true, ..silent.clone() };
        let withdrawn = Signals { withdrawn: true, ..silent.clone() };
        let gpc = Browser { gpc: true, ..nobody };
        let dnt = Browser { dnt: true, ..nobody };
        let all_of_it = Browser { opted_out: true, gpc: true, dnt: true };
        let missing = why(Signal::Gdpr, Refusal::Missing);
        let storage = why(Signal::Gdpr, Refusal::Storage);
        // What is recorded for other uses than audiences says so.
        let nobody_else = Consent { purposes: [1, 9].into_iter().collect(), vendors: Vec::new() };
        let measured = Record(Some(Box::new(nobody_else)));
        let opted_out = why(Signal::Gpp, Refusal::OptedOut(7));
        let silence = no(Signal::Silence);
        for (browser, said, opt_in, opt_out, none) in [
            (nobody, &silent, silence.clone(), Record(None), Record(None)),
            (gpc, &silent, no(Signal::Gpc), no(Signal::Gpc), RecordMarked),
            (dnt, &silent, no(Signal::Dnt), no(Signal::Dnt), Record(None)),
            (all_of_it, &silent, no(Signal::OptOut), no(Signal::OptOut), RecordMarked),
            (nobody, &sale, no(Signal::UsPrivacy), no(Signal::UsPrivacy), Record(None)),
            (nobody, &withdrawn, no(Signal::OptOut), no(Signal::OptOut), RecordMarked),
            (nobody, &gdpr, missing.clone(), missing, Record(None)),
            (nobody, &not_gdpr, silence.clone(), Record(None), Record(None)),
            (nobody, &tcf(&purposes(&[3, 4])), storage.clone(), storage, Record(None)),
            (nobody, &tcf(&purposes(&[1, 9])), measured.clone(), measured, Record(None)),
            (
                nobody,
                &tcf(&Eu::default()),
                Record(consent(&all)),
                Record(consent(&all)),
                Record(None),
            ),
            (nobody, &us("BVQqAAAAAgA"), silence, Record(None), Record(None)),
            (nobody, &us("BVQVAAAAAgA"), opted_out.clone(), opted_out, Record(None)),
            // A browser that says no is asked before a string that says yes.
            (gpc, &tcf(&Eu::default()), no(Signal::Gpc), no(Signal::Gpc), RecordMarked),
            (dnt, &tcf(&Eu::default()), no(Signal::Dnt), no(Signal::Dnt), Record(None)),
        ] {
            for (regime, expected) in [
                (ConsentRegime::OptIn, opt_in),
                (ConsentRegime::OptOut, opt_out),
                (ConsentRegime::None, none),
            ] {
                assert_eq!(
                    judged(regime, browser, said),
                    expected,
                    "{regime:?} {browser:?} {said:?}"
                );
            }
        }
    }

    #[test]
    fn two_strings_have_to_allow_it_both() {
        let purposes =
            |purposes: &[u8]| Eu { consents: purposes.iter().copied().collect(), ..Eu::default() };
        let both = |tcf: &Eu, gpp_tcf: &Eu| {
            let said = Signals {
                gdpr: Some(true),
                tcf: tcf.text().into(),
                gpp: gpp(&[(2, &gpp_tcf.text()), (6, "1YNN")]).into(),
                sections: Sections::parse("2,6"),
                ..Signals::default()
            };
            judged(ConsentRegime::OptIn, Browser::default(), &said)
        };
        let (more, less) = (purposes(&[1, 3, 4, 9]), purposes(&[1, 3, 4, 10]));
        assert_eq!(both(&more, &less), Judgement::Record(consent(&[1, 3, 4])));
        let none = purposes(&[]);
        let refused = |signal| Judgement::Refuse(signal, Some(Refusal::Storage));
        assert_eq!(both(&none, &more), refused(Signal::Gdpr));
        assert_eq!(both(&more, &none), refused(Signal::Gpp));
    }

    #[test]
    fn a_site_without_a_vendor_id_has_nobodys_consent() {
        let site = Site { tcf_vendor: None, ..site(ConsentRegime::OptIn) };
        let refused = Judgement::Refuse(Signal::Gdpr, Some(Refusal::NoVendor));
        let said = tcf(&Eu::default());
        assert_eq!(judge(&site, Browser::default(), &said, &RECIPIENTS), refused);
        // What the visitor says in another way is a refusal of theirs all the same.
        let browser = Browser { dnt: true, ..Browser::default() };
        let judged = judge(&site, browser, &said, &RECIPIENTS);
        assert_eq!(judged, Judgement::Refuse(Signal::Dnt, None));
        let Signals { gpp, sections, .. } = us("BVQVAAAAAgA");
        let both = Signals { gpp, sections, ..tcf(&Eu::default()) };
        let judged = judge(&site, Browser::default(), &both, &RECIPIENTS);
        assert!(matches!(judged, Judgement::Refuse(Signal::Gpp, Some(Refusal::OptedOut(_)))));
    }

    #[test]
    fn a_site_can_ignore_dnt() {
        let site = Site { ignore_dnt: true, ..site(ConsentRegime::OptOut) };
        let browser = Browser { dnt: true, ..Browser::default() };
        let judged = judge(&site, browser, &Signals::default(), &[]);
        assert_eq!(judged, Judgement::Record(None));
    }

    #[test]
    fn a_server_that_asks_passes_on_what_its_visitor_says() {
        let site = site(ConsentRegime::None);
        let purposes =
            |purposes: &[u8]| Eu { consents: purposes.iter().copied().collect(), ..Eu::default() };
        let sale = Signals { sale_opt_out: true, ..Signals::default() };
        for (said, with_site, without) in [
            (Signals::default(), false, false),
            (sale, true, true),
            (tcf(&Eu::default()), false, true),
            (tcf(&purposes(&[1])), true, true),
            (tcf(&purposes(&[])), true, true),
            (us("BVQqAAAAAgA"), false, false),
            (us("BVQVAAAAAgA"), true, true),
        ] {
            assert_eq!(says_no(Some(&site), &said), with_site, "{said:?}");
            assert_eq!(says_no(None, &said), without, "{said:?}");
        }
    }

    #[test]
    fn signals_are_read_from_a_query() {
        let mut said = Signals::default();
        for (key, value) in [
            ("gdpr", "%31"),
            ("gdpr_consent", "CP%2E"),
            ("gpp", "DBABMA%7Ex"),
            ("gpp_sid", "2%2C6"),
            ("us_privacy", "1YYN"),
            ("unknown", "1"),
        ] {
            take_signal(&mut said, key, value);
        }
        let expected = Signals {
            gdpr: Some(true),
            tcf: "CP.".into(),
            gpp: "DBABMA~x".into(),
            sections: Sections::parse("2,6"),
            sale_opt_out: true,
            withdrawn: false,
        };
        assert_eq!(said, expected);
        // A macro that nobody filled in says nothing; what else is said and not a no is a yes.
        for (value, expected) in [
            ("$%7BGDPR%7D", None),
            ("", None),
            ("0", Some(false)),
            ("False", Some(false)),
            ("true", Some(true)),
            ("Y", Some(true)),
        ] {
            take_signal(&mut said, "gdpr", value);
            assert_eq!(said.gdpr, expected, "{value}");
        }
    }
}
