//! What the process meets at its edges: the clock, its threads, and later outgoing HTTP and secrets.

pub mod clock;
pub mod workers;

pub use clock::{Clock, SystemClock};
pub use workers::Workers;
