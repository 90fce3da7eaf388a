//! One server a data directory: an advisory lock that the system gives up with the process.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::OpenOptions;
use std::fs::TryLockError;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

use super::closed::tell_open;

/// Why the data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another server has it.
    #[error("another server ({holder}) has the data directory {}: stop it, or start this one with another `--data`", .dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
        /// `pid N`, or that it is not known.
        holder: String,
    },
    /// The operating system refused.
    #[error("cannot take the data directory {}", .dir.display())]
    Unavailable {
        /// The directory.
        dir: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

/// The lock on a data directory, held until dropped.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Makes the directory where it is missing and takes it, or says who has it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Unavailable { dir: dir.to_owned(), source };
        match dir.is_dir() {
            true => tell_open(dir).map_err(failed)?,
            // It is its owner's alone.
            false => {
                DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
            }
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The holder writes its pid after taking the lock: for a moment there may be none.
                let read = file.read_to_string(&mut pid);
                let holder = match pid.trim().parse::<u32>() {
                    Ok(pid) if read.is_ok() => format!("pid {pid}"),
                    _ => "pid not known".to_owned(),
                };
                return Err(LockError::Held { dir: dir.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        // A full disk must not keep a server from starting: the pid is a courtesy, the lock is what holds.
        let pid = format!("{}\n", std::process::id());
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all(pid.as_bytes())) {
            tracing::warn!(%error, "the pid could not be written to the data directory's lock");
        }
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_second_server_is_told_who_has_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let first = DataLock::take(&data).unwrap();
        let mode = std::fs::metadata(&data).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let error = DataLock::take(&data).unwrap_err().to_string();
        assert!(error.contains(&format!("(pid {})", std::process::id())), "{error}");
        drop(first);
        DataLock::take(&data).unwrap();
    }
}
