//! What a hostile internet gets: the running server, and what it does with what nobody should send.

mod encrypted;
mod flood;
mod mutated;
mod rows;
mod slow;
mod wire;
