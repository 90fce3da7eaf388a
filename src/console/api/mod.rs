//! The calls of the private listener in one table, from which they are routed, guarded and documented.
//!
//! A call that is not in the table does not exist, and one that is has its scope, its parameters and every status it
//! answers with beside its handler: so the document cannot say what the server does not do.

mod document;
pub(super) mod shapes;
mod table;

use actix_web::FromRequest;
use actix_web::Handler;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::Responder;
use actix_web::Route;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::ALLOW;
use actix_web::web;
use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::problem::Problem;
use super::tokens::Scope;

/// Describes a type, and those that it is made of, to the document.
type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What a caller needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: a probe.
    Nothing,
    /// A token, whatever it may do.
    Token,
    /// A token with this scope.
    Scope(Scope),
    /// A token with the scope `metrics`, and from this machine nothing.
    Metrics,
}

/// What a call does to what there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing.
    Reads,
    /// Something.
    Changes,
}

/// One call.
pub(super) struct Call {
    method: Method,
    path: &'static str,
    summary: &'static str,
    need: Need,
    effect: Effect,
    route: Route,
    query: Option<Describe>,
    bodies: Vec<(&'static str, Describe)>,
    answers: Vec<Answer>,
    refusals: Vec<u16>,
}

/// What a call answers with when it is done.
struct Answer {
    status: u16,
    /// What it may be: the content type and what that holds. Nothing of an answer without a body.
    content: Vec<(&'static str, Describe)>,
    headers: &'static [(&'static str, &'static str)],
}

/// What the guard has to know of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    /// The pattern of its path.
    pub(super) path: &'static str,
    /// What its caller needs.
    pub(super) need: Need,
    /// What it does.
    pub(super) effect: Effect,
}

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Headers of an answer that lists members.
const OF_MEMBERS: [(&str, &str); 2] = [
    ("Throng-Generation", "The generation that the members are of, where they are of one."),
    ("Throng-True-For", "The instant that the answer is true for, in RFC 3339."),
];

impl Call {
    fn new<F, Args>(
        method: Method,
        path: &'static str,
        handler: F,
        need: impl Into<Need>,
        summary: &'static str,
    ) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let effect = if method == Method::GET { Effect::Reads } else { Effect::Changes };
        Self {
            route: web::method(method.clone()).to(handler),
            method,
            path,
            summary,
            need: need.into(),
            effect,
            query: None,
            bodies: Vec::new(),
            answers: Vec::new(),
            refusals: Vec::new(),
        }
    }

    /// It is a question, although it is sent by `POST`: nothing is changed.
    fn asks(mut self) -> Self {
        self.effect = Effect::Reads;
        self
    }

    /// It has these parameters in its query.
    fn query<T: JsonSchema>(mut self) -> Self {
        // In place, not by name: each property is a parameter of its own.
        self.query = Some(T::json_schema);
        self
    }

    /// It takes a body of JSON.
    fn takes<T: JsonSchema>(mut self) -> Self {
        self.bodies.push((JSON, SchemaGenerator::subschema_for::<T>));
        self
    }

    /// It takes a text.
    fn takes_text(mut self, kind: &'static str) -> Self {
        self.bodies.push((kind, SchemaGenerator::subschema_for::<String>));
        self
    }

    /// It answers with JSON.
    fn gives<T: JsonSchema>(self) -> Self {
        self.gives_as::<T>(200)
    }

    /// It answers with JSON under another status than 200.
    fn gives_as<T: JsonSchema>(mut self, status: u16) -> Self {
        let content = vec![(JSON, SchemaGenerator::subschema_for::<T> as Describe)];
        self.answers.push(Answer { status, content, headers: &[] });
        self
    }

    /// It answers with a text.
    fn gives_text(mut self, status: u16, kind: &'static str) -> Self {
        let content = vec![(kind, SchemaGenerator::subschema_for::<String> as Describe)];
        self.answers.push(Answer { status, content, headers: &[] });
        self
    }

    /// It may answer with a text in the place of JSON, as the caller wants.
    fn or_gives_text(mut self, kind: &'static str) -> Self {
        let content = (kind, SchemaGenerator::subschema_for::<String> as Describe);
        if let Some(answer) = self.answers.last_mut() {
            answer.content.push(content);
        }
        self
    }

    /// It answers with a line for each member.
    fn gives_members(mut self) -> Self {
        let content = vec![(NDJSON, SchemaGenerator::subschema_for::<String> as Describe)];
        self.answers.push(Answer { status: 200, content, headers: &OF_MEMBERS });
        self
    }

    /// It answers with nothing.
    fn gives_nothing(mut self) -> Self {
        self.answers.push(Answer { status: 204, content: Vec::new(), headers: &[] });
        self
    }

    /// It may be refused with these, beside what every call may be.
    fn refuses(mut self, statuses: &[u16]) -> Self {
        self.refusals.extend(statuses);
        self
    }
}

impl From<Scope> for Need {
    fn from(scope: Scope) -> Self {
        Self::Scope(scope)
    }
}

/// Puts every call of the table into a listener.
pub(super) fn routes(service: &mut web::ServiceConfig) {
    let mut paths: BTreeMap<&'static str, Vec<Call>> = BTreeMap::new();
    for call in table::calls() {
        paths.entry(call.path).or_default().push(call);
    }
    for (path, calls) in paths {
        let methods: Vec<&str> = calls.iter().map(|call| call.method.as_str()).collect();
        let methods = methods.join(", ");
        let mut resource = web::resource(path);
        for call in calls {
            resource = resource.route(call.route);
        }
        service.service(resource.default_service(web::to(move |request: HttpRequest| {
            let problem = Problem::method(request.method().as_str(), &methods);
            let mut response = actix_web::ResponseError::error_response(&problem);
            if let Ok(allow) = methods.parse() {
                response.headers_mut().insert(ALLOW, allow);
            }
            async move { response }
        })));
    }
}

/// The call that a request is for; `None` where there is none.
pub(super) fn known(request: &ServiceRequest) -> Option<Known> {
    static CALLS: LazyLock<BTreeMap<(String, &'static str), Known>> = LazyLock::new(|| {
        let known = |call: Call| {
            let Call { path, need, effect, .. } = call;
            ((call.method.as_str().to_owned(), path), Known { path, need, effect })
        };
        table::calls().into_iter().map(known).collect()
    });
    let pattern = request.match_pattern()?;
    CALLS.get(&(request.method().as_str().to_owned(), pattern.as_str())).copied()
}

/// `GET /openapi.json`
async fn openapi() -> HttpResponse {
    HttpResponse::Ok().content_type(JSON).body(document::TEXT.as_str())
}
