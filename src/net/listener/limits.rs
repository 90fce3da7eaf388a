//! How many files and sockets the process may have open.

use rustix::process::Resource;
use rustix::process::getrlimit;
use rustix::process::setrlimit;

/// Raises the limit of open files to as many as the system lets this process have, and returns it; `None` is no limit.
///
/// The usual one of 1,024 is for programs that wait with `select`. A store that finds no room for its files because
/// strangers hold sockets would have to refuse events.
pub fn files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            limit.current = limit.maximum;
        }
    }
    limit.current
}
