//! A node that lies in an answer: SQL says so, and gives no row.

use crate::real::{real, rows, run, state, tag};
use fluence_gateway::session::GatewayOptions;
use fluence_wire::{Request, Response};

#[tokio::test]
async fn an_answer_that_does_not_verify_is_an_error() {
    let real = real().await;
    let s = &mut real.gateway(GatewayOptions::default()).session("a", "db").await.unwrap();
    tag(s, "CREATE TABLE t (id bigint PRIMARY KEY, n bigint)").await;
    let values: Vec<String> = (0..600).map(|i| format!("({i}, {})", i * 3)).collect();
    tag(s, &format!("INSERT INTO t VALUES {}", values.join(", "))).await;
    let honest = rows(s, "SELECT sum(n) FROM t WHERE id < 500").await;
    real.net.tamper(|node, request| {
        let opens = matches!(request, Request::Open(_));
        let mut response = node.answer(request);
        if let (true, Response::Open(answer)) = (opens, &mut response) {
            let mut bytes = fluence_types::codec::encode(answer.as_ref());
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            if let Ok(spoilt) = fluence_types::codec::decode("answer", &bytes, bytes.len()) {
                **answer = spoilt;
            }
        }
        Ok(response)
    });
    for text in
        ["SELECT sum(n) FROM t WHERE id < 400", "SELECT n FROM t WHERE id = 7", "SELECT * FROM t", "UPDATE t SET n = 0"]
    {
        let code = state(s, text).await;
        assert!(matches!(code, "XX001" | "XX000" | "08006"), "{text}: {code}");
    }
    real.net.honest();
    assert_eq!(rows(s, "SELECT sum(n) FROM t WHERE id < 500").await, honest);
    assert!(run(s, "SELECT count(*) FROM t").await.is_ok());
    assert_eq!(real.nodes.len(), 1);
}
