//! A stretch of the journal as files of its own, while the last segment grows.
//!
//! Bytes are copied, never linked: a start with `--salvage` writes over damage in place, and the copy is
//! what that damage would be restored from.

use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::store::Watch;
use crate::store::embedded::JOURNAL;
use crate::store::embedded::sync_dir;
use crate::store::journal::CopiedJournal;
use crate::store::journal::Damage;
use crate::store::journal::JournalError;
use crate::store::journal::Position;

use super::Shared;
use super::recover;
use super::segment::FILE_HEADER;
use super::segment::Segment;

/// What is copied between two looks at the watch.
const PIECE: u64 = 4 << 20;

impl Shared {
    /// Copies the segments that hold `from..to`, the last one cut at `to`, and reads the copy.
    pub(super) fn copy_to(
        &self,
        dir: &Path,
        from: u64,
        to: u64,
        watch: Watch<'_>,
    ) -> Result<CopiedJournal, JournalError> {
        let dir = dir.join(JOURNAL);
        std::fs::create_dir(&dir).map_err(|error| failed("create", &dir, error))?;
        let mut copies = Vec::new();
        for (segment, end) in self.holding(from, to)? {
            let path = dir.join(segment.path.file_name().unwrap_or_default());
            let length = FILE_HEADER + end - segment.start;
            copy(&segment.path, &path, length, &mut *watch)?;
            copies.push(Segment::open(
                &path,
                segment.start,
                #[cfg(test)]
                self.faults.clone(),
            )?);
        }
        sync_dir(&dir).map_err(|error| failed("sync", &dir, error))?;
        // What has rotted is told now, by its own name, and not when the copy is needed.
        let scan = recover::scan(&copies, to)?;
        let own = |damage: Damage| {
            let name = damage.file.file_name().unwrap_or_default();
            Damage { file: self.dir.join(name), ..damage }
        };
        let damages: Vec<Damage> =
            scan.damages.into_iter().map(|(_, damage, _)| own(damage)).collect();
        if !damages.is_empty() || scan.end != to {
            return Err(JournalError::Damaged(damages));
        }
        Ok(CopiedJournal { next_record: scan.next_record })
    }

    /// The segments that hold a range, each with the end of what is wanted of it.
    fn holding(&self, from: u64, to: u64) -> Result<Vec<(Arc<Segment>, u64)>, JournalError> {
        let segments = self.segments.read();
        let after = segments.partition_point(|segment| segment.start <= from);
        let Some(first) = after.checked_sub(1) else {
            let begin = segments.first().map_or(0, |first| first.start);
            let (from, begin, end) = (Position(from), Position(begin), Position(to));
            return Err(JournalError::OutOfRange { from, begin, end });
        };
        let ends = segments.iter().skip(1).map(|next| next.start).chain([u64::MAX]);
        let held = segments.iter().zip(ends).skip(first);
        let held = held.take_while(|(segment, _)| segment.start <= from || segment.start < to);
        Ok(held.map(|(segment, end)| (segment.clone(), end.min(to))).collect())
    }
}

fn copy(from: &Path, to: &Path, length: u64, watch: Watch<'_>) -> Result<(), JournalError> {
    let mut source = File::open(from).map_err(|error| failed("open", from, error))?;
    let made = OpenOptions::new().write(true).create_new(true).open(to);
    let mut target = made.map_err(|error| failed("create", to, error))?;
    let mut left = length;
    while left > 0 {
        let mut piece = (&mut source).take(left.min(PIECE));
        let copied =
            io::copy(&mut piece, &mut target).map_err(|error| failed("write", to, error))?;
        if copied == 0 {
            return Err(failed("read", from, io::ErrorKind::UnexpectedEof.into()));
        }
        left -= copied;
        watch(copied).map_err(|error| failed("copy", from, error))?;
    }
    target.sync_all().map_err(|error| failed("sync", to, error))
}

/// Unlike [`super::segment::failed`], a full disk is that of the copy, and the journal goes on.
fn failed(action: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Unavailable { action, path: path.to_owned(), source }
}
