//! What a draw promises, and the vectors that Solidity reads too.
//!
//! Again   `cargo test -p fluence-crypto --lib -- --ignored writes_placement_vectors`

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};

fn operator(i: u8) -> Address {
    Address::from_bytes([i; 20])
}

/// One slot for each number; 0 does not count.
fn list(operators: &[u8]) -> Vec<Option<Address>> {
    operators.iter().map(|i| (*i != 0).then(|| operator(*i))).collect()
}

fn numbered(i: u32) -> [u8; 32] {
    Keccak256::digest(i.to_be_bytes()).into()
}

proptest! {
    #[test]
    fn every_drawn_slot_counts_and_no_operator_has_two(
        seed: [u8; 32], operators in prop::collection::vec(0u8..12, 0..400), want in 0usize..48,
    ) {
        let list = list(&operators);
        let order = draw(&seed, &list, want);
        let drawn: BTreeSet<_> = order.iter().map(|slot| list[*slot].unwrap()).collect();
        prop_assert_eq!(drawn.len(), order.len());
        let there: BTreeSet<_> = list.iter().flatten().collect();
        prop_assert!(order.len() <= want.min(there.len()));
        if list.len() <= STEPS_MAX as usize {
            prop_assert_eq!(order.len(), want.min(there.len()), "a short list is looked at to its end");
        }
        // Fewer are the first of more.
        prop_assert_eq!(&draw(&seed, &list, want / 2)[..], &order[..order.len().min(want / 2)]);
    }

    /// Who leaves changes nothing for the others, but that the next one comes up.
    #[test]
    fn who_drops_out_leaves_the_order_of_the_others(seed: [u8; 32], count in 1usize..200, out: prop::sample::Index) {
        let mut list: Vec<_> = (0..count).map(|i| Some(Address::from_bytes([i as u8; 20]))).collect();
        let before = draw(&seed, &list, count);
        let out = out.index(count);
        list[out] = None;
        let rest: Vec<_> = before.into_iter().filter(|slot| *slot != out).collect();
        prop_assert_eq!(draw(&seed, &list, count), rest);
    }

    #[test]
    fn reduces_as_a_number_does(high: u128, low: u128, m in 1..=u64::MAX) {
        let number: [u8; 32] = [high.to_be_bytes(), low.to_be_bytes()].concat().try_into().unwrap();
        let m128 = u128::from(m);
        // 2^128 mod m, by parts that fit.
        let base = (u128::MAX % m128 + 1) % m128;
        let want = ((high % m128) * base % m128 + low % m128) % m128;
        prop_assert_eq!(u128::from(reduce(&number, m)), want);
    }
}

/// 5 of 20 slots, 4,000 draws: each slot is expected 1,000 times with a deviation of 27; five of those are 1 in 100,000 for all slots.
#[test]
fn no_slot_is_preferred_in_any_place() {
    let list: Vec<_> = (0..20u8).map(|i| Some(operator(i))).collect();
    let mut drawn = [[0u32; 20]; 5];
    for i in 0..4000 {
        for (place, slot) in draw(&numbered(i), &list, 5).into_iter().enumerate() {
            drawn[place][slot] += 1;
        }
    }
    for slot in 0..20 {
        let total: u32 = drawn.iter().map(|place| place[slot]).sum();
        assert!(total.abs_diff(1000) < 140, "slot {slot}: {total}");
        for (place, counts) in drawn.iter().enumerate() {
            // 200 expected, a deviation of 13.8.
            assert!(counts[slot].abs_diff(200) < 75, "slot {slot} in place {place}: {}", counts[slot]);
        }
    }
}

/// An operator with half of the slots has one seat like everybody else.
#[test]
fn many_nodes_of_one_operator_get_one_seat() {
    let operators: Vec<u8> = (0..60).map(|i| if i < 30 { 1 } else { i }).collect();
    for i in 0..200 {
        let order = draw(&numbered(i), &list(&operators), 7);
        assert_eq!(order.len(), 7);
        assert!(order.iter().filter(|slot| **slot < 30).count() <= 1);
    }
}

#[test]
fn a_seed_is_of_one_chain_contract_owner_database_and_block() {
    let base = PlacementSeed {
        chain_id: 1,
        contract: operator(1),
        owner: operator(2),
        db: DatabaseId::from_bytes([3; 16]),
        beacon: [4; 32],
    };
    let others = [
        PlacementSeed { chain_id: 2, ..base },
        PlacementSeed { contract: operator(9), ..base },
        PlacementSeed { owner: operator(9), ..base },
        PlacementSeed { db: DatabaseId::from_bytes([9; 16]), ..base },
        PlacementSeed { beacon: [9; 32], ..base },
    ];
    let all: BTreeSet<_> = others.iter().chain([&base]).map(seed).collect();
    assert_eq!(all.len(), 6);
}

fn path() -> std::path::PathBuf {
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/vectors/placement.json")
}

fn hex0x(bytes: impl AsRef<[u8]>) -> String {
    format!("0x{}", hex::encode(bytes))
}

/// One draw. `operators` has a number for each slot, 0 for one that does not count.
fn vector(name: &str, number: u8, operators: &[u8], want: usize) -> Value {
    let of = PlacementSeed {
        chain_id: 31337,
        contract: Address::from_bytes([0xc0; 20]),
        owner: operator(number),
        db: DatabaseId::from_bytes([number; 16]),
        beacon: numbered(u32::from(number)),
    };
    let seed = seed(&of);
    json!({
        "name": name,
        "chain_id": of.chain_id,
        "contract": hex0x(of.contract.as_bytes()),
        "owner": hex0x(of.owner.as_bytes()),
        "db": hex0x(of.db.as_bytes()),
        "beacon": hex0x(of.beacon),
        "seed": hex0x(seed),
        // A number stands for the address that is 20 times this byte.
        "operators": operators,
        "want": want,
        "order": draw(&seed, &list(operators), want),
    })
}

fn make() -> Value {
    let up_to = |n: u8| (1..=n).collect::<Vec<u8>>();
    let long: Vec<u8> = (0..1000u32).map(|i| if i % 3 == 0 { 0 } else { (i % 200) as u8 + 1 }).collect();
    json!([
        vector("one of one", 1, &[1], 1),
        vector("nobody", 2, &[], 4),
        vector("four of four", 3, &up_to(4), 4),
        vector("four and two of six", 4, &up_to(6), 6),
        vector("too few operators", 5, &[1, 1, 1, 2, 2, 2], 4),
        vector("free slots", 6, &[0, 5, 0, 0, 6, 7, 0, 8, 0], 4),
        vector("one operator with most slots", 7, &[1, 1, 1, 1, 1, 1, 1, 2, 3, 4, 1, 1, 1], 4),
        vector("31 seats and 16 standbys of 100", 8, &up_to(100), 47),
        vector("eight of a long list", 9, &long, 8),
        vector(
            "a long list that almost nobody is in",
            10,
            &{
                let mut l = vec![0; 1000];
                l[999] = 1;
                l[0] = 2;
                l
            },
            4
        ),
    ])
}

#[test]
#[ignore = "writes tests/vectors/placement.json"]
fn writes_placement_vectors() {
    std::fs::write(path(), serde_json::to_string_pretty(&make()).unwrap() + "\n").unwrap();
}

#[test]
fn placement_vectors_are_what_this_code_makes() {
    let committed: Value = serde_json::from_slice(&std::fs::read(path()).unwrap()).unwrap();
    assert!(committed == make(), "the draw changed; if on purpose, write tests/vectors/placement.json again");
}
