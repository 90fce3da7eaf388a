//! Holds the lines of the tree: layers, owners of crates, and the length of files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The layers, from the ground up: a module names only those before it.
const LAYERS: [&str; 19] = [
    "model", "consent", "bitmap", "rules", "plan", "config", "metrics", "net", "store", "archive",
    "backup", "ingest", "cluster", "segment", "activate", "privacy", "collect", "console",
    "transfer",
];
/// Above the layers: these may name all.
const ABOVE: [&str; 6] = ["lib", "main", "app", "cli", "fuzz", "tests"];
/// Crates that only their owner names, so that one place knows their habits.
const OWNERS: [(&str, &[&str]); 8] = [
    ("redb", &["store"]),
    ("redis", &["store"]),
    ("actix_web", &["collect", "console", "app", "net"]),
    ("actix_http", &["net"]),
    ("actix_server", &["net"]),
    ("prometheus", &["metrics"]),
    ("parquet", &["archive"]),
    ("ureq", &["cli", "net"]),
];
/// Pure modules: time is an argument, and nothing is read, written or logged.
const PURE: [&str; 5] = ["model", "consent", "bitmap", "rules", "plan"];
/// What a pure module does not name. `plan` evaluates on several threads, which all end before it answers.
const IMPURE: [&str; 16] = [
    "tokio::",
    "tracing::",
    "async fn",
    "std::fs",
    "std::io",
    "std::net",
    "std::env",
    "std::process",
    "std::time",
    "Instant",
    "SystemTime",
    "thread::spawn",
    "thread::Builder",
    "thread::sleep",
    "getrandom",
    "println!",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file of `src`, with its module of the first level.
fn sources() -> Vec<(PathBuf, String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let relative = path.strip_prefix(root().join("src")).unwrap().to_path_buf();
                let first = relative.components().next().unwrap();
                let module = Path::new(&first).file_stem().unwrap().to_str().unwrap().to_owned();
                let text = fs::read_to_string(&path).unwrap();
                found.push((relative, module, text));
            }
        }
    }
    found
}

fn is_test(path: &Path) -> bool {
    path.starts_with("tests")
        || path.file_stem().is_some_and(|s| s == "tests" || s == "oracle" || s == "conformance")
        || path.components().any(|c| c.as_os_str() == "tests" || c.as_os_str() == "oracle")
}

/// The text without comments and without inline modules under `#[cfg(test)]`, which end at the next line that
/// is as far to the left as they are.
fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        let opens = |next: &&str| {
            let next = next.trim_start();
            next.contains("mod ") && next.ends_with('{')
        };
        if line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(opens) {
            let end = format!("{indent}}}");
            lines.by_ref().find(|line| *line == end);
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[test]
fn what_stands_after_a_test_module_is_code_too() {
    let text = "//! Doc.\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\n\nfn c() {}\n\
                #[cfg(test)]\nmod elsewhere;\n#[cfg(test)]\npub(crate) mod more {\n}\nfn d() {}\n";
    let code = code(text);
    for kept in ["fn a()", "fn c()", "fn d()", "mod elsewhere;"] {
        assert!(code.contains(kept), "{code}");
    }
    assert!(!code.contains("fn b()") && !code.contains("Doc"), "{code}");
}

#[test]
fn a_module_names_only_modules_below_it() {
    let mut wrong = Vec::new();
    for (path, module, text) in sources() {
        if ABOVE.contains(&module.as_str()) || is_test(&path) {
            continue;
        }
        let Some(level) = LAYERS.iter().position(|l| *l == module) else {
            wrong.push(format!("{}: {module} is not in the list of layers", path.display()));
            continue;
        };
        let text = code(&text);
        for (at, _) in text.match_indices("crate::") {
            let named = &text[at + 7..];
            let end = named.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(0);
            let named = &named[..end];
            let fits = LAYERS.iter().position(|l| *l == named).is_some_and(|l| l <= level)
                && !(module == "console" && named == "collect");
            if !fits {
                let line = text[..at].lines().last().unwrap_or_default();
                wrong.push(format!("{}: names crate::{named} ({})", path.display(), line.trim()));
            }
        }
        if text.contains("super::super::") {
            wrong.push(format!("{}: super::super:: goes around the layers", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_crate_is_named_by_its_owner_alone() {
    let mut wrong = Vec::new();
    for (path, module, text) in sources() {
        if is_test(&path) {
            continue;
        }
        // Our own module of that name is another thing.
        let text = code(&text).replace("store::redis::", "");
        for (name, owners) in OWNERS {
            if text.contains(&format!("{name}::")) && !owners.contains(&module.as_str()) {
                wrong.push(format!("{}: names {name}", path.display()));
            }
        }
        if PURE.contains(&module.as_str()) {
            for word in IMPURE {
                if text.contains(word) {
                    wrong.push(format!("{}: {word} in a pure module", path.display()));
                }
            }
        }
        if !matches!(module.as_str(), "cli" | "main") {
            for word in ["println!(", "print!(", "eprintln!("] {
                if text.contains(word) {
                    wrong.push(format!("{}: {word} outside cli", path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is_and_stays_small() {
    let mut wrong = Vec::new();
    for (path, _, text) in sources() {
        let is_inner_test = is_test(&path) && !path.starts_with("tests");
        if !text.starts_with("//!") && !is_inner_test {
            wrong.push(format!("{}: has no `//!`", path.display()));
        }
        let lines = code(&text).lines().count();
        if lines > 700 && !is_test(&path) {
            wrong.push(format!("{}: {lines} lines of code; find the seam", path.display()));
        }
        for (number, line) in text.lines().enumerate() {
            let todo =
                line.contains("TODO") && !line.contains("TODO(#") && !path.ends_with("tidy.rs");
            if todo {
                wrong.push(format!("{}:{}: TODO without an issue", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_top_level_is_fixed() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "Makefile",
        "README.md",
        "src",
        "segments",
        "config",
        "dashboards",
        "loadtest",
        "deny.toml",
        "target",
        "data",
    ];
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name} at the top level"
        );
    }
}

#[test]
fn every_top_level_folder_has_a_readme() {
    for folder in ["segments", "config", "dashboards", "loadtest"] {
        assert!(root().join(folder).join("README.md").is_file(), "{folder}/README.md is missing");
    }
}

/// Where systemd is installed, it reads the shipped units without a complaint.
#[test]
fn units_are_what_systemd_understands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/systemd");
    let copies = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let unit = fs::read_to_string(&path).unwrap();
        // It asks whether the program is there.
        assert!(unit.contains("/usr/local/bin/throng serve "), "{path:?}");
        let unit = unit
            .replace("/usr/local/bin/throng serve ", &format!("{} serve ", super::harness::THRONG));
        let copy = copies.path().join(path.file_name().unwrap());
        fs::write(&copy, unit).unwrap();
        let Ok(verified) = Command::new("systemd-analyze").arg("verify").arg(&copy).output() else {
            continue;
        };
        let said = String::from_utf8_lossy(&verified.stderr);
        let name = copy.file_name().unwrap().to_str().unwrap();
        let about: Vec<&str> = said.lines().filter(|line| line.contains(name)).collect();
        assert!(about.is_empty(), "{about:?}");
    }
}
