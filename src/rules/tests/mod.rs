mod errors;
mod formatting;
mod reading;
mod reference;
mod segment_files;
mod trees;
