//! `throng check`: are segment files right? Offline, all errors of all files at once.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::read_destinations;
use crate::model::Millis;
use crate::model::NamespaceOrder;
use crate::net::Clock;
use crate::net::SystemClock;
use crate::plan;
use crate::rules::Diagnostic;
use crate::rules::JsonDiagnostic;
use crate::rules::ParsedFile;
use crate::rules::SegmentFile;
use crate::rules::Severity;
use crate::rules::has_errors;
use crate::rules::render;
use crate::rules::render_coloured;
use crate::rules::to_json;

use super::Failure;
use super::Global;
use super::files;
use super::files::Files;
use super::output;
use super::serve;

/// Arguments of `throng check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// Segment files, or folders of them
    #[arg(value_name = "PATH", default_value = "segments")]
    paths: Vec<PathBuf>,
    /// Fails on warnings too
    #[arg(long)]
    strict: bool,
}

/// What the settings say that rules depend on.
struct Settings {
    namespaces: NamespaceOrder,
    retention: Millis,
    /// The instant that windows with dates are held against.
    now: Millis,
    /// The names of the destinations; `None` where there is no file of them, or none that can be read.
    destinations: Option<BTreeSet<String>>,
}

/// The destinations beside the settings. What is wrong with that file `throng doctor` says.
fn destinations(file: &Path) -> Option<BTreeSet<String>> {
    let read = file.is_file().then(|| read_destinations(file).ok())??;
    Some(read.into_iter().map(|destination| destination.name).collect())
}

/// Checks the files. Diagnostics go to standard error, or as a JSON array to standard output.
pub(super) fn run(global: &Global, command: &Check) -> Result<ExitCode, Failure> {
    let config = serve::settings(global)?;
    let settings = Settings {
        namespaces: config.namespace_order(),
        retention: config.events.retention.0,
        now: SystemClock::default().now(),
        destinations: destinations(&serve::destinations(global)),
    };
    let files = checked(&command.paths, &settings)?;
    if global.json {
        let json = serde_json::to_string_pretty(&as_json(&files)).map_err(anyhow::Error::from)?;
        output::print(&json)?;
    } else {
        let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        eprint!("{}", as_text(&files, coloured));
        eprintln!("{}", summary(&files));
    }
    let failed = count(&files, Severity::Error) > 0
        || command.strict && count(&files, Severity::Warning) > 0;
    Ok(if failed { ExitCode::from(output::NO) } else { ExitCode::SUCCESS })
}

/// Reads, parses and checks what the paths mean.
fn checked(paths: &[PathBuf], settings: &Settings) -> Result<Vec<ParsedFile>, Failure> {
    let Files { mut asked, neighbours } = files::load(paths)?;
    let set: Vec<&SegmentFile> =
        asked.iter().map(|file| &file.segment).chain(&neighbours).collect();
    let context = plan::Context {
        namespaces: &settings.namespaces,
        seen: None,
        retention: settings.retention,
        schema: None,
        now: Some(settings.now),
    };
    for (id, diagnostics) in plan::check(&set, &context) {
        // Of two files that make the same segment the later has an error already.
        if let Some(file) = asked.iter_mut().find(|file| file.segment.id == id) {
            file.diagnostics.extend(diagnostics);
        }
    }
    for file in &mut asked {
        if let Some(known) = &settings.destinations {
            let unknown = nowhere(&file.segment, known);
            file.diagnostics.extend(unknown);
        }
        // What is wrong may be what makes a part look useless.
        if has_errors(&file.diagnostics) {
            file.diagnostics.retain(|told| told.severity != Severity::Warning);
        }
        file.diagnostics.sort_by_key(|told| told.span.map(|span| span.start));
    }
    Ok(asked)
}

/// What is told of destinations that the settings do not name. The files may come before the settings: no error.
fn nowhere(segment: &SegmentFile, known: &BTreeSet<String>) -> Vec<Diagnostic> {
    let named = segment.activate.iter().map(|activate| &activate.destination);
    let unknown = named.filter(|name| !known.contains(&*name.text));
    let told = unknown.map(|name| {
        let message = format!("no destination is named `{}`: nothing is sent", name.text);
        let told = Diagnostic::warning("destination", name.span, message);
        told.with_hint("add it to destinations.toml, or take it out of the segment")
    });
    told.collect()
}

fn count(files: &[ParsedFile], severity: Severity) -> usize {
    files.iter().flat_map(|file| &file.diagnostics).filter(|told| told.severity == severity).count()
}

fn as_json(files: &[ParsedFile]) -> Vec<JsonDiagnostic> {
    files.iter().flat_map(|file| to_json(&file.path, &file.text, &file.diagnostics)).collect()
}

fn as_text(files: &[ParsedFile], coloured: bool) -> String {
    let print = if coloured { render_coloured } else { render };
    files.iter().map(|file| print(&file.path, &file.text, &file.diagnostics)).collect()
}

/// "2 errors and 1 warning in 15 files".
fn summary(files: &[ParsedFile]) -> String {
    let of = |number: usize, word: &str| {
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {word}{plural}")
    };
    let (errors, warnings) = (count(files, Severity::Error), count(files, Severity::Warning));
    let said = match (errors, warnings) {
        (0, 0) => "no errors".to_owned(),
        (_, 0) => of(errors, "error"),
        (0, _) => of(warnings, "warning"),
        _ => format!("{} and {}", of(errors, "error"), of(warnings, "warning")),
    };
    format!("{said} in {}", of(files.len(), "file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Millis = crate::model::time::DAY;

    /// Writes files into a new folder.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn check(paths: &[PathBuf]) -> Vec<ParsedFile> {
        let settings = Settings {
            namespaces: NamespaceOrder::default(),
            retention: 90 * DAY,
            now: 20_000 * DAY,
            destinations: None,
        };
        checked(paths, &settings).unwrap()
    }

    fn codes(files: &[ParsedFile]) -> Vec<&'static str> {
        files
            .iter()
            .flat_map(|file| &file.diagnostics)
            .filter(|told| told.severity != Severity::Note)
            .map(|told| told.code)
            .collect()
    }

    #[test]
    fn all_errors_of_all_files_are_told_at_once() {
        let folder = folder(&[
            ("a.toml", "rule = 'did x in 30 days and segment gone'\n"),
            ("b.toml", "rule = 'did x in 91d'\nlevl = 'device'\n"),
            ("c.toml", "rule = 'did x'\n"),
            ("notes.txt", "not a segment"),
            (".hidden.toml", "nor this"),
        ]);
        let files = check(&[folder.path().to_owned()]);
        assert_eq!(files.len(), 3);
        assert_eq!(files[0].diagnostics.iter().filter(|told| told.is_error()).count(), 2);
        assert_eq!(files[1].diagnostics.iter().filter(|told| told.is_error()).count(), 2);
        assert!(!has_errors(&files[2].diagnostics));
        assert_eq!(summary(&files), "4 errors in 3 files");
        let text = as_text(&files, false);
        assert!(text.contains("a.toml:1:18") && text.contains("b.toml:2:1"), "{text}");
        let json = serde_json::to_value(as_json(&files)).unwrap();
        assert!(json.as_array().unwrap().iter().any(|told| told["code"] == "unknown-key"));
    }

    #[test]
    fn a_destination_that_the_settings_do_not_name_is_a_warning() {
        let text = "rule = 'did x'\nlevel = 'device'\n[[activate]]\ndestination = 'crm'\n[[activate]]\ndestination = 'nosuch'\n";
        let folder = folder(&[("a.toml", text)]);
        let file = folder.path().join("destinations.toml");
        let told = |destinations| {
            let settings = Settings {
                namespaces: NamespaceOrder::default(),
                retention: 90 * DAY,
                now: 0,
                destinations,
            };
            let files = checked(&[folder.path().join("a.toml")], &settings).unwrap();
            assert!(!has_errors(&files[0].diagnostics));
            files[0].diagnostics.iter().map(|told| told.message.clone()).collect::<Vec<_>>()
        };
        // Without settings nobody knows.
        assert_eq!(destinations(&file), None);
        assert_eq!(told(None), [""; 0]);
        std::fs::write(&file, "[[destination]]\nname = 'crm'\nkind = 'file'\npath = 'out'\n")
            .unwrap();
        assert_eq!(
            told(destinations(&file)),
            ["no destination is named `nosuch`: nothing is sent"]
        );
    }

    #[test]
    fn a_file_alone_may_name_the_segments_beside_it() {
        let folder = folder(&[
            ("a.toml", "rule = 'segment b'\n"),
            ("b.toml", "rule = 'did x and'\nlevel = 3\n"),
        ]);
        let files = check(&[folder.path().join("a.toml")]);
        assert_eq!(files.len(), 1);
        assert_eq!(codes(&files), Vec::<&str>::new());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_what_is_not_there_a_wrong_use() {
        let folder = folder(&[]);
        std::fs::write(folder.path().join("a.toml"), b"rule = '\xff'").unwrap();
        assert_eq!(codes(&check(&[folder.path().to_owned()])), ["unreadable"]);
        let settings = Settings {
            namespaces: NamespaceOrder::default(),
            retention: 90 * DAY,
            now: 0,
            destinations: None,
        };
        let gone = checked(&[folder.path().join("gone")], &settings);
        assert!(matches!(gone, Err(Failure::Usage(_))));
    }
}
