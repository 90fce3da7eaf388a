//! Secrets in the settings: where each is, or the secret itself, encrypted.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use toml::Table;
use toml::Value;

/// What secrets in the settings are encrypted with: `[secrets]`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Secrets {
    /// Where the master key is, `env:NAME` or `file:PATH`: 64 hexadecimal digits. Default none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master_key: Option<SecretSource>,
}

/// What an encrypted secret begins with.
pub const SEALED: &str = "enc:v1:";

/// Where a secret is; what it is stands in no file of settings but encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// The value of a variable.
    Env(String),
    /// The first line of a file.
    File(PathBuf),
    /// Here, encrypted.
    Sealed(Sealed),
}

/// An encrypted secret. It opens with the master key, and in the setting alone that it was encrypted for.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    text: String,
    setting: String,
}

impl Sealed {
    /// All of it, as it stands in the settings: `enc:v1:…`.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The setting that it stands in, such as `cluster.secret` or `destination.crm.secret`.
    pub fn setting(&self) -> &str {
        &self.setting
    }
}

/// Its end tells one from another, and nothing of the secret.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = self.text.len().saturating_sub(8).max(SEALED.len());
        write!(f, "{SEALED}…{}", self.text.get(end..).unwrap_or_default())
    }
}

/// What does not say where a secret is. The text is not repeated: it may be the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected where the secret is, \"env:NAME\" or \"file:PATH\", or \"enc:v1:…\" as `throng secret encrypt` prints it, \
     and not the secret itself"
)]
pub struct NoSource;

/// Stands between an encrypted secret and its setting while settings are read.
const BOUND: char = '#';

/// Notes with each encrypted secret of a table which setting it stands in, so that one that was copied to another does
/// not open there.
pub(super) fn bind(table: &mut Table, prefix: &str) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => bind(inner, &path),
            Value::String(text) if is_sealed(text) => {
                text.push(BOUND);
                text.push_str(&path);
            }
            _ => {}
        }
    }
}

/// Whether a text has the form of an encrypted secret.
fn is_sealed(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    text.strip_prefix(SEALED).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(fits))
}

impl FromStr for SecretSource {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<Self, NoSource> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() && name.bytes().all(fits) => {
                Ok(Self::Env(name.to_owned()))
            }
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("enc", _)) => {
                let (text, setting) = text.split_once(BOUND).ok_or(NoSource)?;
                if !is_sealed(text) {
                    return Err(NoSource);
                }
                Ok(Self::Sealed(Sealed { text: text.to_owned(), setting: setting.to_owned() }))
            }
            _ => Err(NoSource),
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Sealed(sealed) => write!(f, "{sealed:?}"),
        }
    }
}

impl Serialize for SecretSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(from).map_err(|_| D::Error::custom(NoSource))?;
        text.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encrypted_secret_knows_its_setting_and_is_shown_by_its_end() {
        let mut table: Table =
            "secret = \"enc:v1:AbC-_012345678\"\nother = \"plain\"".parse().unwrap();
        bind(&mut table, "destination.crm");
        let source: SecretSource = table["secret"].as_str().unwrap().parse().unwrap();
        assert_eq!(table["other"].as_str(), Some("plain"));
        let SecretSource::Sealed(sealed) = &source else { panic!("{source:?}") };
        assert_eq!(
            (sealed.text(), sealed.setting()),
            ("enc:v1:AbC-_012345678", "destination.crm.secret")
        );
        for shown in
            [source.to_string(), serde_json::to_string(&source).unwrap(), format!("{source:?}")]
        {
            assert!(shown.contains("enc:v1:…12345678") && !shown.contains("AbC"), "{shown}");
        }
        for wrong in ["enc:v1:", "enc:v2:abc", "enc:v1:a b", "enc:v1:abc", "enc:v1:#x"] {
            assert_eq!(wrong.parse::<SecretSource>(), Err(NoSource), "{wrong}");
        }
    }
}
