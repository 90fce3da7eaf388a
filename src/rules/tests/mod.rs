mod errors;
mod formatting;
mod reading;
mod trees;
