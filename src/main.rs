//! The `throng` program.

// Pins are made by one thread and end on another, many times a second; the system's allocator spends a fifth of all
// processor time on what that leaves behind.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    throng::cli::main()
}
