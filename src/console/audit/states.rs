//! What there is of a thing before and after a change, as one hash.

use percent_encoding::percent_decode_str;
use serde_json::json;
use sha2::Digest as _;
use sha2::Sha256;

use crate::console::Services;
use crate::console::tokens::Tokens;
use crate::model::hex;

/// The SHA-256 of what a call changes; `None` where there is nothing, or it is no one thing. Blocks.
pub(in crate::console) fn state(
    services: &Services,
    tokens: &Tokens,
    pattern: &str,
    target: &str,
) -> Option<String> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let name = parameter(pattern, path);
    let bytes = match pattern {
        "/api/v1/segments/{id}" => {
            services.segments.live().segments.get(&name?)?.text.as_bytes().to_vec()
        }
        "/api/v1/apply" => {
            let live = services.segments.live();
            let texts = live.segments.iter().map(|(id, segment)| json!([&**id, &*segment.text]));
            json!(texts.collect::<Vec<_>>()).to_string().into_bytes()
        }
        "/api/v1/tokens" | "/api/v1/tokens/{name}" => {
            let listed = tokens.list();
            let kept = listed.iter().map(|one| json!([one.name, one.id, one.scopes, one.expires]));
            json!(kept.collect::<Vec<_>>()).to_string().into_bytes()
        }
        "/api/v1/dead-letters/{number}" => {
            let number = name?.parse().ok()?;
            services.segments.shards().dead_letter(number).ok()??.bytes.to_vec()
        }
        "/api/v1/import/events" => {
            let import = url::form_urlencoded::parse(query.as_bytes());
            let (_, import) = import.into_iter().find(|(key, _)| key == "name")?;
            services.importer.taken(&import).ok()?.to_string().into_bytes()
        }
        _ if pattern.starts_with("/api/v1/destinations/{name}/") => {
            let name = name?;
            let all = services.pusher.status().ok()?;
            let found = all.iter().find(|status| status.destination.name == name)?;
            let held = found.segments.iter().map(|one| json!([one.segment, one.held]));
            json!([found.paused, held.collect::<Vec<_>>()]).to_string().into_bytes()
        }
        _ => return None,
    };
    Some(hex(&Sha256::digest(bytes)))
}

/// The first parameter of a path.
fn parameter(pattern: &str, path: &str) -> Option<String> {
    let mut parts = pattern.split('/').zip(path.split('/'));
    let (_, value) = parts.find(|(part, _)| part.starts_with('{'))?;
    Some(percent_decode_str(value).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_taken_from_where_the_pattern_has_it() {
        let found = parameter("/api/v1/tokens/{name}", "/api/v1/tokens/a%2Fb");
        assert_eq!(found.as_deref(), Some("a/b"));
        assert_eq!(parameter("/api/v1/apply", "/api/v1/apply"), None);
    }
}
