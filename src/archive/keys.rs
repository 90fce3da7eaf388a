//! How a bucket is reached: from the settings, the variables that AWS's own tools read, and their file of keys.

use std::path::PathBuf;

use object_store::aws::AmazonS3Builder;

use crate::config;
use crate::config::BucketUrl;
use crate::net::read_secret;
use crate::net::secret::text_of;

/// Where a client is built for, as the settings say. Errors are lines for people and repeat no key.
pub(super) fn builder(
    url: &BucketUrl,
    settings: &config::Archive,
) -> Result<AmazonS3Builder, String> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(&url.bucket);
    if std::env::var_os("AWS_REGION").is_none() && std::env::var_os("AWS_DEFAULT_REGION").is_none()
    {
        builder = builder.with_region("us-east-1");
    }
    if let Some(region) = &settings.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let (Some(access), Some(secret)) = (&settings.access_key, &settings.secret_key) {
        builder = builder
            .with_access_key_id(read_secret("access_key", access)?)
            .with_secret_access_key(read_secret("secret_key", secret)?);
    } else if let Some(keys) = keys_of_aws()? {
        builder = builder.with_access_key_id(keys.access).with_secret_access_key(keys.secret);
        if let Some(token) = keys.token {
            builder = builder.with_token(token);
        }
    }
    Ok(builder)
}

/// Keys of a profile.
#[derive(Clone, PartialEq, Eq, Default)]
struct Keys {
    access: String,
    secret: String,
    token: Option<String>,
}

/// The keys in AWS's file, where no variable says others and there is one.
fn keys_of_aws() -> Result<Option<Keys>, String> {
    const ELSEWHERE: [&str; 4] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ];
    if ELSEWHERE.iter().any(|name| std::env::var_os(name).is_some()) {
        return Ok(None);
    }
    let named = std::env::var_os("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
    let of_home =
        || Some(PathBuf::from(std::env::var_os("HOME")?).join(".aws").join("credentials"));
    let Some(path) = named.or_else(of_home).filter(|path| path.is_file()) else { return Ok(None) };
    let profile = std::env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    let text =
        text_of(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    Ok(keys_of(&text, &profile))
}

/// The keys of a profile in a file's text.
fn keys_of(text: &str, profile: &str) -> Option<Keys> {
    let mut keys = Keys::default();
    let mut is_of_profile = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            is_of_profile = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=')
            && is_of_profile
        {
            let value = value.trim().to_owned();
            match name.trim() {
                "aws_access_key_id" => keys.access = value,
                "aws_secret_access_key" => keys.secret = value,
                "aws_session_token" => keys.token = Some(value),
                _ => {}
            }
        }
    }
    (!keys.access.is_empty() && !keys.secret.is_empty()).then_some(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_profile_are_found() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=S/=\n\n[other]\n\
                    aws_access_key_id=B\naws_secret_access_key=T\naws_session_token = U\n[half]\naws_access_key_id=C\n";
        let keys = |profile| keys_of(text, profile).map(|k| (k.access, k.secret, k.token));
        assert_eq!(keys("default"), Some(("A".into(), "S/=".into(), None)));
        assert_eq!(keys("other"), Some(("B".into(), "T".into(), Some("U".into()))));
        assert_eq!(keys("half"), None);
        assert_eq!(keys("none"), None);
    }
}
