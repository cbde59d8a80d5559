//! The routes, and their description.

use super::guard::guard;
use super::problem::Problem;
use super::{Http, copy, docs, opening, query, tables};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::{delete, get, post};
use std::sync::Arc;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

/// What the API is, for people.
const ABOUT: &str = "SQL on a Fluence database. The server runs where the owner's keys are: every row was verified and decrypted \
    here, and `verified` says what it rests on.\n\n\
    Values: booleans, texts and numbers as in JSON; integers beyond 2^53 - 1, `numeric`, `bytea` (`\\x0aff`), dates and \
    timestamps are strings; NULL is null. A failed statement is a problem (RFC 9457) with its `sqlstate`.";

/// The description.
#[derive(OpenApi)]
#[openapi(
    info(title = "Fluence SQL over HTTP", description = ABOUT, license(name = "Apache-2.0 OR MIT")),
    paths(
        query::query, opening::open, query::query_in, copy::copy_in, opening::close, copy::copy, tables::list, tables::describe,
        docs::health, docs::description,
    ),
    components(schemas(super::answer::Ending)),
    modifiers(&Credentials),
    security(("password" = []), ("session" = [])),
    tags(
        (name = "statements", description = "One statement a request"),
        (name = "sessions", description = "Transactions over several requests"),
        (name = "rows", description = "Many rows at once"),
        (name = "tables", description = "What there is"),
        (name = "server", description = "For everybody"),
    )
)]
struct Description;

/// How one shows who one is.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = |scheme, about: &str| {
            SecurityScheme::Http(HttpBuilder::new().scheme(scheme).description(Some(about)).build())
        };
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme(
            "password",
            scheme(HttpAuthScheme::Basic, "The user and password of the Postgres port"),
        );
        components
            .add_security_scheme("session", scheme(HttpAuthScheme::Bearer, "The token of a session, for that session"));
    }
}

/// The description of the API: OpenAPI 3.1, JSON.
#[must_use]
pub fn openapi() -> String {
    Description::openapi().to_pretty_json().expect("a description made of strings")
}

/// The routes, behind the guard.
pub(super) fn router(http: &Arc<Http>) -> Router {
    Router::new()
        .route("/v1/query", post(query::query))
        .route("/v1/sessions", post(opening::open))
        .route("/v1/sessions/{id}", delete(opening::close))
        .route("/v1/sessions/{id}/query", post(query::query_in))
        .route("/v1/sessions/{id}/copy/{table}", post(copy::copy_in))
        .route("/v1/copy/{table}", post(copy::copy))
        .route("/v1/tables", get(tables::list))
        .route("/v1/tables/{name}", get(tables::describe))
        .route("/v1/health", get(docs::health))
        .route("/v1/openapi.json", get(docs::description))
        .route("/", get(docs::to_page))
        .route("/docs", get(docs::to_page))
        .route("/docs/", get(docs::index))
        .route("/docs/{*path}", get(docs::asset))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, None, "there is no such address"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, None, "not with this method")
        })
        .layer(from_fn_with_state(Arc::clone(http), guard))
        .with_state(Arc::clone(http))
}
