//! Circuit shapes: the sizes a circuit is built for. Shapes are data; each has a name that stands in proof files and key files.

use std::fmt;
use std::str::FromStr;

/// A storage proof: how many samples, and how many tree levels each may climb.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct StorageShape {
    /// Samples per proof; even-numbered ones weigh by size, odd ones pick a database uniformly first.
    pub samples: u32,
    /// Levels of the sum tree over databases (4-ary).
    pub holdings_levels: u32,
    /// Levels of the sum tree over stored segments (4-ary).
    pub stored_levels: u32,
    /// Levels of the segment tree (8-ary).
    pub tree_levels: u32,
}

/// A range sum over all live segments of a projection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct RangeSumShape {
    /// Live segments it has room for.
    pub segments: u32,
    /// Levels of the segment tree (8-ary).
    pub tree_levels: u32,
}

impl StorageShape {
    /// 16 samples, 256 databases, 4,096 segments, segments of 8^7 cells.
    pub const PRODUCTION: Self = Self { samples: 16, holdings_levels: 4, stored_levels: 6, tree_levels: 7 };
    /// The same samples over smaller trees: 4 databases, 64 segments, segments of 8^6 cells. For demos and local chains.
    pub const SMALL: Self = Self { samples: 16, holdings_levels: 1, stored_levels: 3, tree_levels: 6 };
    /// Few samples over trees as high as in production but for the databases, of which there are 64. For clusters on one's own machine.
    pub const LOCAL: Self = Self { samples: 4, holdings_levels: 3, stored_levels: 6, tree_levels: 7 };
    /// For unit tests.
    pub const TINY: Self = Self { samples: 2, holdings_levels: 1, stored_levels: 1, tree_levels: 2 };

    /// Most databases that one proof covers.
    #[must_use]
    pub const fn databases_max(&self) -> u64 {
        4u64.saturating_pow(self.holdings_levels)
    }

    /// Levels of the tree over databases that each sample climbs by itself. The nodes there, at most 16, are opened once for all samples.
    #[must_use]
    pub const fn own_holdings_levels(self) -> u32 {
        self.holdings_levels.saturating_sub(2)
    }
}

impl RangeSumShape {
    /// One live segment of up to 8^7 cells.
    pub const ONE: Self = Self { segments: 1, tree_levels: 7 };
    /// Up to four.
    pub const FOUR: Self = Self { segments: 4, tree_levels: 7 };
    /// For unit tests.
    pub const TINY: Self = Self { segments: 2, tree_levels: 3 };

    /// The smallest production shape that holds `live` segments.
    #[must_use]
    pub fn for_live(live: usize) -> Option<Self> {
        [Self::ONE, Self::FOUR].into_iter().find(|s| live <= s.segments as usize)
    }
}

/// A circuit: statement, version and shape. Its text is the `circuit` field of proof and key files, as `storage/v2/k16-h4-d6-t7`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CircuitId {
    /// `storage`.
    Storage(StorageShape),
    /// `range_sum`.
    RangeSum(RangeSumShape),
}

impl CircuitId {
    /// Number of public inputs.
    #[must_use]
    pub const fn public_inputs(&self) -> usize {
        3
    }
}

impl fmt::Display for CircuitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storage(s) => {
                write!(f, "storage/v2/k{}-h{}-d{}-t{}", s.samples, s.holdings_levels, s.stored_levels, s.tree_levels)
            }
            Self::RangeSum(s) => write!(f, "range_sum/v1/s{}-t{}", s.segments, s.tree_levels),
        }
    }
}

/// A text that names no circuit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no circuit is called {0:?}")]
pub struct UnknownCircuit(String);

impl FromStr for CircuitId {
    type Err = UnknownCircuit;
    fn from_str(text: &str) -> Result<Self, UnknownCircuit> {
        let unknown = || UnknownCircuit(text.chars().take(80).collect());
        let mut parts = text.split('/');
        let (name, _version, shape) = (parts.next(), parts.next(), parts.next());
        let numbers = |letters: &[char]| -> Option<Vec<u32>> {
            let fields: Vec<&str> = shape?.split('-').collect();
            (fields.len() == letters.len()).then_some(())?;
            fields.iter().zip(letters).map(|(f, l)| f.strip_prefix(*l)?.parse().ok().filter(|n| *n <= 1024)).collect()
        };
        let id = match name {
            Some("storage") => numbers(&['k', 'h', 'd', 't']).map(|n| {
                Self::Storage(StorageShape {
                    samples: n[0],
                    holdings_levels: n[1],
                    stored_levels: n[2],
                    tree_levels: n[3],
                })
            }),
            Some("range_sum") => {
                numbers(&['s', 't']).map(|n| Self::RangeSum(RangeSumShape { segments: n[0], tree_levels: n[1] }))
            }
            _ => None,
        };
        // One text per circuit, of one version: "k016" and "+16" parse as numbers but are not how we write them.
        id.filter(|id| id.to_string() == text).ok_or_else(unknown)
    }
}

impl serde::Serialize for CircuitId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for CircuitId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circuit_names_round_trip_and_have_one_spelling() {
        for id in [CircuitId::Storage(StorageShape::PRODUCTION), CircuitId::RangeSum(RangeSumShape::FOUR)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for bad in [
            "",
            "storage",
            "storage/v2/k016-h4-d6-t7",
            "storage/v1/k16-h4-d6-t7",
            "range_sum/v2/s1-t7",
            "range_sum/v1/s1",
            "x/v1/s1-t7",
            "range_sum/v1/s1-t7/",
        ] {
            assert!(bad.parse::<CircuitId>().is_err(), "{bad}");
        }
    }
}
