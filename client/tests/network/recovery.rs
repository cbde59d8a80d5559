//! The recovery phrase and the network alone bring everything back.

use crate::data::{Plain, batches, csv, schema};
use crate::flows::{check_all, database, imported};
use crate::local::Net;
use fluence_client::{
    ClientError, ImportOptions, KeyRange, Keyring, Keystore, Passphrase, Phrase, Select, Session, WorkFactor,
};
use fluence_types::{Height, NodeId};
use futures::executor::block_on;
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::sync::Arc;

#[test]
fn phrase_and_network_bring_back_databases_tables_rows_and_the_right_to_write() {
    block_on(async {
        let (net, node, table, plain) = imported(800, 300).await;
        table
            .delete(&KeyRange::ALL, |r| r.get("carrier") == Some(fluence_client::Value::Text("UA".into())))
            .await
            .unwrap();
        let plain = plain.filter(|r| r[1] != fluence_client::Value::Text("UA".into()));
        let words = table.session().keyring().phrase().expose(str::to_owned);
        let (db, owner) = (table.db(), table.session().address());
        drop(table);

        // Another machine: nothing but the words and a node's id.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.age");
        let pass = Passphrase::new("new".to_owned()).unwrap();
        let keystore = Keystore::restore(&path, &pass, &Phrase::new(words), WorkFactor::TEST).unwrap();
        let session = Session::new(Arc::clone(&net), keystore, StdRng::seed_from_u64(42));
        assert_eq!(session.address(), owner);
        let found = session.recover(&[(node.id(), "/ip4/127.0.0.1/tcp/1".to_owned())]).await.unwrap();
        assert_eq!(found, [db]);
        let back = session.database(db).unwrap();
        assert_eq!(back.tables().await.unwrap(), [schema()]);
        let table = back.table("flights").await.unwrap();
        check_all(&table, &plain).await;
        // It writes on: the operation chain, key epochs and segment ids go on where they were.
        table.compact().await.unwrap().unwrap();
        check_all(&table, &plain).await;
        let height = session.known()[&db].last_seen;
        assert!(height > Height(3));

        // The keystore's own state survives a restart, with the height.
        let reopened = Keystore::open(&path, &pass).unwrap();
        assert_eq!(reopened.state.databases[&db].last_seen, height);
        assert_eq!(reopened.state.databases[&db].tables.len(), 1);
        let session = Session::new(Arc::clone(&net), reopened, StdRng::seed_from_u64(43));
        let rows = session.database(db).unwrap().table("flights").await.unwrap();
        let got = rows.select(&Select::range(KeyRange::ALL)).await.unwrap();
        assert_eq!(Plain::of_batch(&got.value).canonical(), plain.canonical());
    });
}

#[test]
fn recovery_takes_no_database_of_another_owner_or_cluster() {
    block_on(async {
        let (net, nodes) = Net::of(&[1, 2]);
        let table = database(&net, &nodes[..1]).await.create_table(schema()).await.unwrap();
        table.import(batches(&csv(50, 1)), ImportOptions::default(), |_| {}).await.unwrap();
        let new = |seed| {
            Session::new(
                Arc::clone(&net),
                Keystore::in_memory(Keyring::generate(&mut StdRng::seed_from_u64(seed))),
                StdRng::seed_from_u64(9),
            )
        };
        let stranger = new(8);
        assert!(stranger.recover(&[(nodes[0].id(), String::new())]).await.unwrap().is_empty());

        // A node that shows our database as kept by another cluster does not make us trust that cluster.
        let owner = new(1);
        let (liar, its) = (nodes[1].id(), nodes[1].member());
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let fluence_wire::Response::Status(status) = &mut response {
                let mut list = std::mem::take(&mut status.databases).into_vec();
                list.iter_mut().for_each(|d| d.members = vec![its.clone()].try_into().unwrap());
                status.databases = list.try_into().unwrap();
            }
            Ok(response)
        });
        let refused = owner.recover(&[(nodes[0].id(), String::new())]).await.unwrap_err();
        assert!(matches!(refused, ClientError::Stranger { stranger, .. } if stranger == liar), "{refused}");
        let nobody = NodeId::from_bytes([9; 32]);
        assert!(matches!(owner.recover(&[(nobody, String::new())]).await, Err(ClientError::Transport(_))));
    });
}
