//! Four members, of which one is dead, slow, behind, or lies: reads and writes go on, and the liar is named with what it said.

use crate::data::{Plain, batches, csv, schema};
use crate::flows::{Flights, check_all, database, session};
use crate::local::{Net, Node};
use fluence_client::{
    Aggregate, AggregateValue, ClientError, ImportOptions, KeyRange, Keystore, Passphrase, Progress, Session,
    TransportError, WorkFactor,
};
use fluence_types::block::Member;
use fluence_types::codec::decode;
use fluence_types::limits::{ANSWER_BYTES_MAX, EPOCH_BLOCKS};
use fluence_types::op::OpRefusal;
use fluence_types::{FieldBytes, NodeId, Version};
use fluence_verifier::answer;
use fluence_wire::message::Refusal;
use fluence_wire::{REQUEST_BYTES_MAX, Request, Response};
use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// A table on four members, in the order of their ids, with some rows.
async fn four(rows: usize) -> (Arc<Net>, Vec<Arc<Node>>, Flights, Plain) {
    let (net, mut nodes) = Net::of(&[1, 2, 3, 4]);
    nodes.sort_by_key(|n| n.id());
    let table = database(&net, &nodes).await.create_table(schema()).await.unwrap();
    let text = csv(rows, 7);
    table.import(batches(&text), ImportOptions { segment_rows: rows.div_ceil(2) }, |_| {}).await.unwrap();
    (net, nodes, table, Plain::of(&text))
}

async fn count(table: &Flights) -> Result<u64, ClientError> {
    match table.aggregate(&KeyRange::ALL, &Aggregate::Count).await?.value {
        AggregateValue::Count(n) => Ok(n),
        other => panic!("{other}"),
    }
}

async fn append(table: &Flights, rows: usize, seed: u64) {
    table.import(batches(&csv(rows, seed)), ImportOptions::default(), |_| {}).await.unwrap();
}

/// Makes one member of the net answer opened cells with one of them changed.
fn lie_by(net: &Net, liar: NodeId) {
    net.tamper(move |node, request| {
        let mut response = node.answer(request);
        if let Response::Open(answer) = &mut response
            && node.id() == liar
        {
            let mut segments = std::mem::take(&mut answer.segments).into_vec();
            for segment in segments.iter_mut().filter(|s| !s.cells.is_empty()) {
                segment.cells[0][3] = FieldBytes::from_u64(12345);
            }
            answer.segments = segments.try_into().unwrap();
        }
        Ok(response)
    });
}

#[test]
fn reads_and_writes_go_on_beside_one_member_that_is_dead_or_slow_or_behind() {
    block_on(async {
        let (net, nodes, table, plain) = four(400).await;
        check_all(&table, &plain).await;
        let mut rows = 400;
        for node in &nodes {
            for (trouble, seed) in [(&node.dead, 31), (&node.stuck, 32), (&node.lags, 33)] {
                // Nobody is ahead of the others in being asked.
                trouble.store(true, Relaxed);
                table.session().clear_caches();
                assert_eq!(count(&table).await.unwrap(), rows);
                append(&table, 20, seed + 100 * rows).await;
                rows += 20;
                table.session().clear_caches();
                assert_eq!(count(&table).await.unwrap(), rows);
                trouble.store(false, Relaxed);
                net.hub.catch_up(table.db(), node);
            }
        }
        assert!(table.session().liars().is_empty(), "nobody lied: {:?}", table.session().liars());
        check_all(&table, &Plain::of_batch(&table.select(&all()).await.unwrap().value)).await;
    });
}

fn all() -> fluence_client::Select {
    fluence_client::Select::range(KeyRange::ALL)
}

#[test]
fn with_one_dead_one_behind_and_one_lying_the_fourth_answers_and_the_liar_is_named() {
    block_on(async {
        let (net, nodes, table, _) = four(400).await;
        // The one behind misses a commit that the reader has seen.
        nodes[1].lags.store(true, Relaxed);
        append(&table, 10, 8).await;
        nodes[0].dead.store(true, Relaxed);
        let liar = nodes[2].id();
        lie_by(&net, liar);
        for _ in 0..4 {
            table.session().clear_caches();
            assert_eq!(count(&table).await.unwrap(), 410);
        }
        let liars = table.session().liars();
        assert_eq!(liars.iter().map(|l| l.node).collect::<BTreeSet<_>>(), BTreeSet::from([liar]));

        // Anyone may look at the evidence: an honest certificate, over cells that are not the ones stored.
        let lie = &liars[0];
        assert!(lie.what.contains("not the ones stored"), "{}", lie.what);
        let Ok(Request::Open(request)) = decode::<Request>("request", &lie.request, REQUEST_BYTES_MAX) else {
            panic!()
        };
        let Ok(Response::Open(answer)) = decode::<Response>("response", &lie.response, ANSWER_BYTES_MAX) else {
            panic!()
        };
        let trust = table.session().trust(&table.db()).unwrap();
        assert!(matches!(answer::verify(&trust, &request, *answer), Err(answer::AnswerError::Cells { .. })));
    });
}

#[test]
fn a_liar_that_is_asked_alone_is_an_error_and_an_honest_one_that_lags_is_no_liar() {
    block_on(async {
        let (net, nodes, table, _) = four(200).await;
        nodes[3].lags.store(true, Relaxed);
        append(&table, 10, 8).await;
        nodes[..3].iter().for_each(|n| n.dead.store(true, Relaxed));
        table.session().clear_caches();
        let behind = count(&table).await.unwrap_err();
        assert!(
            matches!(&behind, ClientError::Answer { why, .. } if matches!(**why, answer::AnswerError::OldHeight { .. }))
        );
        assert!(table.session().liars().is_empty());
        nodes[3].lags.store(false, Relaxed);
        nodes[..3].iter().for_each(|n| n.dead.store(false, Relaxed));
        net.hub.catch_up(table.db(), &nodes[3]);
        nodes[..3].iter().for_each(|n| n.dead.store(true, Relaxed));
        count(&table).await.unwrap();
        lie_by(&net, nodes[3].id());
        let lie = count(&table).await.unwrap_err();
        assert!(matches!(lie, ClientError::Page { .. } | ClientError::Answer { .. }), "{lie}");
        assert_eq!(table.session().liars()[0].node, nodes[3].id());
    });
}

#[test]
fn a_member_that_invents_outcomes_is_found_out_by_the_catalogue() {
    block_on(async {
        let (net, nodes, table, _) = four(100).await;
        let liar = nodes[1].id();
        // Whoever is asked first: it says "done" and orders nothing.
        let told: Arc<Mutex<u32>> = Arc::default();
        let tell = Arc::clone(&told);
        net.tamper(move |node, request| {
            if let Request::Submit(op) = &request
                && node.id() == liar
            {
                *tell.lock().unwrap() += 1;
                let certificate = node.latest(op.unsigned.db).unwrap();
                let op = fluence_crypto::sign::op_id(&op.unsigned);
                let receipt =
                    fluence_types::op::OpReceipt { op, height: certificate.header.executed_height, outcome: Ok(()) };
                return Ok(Response::Submit { receipt, certificate });
            }
            // The others are slow to take operations, so that the liar is the one who answers.
            if matches!(request, Request::Submit(_)) && *tell.lock().unwrap() == 0 {
                return Err(TransportError::Unreachable { node: node.id(), why: "busy".to_owned() });
            }
            Ok(node.answer(request))
        });
        append(&table, 10, 8).await;
        assert_eq!(*told.lock().unwrap(), 1);
        assert_eq!(count(&table).await.unwrap(), 110);
        let liars = table.session().liars();
        assert_eq!(liars.iter().map(|l| l.node).collect::<Vec<_>>(), [liar]);
        assert!(liars[0].what.contains("does not show the commit"), "{}", liars[0].what);
        assert!(!liars[0].response.is_empty() && !liars[0].request.is_empty());
    });
}

#[test]
fn a_plan_that_a_liar_calls_old_is_answered_by_the_others() {
    block_on(async {
        let (net, nodes, table, _) = four(100).await;
        count(&table).await.unwrap();
        let liar = nodes[0].id();
        net.tamper(move |node, request| match request {
            Request::Open(_) if node.id() == liar => {
                Ok(Response::Refused(Refusal::Open(fluence_types::answer::OpenRefusal::Moved(Version(99)))))
            }
            request => Ok(node.answer(request)),
        });
        for _ in 0..8 {
            assert_eq!(count(&table).await.unwrap(), 100);
        }
    });
}

#[test]
fn uploads_go_to_all_members_and_a_quorum_of_receipts_is_enough() {
    block_on(async {
        let (net, nodes, table, _) = four(100).await;
        let chunks = |net: &Net| {
            let (kinds, asked) = (net.requests.lock().unwrap(), net.asked.lock().unwrap());
            let to = kinds.iter().zip(asked.iter()).filter(|(k, _)| **k == "chunk").map(|(_, n)| *n);
            to.collect::<BTreeSet<_>>()
        };
        let mut seen = Vec::new();
        table.import(batches(&csv(3000, 9)), ImportOptions::default(), |p| seen.push(p)).await.unwrap();
        assert_eq!(chunks(&net).len(), 4, "to everyone");
        let shown: Vec<u64> = seen
            .iter()
            .filter_map(|p| if let Progress::Uploaded { bytes, .. } = p { Some(*bytes) } else { None })
            .collect();
        assert!(shown.is_sorted_by(|a, b| a < b), "progress only grows: {shown:?}");

        // One that never answers: the others' receipts are enough, and after the grace it is left.
        nodes[0].stuck.store(true, Relaxed);
        table.import(batches(&csv(3000, 10)), ImportOptions::default(), |_| {}).await.unwrap();
        // Two that are gone: too few, and the error says how many.
        nodes[0].stuck.store(false, Relaxed);
        nodes[..2].iter().for_each(|n| n.dead.store(true, Relaxed));
        let few = table.import(batches(&csv(3000, 11)), ImportOptions::default(), |_| {}).await.unwrap_err();
        assert!(matches!(few, ClientError::TooFew { failed: 2, members: 4, quorum: 3, .. }), "{few}");
        nodes[0].dead.store(false, Relaxed);
        let few = table.import(batches(&csv(3000, 12)), ImportOptions::default(), |_| {}).await;
        assert!(few.is_ok(), "three of four are a quorum again: {few:?}");
        assert_eq!(count(&table).await.unwrap(), 9100);
    });
}

#[test]
fn a_receipt_for_something_else_counts_for_nothing_and_names_its_signer() {
    block_on(async {
        let (net, nodes, table, _) = four(100).await;
        let liar = nodes[2].id();
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::UploadEnd(receipt) = &mut response
                && node.id() == liar
            {
                receipt.receipt.expiry.0 += 1000;
            }
            Ok(response)
        });
        table.import(batches(&csv(3000, 9)), ImportOptions::default(), |_| {}).await.unwrap();
        assert_eq!(count(&table).await.unwrap(), 3100);
        let liars = table.session().liars();
        assert_eq!(liars.iter().map(|l| l.node).collect::<Vec<_>>(), [liar]);
    });
}

#[test]
fn a_database_is_made_by_a_quorum_of_nodes_that_have_the_keys_they_name() {
    block_on(async {
        let (net, nodes) = Net::of(&[1, 2, 3, 4]);
        let ids: Vec<NodeId> = nodes.iter().rev().map(|n| n.id()).collect();
        let other = nodes[1].member();
        // A node that shows another's vote key as its own.
        let thief = nodes[0].id();
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::Status(status) = &mut response
                && node.id() == thief
            {
                let (vote_key, possession) = (other.vote_key, other.possession);
                status.member = Member { node: thief, vote_key, possession };
            }
            Ok(response)
        });
        let owner = session(&net, 1);
        let refused = owner.create_database("stolen", ids.clone(), vec![]).await.unwrap_err();
        assert!(matches!(refused, ClientError::Signature { node, .. } if node == thief), "{refused}");
        assert!(owner.known().is_empty());
        // One that calls itself another.
        let second = nodes[1].id();
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::Status(status) = &mut response {
                status.member.node = second;
            }
            Ok(response)
        });
        assert!(matches!(owner.create_database("x", ids.clone(), vec![]).await, Err(ClientError::Protocol { .. })));
        net.honest();
        let twice = vec![ids[0], ids[0]];
        assert!(matches!(owner.create_database("twice", twice, vec![]).await, Err(ClientError::Members(_))));

        // Two of four refuse the operation: too few.
        let refusing = [ids[0], ids[1]];
        net.tamper(move |node, request| match request {
            Request::Submit(_) if refusing.contains(&node.id()) => {
                Ok(Response::Refused(Refusal::Operation("full".to_owned())))
            }
            request => Ok(node.answer(request)),
        });
        let few = owner.create_database("few", ids.clone(), vec![]).await.unwrap_err();
        assert!(matches!(few, ClientError::TooFew { failed: 2, members: 4, quorum: 3, .. }), "{few}");
        // One of four refuses: it is made, with members in order.
        net.tamper(move |node, request| match request {
            Request::Submit(_) if refusing[0] == node.id() => {
                Ok(Response::Refused(Refusal::Operation("full".to_owned())))
            }
            request => Ok(node.answer(request)),
        });
        let made = owner.create_database("made", ids.clone(), vec![]).await.unwrap();
        let members = &owner.known()[&made.id()].members;
        assert!(members.len() == 4 && members.windows(2).all(|w| w[0].node < w[1].node));
        made.create_table(schema()).await.unwrap();
    });
}

#[test]
fn the_committee_is_followed_through_its_changes_and_remembered() {
    block_on(async {
        let (net, mut nodes) = Net::of(&[1, 2, 3, 4, 5, 6]);
        let fresh = nodes.split_off(4);
        nodes.sort_by_key(|n| n.id());
        let folder = tempfile::tempdir().unwrap();
        let (path, pass) = (folder.path().join("keys.age"), Passphrase::new("p".to_owned()).unwrap());
        let keyring = fluence_client::Keyring::generate(&mut StdRng::seed_from_u64(1));
        let keystore = Keystore::create(&path, &pass, keyring, WorkFactor::TEST).unwrap();
        let owner = Session::new(Arc::clone(&net), keystore, StdRng::seed_from_u64(2));
        let ids = nodes.iter().map(|n| n.id()).collect();
        let db = owner.create_database("test", ids, vec![]).await.unwrap();
        let table = db.create_table(schema()).await.unwrap();
        append(&table, 50, 1).await;
        let first = owner.known()[&db.id()].committee();
        assert_eq!((first.since, first.until), (0, None));

        // Two replacements, in two epochs, while nobody asked.
        net.hub.replace(db.id(), &nodes[0], &fresh[0]);
        nodes[0].dead.store(true, Relaxed);
        net.hub.replace(db.id(), &nodes[1], &fresh[1]);
        nodes[1].dead.store(true, Relaxed);
        table.session().clear_caches();
        assert_eq!(count(&table).await.unwrap(), 50);
        let now = owner.known()[&db.id()].committee();
        assert_eq!(now.since, 2, "the last change was at the end of epoch 1");
        let want: BTreeSet<_> = [&nodes[2], &nodes[3], &fresh[0], &fresh[1]].iter().map(|n| n.id()).collect();
        assert_eq!(now.members.iter().map(|m| m.node).collect::<BTreeSet<_>>(), want);
        append(&table, 10, 2).await;
        assert_eq!(count(&table).await.unwrap(), 60);
        assert!(owner.liars().is_empty(), "{:?}", owner.liars());

        // It is remembered, and the old committee is not believed again: neither in an old epoch, nor in a new one.
        let reopened = Keystore::open(&path, &pass).unwrap();
        assert_eq!(reopened.state.databases[&db.id()].committee(), now);
        let back = Session::new(Arc::clone(&net), reopened, StdRng::seed_from_u64(3));
        let trust = back.trust(&db.id()).unwrap();
        let mut header = fresh[0].latest(db.id()).unwrap().header;
        let sign = |header: &fluence_types::block::BlockHeader| nodes[0].certify(header.clone());
        let late = answer::verify_certificate(&trust, &sign(&header)).unwrap_err();
        assert!(matches!(late, answer::AnswerError::Certificate { .. } | answer::AnswerError::NewCommittee { .. }));
        (header.consensus_epoch, header.height.0, header.executed_height.0) = (0, 60, 59);
        let old = answer::verify_certificate(&trust, &sign(&header)).unwrap_err();
        assert!(matches!(old, answer::AnswerError::OldCommittee { epoch: 0, since: 2 }), "{old}");

        // The phrase alone finds the committee of today; a node that is gone does not stop it.
        let phrase = owner.keyring().phrase();
        let words = phrase.expose(str::to_owned);
        let keyring = fluence_client::Keyring::from_phrase(&fluence_client::Phrase::new(words)).unwrap();
        let again = Session::new(Arc::clone(&net), Keystore::in_memory(keyring), StdRng::seed_from_u64(4));
        let all: Vec<_> = nodes.iter().chain(&fresh).map(|n| (n.id(), String::new())).collect();
        assert_eq!(again.recover(&all).await.unwrap(), [db.id()]);
        assert_eq!(again.known()[&db.id()].members, now.members);
        let theirs = again.database(db.id()).unwrap().table("flights").await.unwrap();
        assert_eq!(count(&theirs).await.unwrap(), 60);

        // Who knows an older committee and recovers follows it; a list without the newcomers would not do.
        let stale = session(&net, 77);
        stale.remember(db.id(), fluence_client::keystore::KnownDatabase::of("old", first.clone())).unwrap();
        assert!(stale.follow_committee(&db.id()).await.unwrap());
        assert_eq!(stale.trust(&db.id()).unwrap().committee.members, now.members);
    });
}

#[test]
fn a_committee_that_nobody_can_show_is_a_lie() {
    block_on(async {
        let (net, nodes, table, _) = four(50).await;
        let db = table.db();
        // All four are taken over by one who signs with other keys, in a later epoch, and forges the way there.
        let (_, strangers) = Net::of(&[11]);
        let forger = Arc::clone(&strangers[0]);
        let root = nodes[0].engine.checkpoint(db).unwrap();
        net.tamper(move |node, request| {
            let forged = |height| {
                let mut checkpoint = root;
                checkpoint.height.0 = height;
                forger.certify_root(checkpoint)
            };
            Ok(match request {
                Request::Handovers { .. } => {
                    let members: fluence_types::block::Members = vec![forger.member()].try_into().unwrap();
                    let mut certificate = forged(EPOCH_BLOCKS - 2);
                    certificate.header.next_members_hash = fluence_crypto::vote::members_hash(&members).unwrap();
                    let certificate = forger.certify(certificate.header);
                    let handover = fluence_types::block::Handover { certificate, members };
                    Response::Handovers(vec![handover].try_into().unwrap())
                }
                request => {
                    let mut response = node.answer(request);
                    match &mut response {
                        Response::Catalogue(s) => s.certificate = forged(3 * EPOCH_BLOCKS),
                        Response::Open(a) => a.snapshot.certificate = forged(3 * EPOCH_BLOCKS),
                        _ => {}
                    }
                    response
                }
            })
        });
        table.session().clear_caches();
        let refused = count(&table).await.unwrap_err();
        assert!(
            matches!(&refused, ClientError::Answer { why, .. } if matches!(**why, answer::AnswerError::NewCommittee { .. })),
            "{refused}"
        );
        let liars = table.session().liars();
        let who: BTreeSet<_> = liars.iter().map(|l| l.node).collect();
        assert_eq!(who.len(), 4, "all of them: {:?}", liars.iter().map(|l| &l.what).collect::<Vec<_>>());
        assert!(liars.iter().any(|l| l.what.contains("handover of epoch 0 is not by the committee")));
        assert_eq!(table.session().trust(&db).unwrap().committee.since, 0, "nothing was adopted");
        net.honest();
        assert_eq!(count(&table).await.unwrap(), 50);
    });
}

#[test]
fn a_conflict_says_that_it_may_be_retried() {
    let conflict =
        OpRefusal::Conflict { projection: fluence_types::ProjectionId(1), read: Version(2), current: Version(3) };
    let error = ClientError::from(conflict);
    assert!(error.is_retryable());
    assert!(error.to_string().contains("nothing was written: read again and retry"), "{error}");
    assert!(!ClientError::from(OpRefusal::Malformed("x".to_owned())).is_retryable());
}
