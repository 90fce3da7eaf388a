//! The file below redb: a sync that fails, or a write, ends the process.
//!
//! The system may have dropped the pages that it could not write, and reads them back as if it had kept
//! them. So what a failed sync covered is in doubt for good, and so is all that is built on it: nothing is
//! tried again. Only a write that finds no room is an error like others, since the system says so before it
//! takes anything.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::journal::OnFatal;

/// How the bytes of a file are reached; called anew after each error that is no end.
pub(super) type Opener = Box<dyn Fn(&Path) -> io::Result<Box<dyn StorageBackend>> + Send + Sync>;

/// Whether what was written can be relied on, and what happens when it can no longer.
pub(super) struct Trust {
    lost: AtomicBool,
    on_fatal: OnFatal,
}

/// A file whose errors are looked at before redb sees them.
pub(super) struct Watched {
    file: Box<dyn StorageBackend>,
    trust: Arc<Trust>,
}

/// Opens or makes a file in the file system. The lock is that of the data directory.
pub(super) fn on_disk() -> Opener {
    Box::new(|path| {
        let mut options = std::fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(FileBackend::new(file).map_err(io::Error::other)?))
    })
}

/// Logs the error and exits with code 3.
pub(super) fn stop_the_process(path: &Path) -> OnFatal {
    let file = path.display().to_string();
    Arc::new(move |error| {
        tracing::error!(file, %error, "what was written could not be made durable; stopping");
        std::process::exit(3);
    })
}

/// Whether an error says that there is no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::FileTooLarge;
    use io::ErrorKind::QuotaExceeded;
    use io::ErrorKind::StorageFull;
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

impl Trust {
    /// Trust that is lost with a call of `on_fatal`, which should end the process.
    pub(super) fn new(on_fatal: OnFatal) -> Arc<Self> {
        Arc::new(Self { lost: AtomicBool::new(false), on_fatal })
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn lose(&self, error: &io::Error) {
        if !self.lost.swap(true, Ordering::AcqRel) {
            (self.on_fatal)(error);
        }
    }
}

impl Watched {
    pub(super) fn new(file: Box<dyn StorageBackend>, trust: Arc<Trust>) -> Self {
        Self { file, trust }
    }

    fn written(&self, result: io::Result<()>) -> io::Result<()> {
        result.inspect_err(|error| {
            if !is_full(error) {
                self.trust.lose(error);
            }
        })
    }
}

impl StorageBackend for Watched {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written(self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        // Here no room is an end too: what was taken before is dropped.
        self.file.sync_data().inspect_err(|error| self.trust.lose(error))
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written(self.file.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("file", &self.file).finish_non_exhaustive()
    }
}
