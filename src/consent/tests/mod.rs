use super::*;

pub(crate) mod encode;
mod golden;
mod hostile;
mod property;
mod terms;
