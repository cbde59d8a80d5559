//! A node that lies, in every way we know: each answer is refused with an error that names what was wrong.

use crate::data::{hour, schema};
use crate::flows::{Flights, database, imported};
use crate::local::{Net, Node};
use fluence_client::{Aggregate, ClientError, KeyRange, Select, SumExpr};
use fluence_crypto::secret::Secret;
use fluence_crypto::sign::NodeKey;
use fluence_crypto::vote;
use fluence_types::answer::{Answer, SegmentOpening, Snapshot};
use fluence_types::codec::{Bounded, decode, encode};
use fluence_types::limits::{ANSWER_BYTES_MAX, PAGE_CELLS};
use fluence_types::{DatabaseId, FieldBytes, Height};
use fluence_verifier::answer::{self, Trust};
use fluence_verifier::committee::Committee;
use fluence_wire::{Request, Response};
use futures::executor::block_on;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

type Spoil = Box<dyn Fn(&mut Response) + Send>;
type Lie = Box<dyn FnMut(&Node, &Request, &mut Answer) + Send>;

fn edit(answer: &mut Answer, change: impl FnOnce(&mut Vec<SegmentOpening>)) {
    let mut segments = std::mem::take(&mut answer.segments).into_vec();
    change(&mut segments);
    answer.segments = Bounded::new(segments).unwrap();
}

/// Lies about every answer of opened cells.
fn lie_with(net: &Net, mut lie: Lie) {
    net.tamper(move |node, request| {
        let mut response = node.answer(request.clone());
        if let Response::Open(answer) = &mut response {
            lie(node, &request, answer);
        }
        Ok(response)
    });
}

async fn ask(table: &Flights, sums: bool) -> Result<(), ClientError> {
    let range = KeyRange::between(vec![hour(3, 0)], vec![hour(20, 0)]);
    if sums {
        table.aggregate(&range, &Aggregate::Sum(SumExpr::Column("delay".into()))).await.map(|_| ())
    } else {
        table.select(&Select::range(range)).await.map(|_| ())
    }
}

/// A snapshot of the table as it was before its last commit: an old height, an old list of live segments.
async fn older(table: &Flights, node: &Node) -> Snapshot {
    node.snapshot(table.db(), table.projection()).unwrap()
}

#[test]
fn every_kind_of_lie_about_cells_is_refused_and_named() {
    block_on(async {
        let (net, node, table, _) = imported(1500, 600).await;
        // An old answer, kept from before a retraction.
        let stale = older(&table, &node).await;
        table.delete(&KeyRange::prefix(vec![hour(5, 5)]), |_| true).await.unwrap();
        table.delete(&KeyRange::prefix(vec![hour(6, 6)]), |_| true).await.unwrap().expect("there are rows");
        table.session().database(table.db()).unwrap().snapshot(&table).await.unwrap();
        let other_key = NodeKey::new(Secret::new([99; 32]));

        type Make = Box<dyn Fn() -> Lie>;
        let last = |a: &Answer| a.segments.len() - 1;
        let lies: Vec<(&str, &[&str], Make)> = vec![
            (
                "one wrong byte",
                &["of segment", "is not the one stored"],
                Box::new(|| {
                    Box::new(|_, _, a| {
                        edit(a, |s| {
                            let cell = s.iter_mut().find(|s| !s.cells.is_empty()).unwrap().cells.first_mut().unwrap();
                            let mut bytes = cell[3].to_bytes();
                            bytes[31] ^= 1;
                            cell[3] = FieldBytes::from_canonical(bytes).unwrap();
                        })
                    })
                }),
            ),
            (
                "a missing cell",
                &["cells,", "were asked for"],
                Box::new(|| {
                    Box::new(|_, _, a| {
                        edit(a, |s| {
                            s.iter_mut().find(|s| !s.cells.is_empty()).unwrap().cells.pop();
                        })
                    })
                }),
            ),
            (
                "an extra cell",
                &["cells,", "were asked for"],
                Box::new(|| {
                    Box::new(|_, _, a| {
                        edit(a, |s| {
                            let cells = &mut s.iter_mut().find(|s| !s.cells.is_empty()).unwrap().cells;
                            cells.push(cells[0]);
                        })
                    })
                }),
            ),
            (
                "reordered cells",
                &["of segment", "is not the one stored"],
                Box::new(|| {
                    Box::new(|_, _, a| {
                        edit(a, |s| {
                            if let Some(s) = s.iter_mut().find(|s| s.cells.len() > 1) {
                                s.cells.reverse();
                            } else {
                                s[0].cells[0].reverse();
                            }
                        })
                    })
                }),
            ),
            (
                "an omitted retraction segment",
                &["segments opened", "are live"],
                Box::new(move || {
                    Box::new(move |_, _, a| {
                        let at = last(a);
                        edit(a, |s| drop(s.remove(at)));
                    })
                }),
            ),
            (
                "an omitted retraction segment, and the list shortened too",
                &["does not open to the catalogue root"],
                Box::new(move || {
                    Box::new(move |_, _, a| {
                        let at = last(a);
                        edit(a, |s| drop(s.remove(at)));
                        let mut live = a.snapshot.opening.entry.live.to_vec();
                        live.pop();
                        a.snapshot.opening.entry.live = Bounded::new(live).unwrap();
                    })
                }),
            ),
            (
                "a segment counted twice",
                &["segment", "of the answer is", "live there is"],
                Box::new(move || {
                    Box::new(move |_, _, a| {
                        let at = last(a);
                        edit(a, |s| s[at] = s[0].clone());
                    })
                }),
            ),
            (
                "segments in another order",
                &["segment 0 of the answer"],
                Box::new(|| Box::new(|_, _, a| edit(a, |s| s.swap(0, 1)))),
            ),
            ("a stale snapshot", &["is older than"], {
                let stale = stale.clone();
                Box::new(move || {
                    let stale = stale.clone();
                    Box::new(move |_, _, a| a.snapshot = stale.clone())
                })
            }),
            (
                "another node's signature",
                &["not signed by the members"],
                Box::new(move || {
                    let key = NodeKey::new(other_key.expose(|k| Secret::new(*k)));
                    Box::new(move |_, _, a| {
                        let c = &mut a.snapshot.certificate;
                        let alone = Bounded::new(vec![key.member()]).unwrap();
                        *c = vote::certify(c.header.clone(), c.view, c.parent_view, &alone, &[&key]).unwrap();
                    })
                }),
            ),
            (
                "no signature",
                &["0 of 1 members signed"],
                Box::new(|| {
                    Box::new(|_, _, a| {
                        a.snapshot.certificate.signers = 0;
                    })
                }),
            ),
            (
                "a foreign database",
                &["is about database"],
                Box::new(|| {
                    Box::new(|node, _, a| {
                        let mut header = a.snapshot.certificate.header.clone();
                        header.db = DatabaseId::from_bytes([7; 16]);
                        a.snapshot.certificate = node.certify(header);
                    })
                }),
            ),
            (
                "a certified root that is not the catalogue's",
                &["certified is"],
                Box::new(|| {
                    Box::new(|node, _, a| {
                        let mut header = a.snapshot.certificate.header.clone();
                        header.executed_root = fluence_types::DbRoot::from_field(FieldBytes::from_u64(5));
                        a.snapshot.certificate = node.certify(header);
                    })
                }),
            ),
            (
                "an old height, newly signed",
                &["is older than"],
                Box::new(|| {
                    Box::new(|node, _, a| {
                        let mut checkpoint = a.snapshot.certificate.checkpoint();
                        checkpoint.height = Height(1);
                        a.snapshot.certificate = node.certify_root(checkpoint);
                    })
                }),
            ),
        ];
        let mut refused = 0;
        for sums in [false, true] {
            for (name, wants, make) in &lies {
                // Nothing is planned from a cache that an honest answer filled, but headers.
                lie_with(&net, make());
                let error = ask(&table, sums).await.expect_err(name).to_string();
                assert!(wants.iter().all(|w| error.contains(w)), "{name}: {error}");
                assert!(error.contains("refused"), "{name}: {error}");
                net.honest();
                ask(&table, sums).await.unwrap();
                refused += 1;
            }
        }
        println!("{refused} lies refused");
    });
}

#[test]
fn a_superseded_segment_counted_again_is_refused() {
    block_on(async {
        let (net, _, table, _) = imported(900, 300).await;
        let before: Arc<Mutex<Option<Answer>>> = Arc::default();
        let keep = Arc::clone(&before);
        lie_with(&net, Box::new(move |_, _, a| *keep.lock().unwrap() = Some(a.clone())));
        ask(&table, true).await.unwrap();
        net.honest();
        table.compact().await.unwrap().unwrap();
        ask(&table, true).await.unwrap();
        // The whole answer of before, and its segments beside the compacted one.
        let old = before.lock().unwrap().clone().unwrap();
        let whole = old.clone();
        lie_with(&net, Box::new(move |_, _, a| *a = whole.clone()));
        let error = ask(&table, true).await.unwrap_err().to_string();
        assert!(error.contains("is older than"), "{error}");
        lie_with(&net, Box::new(move |_, _, a| edit(a, |s| s.push(old.segments[0].clone()))));
        let error = ask(&table, true).await.unwrap_err().to_string();
        assert!(error.contains("2 segments opened, 1 are live"), "{error}");
    });
}

#[test]
fn a_wrong_page_is_found_and_named() {
    block_on(async {
        let (net, node, table, _) = imported(3000, 3000).await;
        let root = node.engine.view(table.db()).unwrap().segments()[0].root;
        // One cell of each page in turn is bad, whatever is asked.
        let pages = node.engine.view(table.db()).unwrap().segments()[0].preimage.cells / PAGE_CELLS as u64;
        let mut named = 0;
        for bad in (1..pages).step_by(5) {
            lie_with(
                &net,
                Box::new(move |_, request, a| {
                    let Request::Open(request) = request else { return };
                    let indices: Vec<u64> = request.segments[0].ranges.iter().flat_map(|r| r.first..r.end()).collect();
                    edit(a, |s| {
                        for (cell, index) in s[0].cells.iter_mut().zip(indices) {
                            if index / PAGE_CELLS as u64 == bad {
                                cell[0] = FieldBytes::from_u64(index);
                            }
                        }
                    });
                }),
            );
            match table.select(&Select::range(KeyRange::ALL)).await {
                Err(ClientError::Page { segment, page, .. }) => {
                    assert_eq!((segment, page), (root, bad));
                    named += 1;
                }
                // Pages of sum lanes are not read by a SELECT.
                Ok(_) => {}
                Err(other) => panic!("page {bad}: {other}"),
            }
        }
        assert!(named > 1, "{named}");
        println!("{named} wrong pages named, of {pages}");
    });
}

#[test]
fn headers_and_catalogue_entries_are_not_believed_either() {
    block_on(async {
        let (net, _, table, _) = imported(600, 600).await;
        let cases: Vec<(&str, Spoil)> = vec![
            (
                "do not hash",
                Box::new(|r| {
                    if let Response::Header(h) = r {
                        h.cells[2][0] = FieldBytes::from_u64(3)
                    }
                }),
            ),
            (
                "do not hash",
                Box::new(|r| {
                    if let Response::Header(h) = r {
                        h.cells.pop();
                    }
                }),
            ),
            (
                "live there is",
                Box::new(|r| {
                    if let Response::Header(h) = r {
                        h.preimage.cells += 1
                    }
                }),
            ),
            (
                "does not open to the catalogue root",
                Box::new(|r| {
                    if let Response::Catalogue(s) = r {
                        s.opening.entry.version.0 += 1
                    }
                }),
            ),
            (
                "not signed by the members",
                Box::new(|r| {
                    if let Response::Catalogue(s) = r {
                        s.certificate.header.timestamp_ms += 1
                    }
                }),
            ),
            (
                "broke the protocol",
                Box::new(|r| {
                    if let Response::Open(_) = r {
                        *r = Response::Upload { have: 0 }
                    }
                }),
            ),
        ];
        for (want, case) in cases {
            table.session().clear_caches();
            net.tamper(move |node, request| {
                let mut response = node.answer(request);
                case(&mut response);
                Ok(response)
            });
            let error = ask(&table, true).await.expect_err(want).to_string();
            assert!(error.contains(want), "{error}");
            net.honest();
        }
        table.session().clear_caches();
        ask(&table, true).await.unwrap();
    });
}

#[test]
fn every_flipped_byte_of_an_encoded_answer_is_refused() {
    block_on(async {
        let (net, node, table, _) = imported(600, 300).await;
        let kept: Arc<Mutex<Option<(Request, Answer)>>> = Arc::default();
        let keep = Arc::clone(&kept);
        lie_with(&net, Box::new(move |_, r, a| *keep.lock().unwrap() = Some((r.clone(), a.clone()))));
        ask(&table, true).await.unwrap();
        let (request, honest) = kept.lock().unwrap().take().unwrap();
        let Request::Open(request) = request else { panic!("an answer to something else") };
        let committee = Committee::new(0, vec![node.member()].try_into().unwrap());
        let trust = Trust { db: table.db(), committee, min_height: Height(0) };
        let bytes = encode(&honest);
        answer::verify(&trust, &request, honest).unwrap();
        let mut by: BTreeMap<&str, usize> = BTreeMap::new();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            let who = match decode::<Answer>("answer", &bad, ANSWER_BYTES_MAX) {
                Err(_) => "codec",
                Ok(answer) => {
                    assert!(answer::verify(&trust, &request, answer).is_err(), "flip at byte {at}");
                    "verifier"
                }
            };
            *by.entry(who).or_default() += 1;
        }
        println!("{} flips of an answer of {} bytes, all refused: {by:?}", bytes.len(), bytes.len());
    });
}

#[test]
fn an_answer_of_another_kind_breaks_the_protocol() {
    block_on(async {
        let (net, nodes) = Net::of(&[1]);
        let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
        net.tamper(|_, _| Ok(Response::Upload { have: 1 }));
        let error = table.aggregate(&KeyRange::ALL, &Aggregate::Count).await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    });
}
