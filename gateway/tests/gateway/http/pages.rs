//! What is there for everybody, and what the tables look like.

use super::support::{options, start};
use serde_json::{Value, json};

#[tokio::test]
async fn tables_tell_columns_keys_and_rows() {
    let server = start(options()).await;
    let sql = "CREATE TABLE t (id bigserial PRIMARY KEY, name varchar(20) NOT NULL DEFAULT 'x', w numeric(5,1), CHECK (w > 0))";
    assert_eq!(server.query(sql, json!([])).await.status, 200);
    server.query("CREATE UNIQUE INDEX by_name ON t (name)", json!([])).await;
    server.query("CREATE TABLE \"odd / name\" (v text)", json!([])).await;
    server.query("CREATE VIEW heavy AS SELECT name FROM t WHERE w > 60", json!([])).await;
    server.query("INSERT INTO t (name, w) VALUES ('a', 1), ('b', 2)", json!([])).await;
    let list = server.ada("GET", "/v1/tables", &[], b"").await.json();
    let expected = json!({"tables": [
        {"name": "heavy", "kind": "view"}, {"name": "odd / name", "kind": "table"}, {"name": "t", "kind": "table"},
    ]});
    assert_eq!(list, expected);
    let t = server.ada("GET", "/v1/tables/t", &[], b"").await.json();
    assert_eq!((&t["rows"], &t["primary_key"], &t["sort_key"]), (&json!(2), &json!(["id"]), &json!(["id"])));
    assert_eq!(t["indexes"], json!([{"name": "by_name", "columns": ["name"], "unique": true}]));
    assert_eq!(t["checks"].as_array().unwrap().len(), 1);
    assert_eq!((&t["columns"][0]["identity"], &t["columns"][0]["type"]), (&json!(true), &json!("bigint")));
    assert_eq!(t["columns"][1]["type"], "character varying");
    assert_eq!((&t["columns"][1]["nullable"], &t["columns"][1]["characters_max"]), (&json!(false), &json!(20)));
    assert_eq!((&t["columns"][2]["precision"], &t["columns"][2]["scale"]), (&json!(5), &json!(1)));
    assert!(t["verified"]["height"].as_u64().unwrap() > 0);
    let odd = server.ada("GET", "/v1/tables/odd%20%2F%20name", &[], b"").await.json();
    assert_eq!(
        (&odd["rows"], &odd["primary_key"], odd["columns"].as_array().unwrap().len()),
        (&json!(0), &json!(null), 1)
    );
    let view = server.ada("GET", "/v1/tables/heavy", &[], b"").await.json();
    assert_eq!(
        (&view["kind"], &view["rows"], &view["columns"][0]["name"]),
        (&json!("view"), &json!(null), &json!("name"))
    );
    for name in ["nosuch", "fluence_objects", "t%22%3B%20DROP%20TABLE%20t"] {
        assert_eq!(server.ada("GET", &format!("/v1/tables/{name}"), &[], b"").await.status, 404, "{name}");
    }
    server.stop().await;
}

/// Every `$ref` of a description.
fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| match (name.as_str(), value.as_str()) {
            ("$ref", Some(target)) => found.push(target.to_owned()),
            _ => references(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_description_names_every_address_and_nothing_that_is_not_there() {
    let server = start(options()).await;
    let answer = server.send("GET", "/v1/openapi.json", &[], b"").await;
    let api = answer.json();
    assert!(api["openapi"].as_str().unwrap().starts_with("3.1"), "{}", api["openapi"]);
    let mut targets = Vec::new();
    references(&api, &mut targets);
    assert!(!targets.is_empty());
    for target in targets {
        assert!(api.pointer(target.trim_start_matches('#')).is_some(), "{target}");
    }
    // Each is answered by a handler: no 404 for the address, no 405 for the method.
    for (path, methods) in api["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let real = path.replace("{id}", "x").replace("{table}", "x").replace("{name}", "x");
            let answer = server.ada(&method.to_uppercase(), &real, &[], b"").await;
            assert_ne!(answer.status, 405, "{method} {path}");
            let unknown = answer.status == 404 && answer.text().contains("no such address");
            assert!(!unknown, "{method} {path}");
        }
    }
    assert_eq!(api["paths"].as_object().unwrap().len(), 10);
    let nowhere = server.ada("GET", "/v1/nosuch", &[], b"").await;
    assert_eq!((nowhere.status, nowhere.state().as_str()), (404, "404"));
    assert_eq!(server.ada("GET", "/v1/query", &[], b"").await.status, 405);
    server.stop().await;
}

#[tokio::test]
async fn the_page_is_whole_without_any_other_server() {
    let server = start(options()).await;
    assert_eq!(server.send("GET", "/v1/health", &[], b"").await.json()["status"], "ok");
    for path in ["/", "/docs"] {
        let answer = server.send("GET", path, &[], b"").await;
        assert_eq!((answer.status, answer.field("location")), (308, "/docs/"));
    }
    let page = server.send("GET", "/docs/", &[], b"").await;
    assert!(page.field("content-type").starts_with("text/html"));
    assert!(page.field("content-security-policy").starts_with("default-src 'none'"));
    assert_eq!((page.field("cache-control"), page.field("x-content-type-options")), ("no-store", "nosniff"));
    let assets: Vec<&str> = page
        .text()
        .split(['"', '\''])
        .filter(|text| [".js", ".css", ".png"].iter().any(|end| text.ends_with(end)))
        .collect();
    assert!(assets.len() > 3, "{}", page.text());
    for asset in assets {
        assert!(!asset.contains("://"), "{asset}");
        let path = format!("/docs/{}", asset.trim_start_matches("./"));
        assert_eq!(server.send("GET", &path, &[], b"").await.status, 200, "{path}");
    }
    let start = server.send("GET", "/docs/swagger-initializer.js", &[], b"").await;
    assert!(start.text().contains("/v1/openapi.json"), "{}", start.text());
    for path in ["/docs/nosuch.js", "/docs/../v1/tables", "/docs/%2e%2e/%2e%2e/etc/passwd"] {
        assert!([404, 401].contains(&server.send("GET", path, &[], b"").await.status), "{path}");
    }
    server.stop().await;
}
