//! Pages for everybody: whether the server is there, what it offers, and a page to try it.
//!
//! Page    Swagger UI, its files inside the binary: nothing is fetched from elsewhere, and its policy lets it ask this server only.

use super::api::openapi;
use super::problem::Problem;
use axum::extract::Path;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use std::sync::{Arc, LazyLock};
use utoipa::ToSchema;
use utoipa_swagger_ui::Config;

/// Styles of Swagger UI are partly in its markup; its pictures are data.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The server is there.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
    /// Its version.
    version: &'static str,
}

/// Ask whether the server is there; says nothing of the nodes.
#[utoipa::path(get, path = "/v1/health", tag = "server", security(()), responses(
    (status = 200, description = "It is", body = Health),
))]
pub(super) async fn health() -> Response {
    super::answer::json(StatusCode::OK, &Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// This description.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "server", security(()), responses(
    (status = 200, description = "OpenAPI 3.1", body = serde_json::Value),
))]
pub(super) async fn description() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(openapi);
    ([(header::CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

/// Where the page is.
pub(super) async fn to_page() -> Redirect {
    Redirect::permanent("/docs/")
}

/// The page.
pub(super) async fn index() -> Result<Response, Problem> {
    file("index.html")
}

/// What the page is made of.
pub(super) async fn asset(Path(path): Path<String>) -> Result<Response, Problem> {
    file(&path)
}

fn file(path: &str) -> Result<Response, Problem> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
        Arc::new(
            Config::new(["/v1/openapi.json"]).validator_url("none").default_models_expand_depth(0).use_base_layout(),
        )
    });
    let found = utoipa_swagger_ui::serve(path, Arc::clone(&CONFIG)).ok().flatten();
    let page = found.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, None, "there is no such page"))?;
    let mut response = page.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(kind) = HeaderValue::from_str(&page.content_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Ok(response)
}
