//! The `throng` program.

fn main() -> std::process::ExitCode {
    throng::cli::main()
}
