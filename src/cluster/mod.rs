//! Many processes on one store: which of them holds which lanes.

mod keeper;

pub use keeper::House;
pub use keeper::Keeper;
pub use keeper::LEASE;
pub use keeper::Share;
