//! The kill test in short, in both modes of durability; `make soak` runs it long.

use loadtest::kill::{Plan, run};
use loadtest::random::Random;
use std::path::{Path, PathBuf};

/// The server's binary, which a test of the whole workspace builds beside this test.
fn throng() -> PathBuf {
    let tests = std::env::current_exe().expect("the system knows it");
    let binary = tests.ancestors().nth(2).expect("it is in target").join("throng");
    assert!(binary.is_file(), "{} is missing: cargo build, or test --workspace", binary.display());
    binary
}

fn kill(durability: &str) {
    let plan = Plan {
        throng: throng(),
        directory: Path::new(env!("CARGO_TARGET_TMPDIR")).to_path_buf(),
        rounds: 6,
        check_every: 3,
        answers: 600,
        clients: 4,
        settings: vec![format!("journal.durability={durability}")],
        seed: Random::seed(),
    };
    let report = run(&plan, &mut |_| {}).unwrap_or_else(|error| panic!("{error:?}"));
    assert!(report.answered > 100, "{report:?}");
}

#[test]
fn what_was_answered_is_counted_once_after_kills() {
    kill("disk");
}

#[test]
fn what_was_written_is_counted_once_after_kills() {
    kill("disk-buffered");
}
