//! Message ids that events of other lanes may have: claimed before anything is counted.

use super::fold::Item;
use super::fold::Step;
use crate::store::StoreError;
use crate::store::claims::Claim;
use crate::store::claims::Claimant;
use crate::store::claims::Claims;

/// Claims the message ids of a frame's events; where another event has one, it counts as seen before.
pub(super) fn claim(claims: &dyn Claims, lane: u16, steps: &mut [Step]) -> Result<(), StoreError> {
    // Those of an import first: what it has brought before claims nothing more.
    of_set(claims, lane, steps, |item| item.imported.as_mut(), false)?;
    of_set(claims, lane, steps, |item| item.recent.as_mut(), true)
}

type Hashed = ([u64; 2], bool);

fn of_set(
    claims: &dyn Claims,
    lane: u16,
    steps: &mut [Step],
    hashed: impl Fn(&mut Item) -> Option<&mut Hashed>,
    passes: bool,
) -> Result<(), StoreError> {
    let mut asked = Vec::new();
    let mut places = Vec::new();
    for (place, step) in steps.iter_mut().enumerate() {
        let Step::Event(item) = step else { continue };
        let event = Claimant { lane, event: item.no };
        let received = item.event.received;
        let is_seen = passes && item.imported.is_some_and(|(_, is_seen)| is_seen);
        if let Some((hash, _)) = hashed(item).filter(|_| !is_seen) {
            asked.push(Claim { hash: *hash, passes, received, event });
            places.push(place);
        }
    }
    if asked.is_empty() {
        return Ok(());
    }
    let whose = claims.claim(&asked)?;
    for ((place, claim), whose) in places.into_iter().zip(&asked).zip(whose) {
        if let Step::Event(item) = &mut steps[place]
            && let Some((_, is_seen)) = hashed(item)
        {
            *is_seen = whose != claim.event;
        }
    }
    Ok(())
}
