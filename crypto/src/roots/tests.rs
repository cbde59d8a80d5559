use super::*;
use crate::poseidon2;
use crate::test_vectors::{load, number, numbers, parsed};
use fluence_types::codec::Bounded;
use fluence_types::statement::RowRange;
use fluence_types::{HeaderHash, LaneId, StoredRoot, TableId, Version};

fn entry(projection: u32, live: u64) -> CatalogueEntry {
    let live = (0..live).map(|i| SegmentRoot::from_field(FieldBytes::from_u64(1 + i + 100 * u64::from(projection))));
    CatalogueEntry {
        projection: ProjectionId(projection),
        table: TableId(7),
        version: Version(3),
        schema: SchemaHash::from_bytes([projection as u8; 32]),
        live: Bounded::new(live.collect()).unwrap(),
    }
}

fn opening(catalogue: &Catalogue, entry: CatalogueEntry) -> CatalogueOpening {
    let db = DbPreimage {
        db: Default::default(),
        stored_root: StoredRoot::default(),
        stored_cells: 1000,
        catalogue_root: catalogue.root(),
        aux_root: AuxRoot::default(),
    };
    CatalogueOpening { db, path: catalogue.path(entry.projection.0), entry }
}

#[test]
fn roots_and_digests_match_the_independent_implementation() {
    for v in load("roots") {
        let path: Vec<FieldBytes> = v["path"].as_array().unwrap().iter().map(parsed).collect();
        let path: CataloguePath = std::array::from_fn(|k| path[7 * k..7 * k + 7].try_into().unwrap());
        let projection = number(&v["projection"]) as u32;
        let leaf = field::from_bytes(&parsed(&v["leaf"]));
        assert_eq!(catalogue_root(projection, &leaf, &path), parsed(&v["catalogueRoot"]));
        let preimage = DbPreimage {
            db: parsed(&v["db"]),
            stored_root: parsed(&v["storedRoot"]),
            stored_cells: number(&v["storedCells"]),
            catalogue_root: parsed(&v["catalogueRoot"]),
            aux_root: parsed(&v["auxRoot"]),
        };
        assert_eq!(db_root(&preimage), parsed(&v["dbRoot"]));
        let holdings = HoldingsPreimage {
            databases: number(&v["databases"]),
            sum_root: preimage.stored_root.to_field(),
            total_cells: preimage.stored_cells,
        };
        assert_eq!(holdings_root(&holdings), parsed(&v["holdingsRoot"]));
        let ranges = numbers(&v["lo"]).into_iter().zip(numbers(&v["hi"])).map(|(lo, hi)| RowRange { lo, hi });
        let query = RangeSumQuery {
            db: preimage.db,
            projection: ProjectionId(projection),
            lane: LaneId(number(&v["lane"]) as u16),
            ranges: ranges.collect(),
        };
        assert_eq!(query_digest(&query), parsed(&v["queryDigest"]));
    }
}

/// The catalogue of the vectors, whole, from its entries.
#[test]
fn catalogue_of_the_vectors_is_rebuilt_from_its_entries() {
    for v in load("roots") {
        let mut catalogue = Catalogue::default();
        for e in v["entries"].as_array().unwrap() {
            let live = e["live"].as_array().unwrap().iter().map(parsed).collect();
            let entry = CatalogueEntry {
                projection: ProjectionId(number(&e["projection"]) as u32),
                table: TableId(number(&e["table"]) as u32),
                version: Version(number(&e["version"])),
                schema: parsed(&e["schema"]),
                live: Bounded::new(live).unwrap(),
            };
            if u64::from(entry.projection.0) == number(&v["projection"]) {
                assert_eq!(live_digest(&entry.live), parsed(&v["liveDigest"]));
                assert_eq!(field::to_bytes(&catalogue_leaf(&entry)), parsed(&v["leaf"]));
            }
            catalogue.set(entry.projection.0, catalogue_leaf(&entry));
        }
        assert_eq!(catalogue.root(), parsed(&v["catalogueRoot"]));
    }
}

#[test]
fn entry_opens_and_leads_to_the_database_root() {
    let entries = [entry(0, 1), entry(1, 0), entry(9, 16)];
    let mut catalogue = Catalogue::default();
    for e in &entries {
        catalogue.set(e.projection.0, catalogue_leaf(e));
    }
    for e in entries {
        let o = opening(&catalogue, e);
        assert_eq!(verify_catalogue(&o), Ok(db_root(&o.db)));
    }
}

#[test]
fn catalogue_updated_in_any_order_is_the_same() {
    let leaves: Vec<Fr> = (1..=70u64).map(Fr::from).collect();
    let built = Catalogue::new(&leaves);
    let mut other = Catalogue::default();
    for i in (0..70).rev() {
        other.set(i, Fr::from(999u64));
        other.set(i, leaves[i as usize]);
    }
    assert_eq!(built.root(), other.root());
    assert_eq!(built.path(69), other.path(69));
    assert_ne!(Catalogue::default().root(), built.root());
    assert_eq!(Catalogue::default().root(), Catalogue::new(&[Fr::from(0u64)]).root());
}

#[test]
fn rejects_every_changed_part_of_an_entry() {
    type Spoil = fn(&mut CatalogueOpening);
    let spoils: [(&str, Spoil); 12] = [
        ("another place", |o| o.entry.projection = ProjectionId(3)),
        ("table", |o| o.entry.table = TableId(8)),
        ("older version", |o| o.entry.version = Version(2)),
        ("schema", |o| o.entry.schema = SchemaHash::from_bytes([1; 32])),
        ("omitted segment", |o| {
            let live = o.entry.live.to_vec();
            o.entry.live = Bounded::new(live[..live.len() - 1].to_vec()).unwrap();
        }),
        ("no segment", |o| o.entry.live = Bounded::default()),
        ("superseded segment again", |o| {
            let mut live = o.entry.live.to_vec();
            live.push(live[0]);
            o.entry.live = Bounded::new(live).unwrap();
        }),
        ("reordered segments", |o| {
            let mut live = o.entry.live.to_vec();
            live.swap(0, 1);
            o.entry.live = Bounded::new(live).unwrap();
        }),
        ("sibling", |o| o.path[2][6] = FieldBytes::from_u64(1)),
        ("swapped siblings", |o| o.path[0].swap(0, 1)),
        ("swapped levels", |o| o.path.swap(0, 1)),
        ("root", |o| o.db.catalogue_root = CatalogueRoot::default()),
    ];
    let e = entry(2, 9);
    let mut catalogue = Catalogue::new(&[Fr::from(5u64), Fr::from(6u64)]);
    catalogue.set(2, catalogue_leaf(&e));
    let honest = opening(&catalogue, e);
    assert!(verify_catalogue(&honest).is_ok());
    for (name, spoil) in spoils {
        let mut o = honest.clone();
        spoil(&mut o);
        assert_eq!(verify_catalogue(&o), Err(CatalogueError::Root(o.entry.projection)), "{name}");
    }
    let mut o = honest;
    // The same digits below 4,096, and so the same path.
    o.entry.projection = ProjectionId(2 + PROJECTIONS_MAX);
    assert_eq!(verify_catalogue(&o), Err(CatalogueError::Projection(o.entry.projection)));
}

/// Leaf and inner node share an output word; the fixed depth keeps them apart. A liar hands eight children as an entry's scalars.
#[test]
fn rejects_an_inner_catalogue_node_presented_as_an_entry() {
    let e = entry(0, 2);
    let mut catalogue = Catalogue::default();
    catalogue.set(0, catalogue_leaf(&e));
    let honest = opening(&catalogue, e);
    // One level up: drop the lowest siblings and append anything at the top.
    let mut o = honest.clone();
    o.path = [honest.path[1], honest.path[2], honest.path[3], honest.path[3]];
    assert!(verify_catalogue(&o).is_err());
    let inner = compress(
        NodeKind::Catalogue,
        &insert(&honest.path[0].map(|f| field::from_bytes(&f)), 0, catalogue_leaf(&honest.entry)),
    );
    assert_ne!(catalogue_root(0, &inner, &honest.path), honest.db.catalogue_root);
    assert_ne!(catalogue_root(0, &inner, &o.path), honest.db.catalogue_root);
}

/// Every preimage of ours is eight scalars, so each root is presented as every other kind and differs.
#[test]
fn no_root_passes_for_a_root_of_another_kind() {
    let e = entry(0, 2);
    let db = opening(&Catalogue::default(), e.clone()).db;
    let holdings = HoldingsPreimage { databases: 2, sum_root: FieldBytes::from_u64(5), total_cells: 9 };
    let segment = fluence_types::tree::SegmentPreimage {
        tree_root: FieldBytes::from_u64(5),
        cells: 9,
        header_hash: HeaderHash::default(),
    };
    for (honest, scalars) in [
        (NodeKind::Database, db.scalars()),
        (NodeKind::Holdings, holdings.scalars()),
        (NodeKind::Segment, segment.scalars()),
        (NodeKind::Catalogue, e.scalars(live_digest(&e.live))),
    ] {
        let root = poseidon2::compress_cell(honest, &scalars);
        for kind in NodeKind::ALL {
            assert_eq!(poseidon2::compress_cell(kind, &scalars) == root, kind == honest, "{honest:?} as {kind:?}");
        }
    }
    assert_eq!(db_root(&db).to_field(), poseidon2::compress_cell(NodeKind::Database, &db.scalars()));
    assert_eq!(holdings_root(&holdings).to_field(), poseidon2::compress_cell(NodeKind::Holdings, &holdings.scalars()));
}

#[test]
fn every_part_of_a_database_or_holdings_root_is_bound() {
    type SpoilDb = fn(&mut DbPreimage);
    let db = opening(&Catalogue::default(), entry(0, 1)).db;
    let spoils: [SpoilDb; 5] = [
        |p| p.db = fluence_types::DatabaseId::from_bytes([1; 16]),
        |p| p.stored_root = StoredRoot::from_field(FieldBytes::from_u64(1)),
        |p| p.stored_cells += 1,
        |p| p.catalogue_root = CatalogueRoot::default(),
        |p| p.aux_root = AuxRoot::from_field(FieldBytes::from_u64(1)),
    ];
    for spoil in spoils {
        let mut other = db;
        spoil(&mut other);
        assert_ne!(db_root(&other), db_root(&db));
    }
    let holdings = HoldingsPreimage { databases: 2, sum_root: FieldBytes::from_u64(5), total_cells: 9 };
    for other in [
        HoldingsPreimage { databases: 3, ..holdings },
        HoldingsPreimage { sum_root: FieldBytes::from_u64(6), ..holdings },
        HoldingsPreimage { total_cells: 10, ..holdings },
    ] {
        assert_ne!(holdings_root(&other), holdings_root(&holdings));
    }
    assert_ne!(aux_root(b"a"), aux_root(b"b"));
}

#[test]
fn query_digest_binds_every_part() {
    let query = RangeSumQuery {
        db: fluence_types::DatabaseId::from_bytes([1; 16]),
        projection: ProjectionId(2),
        lane: LaneId(3),
        ranges: vec![RowRange { lo: 4, hi: 5 }, RowRange { lo: 0, hi: 0 }],
    };
    type Spoil = fn(&mut RangeSumQuery);
    let spoils: [Spoil; 7] = [
        |q| q.db = Default::default(),
        |q| q.projection.0 += 1,
        |q| q.lane.0 += 1,
        |q| q.ranges[0].lo += 1,
        |q| q.ranges[0].hi += 1,
        |q| q.ranges.swap(0, 1),
        |q| q.ranges.truncate(1),
    ];
    for spoil in spoils {
        let mut other = query.clone();
        spoil(&mut other);
        assert_ne!(query_digest(&other), query_digest(&query));
    }
}
