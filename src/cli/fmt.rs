//! `throng fmt`: prints the rules of segment files the one canonical way, and changes nothing else.

use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::rules::Diagnostic;
use crate::rules::SegmentFile;
use crate::rules::has_errors;
use crate::rules::render;
use crate::rules::to_json;

use super::Failure;
use super::Global;
use super::files;
use super::output;

/// Arguments of `throng fmt`.
#[derive(Debug, Args)]
pub(super) struct Fmt {
    /// Segment files, or folders of them
    #[arg(value_name = "PATH", default_value = "segments")]
    paths: Vec<PathBuf>,
    /// Writes nothing; exit 1 where a file would change
    #[arg(long)]
    check: bool,
}

/// What became of one file.
struct Formatted {
    path: PathBuf,
    text: String,
    diagnostics: Vec<Diagnostic>,
    /// The canonical text, where the file's is another.
    canonical: Option<String>,
}

/// Formats the files. Those with errors are left as they are, and told.
pub(super) fn run(global: &Global, command: &Fmt) -> Result<ExitCode, Failure> {
    let files = formatted(&command.paths)?;
    let changed: Vec<&Formatted> = files.iter().filter(|file| file.canonical.is_some()).collect();
    if !command.check {
        for file in &changed {
            let text = file.canonical.as_deref().unwrap_or(&file.text);
            replace(&file.path, text).map_err(|error| {
                Failure::OutOfReach(format!("{}: cannot be written: {error}", file.path.display()))
            })?;
        }
    }
    let names: Vec<String> = changed.iter().map(|file| file.path.display().to_string()).collect();
    let told =
        |file: &Formatted| to_json(&file.path.display().to_string(), &file.text, &file.diagnostics);
    if global.json {
        let diagnostics: Vec<_> = files.iter().flat_map(told).collect();
        let json = serde_json::json!({ "changed": names, "diagnostics": diagnostics });
        output::print(&json.to_string())?;
    } else {
        for file in &files {
            let name = file.path.display().to_string();
            eprint!("{}", render(&name, &file.text, &file.diagnostics));
        }
        if !names.is_empty() {
            output::print(&names.join("\n"))?;
        }
    }
    let is_wrong = files.iter().any(|file| has_errors(&file.diagnostics));
    let failed = is_wrong || command.check && !changed.is_empty();
    Ok(if failed { ExitCode::from(output::NO) } else { ExitCode::SUCCESS })
}

fn formatted(paths: &[PathBuf]) -> Result<Vec<Formatted>, Failure> {
    let format = |path: PathBuf| match files::read(&path) {
        Ok(text) => {
            let id = path.file_stem().unwrap_or_default().to_string_lossy();
            let (canonical, diagnostics) = SegmentFile::format(&id, &text);
            let canonical = Some(canonical).filter(|canonical| *canonical != text);
            Formatted { path, text, diagnostics, canonical }
        }
        Err(error) => {
            let diagnostics = vec![Diagnostic::error("unreadable", None, error)];
            Formatted { path, text: String::new(), diagnostics, canonical: None }
        }
    };
    Ok(files::find(paths)?.into_iter().map(format).collect())
}

/// Puts a text in a file's place in one step: a server that watches the folder never sees half of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = path.canonicalize()?;
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    let aside = path.with_file_name(name);
    let written = std::fs::write(&aside, text)
        .and_then(|()| std::fs::set_permissions(&aside, std::fs::metadata(&path)?.permissions()))
        .and_then(|()| std::fs::rename(&aside, &path));
    if written.is_err() {
        let _ = std::fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_files_are_left_and_the_others_printed() {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("a.toml", "rule = '(did x)'\n");
        write("b.toml", "rule = 'did x and'\n");
        write("c.toml", "rule = '''\ndid x\n'''\n");
        let files = formatted(&[folder.path().to_owned()]).unwrap();
        let canonical: Vec<_> = files.iter().map(|file| file.canonical.as_deref()).collect();
        assert_eq!(canonical, [Some("rule = '''\ndid x\n'''\n"), None, None]);
        assert!(has_errors(&files[1].diagnostics));
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.toml");
        std::fs::write(&path, "old").unwrap();
        replace(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
