//! What the process meets at its edges: the clock, its threads, and the calls to other nodes.

pub mod clock;
mod peer_secret;
pub mod peers;
pub mod workers;

pub use clock::{Clock, SystemClock};
pub use peer_secret::{BadSecret, PeerSecret};
pub use peers::{Call, Limits, PeerError, Peers};
pub use workers::Workers;
