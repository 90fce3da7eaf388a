//! `GET /t.js`: the browser tag, the same for all sites. What it does is in `dashboards/tag`.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::ACCEPT_ENCODING;
use actix_web::http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::http::header::CONTENT_ENCODING;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::header::CROSS_ORIGIN_RESOURCE_POLICY;
use actix_web::http::header::ETAG;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderName;
use actix_web::http::header::HeaderValue;
use actix_web::http::header::IF_NONE_MATCH;
use actix_web::http::header::VARY;
use actix_web::http::header::X_CONTENT_TYPE_OPTIONS;
use actix_web::web::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::Digest;
use sha2::Sha256;
use std::io::Write;
use std::sync::LazyLock;

use crate::model::hex;

/// As `make tag` builds it.
const SCRIPT: &str = include_str!("../../dashboards/tag/t.js");

/// The script in the encodings that browsers take, made when it is first asked for.
static PLAIN: LazyLock<Form> =
    LazyLock::new(|| Form::new(Bytes::from_static(SCRIPT.as_bytes()), None));
static GZIP: LazyLock<Form> = LazyLock::new(|| Form::new(gzip(SCRIPT), Some("gzip")));

struct Form {
    body: Bytes,
    encoding: Option<&'static str>,
    etag: HeaderValue,
}

impl Form {
    fn new(body: Bytes, encoding: Option<&'static str>) -> Self {
        let etag = format!("\"{}\"", hex(&Sha256::digest(&body)[..16]));
        let etag = HeaderValue::from_str(&etag).expect("hexadecimal digits are of a header");
        Self { body, encoding, etag }
    }
}

/// Answers with the script, or that the browser has it.
pub(super) async fn tag(request: HttpRequest) -> HttpResponse {
    let headers = request.headers();
    let form = if takes_gzip(headers) { &*GZIP } else { &*PLAIN };
    let is_known = knows(headers, &form.etag);
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = HttpResponse::new(status);
    let fixed: [(HeaderName, &str); 6] = [
        (CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (CACHE_CONTROL, "public, max-age=3600"),
        // It holds nothing of who asks, so that every page may load and check it.
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (CROSS_ORIGIN_RESOURCE_POLICY, "cross-origin"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (VARY, "Accept-Encoding"),
    ];
    for (name, value) in fixed {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(ETAG, form.etag.clone());
    if !is_known {
        if let Some(encoding) = form.encoding {
            let encoding = HeaderValue::from_static(encoding);
            response.headers_mut().insert(CONTENT_ENCODING, encoding);
        }
        response = response.set_body(form.body.clone()).map_into_boxed_body();
    }
    super::worker(&request).answered(response)
}

fn gzip(text: &str) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish());
    written.expect("memory takes every byte").into()
}

/// Whether `Accept-Encoding` names gzip, and not with a weight of zero.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let names = headers.get_all(ACCEPT_ENCODING).filter_map(|header| header.to_str().ok());
    names.flat_map(|names| names.split(',')).any(|name| {
        let mut parts = name.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let weight = parts.next().and_then(|part| part.strip_prefix("q="));
        let weight = weight.map_or(Ok(1.0), str::parse::<f32>);
        is_gzip && weight.is_ok_and(|weight| weight > 0.0)
    })
}

/// Whether `If-None-Match` names the script, by whatever a cache on the way made of its mark.
fn knows(headers: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).filter_map(|header| header.to_str().ok());
    known.flat_map(|marks| marks.split(',')).any(|mark| {
        let mark = mark.trim();
        mark == "*" || mark.strip_prefix("W/").unwrap_or(mark).as_bytes() == etag.as_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small_on_the_wire() {
        assert!(GZIP.body.len() <= 3 << 10, "{} bytes", GZIP.body.len());
    }
}
