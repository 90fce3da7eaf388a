//! Who may go to a destination at the moment of sending, whatever the rule says: each term is a bitmap of whom it keeps
//! out, and what any of them takes away is removed, through every guard, pause and minimum.

use roaring::RoaringBitmap;

use super::audience::NoAudience;
use super::report::KeptOut;
use super::run::Halt;
use super::shared::Shared;
use crate::config::Destination;
use crate::segment::Group;

/// A term, in the order in which they are told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    OptedOut,
    /// Their consent does not reach as far as the destination.
    Unconsented,
    Bot,
    /// They are in a segment that the destination is kept from.
    Suppressed(String),
    /// They are not in the segment of those who were seen lately.
    Stale(String),
}

/// Whom terms keep out of a destination.
#[derive(Debug, Default)]
pub(super) struct Eligibility {
    terms: Vec<(Term, Vec<RoaringBitmap>)>,
    /// A segment that a term follows from and that has no audience: who may be added is not known.
    pub(super) unknown: Option<(String, NoAudience)>,
}

impl Term {
    fn why(&self) -> String {
        match self {
            Self::OptedOut => "opted out".to_owned(),
            Self::Unconsented => "no consent for the destination".to_owned(),
            Self::Bot => "a bot".to_owned(),
            Self::Suppressed(segment) => format!("suppressed: in {segment}"),
            Self::Stale(segment) => format!("stale: not in {segment}"),
        }
    }
}

impl Eligibility {
    /// Whom the terms of a destination keep out as of now.
    pub(super) fn of(shared: &Shared, destination: &Destination) -> Result<Self, Halt> {
        let audiences = &shared.audiences;
        let unconsented = Group::Unconsented(destination.tcf_vendor);
        let mut terms = vec![
            (Term::OptedOut, audiences.group(&Group::OptedOut)?),
            (Term::Unconsented, audiences.group(&unconsented)?),
            (Term::Bot, audiences.group(&Group::Bots)?),
        ];
        let mut unknown = None;
        for segment in &destination.suppress {
            match audiences.audience(segment) {
                Ok(audience) => terms.push((Term::Suppressed(segment.clone()), audience.members)),
                Err(why) => unknown = Some((segment.clone(), why)),
            }
        }
        if let Some(segment) = &destination.fresh {
            match audiences.audience(segment) {
                Ok(fresh) => {
                    let mut stale = audiences.group(&Group::Everyone)?;
                    stale.iter_mut().zip(&fresh.members).for_each(|(all, fresh)| *all -= fresh);
                    terms.push((Term::Stale(segment.clone()), stale));
                }
                Err(why) => unknown = Some((segment.clone(), why)),
            }
        }
        Ok(Self { terms, unknown })
    }

    /// All who are kept out, by shard.
    pub(super) fn out(&self) -> Vec<RoaringBitmap> {
        let mut out: Vec<RoaringBitmap> = Vec::new();
        for (_, kept_out) in &self.terms {
            out.resize(out.len().max(kept_out.len()), RoaringBitmap::new());
            out.iter_mut().zip(kept_out).for_each(|(out, kept_out)| *out |= kept_out);
        }
        out
    }

    /// Takes those who are kept out from profiles; tells how many for which reason, the first of theirs.
    pub(super) fn sift(&self, profiles: &mut [RoaringBitmap]) -> Vec<KeptOut> {
        let mut told = Vec::new();
        for (term, kept_out) in &self.terms {
            let mut count = 0;
            for (profiles, kept_out) in profiles.iter_mut().zip(kept_out) {
                count += profiles.intersection_len(kept_out);
                *profiles -= kept_out;
            }
            if count > 0 {
                let is_stale = matches!(term, Term::Stale(_));
                told.push(KeptOut { why: term.why(), profiles: count, is_stale });
            }
        }
        told
    }
}
