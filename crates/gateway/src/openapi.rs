//! The interface as an OpenAPI 3.1 document. The file `openapi.json` is what is served; a test compares it with this.

use crate::{apps, database, health, network, pubsub, storage, websocket};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
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
        network::who_am_i,
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
        (name = "auth", description = "Who the caller is."),
        (name = "storage", description = "Key-value pairs."),
        (name = "database", description = "SQL in SQLite's dialect."),
        (name = "pubsub", description = "Topics."),
        (name = "network", description = "The node and its peers."),
        (name = "apps", description = "Registered applications."),
    ),
    modifiers(&Credentials, &Errors),
    security(("bearer" = []), ("api_key" = [])),
)]
struct Document;

/// How credentials are shown.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let mut bearer = Http::new(HttpAuthScheme::Bearer);
        bearer.description = Some("An API key or an access token.".to_owned());
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
        let header = ApiKeyValue::with_description("X-API-Key", "An API key.");
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(header)));
    }
}

/// The answers that any route may give.
struct Errors;

impl Modify for Errors {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        use utoipa::openapi::{ContentBuilder, Ref, ResponseBuilder};
        let answer = ResponseBuilder::new()
            .description("An error: 4xx is the caller's to mend, 5xx the system's.")
            .content("application/json", ContentBuilder::new().schema(Some(Ref::from_schema_name("ErrorBody"))).build())
            .build();
        for path in document.paths.paths.values_mut() {
            let operations =
                [&mut path.get, &mut path.post, &mut path.put, &mut path.delete].into_iter().filter_map(Option::as_mut);
            for operation in operations {
                operation.responses.responses.insert("default".to_owned(), answer.clone().into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::document;
    use crate::router::routes;
    use std::path::Path;

    /// The file is what callers and the SDK's generator read. After a wanted change, run the tests with
    /// `UPDATE_OPENAPI=1` and look at the difference.
    #[test]
    fn the_file_is_the_document() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        let made = document().to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&file, &made).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), made, "run the tests with UPDATE_OPENAPI=1");
    }

    /// Lesson 38: the document left out authentication, WebSockets, network and apps.
    #[test]
    fn lesson_38_every_route_is_described() {
        let document = document();
        // Other names of described routes, and the document and its page.
        let aliases = ["/health", "/status", "/v1/openapi.json", "/docs", "/docs/", "/docs/{*file}"];
        for pattern in routes().patterns.into_iter().filter(|pattern| !aliases.contains(pattern)) {
            assert!(document.paths.paths.contains_key(pattern), "{pattern}");
        }
        let schemes = document.components.unwrap().security_schemes;
        assert!(schemes.contains_key("bearer") && schemes.contains_key("api_key"));
        for (path, item) in &document.paths.paths {
            for operation in [&item.get, &item.post, &item.put, &item.delete].into_iter().flatten() {
                assert!(operation.responses.responses.contains_key("default"), "{path} says nothing of errors");
            }
        }
    }
}
