//! What the process meets at its edges: the clock, its threads, secrets, and the calls to other nodes and to others.

pub mod authorize;
pub mod clock;
pub mod envelope;
pub mod listener;
pub mod oauth;
pub mod outgoing;
mod peer_secret;
pub mod peers;
pub mod secret;
pub mod workers;

pub use authorize::{Authorization, Heard, InstalledApp};
pub use clock::{Clock, SystemClock};
pub use envelope::MasterKey;
pub use oauth::{AccessTokens, Grant, OauthError};
pub use outgoing::{
    Answered, Limit, OffLimits, Outgoing, OutgoingError, OutgoingRequest, Pace, is_reachable,
};
pub use peer_secret::{BadSecret, PeerSecret};
pub use peers::{Call, Limits, PeerError, Peers};
pub use secret::{read_secret, use_master_key};
pub use workers::Workers;
