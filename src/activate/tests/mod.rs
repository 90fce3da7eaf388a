//! Pushes against a folder that someone reads: what matters is who is held there at the end.

mod changed;
mod crash;
mod drain;
mod eligibility;
mod platform;
mod protocol;
mod rig;
mod schedule;
mod snapshot;
mod turns;
mod verdicts;
mod world;
