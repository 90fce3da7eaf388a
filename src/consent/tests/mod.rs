use super::*;

mod encode;
mod golden;
mod hostile;
mod property;
mod terms;
