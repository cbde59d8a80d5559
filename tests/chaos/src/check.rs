//! What must hold of a history, whatever was broken on the way.
//!
//! ```text
//! durability    a row acknowledged at height h is, once, in every read at h or above and in what every member says in the end
//! no ghosts     a row that was refused is nowhere; a row whose outcome is unknown is there once or never; nothing else is there
//! one history   of two reads of a database the one at the lower height has no row that the other lacks; at one height they are the same
//! order         a row is in no read without the earlier rows of its writer that came to be; acknowledged heights of a writer only grow
//! real time     a row is in no read that ended before the row was asked for
//! monotony      the heights that one reader is given never go back
//! agreement     all members say the same root and the same rows in the end
//! honesty       no evidence against anybody, for all are honest; nobody diverged
//! ```

use crate::history::{History, Outcome, Read, Row, Write};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that does not hold; empty where all does.
#[must_use]
pub fn check(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    let databases: BTreeSet<usize> =
        history.writes.iter().map(|w| w.database).chain(history.finals.iter().map(|f| f.database)).collect();
    for database in databases {
        let one = Database::of(history, database);
        one.agreement(history, &mut wrong);
        one.rows(&mut wrong);
        one.reads(&mut wrong);
        one.writers(&mut wrong);
    }
    wrong.extend(
        history
            .evidence
            .iter()
            .map(|(m, file)| format!("honesty: member {m} holds evidence {file} against an honest one")),
    );
    wrong.extend(history.diverged.iter().map(|m| format!("honesty: member {m} says that it diverged")));
    wrong
}

/// The history of one database.
struct Database<'a> {
    database: usize,
    writes: BTreeMap<Row, &'a Write>,
    /// By height.
    reads: Vec<&'a Read>,
    /// What was there in the end.
    last: BTreeSet<Row>,
}

fn twice(rows: &[Row]) -> Option<Row> {
    let mut seen = BTreeSet::new();
    rows.iter().copied().find(|row| !seen.insert(*row))
}

impl<'a> Database<'a> {
    fn of(history: &'a History, database: usize) -> Self {
        let mut reads: Vec<&Read> = history.reads.iter().filter(|r| r.database == database).collect();
        reads.sort_by_key(|r| r.height);
        let writes = history.writes.iter().filter(|w| w.database == database).map(|w| (w.row, w)).collect();
        let last = history.finals.iter().find(|f| f.database == database);
        Self { database, writes, reads, last: last.into_iter().flat_map(|f| f.rows.iter().copied()).collect() }
    }

    fn agreement(&self, history: &History, wrong: &mut Vec<String>) {
        let mut finals = history.finals.iter().filter(|f| f.database == self.database);
        let Some(first) = finals.next() else {
            wrong.push(format!("agreement: no member of database {} says how it ended", self.database));
            return;
        };
        for other in finals {
            if other.root != first.root {
                wrong.push(format!(
                    "agreement: member {} has root {} at height {}, member {} root {} at height {}",
                    first.member, first.root, first.height, other.member, other.root, other.height
                ));
            }
            let rows: BTreeSet<Row> = other.rows.iter().copied().collect();
            if let Some(row) = rows.symmetric_difference(&self.last).next() {
                wrong.push(format!("agreement: {row} is at only one of members {} and {}", first.member, other.member));
            }
            if let Some(row) = twice(&other.rows) {
                wrong.push(format!("durability: {row} is there twice at member {}", other.member));
            }
        }
        if let Some(row) = twice(&first.rows) {
            wrong.push(format!("durability: {row} is there twice at member {}", first.member));
        }
    }

    /// What is there in the end, against what writers were told.
    fn rows(&self, wrong: &mut Vec<String>) {
        for (row, write) in &self.writes {
            match (&write.outcome, self.last.contains(row)) {
                (Outcome::Acknowledged { height }, false) => {
                    wrong.push(format!("durability: {row} was acknowledged at height {height}, and is gone"));
                }
                (Outcome::Refused(why), true) => {
                    wrong.push(format!("no ghosts: {row} was refused ({why}), and is there"))
                }
                _ => {}
            }
        }
        for row in self.last.iter().filter(|row| !self.writes.contains_key(row)) {
            wrong.push(format!("no ghosts: {row} is there, and nobody wrote it"));
        }
    }

    fn reads(&self, wrong: &mut Vec<String>) {
        let mut before: Option<(&Read, BTreeSet<Row>)> = None;
        for read in &self.reads {
            let what = format!("read of reader {} at height {}", read.reader, read.height);
            if let Some(row) = twice(&read.rows) {
                wrong.push(format!("durability: {row} is there twice in a {what}"));
            }
            let rows: BTreeSet<Row> = read.rows.iter().copied().collect();
            for (row, write) in &self.writes {
                if let Outcome::Acknowledged { height } = write.outcome
                    && height <= read.height
                    && !rows.contains(row)
                {
                    wrong.push(format!("durability: {row}, acknowledged at height {height}, is not in a {what}"));
                }
            }
            for row in &rows {
                match self.writes.get(row) {
                    None => wrong.push(format!("no ghosts: {row} is in a {what}, and nobody wrote it")),
                    Some(write) if write.asked > read.ended => {
                        wrong.push(format!("real time: {row} is in a {what} that ended before it was asked for"));
                    }
                    Some(_) => {}
                }
                // Earlier rows of its writer that came to be.
                let earlier = Row { n: 0, ..*row }..*row;
                if let Some(missing) = self.last.range(earlier).find(|e| !rows.contains(e)) {
                    wrong.push(format!("order: {row} is in a {what}, and {missing} came later"));
                }
            }
            if let Some((lower, its)) = &before {
                if let Some(row) = its.difference(&rows).next() {
                    wrong.push(format!(
                        "one history: {row} was read at height {}, and is not in a {what}",
                        lower.height
                    ));
                }
                if lower.height == read.height
                    && let Some(row) = rows.difference(its).next()
                {
                    wrong.push(format!("one history: of two reads at height {} only one has {row}", read.height));
                }
            }
            if let Some(row) = rows.difference(&self.last).next() {
                wrong.push(format!("one history: {row} is in a {what}, and not there in the end"));
            }
            before = Some((read, rows));
        }
        let mut of_reader: BTreeMap<usize, Vec<&Read>> = BTreeMap::new();
        for read in &self.reads {
            of_reader.entry(read.reader).or_default().push(read);
        }
        for reads in of_reader.values_mut() {
            reads.sort_by_key(|r| r.ended);
            for pair in reads.windows(2) {
                // Two at once may end in either order.
                if pair[1].asked >= pair[0].ended && pair[1].height < pair[0].height {
                    wrong.push(format!(
                        "monotony: reader {} was given height {} after {}",
                        pair[0].reader, pair[1].height, pair[0].height
                    ));
                }
            }
        }
    }

    fn writers(&self, wrong: &mut Vec<String>) {
        let mut last: BTreeMap<i64, u64> = BTreeMap::new();
        // In the order of writer and number.
        for (row, write) in &self.writes {
            let Outcome::Acknowledged { height } = write.outcome else { continue };
            let before = last.insert(row.writer, height);
            if before.is_some_and(|before| height < before) {
                wrong
                    .push(format!("order: {row} was acknowledged at height {height}, the one before it at {before:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Final;
    use std::time::Duration;

    fn row(writer: i64, n: i64) -> Row {
        Row { writer, n }
    }

    fn write(row: Row, at: u64, outcome: Outcome) -> Write {
        let ms = Duration::from_millis;
        Write { database: 0, row, asked: ms(at), ended: ms(at + 5), outcome }
    }

    fn read(reader: usize, at: u64, height: u64, rows: &[Row]) -> Read {
        let ms = Duration::from_millis;
        Read { database: 0, reader, asked: ms(at), ended: ms(at + 5), height, rows: rows.to_vec() }
    }

    /// Two writers and two readers: one row acknowledged each, one of unknown outcome that is there, one refused.
    fn good() -> History {
        let ack = |height| Outcome::Acknowledged { height };
        let all = [row(1, 0), row(1, 1), row(1, 2), row(2, 0)];
        let end = |member| Final { database: 0, member, height: 20, root: "r".to_owned(), rows: all.to_vec() };
        History {
            writes: vec![
                write(row(1, 0), 0, ack(3)),
                write(row(2, 0), 0, ack(5)),
                write(row(1, 1), 10, Outcome::Unknown("no answer".to_owned())),
                write(row(2, 1), 10, Outcome::Refused("conflict".to_owned())),
                write(row(1, 2), 30, ack(9)),
            ],
            reads: vec![
                read(0, 6, 3, &[row(1, 0)]),
                read(1, 20, 7, &[row(1, 0), row(1, 1), row(2, 0)]),
                read(0, 40, 9, &all),
            ],
            finals: vec![end(0), end(1)],
            ..History::default()
        }
    }

    fn found(change: impl FnOnce(&mut History), words: &str) {
        let mut history = good();
        change(&mut history);
        let wrong = check(&history);
        assert!(wrong.iter().any(|w| w.contains(words)), "looked for {words:?} in {wrong:?}");
    }

    #[test]
    fn an_unknown_outcome_may_go_either_way_and_a_good_history_holds() {
        assert_eq!(check(&good()), Vec::<String>::new());
        let mut never = good();
        for rows in never.reads.iter_mut().map(|r| &mut r.rows).chain(never.finals.iter_mut().map(|f| &mut f.rows)) {
            rows.retain(|r| *r != row(1, 1));
        }
        assert_eq!(check(&never), Vec::<String>::new());
    }

    #[test]
    fn rejects_a_lost_row_wherever_it_is_lost() {
        found(
            |h| h.finals.iter_mut().for_each(|f| f.rows.retain(|r| *r != row(2, 0))),
            "acknowledged at height 5, and is gone",
        );
        found(|h| h.finals[1].rows.retain(|r| *r != row(2, 0)), "is at only one of members 0 and 1");
        found(|h| h.reads[2].rows.retain(|r| *r != row(2, 0)), "is not in a read of reader 0 at height 9");
    }

    #[test]
    fn rejects_rows_that_are_there_twice_refused_or_from_nowhere() {
        found(|h| h.finals[1].rows.push(row(1, 0)), "twice at member 1");
        found(|h| h.finals[0].rows.push(row(1, 1)), "twice at member 0");
        found(|h| h.reads[1].rows.push(row(1, 1)), "twice in a read");
        found(|h| h.finals.iter_mut().for_each(|f| f.rows.push(row(2, 1))), "was refused (conflict), and is there");
        found(|h| h.finals.iter_mut().for_each(|f| f.rows.push(row(7, 0))), "nobody wrote it");
        found(|h| h.reads[2].rows.push(row(7, 0)), "nobody wrote it");
    }

    #[test]
    fn rejects_two_histories_and_time_that_runs_backwards() {
        found(|h| h.reads[1].rows.retain(|r| *r != row(1, 0)), "one history: row 0 of writer 1 was read at height 3");
        found(
            |h| h.reads.push(read(1, 50, 9, &[row(1, 0), row(1, 2), row(2, 0)])),
            "one history: row 1 of writer 1 was read at height 9, and is not in a read of reader 1 at height 9",
        );
        found(
            |h| h.reads.insert(2, read(1, 35, 9, &[row(1, 0), row(1, 1), row(2, 0)])),
            "of two reads at height 9 only one has row 2 of writer 1",
        );
        found(
            |h| h.reads.push(read(0, 60, 8, &[row(1, 0), row(1, 1), row(2, 0)])),
            "reader 0 was given height 8 after 9",
        );
        found(|h| h.reads[0].rows.push(row(1, 2)), "ended before it was asked for");
        found(
            |h| h.reads[1] = read(1, 40, 8, &[row(1, 0), row(1, 2), row(2, 0)]),
            "order: row 2 of writer 1 is in a read",
        );
        found(
            |h| h.writes[4].outcome = Outcome::Acknowledged { height: 2 },
            "order: row 2 of writer 1 was acknowledged at height 2",
        );
    }

    #[test]
    fn rejects_roots_that_differ_evidence_and_divergence() {
        found(|h| h.finals[1].root = "s".to_owned(), "member 0 has root r at height 20, member 1 root s");
        found(|h| h.evidence.push((2, "x.json".to_owned())), "member 2 holds evidence x.json");
        found(|h| h.diverged.push(3), "member 3 says that it diverged");
        found(|h| h.finals.clear(), "no member of database 0");
    }
}
