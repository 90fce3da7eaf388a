mod errors;
mod formatting;
mod reading;
mod segment_files;
mod trees;
