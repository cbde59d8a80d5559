use crate::fixture::{self, Database, Owed, Segment};
use crate::violation::{assert_caught, assert_inputs_bound, assert_no_free_witness, broken, lie};
use crate::{Circuit, StorageCircuit, WitnessError};
use ark_bls12_381::Fr;
use ark_ff::{BigInteger, Field, One, PrimeField, Zero};
use fluence_crypto::sum_tree::SumPath;
use fluence_crypto::tree::insert;
use fluence_crypto::witness::{StorageSample, StorageWitness};
use fluence_crypto::{field, poseidon2, roots, seed};
use fluence_types::shape::{CircuitId, StorageShape};
use fluence_types::statement::Storage;
use fluence_types::tree::{Cell, DigestTag, HoldingsPreimage, NodeKind};
use fluence_types::{FieldBytes, HoldingsRoot, StoredRoot};
use proptest::prelude::*;

/// One sample: what is wrong with it is wrong alone.
const ONE: StorageShape = StorageShape { samples: 1, ..StorageShape::TINY };

fn of(shape: StorageShape, (statement, witness): (Storage, StorageWitness)) -> StorageCircuit {
    StorageCircuit::new(shape, statement, witness)
}

fn honest(shape: StorageShape, seed: u64) -> (Storage, StorageWitness) {
    fixture::storage(shape, &fixture::databases(), Owed::Holdings, FieldBytes::from_u64(seed))
}

/// A database root as the statement's root, and one sample under it, found by `place` (the seed is not asked).
fn single(databases: &[Database], seed: u64, place: u64) -> (Storage, StorageWitness) {
    let db = &databases[0];
    let root = HoldingsRoot::from_field(roots::db_root(&db.preimage).to_field());
    let statement = Storage { root, total_cells: db.preimage.stored_cells, seed: FieldBytes::from_u64(seed) };
    let top = vec![(field::from_bytes(&root.to_field()), statement.total_cells)];
    let witness = StorageWitness { holdings: None, top, samples: vec![fixture::sample(databases, 0, place)] };
    (statement, witness)
}

fn asked(statement: &Storage, k: u64, total: u64) -> u64 {
    seed::scale(seed::challenge(&field::from_bytes(&statement.seed), k).0, total)
}

/// A seed that asks sample 0 for a place in the range.
fn seed_for(total: u64, place: impl Fn(u64) -> bool) -> u64 {
    (0..10_000).find(|s| place(seed::scale(seed::challenge(&Fr::from(*s), 0).0, total))).unwrap()
}

#[test]
fn honest_witnesses_satisfy_holdings_and_single_databases_of_every_depth() {
    let dbs = fixture::databases();
    for owed in [Owed::Holdings, Owed::Single(0), Owed::Single(1), Owed::Single(2)] {
        for seed in 0..3 {
            let circuit =
                of(StorageShape::TINY, fixture::storage(StorageShape::TINY, &dbs, owed, FieldBytes::from_u64(seed)));
            assert_eq!(circuit.check(), Ok(()));
            assert_caught(&circuit, &[], &[]);
        }
    }
    // A segment of one cell, alone in its database: no level anywhere.
    let least = [Database::new(8, vec![Segment::plain(1, 1)])];
    let circuit =
        of(StorageShape::TINY, fixture::storage(StorageShape::TINY, &least, Owed::Holdings, FieldBytes::ZERO));
    assert_eq!(circuit.check(), Ok(()));
    assert_caught(&circuit, &[], &[]);
}

#[test]
fn each_public_input_is_bound() {
    for owed in [Owed::Holdings, Owed::Single(0)] {
        let made = fixture::storage(StorageShape::TINY, &fixture::databases(), owed, FieldBytes::from_u64(1));
        assert_inputs_bound(&of(StorageShape::TINY, made), StorageCircuit::set_input);
    }
}

#[test]
fn no_witness_is_free() {
    let changed = assert_no_free_witness(&of(StorageShape::TINY, honest(StorageShape::TINY, 5)), 0);
    println!("{changed} witnesses of storage changed one by one, each refused");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn circuit_and_native_twin_agree(seed in any::<u64>(), spoil in 0usize..9, at in 0usize..8) {
        let (mut statement, mut w) = honest(StorageShape::TINY, seed);
        let s = &mut w.samples[at % 2];
        match spoil {
            1 => s.cell.cell[at] += Fr::one(),
            2 => s.cell.index ^= 1,
            3 => s.segment.cells += 1,
            4 => s.db.aux_root = fluence_types::AuxRoot::from_field(FieldBytes::from_u64(1)),
            5 => s.holdings.slot ^= 1,
            6 => s.stored.levels.clear(),
            7 => statement.total_cells += 1,
            8 => w.holdings = None,
            _ => {}
        }
        let circuit = of(StorageShape::TINY, (statement, w));
        prop_assert_eq!(circuit.check().is_ok(), broken(&circuit, &[]).is_empty());
    }
}

#[test]
fn native_twin_names_what_is_wrong() {
    let (statement, mut w) = honest(StorageShape::TINY, 3);
    w.samples[1].cell.cell[0] += Fr::one();
    let e = super::check_storage(StorageShape::TINY, &statement, &w).unwrap_err();
    assert!(matches!(e, WitnessError::Sample { sample: 1, .. }), "{e}");
    w.samples.pop();
    let e = super::check_storage(StorageShape::TINY, &statement, &w).unwrap_err();
    assert_eq!(e, WitnessError::Count { what: "samples", got: 1, want: 2 });
    let deep = StorageShape { tree_levels: 1, ..StorageShape::TINY };
    let big = [Database::new(1, vec![Segment::plain(1, 9)])];
    let (statement, w) = fixture::storage(StorageShape::TINY, &big, Owed::Holdings, FieldBytes::ZERO);
    let e = super::check_storage(deep, &statement, &w).unwrap_err();
    assert!(matches!(e, WitnessError::Shape { what: "segment", .. }), "{e}");
}

// --- another place than the seed asks for

#[test]
fn rejects_another_place_by_size() {
    let dbs = [Database::new(1, vec![Segment::plain(2, 64)])];
    let seed = 4;
    let (statement, _) = single(&dbs, seed, 0);
    let right = asked(&statement, 0, 64);
    assert_caught(&of(ONE, single(&dbs, seed, right)), &[], &[]);
    for wrong in [right ^ 1, right ^ 8, 63 - right] {
        assert_caught(&of(ONE, single(&dbs, seed, wrong)), &[], &["place by size"]);
    }
}

#[test]
fn rejects_another_database_or_another_place_in_it() {
    let dbs = fixture::databases();
    let (statement, w) = honest(StorageShape::TINY, 6);
    let (a, b) = seed::challenge(&Fr::from(6u64), 1);
    let database = seed::scale(a, 3);
    let cells = dbs[database as usize].preimage.stored_cells;
    let place = seed::scale(b, cells);
    let mut other = w.clone();
    other.samples[1] = fixture::sample(&dbs, database, if place == 0 { cells - 1 } else { place - 1 });
    assert_caught(&of(StorageShape::TINY, (statement, other)), &[], &["place in database"]);
    let mut other = w;
    let elsewhere = (database + 1) % 3;
    other.samples[1] = fixture::sample(&dbs, elsewhere, seed::scale(b, dbs[elsewhere as usize].preimage.stored_cells));
    assert_caught(&of(StorageShape::TINY, (statement, other)), &[], &["database by number"]);
}

#[test]
fn rejects_the_word_of_one_sample_and_the_hash_of_one_pair_for_another() {
    let dbs = fixture::databases();
    let shape = StorageShape { samples: 4, ..StorageShape::TINY };
    let total: u64 = dbs.iter().map(|db| db.preimage.stored_cells).sum();
    let word = |seed: u64, pair: u64, i: usize| {
        poseidon2::digest(DigestTag::Challenge, &[Fr::from(seed), Fr::from(pair)]).into_bigint().0[i]
    };
    let in_database = |a: u64, b: u64| {
        let database = seed::scale(a, 3);
        (database, seed::scale(b, dbs[database as usize].preimage.stored_cells))
    };
    // A seed for which no two of the words below ask for the same.
    let odd = |s: u64| [in_database(word(s, 0, 1), word(s, 0, 2)), in_database(word(s, 0, 0), word(s, 0, 1))];
    let even = |s: u64| [word(s, 1, 0), word(s, 0, 0), word(s, 1, 1), word(s, 2, 0)].map(|w| seed::scale(w, total));
    let differs = |s: &u64| odd(*s)[0] != odd(*s)[1] && even(*s)[1..].iter().all(|place| *place != even(*s)[0]);
    let seed = (0..100).find(differs).unwrap();
    let (statement, w) = fixture::storage(shape, &dbs, Owed::Holdings, FieldBytes::from_u64(seed));
    assert_caught(&of(shape, (statement, w.clone())), &[], &[]);
    assert_eq!(of(shape, (statement, w.clone())).check(), Ok(()));
    // Sample 1 answers where the word of sample 0 and the one after it point.
    let mut liar = w.clone();
    let (database, place) = odd(seed)[1];
    liar.samples[1] = fixture::sample(&dbs, database, place);
    let caught = broken(&of(shape, (statement, liar)), &[]);
    assert!(caught.contains("database by number") || caught.contains("place in database"), "{caught:?}");
    // Sample 2 answers where the first pair's hash, another word of its own, and the hash of the pair numbered by the sample point.
    for wrong in &even(seed)[1..] {
        let mut liar = w.clone();
        let at = (0..3).scan(0, |sum, i| {
            let start = *sum;
            *sum += dbs[i as usize].preimage.stored_cells;
            Some((i, start, *sum))
        });
        let (database, start, _) = at.into_iter().find(|(_, start, end)| (*start..*end).contains(wrong)).unwrap();
        liar.samples[2] = fixture::sample(&dbs, database, wrong - start);
        assert_caught(&of(shape, (statement, liar)), &[], &["place by size"]);
    }
}

#[test]
fn bits_are_those_of_an_integer_whose_top_is_below_that_of_r() {
    let rest = Fr::MODULUS_BIT_SIZE - crate::gadget::TOP_BITS;
    let mut top = Fr::MODULUS;
    top >>= rest;
    top <<= rest;
    let satisfied = |x: Fr| {
        let inner = ark_relations::gr1cs::ConstraintSystem::new_ref();
        let mut cs = crate::r1cs::Cs::new(inner.clone());
        let x = cs.witness("x", x).unwrap();
        crate::gadget::canonical_bits(&mut cs, "bits", &x).unwrap();
        inner.is_satisfied().unwrap()
    };
    let first = Fr::from_bigint(top).unwrap();
    for x in [Fr::zero(), Fr::one(), first - Fr::one(), Fr::from(u64::MAX).square()] {
        assert!(satisfied(x), "{x}");
    }
    for x in [first, first + Fr::one(), -Fr::one()] {
        assert!(!satisfied(x), "{x}");
    }
}

#[test]
fn rejects_the_bits_of_the_challenge_plus_r() {
    // h + r must fit 255 bits: about one seed in ten.
    let dbs = [Database::new(1, vec![Segment::plain(2, 64)])];
    let fits = |s: u64| {
        let mut h = poseidon2::digest(DigestTag::Challenge, &[Fr::from(s), Fr::zero()]).into_bigint();
        h.add_with_carry(&Fr::MODULUS);
        (h.num_bits() <= 255).then_some(h)
    };
    let (seed, bits) = (0..500).find_map(|s| Some((s, fits(s)?))).unwrap();
    let place = seed::scale(bits.0[0], 64);
    let lies = [crate::r1cs::Lie { name: "challenge bits", occurrence: 0, value: bits }];
    assert_caught(&of(ONE, single(&dbs, seed, place)), &lies, &["canonical"]);
    // Bits of anything else are no bits of the challenge.
    let lies = [lie("challenge bits", 0, 5u64)];
    assert!(broken(&of(ONE, single(&dbs, seed, 0)), &lies).contains("challenge bits"));
}

// --- a cell that is not there

#[test]
fn rejects_a_changed_cell_a_changed_sibling_and_a_changed_index() {
    let (statement, w) = honest(ONE, 9);
    let mut changed = w.clone();
    changed.samples[0].cell.cell[3] += Fr::one();
    assert_caught(&of(ONE, (statement, changed)), &[], &["top digest"]);
    let (statement, w) =
        fixture::storage(ONE, &[Database::new(1, vec![Segment::plain(2, 64)])], Owed::Holdings, FieldBytes::ZERO);
    let mut changed = w.clone();
    changed.samples[0].cell.siblings[1][2] += Fr::one();
    assert_caught(&of(ONE, (statement, changed)), &[], &["top digest"]);
    let mut changed = w;
    changed.samples[0].cell.index ^= 1;
    assert!(broken(&of(ONE, (statement, changed)), &[]).contains("top digest"));
}

#[test]
fn rejects_a_made_up_cell_whose_true_digest_is_slipped_in_higher_up() {
    let dbs = [Database::new(1, vec![Segment::plain(2, 64)])];
    let (statement, _) = single(&dbs, 4, 0);
    let place = asked(&statement, 0, 64);
    let (statement, mut w) = single(&dbs, 4, place);
    let truth = fluence_crypto::tree::cell_digest(&w.samples[0].cell.cell);
    let parent = insert(&w.samples[0].cell.siblings[0], (place % 8) as usize, truth);
    w.samples[0].cell.cell = [Fr::zero(); 8];
    let circuit = of(ONE, (statement, w));
    assert_caught(&circuit, &[lie("tree child", (place % 8) as usize, truth)], &["tree child"]);
    // At the output of the level instead.
    let lies = [lie("tree level", 0, poseidon2::compress(NodeKind::Node, &parent))];
    assert_caught(&circuit, &lies, &["tree level"]);
    // Inside the hash.
    assert!(broken(&circuit, &[lie("poseidon2", 7, 1u64)]).contains("poseidon2"));
}

#[test]
fn rejects_a_missing_cell_of_one_segment_in_place_of_a_cell_of_the_next() {
    // Segment 0 has 9 cells; its padded tree has room for 64. Place 12 is cell 3 of segment 1.
    let segments = vec![Segment::plain(1, 9), Segment::plain(2, 20)];
    let dbs = [Database::new(1, segments)];
    let seed = seed_for(29, |p| p == 12);
    let (statement, mut w) = single(&dbs, seed, 8);
    let mut padded = dbs[0].segments[0].cells.clone();
    padded.resize(64, [Fr::zero(); 8]);
    let mut liar = Segment::of(padded);
    assert_eq!(liar.tree.root(), dbs[0].segments[0].tree.root(), "missing cells are zero cells");
    liar.preimage = dbs[0].segments[0].preimage;
    w.samples[0].cell = liar.open(12);
    assert_caught(&of(ONE, (statement, w)), &[], &["cell index below cells"]);
}

// --- wrong depth

#[test]
fn rejects_inner_nodes_as_cells_by_a_lie_about_depth() {
    // The eight digests of a group stand where eight scalars of a cell should; the level above them is declared absent.
    let segment = Segment::plain(2, 64);
    let dbs = [Database::new(1, vec![segment.clone()])];
    let seed = seed_for(64, |p| p < 8);
    let place = asked(&single(&dbs, seed, 0).0, 0, 64);
    let (statement, mut w) = single(&dbs, seed, place);
    let group: [Fr; 8] = std::array::from_fn(|i| fluence_crypto::tree::cell_digest(&segment.cells[i]));
    let upper = w.samples[0].cell.siblings[1];
    // The liar keeps only the digests of level 1 and presents them as the "cell" under the root's level.
    w.samples[0].cell.cell = std::array::from_fn(|i| segment.tree.level(1)[i]);
    w.samples[0].cell.siblings = vec![upper, [Fr::zero(); 7]];
    let caught =
        broken(&of(ONE, (statement, w.clone())), &[lie("segment levels", 0, 1u64), lie("segment levels", 1, 1u64)]);
    assert!(caught.contains("segment levels") && caught.contains("top digest"), "{caught:?}");
    // Even were depth free, the digest of a cell is not that of a node: the kinds read other words.
    assert_ne!(poseidon2::compress(NodeKind::Cell, &group), poseidon2::compress(NodeKind::Node, &group));
    // A false count has no matching segment root.
    w.samples[0].segment.cells = 8;
    assert!(broken(&of(ONE, (statement, w)), &[]).contains("top digest"));
    // The flag alone.
    let honest = of(ONE, single(&dbs, seed, place));
    for level in 0..2 {
        assert!(broken(&honest, &[lie("segment levels", level, 1u64)]).contains("segment levels"));
        assert!(broken(&honest, &[lie("segment levels", level, 2u64)]).contains("segment levels"));
    }
    assert!(broken(&honest, &[lie("segment cells", 0, 7u64)]).contains("top digest"));
}

#[test]
fn rejects_holdings_of_another_depth() {
    let (statement, w) = honest(ONE, 2);
    let circuit = of(ONE, (statement, w));
    assert!(broken(&circuit, &[lie("holdings levels", 0, 1u64)]).contains("holdings levels"));
    assert_caught(&circuit, &[lie("databases", 0, 1u64)], &["holdings root"]);
    assert!(broken(&circuit, &[lie("databases", 1, 2u64)]).contains("databases"));
}

#[test]
fn rejects_stored_levels_out_of_order_and_weights_on_absent_levels() {
    let shape = StorageShape { stored_levels: 2, ..ONE };
    let dbs = [Database::new(1, vec![Segment::plain(1, 5), Segment::plain(2, 20)])];
    let seed = 3;
    let place = asked(&single(&dbs, seed, 0).0, 0, 25);
    let (statement, mut w) = single(&dbs, seed, place);
    assert_caught(&of(shape, (statement, w.clone())), &[], &[]);
    // The one level there is, claimed to be the second.
    let path = &mut w.samples[0].stored;
    let own = path.levels[0][path.slot as usize];
    *path = SumPath {
        slot: path.slot * 4,
        levels: vec![[own, (Fr::zero(), 0), (Fr::zero(), 0), (Fr::zero(), 0)], path.levels[0]],
    };
    let circuit = of(shape, (statement, w));
    assert_caught(&circuit, &[lie("stored level", 0, 0u64)], &["stored level order"]);
    assert!(broken(&circuit, &[lie("stored level", 0, 2u64)]).contains("stored level"));

    // A database that claims more cells than its segments have: the surplus hangs on a level that is not there.
    let mut db = Database::new(1, vec![Segment::plain(1, 5)]);
    db.preimage.stored_cells = 25;
    let place = seed_for(25, |p| p < 5);
    let (mut statement, mut w) = single(&[Database::new(1, vec![Segment::plain(1, 5)])], place, 0);
    let at = asked(&statement, 0, 25);
    w.samples[0].cell = db.segments[0].open(at);
    w.samples[0].db = db.preimage;
    statement.total_cells = 25;
    statement.root = HoldingsRoot::from_field(roots::db_root(&db.preimage).to_field());
    w.top = vec![(field::from_bytes(&statement.root.to_field()), 25)];
    assert_caught(&of(ONE, (statement, w.clone())), &[lie("sum weight", 0, 20u64)], &["absent level weighs nothing"]);
    // Without the surplus neither the count nor the digest that binds it comes out.
    assert_caught(&of(ONE, (statement, w)), &[], &["top digest", "top weight"]);
}

// --- weights

/// A stored tree of two segments in which the second claims `weight` cells, whatever it has, and a database over it.
fn weighted(weight: Fr, total: u64, seed: u64) -> (Storage, StorageWitness) {
    let segment = Segment::plain(1, 64);
    let own = field::from_bytes(&segment.root().to_field());
    let z = Fr::zero();
    let parent = poseidon2::compress(NodeKind::Sum, &[own, Fr::from(64u64), Fr::from(77u64), weight, z, z, z, z]);
    let mut db = Database::new(1, vec![segment.clone()]).preimage;
    db.stored_root = StoredRoot::from_field(field::to_bytes(&parent));
    db.stored_cells = total;
    let root = HoldingsRoot::from_field(roots::db_root(&db).to_field());
    let statement = Storage { root, total_cells: total, seed: FieldBytes::from_u64(seed) };
    let small = field::to_bytes(&weight).to_u64().unwrap_or(0);
    let stored = SumPath { slot: 0, levels: vec![[(own, 64), (Fr::from(77u64), small), (z, 0), (z, 0)]] };
    let cell = segment.open(asked(&statement, 0, total).min(63));
    let sample = StorageSample { cell, segment: segment.preimage, stored, db, holdings: SumPath::single() };
    let top = vec![(field::from_bytes(&root.to_field()), total)];
    (statement, StorageWitness { holdings: None, top, samples: vec![sample] })
}

#[test]
fn rejects_a_wrapped_count() {
    let seed = seed_for(94, |p| p < 64);
    assert_caught(&of(ONE, weighted(Fr::from(30u64), 94, seed)), &[], &[]);
    // A sibling of weight r - 5: the owner's database has 59 cells in all, so a node that keeps the first segment answers all samples.
    for k in [1u64, 5, 63] {
        let wrapped = -Fr::from(k);
        let made = of(ONE, weighted(wrapped, 64 - k, 3));
        assert_caught(&made, &[lie("sum weight", 0, wrapped)], &["sum weight fits its level"]);
        assert!(made.check().is_err());
    }
    // Too large for the level rather than wrapped, though far below 2^40: 2^7 cells where a level of the shape's has at most 2^6.
    let place = |weight: u64| seed_for(64 + weight, |p| p < 64);
    assert_caught(&of(ONE, weighted(Fr::from(127u64), 64 + 127, place(127))), &[], &[]);
    let made = of(ONE, weighted(Fr::from(128u64), 64 + 128, place(128)));
    assert_caught(&made, &[], &["sum weight fits its level"]);
    assert!(made.check().is_err());
    // Too large for any.
    let large = Fr::from(1u64 << 40);
    let made = of(ONE, weighted(large, (1 << 40) + 64, seed));
    let caught = broken(&made, &[]);
    assert!(caught.contains("sum weight fits its level") && caught.contains("T below 2^40"), "{caught:?}");
}

#[test]
fn rejects_a_total_of_2_to_the_40() {
    // 2^40 cells, one more than may be, out of weights that are each below it; the place is 2^34 seeds away, so it is wrong as well.
    let wide = StorageShape { tree_levels: 13, ..ONE };
    let made = of(wide, weighted(Fr::from((1u64 << 40) - 64), 1 << 40, 1));
    assert_caught(&made, &[], &["T below 2^40", "place by size", "top child weight fits its level"]);
}

#[test]
fn rejects_a_database_beside_the_path_that_is_larger_than_the_shape_holds() {
    let (statement, w) = honest(ONE, 2);
    let mut liar = w;
    let beside = (0..3).find(|i| *i as u64 != liar.samples[0].holdings.slot).unwrap();
    liar.top[beside].1 = 1 << 9; // 4 segments of 64 cells are 2^8
    let caught = broken(&of(ONE, (statement, liar.clone())), &[]);
    assert!(caught.contains("top child weight fits its level"), "{caught:?}");
    assert!(super::check_storage(ONE, &statement, &liar).is_err());
}

// --- the nodes that samples share

/// Databases of one small segment each.
fn many(count: u8) -> Vec<Database> {
    (0..count).map(|i| Database::new(i, vec![Segment::plain(u64::from(i), 1 + u64::from(i % 3))])).collect()
}

#[test]
fn honest_witnesses_satisfy_trees_of_databases_of_every_depth() {
    for (holdings_levels, counts) in [(2, &[1, 4, 5, 16][..]), (3, &[1, 3, 7, 17, 64]), (4, &[2, 16, 33, 66])] {
        let shape = StorageShape { holdings_levels, ..StorageShape::TINY };
        for count in counts {
            let dbs = many(*count);
            let made = fixture::storage(shape, &dbs, Owed::Holdings, FieldBytes::from_u64(u64::from(*count)));
            let circuit = of(shape, made);
            assert_eq!(circuit.check(), Ok(()), "{count} databases");
            assert_caught(&circuit, &[], &[]);
        }
        let single = of(shape, fixture::storage(shape, &many(1), Owed::Single(0), FieldBytes::ZERO));
        assert_caught(&single, &[], &[]);
    }
    let shape = StorageShape { holdings_levels: 3, ..StorageShape::TINY };
    let made = fixture::storage(shape, &many(17), Owed::Holdings, FieldBytes::from_u64(1));
    assert_inputs_bound(&of(shape, made.clone()), StorageCircuit::set_input);
    assert_no_free_witness(&of(shape, made), 0);
}

#[test]
fn rejects_lies_about_the_shared_nodes() {
    let shape = StorageShape { holdings_levels: 2, ..ONE };
    let (statement, w) = fixture::storage(shape, &many(5), Owed::Holdings, FieldBytes::from_u64(3));
    let circuit = of(shape, (statement, w.clone()));
    assert_caught(&circuit, &[], &[]);
    let slot = w.samples[0].holdings.slot as usize;
    // Another child than the sample's: neither its digest nor, as a rule, its weight.
    for other in (0..16usize).filter(|i| *i != slot) {
        assert!(broken(&circuit, &[lie("top digit", 0, other as u64)]).contains("top digest"), "child {other}");
    }
    // The children in another order, so that the sample's stands elsewhere.
    let mut liar = w.clone();
    liar.top.rotate_left(1);
    liar.samples[0].holdings.slot = (slot as u64 + 4) % 5;
    assert!(broken(&of(shape, (statement, liar.clone())), &[]).contains("shared digest"));
    assert!(super::check_storage(shape, &statement, &liar).is_err());
    // A child left out.
    let mut liar = w.clone();
    liar.top.pop();
    let caught = broken(&of(shape, (statement, liar.clone())), &[]);
    assert!(caught.contains("shared digest") && caught.contains("shared weight"), "{caught:?}");
    assert!(super::check_storage(shape, &statement, &liar).is_err());
    // Weight moved from one child to another, which moves the places of those between.
    let mut liar = w.clone();
    (liar.top[0].1, liar.top[1].1) = (liar.top[0].1 + 1, liar.top[1].1 - 1);
    assert!(broken(&of(shape, (statement, liar)), &[]).contains("shared digest"));
    // Every value that the choice and the nodes are made of.
    for (name, count) in [
        ("top child", 8),
        ("top child weight", 16),
        ("top node weight", 5),
        ("top level", 2),
        ("top node is empty", 3),
        ("top node", 3),
        ("top digest", 14),
        ("top weight", 14),
        ("top before", 15),
    ] {
        for occurrence in 0..count {
            assert!(!broken(&circuit, &[lie(name, occurrence, 123_456u64)]).is_empty(), "{name} {occurrence}");
        }
    }
    // A child in a node over nothing may carry a digest: it weighs nothing, so no sample can pick it.
    assert_caught(&circuit, &[lie("top child", 8, 123_456u64)], &[]);
    // A node over nothing is 0: the hash of zeros would be another root.
    let zeros = poseidon2::compress(NodeKind::Sum, &[Fr::zero(); 8]);
    assert!(broken(&circuit, &[lie("top node", 1, zeros)]).contains("top node"));
    assert!(broken(&circuit, &[lie("top node is empty", 1, 0u64)]).contains("top node is empty"));
    assert!(broken(&circuit, &[lie("top node is empty", 0, 1u64)]).contains("top node is empty"));
}

#[test]
fn rejects_cells_on_top_levels_that_are_not_there() {
    // One database, of which the node claims five cells more, as the weight of a neighbour that no hash binds.
    let shape = StorageShape { holdings_levels: 2, ..ONE };
    let dbs = [Database::new(1, vec![Segment::plain(2, 64)])];
    for beside in [1usize, 3, 4, 15] {
        let (mut statement, mut w) = fixture::storage(shape, &dbs, Owed::Holdings, FieldBytes::ZERO);
        let h = w.holdings.as_mut().unwrap();
        h.total_cells += 5;
        (statement.total_cells, statement.root) = (h.total_cells, roots::holdings_root(h));
        statement.seed = FieldBytes::from_u64(seed_for(69, |p| p < 64));
        w.samples[0] = fixture::sample(&dbs, 0, asked(&statement, 0, 69));
        w.top.resize(beside, (Fr::zero(), 0));
        w.top.push((Fr::zero(), 5));
        let circuit = of(shape, (statement, w));
        assert_caught(&circuit, &[], &["absent top level weighs nothing"]);
        assert!(circuit.check().is_err());
    }
}

#[test]
fn rejects_lies_inside_a_sum_level() {
    let dbs = [Database::new(
        1,
        vec![Segment::plain(1, 5), Segment::plain(2, 20), Segment::plain(3, 9), Segment::plain(4, 30)],
    )];
    let seed = seed_for(64, |p| (25..34).contains(&p));
    let place = asked(&single(&dbs, seed, 0).0, 0, 64);
    let circuit = of(ONE, single(&dbs, seed, place));
    assert_caught(&circuit, &[], &[]);
    for (name, count) in [
        ("sum digit 3", 1),
        ("sum insert", 6),
        ("sum before", 1),
        ("sum level", 1),
        ("sum total", 1),
        ("sum weight", 3),
        ("sum sibling", 3),
    ] {
        for occurrence in 0..count {
            let caught = broken(&circuit, &[lie(name, occurrence, 123_456u64)]);
            assert!(!caught.is_empty(), "{name} {occurrence}");
            if !matches!(name, "sum weight" | "sum sibling") {
                assert!(caught.contains(name), "{name}: {caught:?}");
            }
        }
    }
    // The weight before is what places the segment: a lie about it alone, told so that the place comes out right.
    let (statement, w) = single(&dbs, seed, 3);
    let before = Fr::from(place - 3);
    // before = moved + product; the honest product for slot 0 is 0 and nothing moves.
    assert_caught(&of(ONE, (statement, w)), &[lie("sum before", 0, before)], &["sum before"]);
}

#[test]
fn rejects_holdings_whose_total_is_not_the_sum() {
    let dbs = fixture::databases();
    let (mut statement, mut w) = honest(ONE, 1);
    let h = w.holdings.as_mut().unwrap();
    h.total_cells += 40;
    statement.total_cells = h.total_cells;
    statement.root = roots::holdings_root(h);
    let place = asked(&statement, 0, statement.total_cells);
    let database = (0..3).scan(0, |sum, i| {
        let start = *sum;
        *sum += dbs[i].preimage.stored_cells;
        Some((i, start, *sum))
    });
    if let Some((i, start, _)) = database.into_iter().find(|(_, start, end)| (*start..*end).contains(&place)) {
        w.samples[0] = fixture::sample(&dbs, i as u64, place - start);
        assert_caught(&of(ONE, (statement, w)), &[], &["shared weight"]);
    } else {
        assert!(broken(&of(ONE, (statement, w)), &[]).contains("shared weight"));
    }
}

// --- one database or all

#[test]
fn rejects_a_database_root_as_holdings_and_the_reverse() {
    let (statement, w) = honest(ONE, 2);
    let circuit = of(ONE, (statement, w.clone()));
    assert!(broken(&circuit, &[lie("single", 0, 1u64)]).contains("one database"));
    assert!(broken(&circuit, &[lie("single", 0, 2u64)]).contains("single"));
    let none = StorageWitness { holdings: None, ..w };
    assert!(!broken(&of(ONE, (statement, none)), &[]).is_empty());

    // A single database claimed to be one of two, so that odd samples are drawn from an imagined other.
    let dbs = [Database::new(1, vec![Segment::plain(1, 9)])];
    let place = asked(&single(&dbs, 2, 0).0, 0, 9);
    let circuit = of(ONE, single(&dbs, 2, place));
    assert_caught(&circuit, &[], &[]);
    let lies = [lie("databases", 0, 1u64), lie("holdings levels", 0, 1u64)];
    assert!(broken(&circuit, &lies).contains("one database"));
    // Not single, with a root that no holdings make.
    let caught = broken(&circuit, &[lie("single", 0, 0u64)]);
    assert!(caught.contains("holdings root"), "{caught:?}");
    assert!(broken(&circuit, &[lie("top", 0, 9u64)]).contains("top"));
}

// --- every kind as every other kind

#[derive(Clone, Copy, Default)]
struct Kinds {
    cell: Option<NodeKind>,
    node: Option<NodeKind>,
    segment: Option<NodeKind>,
    sum: Option<NodeKind>,
    database: Option<NodeKind>,
    holdings: Option<NodeKind>,
}

/// The root that a sample makes where a liar hashed one kind of node as another, with everything above following from it.
fn root_with(sample: &StorageSample, holdings: &HoldingsPreimage, kinds: Kinds) -> Fr {
    let hash = |kind: Option<NodeKind>, honest: NodeKind, x: &[Fr; 8]| poseidon2::compress(kind.unwrap_or(honest), x);
    let bytes = |kind, honest, x: &Cell| hash(kind, honest, &field::cell_to_fr(x));
    let mut at = hash(kinds.cell, NodeKind::Cell, &sample.cell.cell);
    for (l, siblings) in sample.cell.siblings.iter().enumerate() {
        let digit = (sample.cell.index >> (3 * l) & 7) as usize;
        at = hash(kinds.node, NodeKind::Node, &insert(siblings, digit, at));
    }
    let mut segment = sample.segment;
    segment.tree_root = field::to_bytes(&at);
    at = bytes(kinds.segment, NodeKind::Segment, &segment.scalars());
    let climb = |mut at: Fr, path: &SumPath| {
        for (l, children) in path.levels.iter().enumerate() {
            let mut input = [Fr::zero(); 8];
            for (i, (digest, weight)) in children.iter().enumerate() {
                let own = (path.slot >> (2 * l) & 3) as usize == i;
                (input[2 * i], input[2 * i + 1]) = (if own { at } else { *digest }, Fr::from(*weight));
            }
            at = hash(kinds.sum, NodeKind::Sum, &input);
        }
        at
    };
    let mut db = sample.db;
    db.stored_root = StoredRoot::from_field(field::to_bytes(&climb(at, &sample.stored)));
    at = climb(bytes(kinds.database, NodeKind::Database, &db.scalars()), &sample.holdings);
    let holdings = HoldingsPreimage { sum_root: field::to_bytes(&at), ..*holdings };
    bytes(kinds.holdings, NodeKind::Holdings, &holdings.scalars())
}

#[test]
fn rejects_every_kind_of_node_presented_as_every_other_kind() {
    let seed = (0..).find(|s| honest(ONE, *s).1.samples[0].segment.cells == 64).unwrap();
    let (statement, w) = honest(ONE, seed);
    let (sample, holdings) = (&w.samples[0], w.holdings.unwrap());
    let root = field::from_bytes(&statement.root.to_field());
    assert_eq!(root_with(sample, &holdings, Kinds::default()), root);
    type Role = fn(&mut Kinds) -> &mut Option<NodeKind>;
    let roles: [(NodeKind, Role); 6] = [
        (NodeKind::Cell, |k| &mut k.cell),
        (NodeKind::Node, |k| &mut k.node),
        (NodeKind::Segment, |k| &mut k.segment),
        (NodeKind::Sum, |k| &mut k.sum),
        (NodeKind::Database, |k| &mut k.database),
        (NodeKind::Holdings, |k| &mut k.holdings),
    ];
    let mut refused = 0;
    for (own, role) in roles {
        for other in NodeKind::ALL.into_iter().filter(|k| *k != own) {
            let mut kinds = Kinds::default();
            *role(&mut kinds) = Some(other);
            let mut circuit = of(ONE, (statement, w.clone()));
            circuit.set_input(0, root_with(sample, &holdings, kinds));
            let caught = broken(&circuit, &[]);
            assert!(caught.contains("holdings root"), "{own:?} as {other:?}: {caught:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 6 * 7);
}

#[test]
fn rejects_a_place_drawn_by_another_kind_of_hash() {
    let dbs = [Database::new(1, vec![Segment::plain(2, 64)])];
    for kind in NodeKind::ALL.into_iter().filter(|k| *k != NodeKind::Digest) {
        let seed = 12u64;
        let mut input = [Fr::zero(); 8];
        input[0] = field::from_bytes(&DigestTag::Challenge.start(2));
        input[1] = Fr::from(seed);
        let drawn = |kind| seed::scale(poseidon2::compress(kind, &input).into_bigint().0[0], 64);
        if drawn(kind) != drawn(NodeKind::Digest) {
            assert_caught(&of(ONE, single(&dbs, seed, drawn(kind))), &[], &["place by size"]);
        }
    }
}

#[test]
fn depth_that_a_shape_does_not_hold_is_refused() {
    let big = [Database::new(1, vec![Segment::plain(1, 65)])];
    let circuit = of(ONE, fixture::storage(ONE, &big, Owed::Holdings, FieldBytes::ZERO));
    assert!(circuit.check().is_err());
    assert!(!broken(&circuit, &[]).is_empty());
    assert_eq!(circuit.id(), CircuitId::Storage(ONE));
}

/// Where the constraints of a shape go; `docs/storage-shapes.md` shows these numbers.
#[test]
fn constraints_of_the_production_shape_are_counted_by_purpose() {
    let inner = ark_relations::gr1cs::ConstraintSystem::new_ref();
    inner.set_mode(ark_relations::gr1cs::SynthesisMode::Setup);
    let mut cs = crate::r1cs::Cs::new(inner);
    StorageCircuit::blank(StorageShape::PRODUCTION).synthesize(&mut cs).unwrap();
    let purpose = |name: &str| match name {
        "poseidon2" => "hashing",
        "sum weight fits its level" | "top child weight fits its level" => "weights of siblings",
        "challenge bits" | "canonical" => "bits of the challenge",
        "place by size" | "database by number" | "place in database" => "places",
        "tree child" | "tree level" | "cell index" | "cell index below cells" => "path in the segment",
        _ if name.starts_with("sum ") || name.contains("level") || name.starts_with("segment cells") => {
            "paths of sums, depth"
        }
        _ if name.starts_with("top ") || name.starts_with("shared ") => "choice among the shared nodes",
        _ => "other",
    };
    let mut counts = std::collections::BTreeMap::new();
    cs.names.iter().for_each(|n| *counts.entry(purpose(n)).or_insert(0usize) += 1);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/storage-shapes.md")).unwrap();
    for (purpose, count) in &counts {
        let shown = page.lines().find_map(|l| l.strip_prefix(&format!("| {purpose} | "))?.split(' ').next());
        assert_eq!(shown.map(|s| s.replace(',', "")), Some(count.to_string()), "{purpose} of {counts:?}");
    }
    assert_eq!(counts.values().sum::<usize>(), 130_804);
}
