//! The interface as an OpenAPI 3.1 document. The file `openapi.json` is served; a test compares it
//! with this code.

use crate::auth::{jwks, keys, login, proof, sessions, who_am_i};
use crate::{apps, database, health, members, namespaces, network, pubsub, storage, websocket};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Content, ObjectBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{Modify, OpenApi};

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    ApiDocument::openapi()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "DeBros Network gateway",
        description = "SQL, key-value storage and pub/sub in a namespace of your own. Every error has the body \
            `{error, code, request_id}`; `code` is stable. `Idempotency-Key` on a mutation makes it happen once within \
            24 hours. A query parameter `namespace` other than the credential's own is refused.",
        license(name = "MIT OR Apache-2.0"),
    ),
    paths(
        health::health, health::ready, health::status, health::version, health::metrics,
        proof::challenge, proof::verify, proof::register, sessions::refresh, sessions::logout, sessions::token,
        who_am_i::who_am_i, keys::create, keys::list, keys::revoke, login::page, jwks::jwks,
        namespaces::list, namespaces::get, namespaces::delete, members::list, members::set, members::remove,
        storage::put, storage::put_value, storage::get, storage::get_value, storage::get_json,
        storage::delete, storage::delete_value, storage::list, storage::exists,
        database::query, database::transaction, database::create_table, database::drop_table, database::schema,
        websocket::open, pubsub::publish, pubsub::topics,
        network::status, network::peers, network::connect, network::disconnect,
        apps::list, apps::create, apps::get, apps::update, apps::delete,
    ),
    components(schemas(database::SqlValue, database::TransactionStatement, database::QueryAnswer)),
    tags(
        (name = "operation", description = "Health, version and metrics."),
        (name = "auth", description = "Sign-in with a wallet, sessions, API keys."),
        (name = "namespaces", description = "Namespaces: listed, described, deleted."),
        (name = "members", description = "The members of a namespace and their roles."),
        (name = "storage", description = "Key-value pairs."),
        (name = "database", description = "SQL in SQLite's dialect."),
        (name = "pubsub", description = "Topics."),
        (name = "network", description = "The node and its peers."),
        (name = "apps", description = "Registered applications."),
    ),
    modifiers(&SecuritySchemes, &OperationDefaults),
    security(("bearer" = []), ("api_key" = [])),
)]
struct ApiDocument;

/// How credentials are shown.
struct SecuritySchemes;

impl Modify for SecuritySchemes {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some("An API key or an access token.".to_owned());
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKeyValue::with_description("X-API-Key", "An API key.");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// Rules for many routes, defined once: their other names, the errors that any may answer, and the
/// headers and parameters that many take.
struct OperationDefaults;

impl Modify for OperationDefaults {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let paths = &mut document.paths.paths;
        for item in paths.values_mut() {
            let operations = [
                (false, &mut item.get),
                (true, &mut item.post),
                (true, &mut item.put),
                (true, &mut item.delete),
            ];
            for (writes, operation) in operations {
                if let Some(operation) = operation {
                    complete_operation(operation, writes);
                }
            }
        }
        let aliases = [
            ("/health", "/v1/health", "_short"),
            ("/status", "/v1/status", "_short"),
            ("/.well-known/jwks.json", "/v1/auth/jwks", "_well_known"),
        ];
        for (alias, path, suffix) in aliases {
            if let Some(mut item) = paths.get(path).cloned() {
                for operation in item.get.iter_mut() {
                    operation.operation_id = operation.operation_id.take().map(|id| id + suffix);
                }
                paths.insert(alias.to_owned(), item);
            }
        }
    }
}

fn complete_operation(operation: &mut Operation, writes: bool) {
    let id = operation.operation_id.clone().unwrap_or_default();
    let public = operation.security.is_some();
    let responses = &mut operation.responses.responses;
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response
            && response.description.is_empty()
        {
            response.description = status_description(status).to_owned();
        }
    }
    let error = Content::new(Some(Ref::from_schema_name("ErrorBody")));
    let error = ResponseBuilder::new()
        .description("An error: a 4xx is the caller's to correct, a 5xx the system's.")
        .content("application/json", error);
    responses.insert("default".to_owned(), error.build().into());
    if public {
        return;
    }
    let parameters = operation.parameters.get_or_insert_default();
    let mut add = |name, location, what| parameters.push(optional_parameter(name, location, what));
    add(
        "namespace",
        ParameterIn::Query,
        "Refused when it is not the credential's own. Operators name any.",
    );
    // Reading by POST, because a key may not fit into a query.
    if writes && id != "storage_get_json" {
        add(
            "Idempotency-Key",
            ParameterIn::Header,
            "Makes the call happen once within 24 hours, however often it is sent. An answer that was given before has the \
             header `Idempotent-Replayed: true`.",
        );
    }
    if id.starts_with("storage_put") || id.starts_with("storage_delete") {
        add(
            "If-Match",
            ParameterIn::Header,
            "Only when the value has this version (an ETag); * for: when it exists.",
        );
        add(
            "If-None-Match",
            ParameterIn::Header,
            "Only if the version differs; *: only if it does not exist.",
        );
    }
}

fn optional_parameter(name: &str, location: ParameterIn, what: &str) -> RefOr<Parameter> {
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    let parameter = ParameterBuilder::new()
        .name(name)
        .parameter_in(location)
        .required(Required::False)
        .description(Some(what))
        .schema(Some(text))
        .build();
    RefOr::T(parameter)
}

fn status_description(status: &str) -> &'static str {
    match status {
        "200" | "201" => "Done.",
        "401" => "The proof or credential is not valid.",
        "429" => "Too many requests: Retry-After says when to come back.",
        "403" => "The credential does not allow this.",
        "404" => "There is no such thing.",
        "409" => "A constraint or another change refused it; nothing was done.",
        "412" => "If-Match or If-None-Match did not hold; nothing was done.",
        "413" => "It is over its size limit; nothing was done.",
        _ => "Not served now; nothing was done.",
    }
}

#[cfg(test)]
mod tests {
    use super::document;
    use crate::router::build_routes;
    use std::path::Path;

    /// Callers and the SDK's generator read the file. After an intended change, run the tests with
    /// `UPDATE_OPENAPI=1` and review the difference.
    #[test]
    fn the_file_is_the_document() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let made = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            made,
            "run the tests with UPDATE_OPENAPI=1"
        );
    }

    /// Lesson 38: the document left out authentication, WebSockets, network and apps.
    #[test]
    fn lesson_38_every_route_is_described() {
        let document = document();
        // The document itself, its page, and the files of the sign-in page.
        let documents =
            ["/v1/openapi.json", "/docs", "/docs/", "/docs/{*file}", "/v1/auth/login/{file}"];
        for pattern in
            build_routes().patterns.into_iter().filter(|pattern| !documents.contains(pattern))
        {
            assert!(document.paths.paths.contains_key(pattern), "{pattern}");
        }
        let schemes = document.components.unwrap().security_schemes;
        assert!(schemes.contains_key("bearer") && schemes.contains_key("api_key"));
        for (path, item) in &document.paths.paths {
            for operation in [&item.get, &item.post, &item.put, &item.delete].into_iter().flatten()
            {
                assert!(
                    operation.responses.responses.contains_key("default"),
                    "{path} says nothing of errors"
                );
            }
        }
    }
}
