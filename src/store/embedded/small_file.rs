//! Small files that are there whole or not at all: a secret, a list of tokens, the copy of a segment.

use std::fs;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

use super::sync_dir;

/// Writes a file durably in place of what was there: aside (`<name>.new`), synced, renamed, and the
/// directory synced. After a crash there is the old file or the new one.
///
/// `mode` is that of a file that is made, such as `0o600`.
pub fn write_small_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (aside, file) = write_aside(path, bytes, mode)?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    sync_dir(folder_of(path))
}

/// Writes files of one folder as [`write_small_file`] writes each, with two syncs for all of them. After an error
/// each is the old or the new one.
pub fn write_small_files(folder: &Path, files: &[(String, &[u8])], mode: u32) -> io::Result<()> {
    let mut written = Vec::with_capacity(files.len());
    for (name, bytes) in files {
        let path = folder.join(name);
        let (aside, _) = write_aside(&path, bytes, mode)?;
        written.push((aside, path));
    }
    rustix::fs::syncfs(fs::File::open(folder)?)?;
    written.iter().try_for_each(|(aside, path)| fs::rename(aside, path))?;
    sync_dir(folder)
}

fn write_aside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<(PathBuf, fs::File)> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let aside = path.with_file_name(name);
    // One that a crash left may have been made with another mode.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
    file.write_all(bytes)?;
    Ok((aside, file))
}

/// Removes a file durably; returns whether there was one.
pub fn remove_small_file(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir(folder_of(path)).map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn many_files_are_replaced_together() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "old").unwrap();
        fs::write(dir.path().join("b.new"), "half of something longer").unwrap();
        let files = [("a".to_owned(), &b"one"[..]), ("b".to_owned(), &b"two"[..])];
        write_small_files(dir.path(), &files, 0o644).unwrap();
        for (name, text) in files {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), text);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_is_replaced_whole_with_the_mode_that_was_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        // What a crash left, readable by all.
        fs::write(dir.path().join("secret.new"), "half of something longer").unwrap();
        write_small_file(&path, b"one", 0o600).unwrap();
        write_small_file(&path, b"two", 0o600).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(remove_small_file(&path).unwrap());
        assert!(!remove_small_file(&path).unwrap());
    }
}
