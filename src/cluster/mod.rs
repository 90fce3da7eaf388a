//! Many processes on one store: who is there, which of them holds which lanes, which leads, and T over all of them.

pub mod horizon;
mod keeper;

pub use keeper::House;
pub use keeper::Keeper;
pub use keeper::LEASE;
pub use keeper::Share;
