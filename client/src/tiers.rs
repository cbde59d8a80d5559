//! Which live segments to merge, so that few are live and a row is not written too often.
//!
//! Rule     nothing, while fewer than [`SOFT`] are live and free. Then the smallest, and the next larger one as long as it is at most [`RATIO`]
//!          times what is merged already: what is left over grows by more than that factor from one segment to the next.
//! Bounds   with n rows inserted, at most log_RATIO(n) segments stay, and fewer than `SOFT` beside them; a row is merged O(log n) times.
//! Source   O'Neil et al., "The log-structured merge-tree", 1996; Bentley and Saxe, "Decomposable searching problems", 1980. Deviation: sizes
//!          are those that are there, not levels, because a tick has as many rows as came.

use fluence_types::SegmentRoot;

/// Live segments that are left alone.
pub(crate) const SOFT: usize = 8;
/// How much larger than the smaller ones together a segment must be to stay out of their merge.
const RATIO: u64 = 4;

/// Of segments with their rows, those to merge; none, or at least two. Together they have at most `limit` rows.
pub(crate) fn choose(mut free: Vec<(SegmentRoot, u64)>, limit: u64) -> Vec<SegmentRoot> {
    if free.len() < SOFT {
        return Vec::new();
    }
    free.sort_by_key(|(root, rows)| (*rows, *root));
    let mut chosen: Vec<SegmentRoot> = Vec::new();
    let mut sum = 0u64;
    for (root, rows) in free {
        let near = chosen.len() < 2 || rows <= sum.saturating_mul(RATIO);
        if !near || sum.saturating_add(rows) > limit {
            break;
        }
        chosen.push(root);
        sum += rows;
    }
    if chosen.len() < 2 { Vec::new() } else { chosen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fluence_types::FieldBytes;
    use fluence_types::limits::LIVE_SEGMENTS_MAX;

    fn root(n: u64) -> SegmentRoot {
        SegmentRoot::from_field(FieldBytes::from_u64(n))
    }

    #[test]
    fn few_are_left_alone_and_those_near_in_size_are_merged() {
        let of = |rows: &[u64]| rows.iter().enumerate().map(|(i, r)| (root(i as u64), *r)).collect::<Vec<_>>();
        assert!(choose(of(&[1; 7]), 100).is_empty());
        assert_eq!(choose(of(&[1; 8]), 100).len(), 8);
        assert_eq!(choose(of(&[1, 1, 1, 1, 1, 1, 1, 28]), 100).len(), 8);
        assert_eq!(choose(of(&[29, 1, 1, 1, 1, 1, 1, 1]), 100).len(), 7);
        // Two at least, however far apart; none where they would not fit.
        assert_eq!(choose(of(&[1, 10, 100, 1000, 10_000, 100_000, 1 << 20, 1 << 23]), 1 << 24), [root(0), root(1)]);
        assert!(choose(of(&[60; 8]), 100).is_empty());
    }

    /// 30,000 ticks, with as many rows as a busy and an idle hour have: never near the limit, and the factor grows slowly.
    #[test]
    fn inserts_without_end_keep_few_segments_and_a_small_factor() {
        for tick_rows in [1u64, 64, 500] {
            let mut live: Vec<(SegmentRoot, u64)> = Vec::new();
            let (mut inserted, mut written, mut most) = (0u64, 0u64, 0);
            for n in 0..30_000u64 {
                // What is chosen before a tick goes into its segment.
                let chosen = choose(live.clone(), 1 << 24);
                let merged: u64 = live.iter().filter(|(r, _)| chosen.contains(r)).map(|(_, rows)| rows).sum();
                live.retain(|(r, _)| !chosen.contains(r));
                live.push((root(n), merged + tick_rows));
                (inserted, written) = (inserted + tick_rows, written + merged + tick_rows);
                most = most.max(live.len());
            }
            assert_eq!(live.iter().map(|(_, rows)| rows).sum::<u64>(), inserted);
            const { assert!(SOFT < LIVE_SEGMENTS_MAX) };
            assert!(most <= SOFT, "{most} live");
            assert!(written < 14 * inserted, "each row was written {} times", written as f64 / inserted as f64);
        }
    }
}
