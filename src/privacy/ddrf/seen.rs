//! Which requests were taken: remembered on the shelf for as long as a request is good, a day in a chunk or some.

use super::GOOD_FOR;
use crate::model::Millis;
use crate::model::time::Day;
use crate::model::time::day_of;
use crate::store::StoreError;
use crate::store::shelf::MAX_VALUE;
use crate::store::shelf::Shelf;

/// What the names of chunks begin with; the day and the number follow.
const CHUNKS: &str = "jti/";
/// So many chunks of a day: a quarter of a million requests.
const MOST_CHUNKS: u32 = 8;
/// The bytes of a mark.
const LENGTH: usize = 32;

/// A request: the hash of who asks under which id, and the beginning of the hash of all that it says.
#[derive(Clone, Copy)]
pub(super) struct Mark([u8; LENGTH]);

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// It was taken.
    Same,
    /// Another was, under its id.
    Other,
}

impl Mark {
    pub(super) fn new(name: [u64; 2], digest: &[u8; 32]) -> Self {
        let mut mark = [0; LENGTH];
        mark[..8].copy_from_slice(&name[0].to_le_bytes());
        mark[8..16].copy_from_slice(&name[1].to_le_bytes());
        mark[16..].copy_from_slice(&digest[..16]);
        Self(mark)
    }
}

fn name(day: Day, number: u32) -> String {
    format!("{CHUNKS}{day:06}/{number}")
}

/// The days that may have a request which is still good.
fn days(now: Millis) -> std::ops::RangeInclusive<Day> {
    let today = day_of(now);
    today - GOOD_FOR / 86_400 - 1..=today + 1
}

/// Looks for a request among those that were taken.
pub(super) fn find(shelf: &dyn Shelf, mark: Mark, now: Millis) -> Result<Found, StoreError> {
    for day in days(now) {
        for number in 0..MOST_CHUNKS {
            let Some(bytes) = shelf.get(&name(day, number))? else { break };
            let known = bytes.chunks_exact(LENGTH).find(|known| known[..16] == mark.0[..16]);
            if let Some(known) = known {
                return Ok(if known == mark.0 { Found::Same } else { Found::Other });
            }
        }
    }
    Ok(Found::Nothing)
}

/// Remembers a request that was taken, and forgets those that are good no more.
pub(super) fn keep(shelf: &dyn Shelf, mark: Mark, now: Millis) -> Result<(), StoreError> {
    let mut number = 0;
    while number < MOST_CHUNKS {
        let name = name(day_of(now), number);
        let stands = shelf.get(&name)?;
        let mut bytes = stands.clone().unwrap_or_default();
        if bytes.len() + LENGTH > MAX_VALUE / 4 {
            number += 1;
            continue;
        }
        bytes.extend(mark.0);
        if shelf.swap(&name, stands.as_deref(), Some(&bytes))? {
            if stands.is_none() {
                sweep(shelf, now)?;
            }
            return Ok(());
        }
    }
    Err(StoreError::Refused {
        what: "a deletion request".to_owned(),
        hint: "too many came today; the requester sends it again tomorrow".to_owned(),
    })
}

fn sweep(shelf: &dyn Shelf, now: Millis) -> Result<(), StoreError> {
    let oldest = name(*days(now).start(), 0);
    for old in shelf.names(CHUNKS)?.into_iter().filter(|name| *name < oldest) {
        if let Some(bytes) = shelf.get(&old)? {
            shelf.swap(&old, Some(&bytes), None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::DAY;
    use crate::store::embedded;

    #[test]
    fn a_request_is_known_as_long_as_it_is_good_and_no_longer() {
        let data = tempfile::tempdir().unwrap();
        let shelf = embedded::Shelf::privacy(data.path()).unwrap();
        let now = 20_000 * DAY;
        let mark = Mark::new([1, 2], &[7; 32]);
        let find = |mark, now| find(&shelf, mark, now).unwrap();
        assert_eq!(find(mark, now), Found::Nothing);
        keep(&shelf, mark, now).unwrap();
        assert_eq!(find(mark, now), Found::Same);
        assert_eq!(find(Mark::new([1, 2], &[8; 32]), now + 7 * DAY), Found::Other);
        assert_eq!(find(Mark::new([1, 3], &[7; 32]), now), Found::Nothing);
        keep(&shelf, Mark::new([5, 5], &[5; 32]), now + 9 * DAY).unwrap();
        assert_eq!(shelf.names("").unwrap().len(), 1);
    }
}
