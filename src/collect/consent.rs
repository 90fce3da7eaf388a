//! May this hit be recorded? Judged from the signals, before any id is made.
//!
//! TCF and GPP strings are not decoded yet: where one of them applies, nobody can tell what it says, so the
//! hit is refused.

use crate::config::ConsentRegime;
use crate::config::Site;
use crate::ingest::canonical::Consent;
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Record it.
    Record,
    /// Record it, and mark its profile as opted out of activation.
    RecordMarked,
    /// Record nothing of it.
    Refuse(Signal),
}

/// Judges a hit of a site.
pub(super) fn judge(site: &Site, browser: Browser, said: Consent) -> Judgement {
    if site.consent == ConsentRegime::None {
        let marked = browser.gpc || browser.opted_out;
        return if marked { Judgement::RecordMarked } else { Judgement::Record };
    }
    let refused = [
        (browser.opted_out, Signal::OptOut),
        (browser.gpc, Signal::Gpc),
        (said.sale_opt_out, Signal::UsPrivacy),
        (said.gdpr, Signal::Gdpr),
        (said.gpp, Signal::Gpp),
        (browser.dnt && !site.ignore_dnt, Signal::Dnt),
        (site.consent == ConsentRegime::OptIn, Signal::Silence),
    ];
    match refused.into_iter().find(|(says, _)| *says) {
        Some((_, signal)) => Judgement::Refuse(signal),
        None => Judgement::Record,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn site(consent: ConsentRegime) -> Site {
        Site { consent, ..Config::default().sites[0].clone() }
    }

    #[test]
    fn each_regime_takes_each_signal_as_the_contract_says() {
        let silent = (Browser::default(), Consent::default());
        let gpc = (Browser { gpc: true, ..silent.0 }, silent.1);
        let dnt = (Browser { dnt: true, ..silent.0 }, silent.1);
        let opted_out = (Browser { opted_out: true, gpc: true, dnt: true }, silent.1);
        let sale = (silent.0, Consent { sale_opt_out: true, ..silent.1 });
        let gdpr = (silent.0, Consent { gdpr: true, ..silent.1 });
        let gpp = (silent.0, Consent { gpp: true, ..silent.1 });
        use Judgement::{Record, RecordMarked, Refuse};
        for (signals, opt_in, opt_out, none) in [
            (silent, Refuse(Signal::Silence), Record, Record),
            (gpc, Refuse(Signal::Gpc), Refuse(Signal::Gpc), RecordMarked),
            (dnt, Refuse(Signal::Dnt), Refuse(Signal::Dnt), Record),
            (opted_out, Refuse(Signal::OptOut), Refuse(Signal::OptOut), RecordMarked),
            (sale, Refuse(Signal::UsPrivacy), Refuse(Signal::UsPrivacy), Record),
            (gdpr, Refuse(Signal::Gdpr), Refuse(Signal::Gdpr), Record),
            (gpp, Refuse(Signal::Gpp), Refuse(Signal::Gpp), Record),
        ] {
            for (regime, expected) in [
                (ConsentRegime::OptIn, opt_in),
                (ConsentRegime::OptOut, opt_out),
                (ConsentRegime::None, none),
            ] {
                let judged = judge(&site(regime), signals.0, signals.1);
                assert_eq!(judged, expected, "{regime:?} {signals:?}");
            }
        }
    }

    #[test]
    fn a_site_can_ignore_dnt() {
        let site = Site { ignore_dnt: true, ..site(ConsentRegime::OptOut) };
        let browser = Browser { dnt: true, ..Browser::default() };
        assert_eq!(judge(&site, browser, Consent::default()), Judgement::Record);
    }
}
