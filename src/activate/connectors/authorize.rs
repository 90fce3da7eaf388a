//! Which destinations use a refresh token, and who asks for it.

use super::gcs;
use super::google;
use crate::config::Destination;
use crate::config::DestinationKind;
use crate::config::GoogleGrant;
use crate::config::SecretSource;
use crate::net::InstalledApp;

/// Without these Google gives a refresh token the first time alone, or none.
const OFFLINE: &[(&str, &str)] = &[("access_type", "offline"), ("prompt", "consent")];

/// Who asks for the refresh token of a destination; else why there is none to ask for, and what to do instead. Pure.
pub fn installed_app(destination: &Destination) -> Result<InstalledApp, String> {
    let name = &destination.name;
    let (grant, auth_url, token_url, scope) = match &destination.kind {
        DestinationKind::Google(to) => (&to.grant, &to.auth_url, &to.token_url, google::SCOPE),
        DestinationKind::Gcs(to) => (&to.grant, &to.auth_url, &to.token_url, gcs::SCOPE),
        other => return Err(format!("`{name}` uses no refresh token{}", instead(other))),
    };
    let GoogleGrant::Refresh { client_id, client_secret, refresh_token } = grant else {
        return Err(format!(
            "`{name}` uses the key of a service account, which nobody has to authorize; to use a refresh token instead, write \
             refresh_token, client_id and client_secret in place of key"
        ));
    };
    let SecretSource::File(file) = refresh_token else {
        return Err(format!(
            "the refresh_token of `{name}` is {refresh_token}, which cannot be written: make it a file, such as \
             refresh_token = \"file:/etc/throng/{name}\""
        ));
    };
    Ok(InstalledApp {
        auth_url: auth_url.as_str().to_owned(),
        token_url: token_url.as_str().to_owned(),
        scope,
        more: OFFLINE,
        client_id: client_id.clone(),
        client_secret: client_secret.clone(),
        file: file.clone(),
        allow_private: destination.allow_private,
    })
}

/// What a kind has instead of a refresh token.
fn instead(kind: &DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Meta(_)
        | DestinationKind::TradeDesk(_)
        | DestinationKind::TikTok(_)
        | DestinationKind::LinkedIn(_)
        | DestinationKind::Pinterest(_) => {
            ": make an access token at the platform, and put it where `token` says"
        }
        DestinationKind::Xandr(_) => ": it logs in with `username` and `password`",
        DestinationKind::S3(_) => ": it signs with `access_key` and `secret_key`",
        DestinationKind::Sftp(_) => ": it logs in with `key` or `password`",
        DestinationKind::Webhook { .. } => ": calls are signed with `secret`",
        DestinationKind::File { .. } => ", nor anything like it",
        DestinationKind::Google(_) | DestinationKind::Gcs(_) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<InstalledApp, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("destinations.toml");
        std::fs::write(&path, format!("[[destination]]\nname = \"d\"\n{text}")).unwrap();
        installed_app(&crate::config::read_destinations(&path).unwrap()[0])
    }

    #[test]
    fn a_refresh_token_in_a_file_can_be_asked_for_and_nothing_else() {
        let google = "kind = \"google\"\naccount = \"1\"\nterms_accepted = true\n";
        let gcs = "kind = \"gcs\"\npath = \"gs://partner/throng\"\n";
        let grant = "client_id = \"c\"\nclient_secret = \"env:S\"\nrefresh_token = ";
        for (kind, scope) in [(google, "datamanager"), (gcs, "devstorage.read_write")] {
            let app = of(&format!("{kind}{grant}\"file:/etc/throng/r\"\n")).unwrap();
            assert_eq!(app.scope, format!("https://www.googleapis.com/auth/{scope}"));
            assert_eq!(app.auth_url, "https://accounts.google.com/o/oauth2/v2/auth");
            assert_eq!(app.token_url, "https://oauth2.googleapis.com/token");
            assert_eq!(app.file.to_str(), Some("/etc/throng/r"));
            let error = of(&format!("{kind}{grant}\"env:R\"\n")).unwrap_err();
            assert!(error.contains("is env:R, which cannot be written: make it a file"), "{error}");
            let error = of(&format!("{kind}key = \"file:k\"\n")).unwrap_err();
            assert!(error.contains("the key of a service account"), "{error}");
        }
        for (other, part) in [
            ("kind = \"file\"\npath = \"x\"\n", "uses no refresh token, nor"),
            ("kind = \"tiktok\"\naccount = \"1\"\ntoken = \"env:T\"\n", "where `token` says"),
            ("kind = \"webhook\"\nurl = \"http://a/\"\nsecret = \"env:T\"\n", "with `secret`"),
        ] {
            let error = of(other).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
