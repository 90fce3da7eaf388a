//! Who may write a lane.

use crate::store::StoreError;

/// One acquisition of a lane.
///
/// The epoch counts them. The token is what is compared: after a failover that lost an acquisition its epoch
/// is given once more, and two owners would pass for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Lease {
    pub(super) epoch: u64,
    pub(super) token: u32,
}

impl Lease {
    /// The token as it is written.
    pub(super) fn token_text(self) -> String {
        format!("{:08x}", self.token)
    }

    /// A token that no other acquisition has.
    pub(super) fn new_token() -> Result<u32, StoreError> {
        getrandom::u32().map_err(|error| StoreError::Unavailable {
            what: "the system's random numbers".to_owned(),
            source: Box::new(error),
        })
    }
}
