//! The table as a document of `OpenAPI` 3.1.

use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::generate::Contract;
use schemars::generate::SchemaSettings;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use std::sync::LazyLock;

use super::Call;
use super::Need;
use super::shapes;
use super::shapes::ProblemDocument;
use super::table;
use crate::console::problem::PROBLEM;
use crate::console::tokens::Scope;

/// What is served.
pub(super) static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());

/// What each status says, of those that refuse.
const STATUSES: [(u16, &str); 11] = [
    (400, "The request has not the documented form."),
    (401, "There is no token, or an unknown one."),
    (403, "The token's scopes do not reach so far."),
    (404, "There is no such thing."),
    (409, "It does not fit what is there."),
    (413, "It is more than is taken."),
    (415, "The body is of another content type."),
    (
        422,
        "It has the documented form, and no meaning: a rule with errors, or an instant that cannot be answered for.",
    ),
    (500, "It is the server's fault, and in its log."),
    (503, "Not now; the header `Retry-After` says when to try again."),
    (507, "There is no room."),
];

/// Makes the document.
pub(super) fn document() -> Value {
    let calls = table::calls();
    let mut sent = generator(Contract::Deserialize);
    let mut told = generator(Contract::Serialize);
    let problem = told.subschema_for::<ProblemDocument>();
    let mut paths = Map::new();
    for call in &calls {
        let operation = operation(call, &problem, &mut sent, &mut told);
        let path = paths.entry(call.path).or_insert_with(|| json!({}));
        path[call.method.as_str().to_ascii_lowercase()] = operation;
    }
    let mut schemas = told.take_definitions(true);
    for (name, schema) in sent.take_definitions(true) {
        debug_assert!(
            schemas.get(&name).is_none_or(|other| *other == schema),
            "two are named {name}"
        );
        schemas.insert(name, schema);
    }
    json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Throng",
            "summary": "The management API of a Throng server",
            "description": "Times are RFC 3339 in UTC with milliseconds. Errors are problem documents (RFC 9457). \
                            What stands under `security` of a call is the scope that its token needs; the scope \
                            `operator` has all of them.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`throng token create` makes one; the operator's is in the file `token` of the data \
                                    directory.",
                },
            },
        },
    })
}

fn generator(contract: Contract) -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
        settings.contract = contract;
    });
    settings.into_generator()
}

fn operation(
    call: &Call,
    problem: &Schema,
    sent: &mut SchemaGenerator,
    told: &mut SchemaGenerator,
) -> Value {
    let mut operation = json!({
        "operationId": operation_id(call),
        "summary": call.summary,
        "security": security(call.need),
    });
    let mut parameters = path_parameters(call.path);
    if let Some(query) = call.query {
        parameters.extend(query_parameters(&query(sent)));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if !call.bodies.is_empty() {
        let content: Map<String, Value> = call
            .bodies
            .iter()
            .map(|(kind, describe)| ((*kind).to_owned(), json!({ "schema": describe(sent) })))
            .collect();
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    let mut responses = Map::new();
    for answer in &call.answers {
        let mut response = json!({ "description": described(answer.status) });
        for (kind, describe) in &answer.content {
            response["content"][*kind] = json!({ "schema": describe(told) });
        }
        for (name, what) in answer.headers {
            response["headers"][name] =
                json!({ "description": what, "schema": { "type": "string" } });
        }
        responses.insert(answer.status.to_string(), response);
    }
    for status in refusals(call) {
        let what = STATUSES.iter().find(|(known, _)| *known == status).map_or("", |(_, what)| what);
        let response =
            json!({ "description": what, "content": { PROBLEM: { "schema": problem } } });
        responses.entry(status.to_string()).or_insert(response);
    }
    operation["responses"] = responses.into();
    operation
}

/// Every status that the call may be refused with.
fn refusals(call: &Call) -> Vec<u16> {
    let mut all = call.refusals.clone();
    if call.need != Need::Nothing {
        all.extend([401, 403, 500, 503]);
    }
    if call.query.is_some() {
        all.push(400);
    }
    if call.path.contains('{') {
        all.push(404);
    }
    if !call.bodies.is_empty() {
        all.extend([400, 413, 415]);
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn described(status: u16) -> &'static str {
    match status {
        201 => "Made.",
        204 => "Done.",
        503 => "It is not well; the line says why.",
        _ => "The answer.",
    }
}

/// Such as `put_segments_id`.
fn operation_id(call: &Call) -> String {
    let path = call.path.trim_start_matches("/api/v1");
    let words = path.split(['/', '-', '.']).map(|word| word.trim_matches(['{', '}']));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    format!("{}_{}", call.method.as_str().to_ascii_lowercase(), words.join("_"))
}

fn security(need: Need) -> Value {
    match need {
        Need::Nothing => json!([]),
        Need::Token => json!([{ "token": [] }]),
        Need::Scope(scope) => json!([{ "token": [scope] }]),
        Need::Metrics => json!([{ "token": [Scope::Metrics] }, {}]),
    }
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names
        .map(|name| {
            let (what, schema) = path_parameter(name);
            json!({ "name": name, "in": "path", "required": true, "description": what, "schema": schema })
        })
        .collect()
}

fn path_parameter(name: &str) -> (&'static str, Value) {
    let text = json!({ "type": "string", "minLength": 1 });
    match name {
        "id" | "segment" => (
            "The id of a segment: the name of its file without `.toml`.",
            json!({ "type": "string", "pattern": "^[a-z0-9-]{1,64}$" }),
        ),
        "name" => ("The name.", text),
        "namespace" => (
            "The namespace of an identifier.",
            json!({ "type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$" }),
        ),
        "value" => (
            "The value of an identifier.",
            shapes::value(&mut generator(Contract::Deserialize)).to_value(),
        ),
        "number" => (
            "The number of a dead letter.",
            json!({ "type": "string", "pattern": "^([0-9]{1,4}:)?[0-9]{1,18}\\.[0-9]{1,9}$" }),
        ),
        _ => ("", text),
    }
}

/// Each property of an object as a parameter of the query.
fn query_parameters(object: &Schema) -> Vec<Value> {
    let required = object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(properties) = object.get("properties").and_then(Value::as_object) else {
        return Vec::new();
    };
    properties
        .iter()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let what = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            // A parameter that is not given is absent: a query cannot say `null`.
            if let Some(kinds) = schema.get_mut("type")
                && let Some(kind) = kinds.as_array().and_then(|kinds| kinds.first().cloned())
            {
                *kinds = kind;
            }
            let mut parameter = json!({
                "name": name,
                "in": "query",
                "required": required.iter().any(|of| of == name),
                "schema": schema,
            });
            if let Some(what) = what {
                parameter["description"] = what;
            }
            parameter
        })
        .collect()
}
