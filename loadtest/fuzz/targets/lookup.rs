#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| throng::fuzz::run("lookup", bytes));
