//! A storage node over real connections: what an owner stores is what it gets, what breaks a rule is refused, and a restart forgets
//! nothing that was acknowledged.

use crate::common::{Owner, Peer, config, key, start};
use fluence_engine::testkit::{change, commit, define};
use fluence_node::config::StoreKind;
use fluence_node::liar::{self, Lie};
use fluence_node::{CancellationToken, NodeError, RunFile};
use fluence_types::answer::OpenRefusal;
use fluence_types::op::{Op, OpRefusal};
use fluence_types::statement::{RangeSumQuery, RowRange};
use fluence_types::{DatabaseId, Epoch, LaneId, ProjectionId};
use fluence_verifier::answer;
use fluence_wire::message::Refusal;
use fluence_wire::{Request, Response};

#[tokio::test]
async fn what_is_stored_comes_back_proven_and_a_changed_byte_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path(), StoreKind::Memory)).await.unwrap();
    let mut owner = Owner::new(1, Peer::new(101, &node).await);
    owner.create().await;
    let (first, second) = (owner.segment(1, 2000), owner.segment(2, 700));
    owner.append(&first, 0).await;
    let certificate = owner.append(&second, 1).await;

    let request = owner.request(70, 5).await;
    let given = owner.open(&request).await;
    let verified = answer::verify(&owner.trust(), &request, given.clone()).unwrap();
    assert_eq!(verified.checkpoint().root, certificate.checkpoint().root);
    for (opened, kept) in verified.segments().iter().zip([&first, &second]) {
        for (index, cell) in opened.cells() {
            assert_eq!(cell, &kept.cells[*index as usize]);
        }
    }
    let mut spoilt = given.clone();
    let mut segments = spoilt.segments.into_vec();
    segments[1].cells.swap(0, 1);
    spoilt.segments = segments.try_into().unwrap();
    assert!(answer::verify(&owner.trust(), &request, spoilt).is_err());

    let header = match owner.peer.get(Request::Header { db: owner.db, segment: first.root() }).await {
        Response::Header(header) => header,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer::verify_header(&first.root(), &header).unwrap(), first.header);
    let schemas = owner.peer.get(Request::Schemas { db: owner.db }).await;
    assert!(matches!(schemas, Response::Schemas(s) if s[..] == [owner.schema.clone()]));
    let Response::Writer { next_sequence, previous } =
        owner.peer.get(Request::Writer { db: owner.db, address: owner.writer.key.address() }).await
    else {
        panic!()
    };
    assert_eq!((next_sequence, previous), (owner.writer.sequence, owner.writer.previous));
    let Response::Status(status) = owner.peer.get(Request::Status).await else { panic!() };
    assert_eq!(status.node(), owner.peer.node);
    let database = &status.databases[0];
    assert_eq!((database.epoch, database.peers, &database.members), (0, 0, &owner.trust().committee.members));
    assert!(database.height > database.certificate.checkpoint().height);
    // No change of the committee, so nothing to hand over.
    let handovers = owner.peer.get(Request::Handovers { db: owner.db, from_epoch: 0 }).await;
    assert!(matches!(handovers, Response::Handovers(list) if list.is_empty()));
    let unknown = DatabaseId::from_bytes([9; 16]);
    let refused = owner.peer.refused(Request::Handovers { db: unknown, from_epoch: 0 }).await;
    assert_eq!(refused, Refusal::Open(OpenRefusal::UnknownDatabase(unknown)));
    assert_eq!(status.databases[0].stored_cells, first.preimage.cells + second.preimage.cells);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_restarted_node_has_every_acknowledged_operation_and_the_upload_in_progress() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), StoreKind::Fjall);
    let node = start(&config).await.unwrap();
    let run = RunFile::read(&config.data_dir).unwrap();
    assert_eq!(&run, node.run_file());
    let mut owner = Owner::new(2, Peer::new(102, &node).await);
    owner.create().await;
    let first = owner.segment(1, 1500);
    let certificate = owner.append(&first, 0).await;
    // Half an upload: what whole pages arrived stay.
    let second = owner.segment(2, 3000);
    owner.peer.get(Request::UploadBegin { db: owner.db, segment: second.preimage }).await;
    let half = second.bytes()[..100_000].to_vec();
    let chunk = Request::UploadChunk { segment: second.root(), offset: 0, bytes: half.try_into().unwrap() };
    owner.peer.get(chunk).await;
    node.stop().await.unwrap();
    assert!(RunFile::read(&config.data_dir).is_err(), "a stopped node says so");

    let node = start(&config).await.unwrap();
    assert_eq!(node.run_file().node, run.node);
    owner.peer = Peer::new(103, &node).await;
    // On a slow machine an empty block, which keeps the root, may have followed.
    let (now, then) = (owner.snapshot().await.certificate.checkpoint(), certificate.checkpoint());
    assert!(now.height >= then.height && now.root == then.root, "{now:?} after {then:?}");
    let resumed = owner.peer.get(Request::UploadBegin { db: owner.db, segment: second.preimage }).await;
    assert!(matches!(resumed, Response::Upload { have } if have > 0 && have <= 100_000), "{resumed:?}");
    owner.append(&second, 1).await;
    let request = owner.request(60, 10).await;
    let verified = answer::verify(&owner.trust(), &request, owner.open(&request).await).unwrap();
    assert_eq!(verified.segments().len(), 2);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn many_writers_at_once_share_blocks_and_a_repeated_operation_is_done_once() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(&config(dir.path(), StoreKind::Fjall)).await.unwrap();
    let peer = Peer::new(104, &node).await;
    let creations = (0..16u64).map(|seed| {
        let mut owner = Owner::new(1000 + seed, peer.clone());
        async move {
            owner.create().await;
            let again = owner.writer.sign(owner.db, owner.creation());
            (owner, again)
        }
    });
    for (owner, _) in futures::future::join_all(creations).await {
        assert!(owner.snapshot().await.certificate.checkpoint().height.0 >= 1);
    }
    let mut owner = Owner::new(7, peer.clone());
    let op = owner.writer.sign(owner.db, owner.creation());
    let both = futures::future::join_all((0..2).map(|_| peer.get(Request::Submit(Box::new(op.clone()))))).await;
    let done = both.iter().filter(|r| matches!(r, Response::Submit { receipt, .. } if receipt.outcome.is_ok())).count();
    assert!(done >= 1);
    // A retry after the fact gets the first answer.
    let Response::Submit { receipt, .. } = peer.get(Request::Submit(Box::new(op.clone()))).await else { panic!() };
    assert_eq!((receipt.outcome, receipt.height.0), (Ok(()), 0));
    owner.writer.advance(&op);
    owner.act(define(0, owner.schema.clone())).await;
    node.stop().await.unwrap();
}

#[tokio::test]
async fn refuses_what_breaks_a_rule_and_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path(), StoreKind::Memory);
    config.store.quota_bytes = 300_000;
    config.store.databases_max = 1;
    let node = start(&config).await.unwrap();
    let mut owner = Owner::new(3, Peer::new(105, &node).await);
    let peer = owner.peer.clone();
    let unknown = DatabaseId::from_bytes([9; 16]);

    // Databases of others, and before they exist.
    let strangers = Op::CreateDatabase { members: vec![key(5).member()].try_into().unwrap() };
    assert!(matches!(owner.submit(strangers).await, Err(Refusal::Operation(why)) if why.contains("as a member")));
    let early = define(0, owner.schema.clone());
    assert!(matches!(owner.submit(early).await, Err(Refusal::Open(OpenRefusal::UnknownDatabase(_)))));
    let refused = peer.refused(Request::Catalogue { db: unknown, projection: ProjectionId(0) }).await;
    assert_eq!(refused, Refusal::Open(OpenRefusal::UnknownDatabase(unknown)));
    owner.create().await;
    let mut second = Owner::new(4, peer.clone());
    assert!(
        matches!(second.submit(second.creation()).await, Err(Refusal::Operation(why)) if why.contains("1 databases"))
    );

    // Signatures and writers.
    let mut forged = owner.writer.sign(owner.db, define(1, owner.schema.clone()));
    forged.signature[10] ^= 1;
    assert!(matches!(peer.refused(Request::Submit(Box::new(forged))).await, Refusal::Operation(_)));
    second.db = owner.db;
    let foreign = second.submit(define(1, owner.schema.clone())).await;
    assert!(matches!(foreign, Err(Refusal::Operation(why)) if why.contains("may not do this")));
    let gap = {
        let (sequence, previous) = (owner.writer.sequence, owner.writer.previous);
        owner.writer.sequence += 1;
        let refusal = owner.submit(define(1, owner.schema.clone())).await.unwrap_err();
        (owner.writer.sequence, owner.writer.previous) = (sequence, previous);
        refusal
    };
    let why = OpRefusal::Sequence { got: 3, expected: 2 }.to_string();
    assert_eq!(gap, Refusal::Operation(why));

    // Uploads: unknown, beyond the end, not the segment announced, above the quota.
    let segment = owner.segment(1, 500);
    assert!(matches!(peer.refused(Request::UploadEnd { segment: segment.root() }).await, Refusal::Upload(_)));
    let mut other = segment.clone();
    other.cells[3][0] = fluence_types::FieldBytes::from_u64(1);
    let wrong = owner.upload(&other).await.unwrap_err();
    assert!(matches!(&wrong, Refusal::Upload(why) if why.contains("tree root")), "{wrong}");
    let large = owner.segment(2, 6000);
    let above = owner.upload(&large).await.unwrap_err();
    assert!(matches!(&above, Refusal::Upload(why) if why.contains("quota of 300000")), "{above}");
    owner.append(&segment, 0).await;
    // What fills the rest of the quota is refused as well when it comes inside the operation.
    let mut version = 1;
    let inline = loop {
        let small = owner.segment(100 + version, 1000).inline();
        match owner.submit(commit(&[(0, version)], vec![change(0, vec![small], vec![])])).await {
            Ok((receipt, _)) => assert_eq!(receipt.outcome, Ok(())),
            Err(why) => break why,
        }
        version += 1;
    };
    assert!(matches!(&inline, Refusal::Operation(why) if why.contains("quota")), "{inline}");

    // Openings: another version, cells beyond the end, a projection that is not there.
    let mut request = owner.request(70, 1).await;
    let good = request.clone();
    request.version.0 += 1;
    assert_eq!(peer.refused(Request::Open(Box::new(request))).await, Refusal::Open(OpenRefusal::Moved(good.version)));
    let beyond = owner.request(1 << 19, 1).await;
    assert!(matches!(peer.refused(Request::Open(Box::new(beyond))).await, Refusal::Open(OpenRefusal::BadRequest(_))));
    let refused = peer.refused(Request::Catalogue { db: owner.db, projection: ProjectionId(7) }).await;
    assert_eq!(refused, Refusal::Open(OpenRefusal::UnknownProjection(ProjectionId(7))));

    // Proofs: of no epoch, of no sum lane.
    let none = Request::EpochProof { epoch: Epoch(3), proof_index: 0, db: None };
    assert!(matches!(peer.refused(none).await, Refusal::NoProof { epoch: Epoch(3), .. }));
    let ranges = vec![RowRange { lo: 0, hi: 1 }; good.segments.len()];
    let query = RangeSumQuery { db: owner.db, projection: ProjectionId(0), lane: LaneId(0), ranges };
    let refused = peer.refused(Request::ProveRangeSum(query)).await;
    assert!(matches!(refused, Refusal::Open(OpenRefusal::BadRequest(_))), "{refused}");
    assert!(peer.is_alive().await);
    node.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_serves_one_node_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), StoreKind::Memory);
    let node = start(&config).await.unwrap();
    assert!(matches!(start(&config).await, Err(NodeError::DataDir(_))));
    node.stop().await.unwrap();
    start(&config).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn the_liar_needs_its_switch() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), StoreKind::Fjall);
    let refused = liar::run(config, Lie { spare_headers: true }, CancellationToken::new()).await;
    assert!(matches!(refused, Err(NodeError::Unsupported(why)) if why.contains(liar::ENABLE)));
}
