//! What the process meets at its edges: the clock, and later outgoing HTTP and secrets.

pub mod clock;

pub use clock::{Clock, SystemClock};
