//! Columns: what the events of a block say to each trait, kept so that windows are cut exactly.
