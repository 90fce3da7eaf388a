//! A listener on this machine alone, for one answer: the browser that an authorization server sends back (RFC 8252, section 7.3).
//!
//! Anybody on the machine, and any page in its browser, can call it: what has not the `state` of the request is turned away, and
//! the wait goes on.

use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::HttpServer;
use actix_web::http::KeepAlive;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::http::header::CONTENT_SECURITY_POLICY;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::header::REFERRER_POLICY;
use actix_web::http::header::X_CONTENT_TYPE_OPTIONS;
use actix_web::web;
use anyhow::Context as _;
use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::mpsc::unbounded_channel;

use crate::net::Authorization;
use crate::net::Heard;
use crate::net::OauthError;
use crate::net::Outgoing;

/// How long a request may take to come, its body included.
const PATIENCE: Duration = Duration::from_secs(5);
/// A browser opens a few at once.
const CONNECTIONS: usize = 32;
/// Bytes of a query: a code and a state have a few hundred.
const LONGEST_QUERY: usize = 16 << 10;
/// Seconds that the last page has to reach the browser.
const DRAIN: u64 = 5;

/// A listener that waits for one answer.
pub(crate) struct Redirect {
    listener: TcpListener,
    uri: String,
}

/// How a wait ended.
pub(crate) enum Waited {
    /// With the answer, and this came of it.
    Answered(Result<(), OauthError>),
    /// Without.
    TimedOut {
        /// How many calls were no answer to this request.
        strangers: usize,
    },
}

struct Waiting {
    authorization: Authorization,
    outgoing: Outgoing,
    /// The answer came: there is no second one.
    taken: AtomicBool,
    strangers: AtomicUsize,
    done: UnboundedSender<Result<(), OauthError>>,
}

impl Redirect {
    /// Listens on a port of 127.0.0.1; 0 takes a free one.
    pub(crate) fn bind(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .with_context(|| format!("cannot listen on 127.0.0.1:{port}; take another --port"))?;
        let port = listener.local_addr().context("a socket without an address")?.port();
        Ok(Self { listener, uri: format!("http://127.0.0.1:{port}/") })
    }

    /// Where a browser is sent back to.
    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    /// Waits for the answer to a request, acts on it, and tells the browser what came of it.
    pub(crate) fn wait(
        self,
        authorization: Authorization,
        timeout: Duration,
    ) -> anyhow::Result<Waited> {
        actix_web::rt::System::new().block_on(self.serve(authorization, timeout))
    }

    async fn serve(
        self,
        authorization: Authorization,
        timeout: Duration,
    ) -> anyhow::Result<Waited> {
        let (done, mut outcome) = unbounded_channel();
        let waiting = Arc::new(Waiting {
            authorization,
            outgoing: Outgoing::new(),
            taken: AtomicBool::new(false),
            strangers: AtomicUsize::new(0),
            done,
        });
        let shared = Arc::clone(&waiting);
        let server = HttpServer::new(move || {
            App::new()
                .app_data(web::Data::from(Arc::clone(&shared)))
                .route("/", web::get().to(answer))
                .default_service(web::to(nothing))
        })
        .workers(1)
        .max_connections(CONNECTIONS)
        .keep_alive(KeepAlive::Disabled)
        .client_request_timeout(PATIENCE)
        .client_disconnect_timeout(PATIENCE)
        .shutdown_timeout(DRAIN)
        .disable_signals()
        .listen(self.listener)
        .context("cannot listen")?
        .run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        let waited = match tokio::time::timeout(timeout, outcome.recv()).await {
            Ok(outcome) => outcome,
            // It came at the last moment, and is worked on for a while.
            Err(_) if waiting.taken.load(Ordering::SeqCst) => outcome.recv().await,
            Err(_) => None,
        };
        handle.stop(true).await;
        let strangers = waiting.strangers.load(Ordering::SeqCst);
        Ok(waited.map_or(Waited::TimedOut { strangers }, Waited::Answered))
    }
}

/// `GET /`: where the browser comes back to.
async fn answer(request: HttpRequest, waiting: web::Data<Waiting>) -> HttpResponse {
    let query = request.query_string();
    let heard = match query.len() {
        0..=LONGEST_QUERY => waiting.authorization.hear(query),
        _ => Heard::NotOurs("it is too long"),
    };
    if let Heard::NotOurs(why) = heard {
        waiting.strangers.fetch_add(1, Ordering::SeqCst);
        let text = format!(
            "This is no answer to what throng asked: {why}. It still waits. Open the address that the command printed last."
        );
        return page(StatusCode::BAD_REQUEST, "Not this one", &text);
    }
    if waiting.taken.swap(true, Ordering::SeqCst) {
        let text = "The answer was taken already. The command says what came of it.";
        return page(StatusCode::CONFLICT, "Once is enough", text);
    }
    let worker = waiting.clone();
    // A browser that goes away meanwhile changes nothing.
    let done = web::block(move || {
        let done = match heard {
            Heard::Code(code) => worker.authorization.redeem(&code, &worker.outgoing),
            Heard::Refused(why) => Err(OauthError::Refused(why)),
            Heard::NotOurs(why) => Err(OauthError::Refused(why.to_owned())),
        };
        let _ = worker.done.send(done.clone());
        done
    });
    let done = done.await.unwrap_or_else(|_| {
        let failed = Err(OauthError::Later("the exchange broke off".into()));
        let _ = waiting.done.send(failed.clone());
        failed
    });
    match done {
        Ok(()) => {
            let text = "throng has the refresh token. You can close this page.";
            page(StatusCode::OK, "Done", text)
        }
        Err(OauthError::Refused(why)) => page(StatusCode::BAD_REQUEST, "It did not work", &why),
        Err(OauthError::Later(why)) => page(StatusCode::BAD_GATEWAY, "It did not work", &why),
    }
}

/// Whatever else is called.
async fn nothing() -> HttpResponse {
    page(StatusCode::NOT_FOUND, "Nothing here", "There is one page here, and this is not it.")
}

/// A page of one sentence. Its address holds the code: no other page is to learn it.
fn page(status: StatusCode, title: &str, text: &str) -> HttpResponse {
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title} – throng</title>\n\
         <style>body{{font:1.1em/1.5 sans-serif;max-width:40em;margin:4em auto;padding:0 1em}}</style>\n\
         <h1>{title}</h1>\n<p>{}</p>\n</html>\n",
        escaped(text)
    );
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"))
        .body(body)
}

/// A text that anybody may have written, for a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::to_bytes;

    #[actix_web::test]
    async fn what_a_page_says_is_text() {
        let response = page(StatusCode::BAD_REQUEST, "No", "<script>alert(\"1\")</script> &");
        assert_eq!(response.headers().get(REFERRER_POLICY).unwrap(), "no-referrer");
        let body = to_bytes(response.into_body()).await.unwrap();
        let body = String::from_utf8(body.to_vec()).unwrap();
        let expected = "<p>&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp;</p>";
        assert!(body.contains(expected), "{body}");
    }

    #[test]
    fn a_port_that_is_taken_is_told() {
        let redirect = Redirect::bind(0).unwrap();
        let port = redirect.listener.local_addr().unwrap().port();
        assert_eq!(redirect.uri(), format!("http://127.0.0.1:{port}/"));
        let error = format!("{:#}", Redirect::bind(port).err().unwrap());
        assert!(error.contains(&format!("127.0.0.1:{port}; take another --port")), "{error}");
    }
}
