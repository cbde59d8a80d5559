//! Reads that ask f + 1 members first: what a stale member can hide without them, and cannot with them.

use crate::flows::database;
use crate::local::{Net, Node};
use crate::small::{all, ask_first, batch, schema};
use fluence_client::{ClientError, Keyring, Keystore, Phrase, Session, SessionOptions, Table, TransportError};
use fluence_types::NodeId;
use fluence_wire::Response;
use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A reader with the owner's keys, as it was when the table had one row; since then a second was written, which `stale` has not seen.
async fn reader(fresh: bool, stale: usize) -> (Arc<Net>, Vec<Arc<Node>>, Table<Arc<Net>>) {
    let (net, nodes) = Net::of(&[1, 2, 3, 4]);
    let db = database(&net, &nodes).await;
    let table = db.create_table(schema("t")).await.unwrap();
    table.append(&batch(&[(1, 10)])).await.unwrap();
    let words = db.session().keyring().phrase().expose(|words| Phrase::new(words.to_owned()));
    let options = SessionOptions { fresh, ..SessionOptions::default() };
    let keystore = Keystore::in_memory(Keyring::from_phrase(&words).unwrap());
    let session = Session::with(Arc::clone(&net), keystore, StdRng::seed_from_u64(5), options);
    session.remember(db.id(), db.session().known().remove(&db.id()).unwrap()).unwrap();
    nodes[stale].lags.store(true, Relaxed);
    table.append(&batch(&[(2, 20)])).await.unwrap();
    // The stale one is whom the reader asks first.
    let database = session.database(db.id()).unwrap();
    let reading = database.table("t").await.unwrap();
    net.asked.lock().unwrap().clear();
    ask_first(&database, &nodes[stale]);
    (net, nodes, reading)
}

#[test]
fn a_member_that_lags_hides_the_newest_rows_from_a_reader_that_asks_it_alone_and_not_from_one_that_asks_another() {
    block_on(async {
        let (_, _, table) = reader(false, 2).await;
        assert_eq!(all(&table).await, [(1, 10)], "certified, whole, and old");
        let (net, nodes, table) = reader(true, 2).await;
        assert_eq!(all(&table).await, [(1, 10), (2, 20)]);
        assert!(table.session().liars().is_empty(), "to be behind is no lie");
        let asked: std::collections::BTreeSet<NodeId> = net.asked.lock().unwrap().iter().copied().collect();
        assert!(asked.len() >= 2 && asked.contains(&nodes[2].id()));
    });
}

#[test]
fn one_that_lies_about_what_is_the_newest_is_blamed_and_does_not_count() {
    block_on(async {
        let (net, nodes, table) = reader(true, 2).await;
        // The stale one makes a certificate of its own up: it counts for nothing, and two others are asked.
        let liar = nodes[2].id();
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::Catalogue(snapshot) = &mut response
                && node.id() == liar
            {
                snapshot.certificate = node.certify(snapshot.certificate.header.clone());
            }
            Ok(response)
        });
        assert_eq!(all(&table).await, [(1, 10), (2, 20)]);
        let lies = table.session().liars();
        assert!(!lies.is_empty() && lies.iter().all(|l| l.node == liar));
        assert!(!lies[0].request.is_empty() && !lies[0].response.is_empty());
    });
}

#[test]
fn fewer_than_f_and_one_members_are_not_enough() {
    block_on(async {
        let (net, nodes, table) = reader(true, 2).await;
        let only = nodes[2].id();
        net.tamper(move |node, request| match node.id() == only {
            true => Ok(node.answer(request)),
            false => Err(TransportError::Unreachable { node: node.id(), why: "the cable".to_owned() }),
        });
        let few = table.select(&fluence_client::Select::range(fluence_client::KeyRange::ALL)).await.unwrap_err();
        assert!(matches!(few, ClientError::TooFew { quorum: 2, members: 4, .. }), "{few}");
        // A slow one is not waited for.
        net.tamper(|node, request| Ok(node.answer(request)));
        nodes[2].stuck.store(true, Relaxed);
        assert_eq!(all(&table).await, [(1, 10), (2, 20)]);
    });
}

/// The committee has changed since: who says so is followed first.
#[test]
fn a_reader_that_slept_through_a_change_of_the_committee_follows_it_first() {
    block_on(async {
        let (net, nodes) = Net::of(&[1, 2, 3, 4, 5]);
        let db = database(&net, &nodes[..4]).await;
        let table = db.create_table(schema("t")).await.unwrap();
        table.append(&batch(&[(1, 10)])).await.unwrap();
        let known = db.session().known().remove(&db.id()).unwrap();
        net.hub.replace(db.id(), &nodes[0], &nodes[4]);
        assert!(db.session().follow_committee(&db.id()).await.unwrap());
        ask_first(&db, &nodes[1]);
        table.append(&batch(&[(2, 20)])).await.unwrap();
        let words = db.session().keyring().phrase().expose(|words| Phrase::new(words.to_owned()));
        let keystore = Keystore::in_memory(Keyring::from_phrase(&words).unwrap());
        let options = SessionOptions { fresh: true, ..SessionOptions::default() };
        let session = Session::with(Arc::clone(&net), keystore, StdRng::seed_from_u64(5), options);
        session.remember(db.id(), known).unwrap();
        let reading = session.database(db.id()).unwrap().table("t").await.unwrap();
        assert_eq!(all(&reading).await, [(1, 10), (2, 20)]);
        assert_eq!(session.database(db.id()).unwrap().committee().unwrap().since, 1);
    });
}
