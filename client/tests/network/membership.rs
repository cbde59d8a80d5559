//! The owner and its cluster: how it stands, who is told where the others are, and how its committee changes.

use crate::data::schema;
use crate::flows::{database, session};
use crate::local::{Net, Node};
use fluence_client::cluster::Statuses;
use fluence_client::{ClientError, Transport, TransportError};
use fluence_types::codec::Bounded;
use fluence_types::op::{ClusterChange, Op, OpRefusal};
use fluence_types::{Height, NodeId};
use fluence_wire::{Request, Response};
use futures::executor::block_on;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// `count` nodes in the order of their ids, and others.
fn net(count: usize) -> (Arc<Net>, Vec<Arc<Node>>, Vec<Arc<Node>>) {
    let (net, mut nodes) = Net::of(&[1, 2, 3, 4, 5, 6]);
    let others = nodes.split_off(count);
    nodes.sort_by_key(|n| n.id());
    (net, nodes, others)
}

fn of<'a>(statuses: &'a Statuses, node: &Node) -> &'a Result<fluence_wire::message::ClusterStatus, ClientError> {
    &statuses.iter().find(|(n, _)| *n == node.id()).expect("every member is asked").1
}

#[test]
fn every_member_says_how_it_stands_and_a_dead_a_stuck_and_a_late_one_are_seen() {
    block_on(async {
        let (net, nodes, _) = net(4);
        let db = database(&net, &nodes).await;
        nodes[2].lags.store(true, Relaxed);
        db.create_table(schema()).await.unwrap();
        let all = db.cluster_status().await.unwrap();
        assert_eq!(all.len(), 4);
        let height = |n: &Node| of(&all, n).as_ref().unwrap().height;
        assert!(height(&nodes[2]) < height(&nodes[0]), "being late is no lie");
        nodes[0].dead.store(true, Relaxed);
        nodes[1].stuck.store(true, Relaxed);
        let all = db.cluster_status().await.unwrap();
        assert!(matches!(of(&all, &nodes[0]), Err(ClientError::Transport(TransportError::Unreachable { .. }))));
        assert!(matches!(of(&all, &nodes[1]), Err(ClientError::Transport(TransportError::Timeout { .. }))));
        assert!(of(&all, &nodes[2]).is_ok() && of(&all, &nodes[3]).is_ok());
        assert!(db.session().liars().is_empty());
    });
}

#[test]
fn a_status_with_a_certificate_of_its_own_or_of_another_database_is_refused() {
    block_on(async {
        let (net, nodes, _) = net(4);
        let db = database(&net, &nodes).await;
        let liar = nodes[3].id();
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::Cluster(status) = &mut response
                && node.id() == liar
            {
                let header = status.certificate.as_ref().unwrap().header.clone();
                status.certificate = Some(node.certify(header));
            }
            Ok(response)
        });
        let all = db.cluster_status().await.unwrap();
        assert!(matches!(of(&all, &nodes[3]), Err(ClientError::Answer { .. })));
        assert_eq!(db.session().liars().iter().map(|l| l.node).collect::<Vec<_>>(), [liar]);
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::Cluster(status) = &mut response {
                status.db = fluence_types::DatabaseId::default();
            }
            Ok(response)
        });
        let all = db.cluster_status().await.unwrap();
        assert!(all.iter().all(|(_, r)| matches!(r, Err(ClientError::Protocol { .. }))));
    });
}

/// Members that answer for a database's first operation only once they were told where the others are, as real ones do.
struct Lonely(Arc<Net>, Vec<Arc<Node>>);

impl Transport for Lonely {
    fn request(
        &self,
        node: &NodeId,
        request: Request,
    ) -> impl Future<Output = Result<Response, TransportError>> + Send {
        let creates = matches!(&request, Request::Submit(op) if matches!(op.unsigned.op, Op::CreateDatabase { .. }));
        let answered = self.0.request(node, request);
        let node = self.1.iter().find(|n| n.id() == *node).cloned();
        async move {
            let answered = answered.await;
            futures::future::poll_fn(|cx| match &node {
                Some(node) if creates && node.told.lock().unwrap().is_empty() => {
                    cx.waker().wake_by_ref();
                    std::task::Poll::Pending
                }
                _ => std::task::Poll::Ready(()),
            })
            .await;
            answered
        }
    }

    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send {
        self.0.sleep(time)
    }
}

#[test]
fn members_of_a_new_database_are_told_where_the_others_are_while_they_make_it() {
    block_on(async {
        let (net, nodes, _) = net(4);
        let keystore = fluence_client::Keystore::in_memory(session(&net, 9).keyring().phrase().expose(|words| {
            fluence_client::Keyring::from_phrase(&fluence_client::Phrase::new(words.to_owned())).unwrap()
        }));
        let rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(5);
        let owner = fluence_client::Session::new(Lonely(Arc::clone(&net), nodes.clone()), keystore, rng);
        let ids: Vec<NodeId> = nodes.iter().map(|n| n.id()).collect();
        let addresses = ids.iter().map(|id| (*id, format!("/ip4/127.0.0.1/tcp/1/{id}"))).collect();
        let db = owner.create_database("test", ids.clone(), addresses).await.unwrap();
        for node in &nodes {
            assert_eq!(node.told.lock().unwrap().first(), Some(&(db.id(), ids.clone())));
        }
    });
}

#[test]
fn a_member_that_lacks_the_database_is_asked_to_follow_it_and_strangers_are_not() {
    block_on(async {
        let (net, nodes, others) = net(4);
        nodes[1].dead.store(true, Relaxed);
        let owner = session(&net, 1);
        let ids: Vec<NodeId> = nodes.iter().map(|n| n.id()).collect();
        let missing = owner.create_database("test", ids.clone(), vec![]).await;
        assert!(missing.is_err(), "all of them must say which key they vote with");
        nodes[1].dead.store(false, Relaxed);
        let refusing = nodes[1].id();
        net.tamper(move |node, request| match request {
            Request::Submit(_) if node.id() == refusing => {
                Err(TransportError::Unreachable { node: refusing, why: "the cable".to_owned() })
            }
            request => Ok(node.answer(request)),
        });
        nodes[1].lags.store(true, Relaxed);
        let db = owner.create_database("test", ids, vec![]).await.unwrap();
        for node in &nodes {
            db.set_address(node.id(), "/ip4/127.0.0.1/tcp/1").unwrap();
        }
        db.set_address(others[0].id(), "/ip4/127.0.0.1/tcp/2").unwrap();
        db.set_address(others[0].id(), "/ip4/127.0.0.1/tcp/3").unwrap();
        let told = db.introduce(&[others[0].id()]).await.unwrap();
        let ok = |n: &Node| told.iter().find(|(id, _)| *id == n.id()).unwrap().1.is_ok();
        assert!(nodes.iter().all(|n| ok(n)) && !ok(&others[0]));
        let committee = db.committee().unwrap();
        let (id, since, members) = nodes[1].followed.lock().unwrap().pop().unwrap();
        assert_eq!((id, since, members), (db.id(), 0, committee.members));
        assert!(others[0].followed.lock().unwrap().is_empty());
        // Five nodes, one address each: the later of two.
        assert_eq!(nodes[0].told.lock().unwrap().last().unwrap().1.len(), 5);
        let known = &owner.known()[&db.id()].addresses;
        assert_eq!(
            known.iter().filter(|(n, _)| *n == others[0].id()).map(|(_, a)| &a[..]).collect::<Vec<_>>(),
            ["/ip4/127.0.0.1/tcp/3"]
        );
    });
}

#[test]
fn only_a_node_that_is_no_member_and_has_its_key_is_a_newcomer() {
    block_on(async {
        let (net, nodes, others) = net(4);
        let db = database(&net, &nodes).await;
        let member = db.newcomer(&nodes[2].id()).await.unwrap_err();
        assert!(matches!(member, ClientError::Member { node, .. } if node == nodes[2].id()), "{member}");
        assert_eq!(db.newcomer(&others[0].id()).await.unwrap(), others[0].member());
        let (thief, robbed) = (others[0].id(), others[1].member());
        net.tamper(move |node, request| {
            let mut response = node.answer(request);
            if let Response::Status(status) = &mut response
                && node.id() == thief
            {
                status.member.vote_key = robbed.vote_key;
            }
            Ok(response)
        });
        assert!(matches!(db.newcomer(&thief).await, Err(ClientError::Signature { .. })));
        net.honest();
        others[0].stuck.store(true, Relaxed);
        assert!(matches!(db.newcomer(&thief).await, Err(ClientError::Transport(TransportError::Timeout { .. }))));
    });
}

#[test]
fn a_wish_is_ordered_seen_and_dropped_and_a_bad_one_refused() {
    block_on(async {
        let (net, nodes, others) = net(4);
        let db = database(&net, &nodes).await;
        let newcomer = db.newcomer(&others[0].id()).await.unwrap();
        let receipt = db.change_cluster(ClusterChange::Join(newcomer.clone())).await.unwrap();
        assert!(receipt.height > Height(0) && receipt.outcome.is_ok());
        let wish = |all: &Statuses| of(all, &nodes[0]).as_ref().unwrap().wish.clone();
        assert_eq!(wish(&db.cluster_status().await.unwrap()), Some(ClusterChange::Join(newcomer)));
        db.change_cluster(ClusterChange::Cancel).await.unwrap();
        assert_eq!(wish(&db.cluster_status().await.unwrap()), None);
        let stranger = db.change_cluster(ClusterChange::Leave(others[1].id())).await.unwrap_err();
        assert!(matches!(stranger, ClientError::Op(OpRefusal::Cluster(_))), "{stranger}");
        let twice = Bounded::new(vec![others[0].member(), others[0].member()]).unwrap();
        assert!(matches!(db.change_cluster(ClusterChange::Standby(twice)).await, Err(ClientError::Op(_))));
    });
}

#[test]
fn a_change_is_awaited_until_the_committee_before_has_handed_over() {
    block_on(async {
        let (net, nodes, others) = net(4);
        let db = database(&net, &nodes).await;
        let (out, with) = (&nodes[0], &others[0]);
        let wanted = |c: &fluence_verifier::committee::Committee| {
            c.member(&with.id()).is_some() && c.member(&out.id()).is_none()
        };
        let mut looks = 0;
        let every = Duration::from_secs(1);
        let committee = db
            .await_committee::<ClientError>(wanted, &[with.id()], every, async |statuses: &Statuses| {
                looks += 1;
                assert_eq!(statuses.len(), 5, "the members and the newcomer");
                if looks == 2 {
                    net.hub.replace(db.id(), out, with);
                }
                Ok(())
            })
            .await
            .unwrap();
        assert_eq!((looks, committee.since, committee.members.len()), (2, 1, 4));
        assert_eq!(db.committee().unwrap(), committee);
        // What never comes is given up by who looks.
        let mut looks = 0;
        let given_up = db
            .await_committee::<ClientError>(
                |_| false,
                &[],
                every,
                async |_: &Statuses| {
                    looks += 1;
                    if looks < 3 { Ok(()) } else { Err(ClientError::NoMembers) }
                },
            )
            .await;
        assert!(matches!(given_up, Err(ClientError::NoMembers)));
    });
}
