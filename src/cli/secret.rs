//! `throng secret`: secrets that stand in the settings, encrypted. It reads the settings itself and needs no server.

use clap::Subcommand;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::Global;
use super::output::print;
use super::serve;
use crate::config::SEALED;
use crate::config::SecretSource;
use crate::net::MasterKey;
use crate::net::secret::master_key;
use crate::store::embedded::write_small_file;

/// Sub-commands of `throng secret`.
#[derive(Debug, Subcommand)]
pub(super) enum Secret {
    /// Print a new master key
    NewKey,
    /// Read a secret from standard input, and print what is to stand in the setting
    Encrypt {
        /// The setting it is for, such as `destination.crm.secret`, `cluster.secret` or `archive.secret_key`
        setting: String,
    },
    /// Wrap every encrypted secret of the settings and destinations for another master key, in their files
    Rotate {
        /// Where the new key is: `env:NAME` or `file:PATH`
        #[arg(long, value_name = "WHERE")]
        new_key: String,
    },
}

/// A secret is no longer than this, in bytes.
const MOST: u64 = 64 << 10;

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Secret) -> Result<ExitCode, Failure> {
    match command {
        Secret::NewKey => {
            print(&MasterKey::fresh().map_err(|error| Failure::No(error.to_string()))?)?;
        }
        Secret::Encrypt { setting } => encrypt(global, setting)?,
        Secret::Rotate { new_key } => rotate(global, new_key)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The master key that the settings name.
fn master(global: &Global) -> Result<MasterKey, Failure> {
    let config = serve::settings(global)?;
    let from = config.secrets.master_key.ok_or_else(|| {
        Failure::Usage(
            "secrets.master_key is not set: `throng secret new-key` prints a key; keep it in a file and write \
             master_key = \"file:PATH\" under [secrets]"
                .to_owned(),
        )
    })?;
    master_key(&from).map_err(Failure::No)
}

fn encrypt(global: &Global, setting: &str) -> Result<(), Failure> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !setting.contains('.') || !setting.bytes().all(fits) {
        return Err(Failure::Usage(format!(
            "{setting}: expected the setting that the secret is for, such as destination.crm.secret or cluster.secret"
        )));
    }
    let master = master(global)?;
    let mut secret = String::new();
    let read = std::io::stdin().take(MOST + 2).read_to_string(&mut secret);
    read.map_err(|error| Failure::Usage(format!("standard input is no text: {error}")))?;
    // What `echo` puts behind it is none of it.
    let secret = secret.strip_suffix('\n').unwrap_or(&secret);
    let envelope = master.seal(secret, setting).map_err(|error| Failure::No(error.to_string()))?;
    print(&envelope)?;
    Ok(())
}

fn rotate(global: &Global, new_key: &str) -> Result<(), Failure> {
    let old = master(global)?;
    let from: SecretSource = new_key.parse().map_err(|_| {
        Failure::Usage(format!("--new-key {new_key}: expected env:NAME or file:PATH"))
    })?;
    let new = master_key(&from).map_err(|error| Failure::Usage(format!("--new-key: {error}")))?;
    let files = serve::config_file(global).into_iter().chain([serve::destinations(global)]);
    // All are wrapped before any is written.
    let mut wrapped: Vec<(PathBuf, String, usize)> = Vec::new();
    for file in files.filter(|file| file.is_file()) {
        let shown = file.display();
        let text = fs::read_to_string(&file)
            .map_err(|error| Failure::No(format!("cannot read {shown}: {error}")))?;
        let (text, count) = rewrap(&text, &old, &new)
            .map_err(|error| Failure::No(format!("{shown}: nothing was changed: {error}")))?;
        wrapped.push((file, text, count));
    }
    for (file, text, count) in &wrapped {
        if *count > 0 {
            write(file, text)?;
        }
        print(&format!("{}: {count} wrapped", file.display()))?;
    }
    eprintln!("now write master_key = \"{new_key}\" under [secrets], and start the server anew");
    Ok(())
}

/// The text with each encrypted secret wrapped for the new key, and how many there were.
fn rewrap(text: &str, old: &MasterKey, new: &MasterKey) -> Result<(String, usize), String> {
    let (mut out, mut rest, mut count) = (String::new(), text, 0);
    while let Some(at) = rest.find(SEALED) {
        let (before, from) = rest.split_at(at);
        let is_of_it = |c: char| c.is_ascii_alphanumeric() || "-_:".contains(c);
        let end = from.find(|c| !is_of_it(c)).unwrap_or(from.len());
        let (envelope, behind) = from.split_at(end);
        out.push_str(before);
        // What a comment shows as an example is none.
        if out.lines().last().is_some_and(|line| line.trim_start().starts_with('#')) {
            out.push_str(envelope);
        } else {
            out.push_str(&old.rewrap(envelope, new).map_err(|error| error.to_string())?);
            count += 1;
        }
        rest = behind;
    }
    out.push_str(rest);
    Ok((out, count))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error| Failure::No(format!("cannot write {}: {error}", file.display()));
    let mode = fs::metadata(file).map_err(failed)?.permissions().mode() & 0o777;
    write_small_file(file, text.as_bytes(), mode).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encrypted_secret_is_wrapped_anew_and_the_rest_stays() {
        let key = || MasterKey::parse(&MasterKey::fresh().unwrap()).unwrap();
        let (old, new) = (key(), key());
        let (one, two) = (old.seal("1", "a.b").unwrap(), old.seal("2", "c.d").unwrap());
        let text = format!("# such as enc:v1:abc\nx = \"{one}\" # one\ny='{two}'\nz = 1\n");
        let (moved, count) = rewrap(&text, &old, &new).unwrap();
        assert_eq!(count, 2);
        let lines: Vec<&str> = moved.lines().collect();
        assert_eq!((lines[0], lines[3]), ("# such as enc:v1:abc", "z = 1"));
        let envelope = lines[1].split('"').nth(1).unwrap();
        assert_eq!(new.open(envelope, "a.b").unwrap(), "1");
        assert!(lines[1].ends_with(" # one"));
        assert!(rewrap(&text, &new, &old).is_err());
    }
}
