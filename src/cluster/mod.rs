//! Many processes on one store: who is there, which of them holds which lanes, which leads, and T over all of them.

mod heir;
pub mod horizon;
mod keeper;
mod member;

pub use heir::Inheriting;
pub use heir::inherit;
pub use keeper::House;
pub use keeper::Keeper;
pub use keeper::LEASE;
pub use keeper::Share;
pub use member::Beating;
pub use member::Behind;
pub use member::Me;
pub use member::Member;
pub use member::Pace;
pub use member::Parts;
pub use member::Told;
