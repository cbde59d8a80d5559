//! How soon lost data shows: the table and the chart of `docs/storage-shapes.md`, computed.
//!
//! Model   a proof has k samples: even ones fall on a cell by size, odd ones pick a database uniformly and then a cell in it
//!         (`docs/protocol/statements.md`). A node that lost a fraction fails an epoch as soon as one sample falls on what it lost; epochs are
//!         independent, because each has a seed of its own. Hours: the least h with 1 - (no sample hits in h epochs) >= 0.999.
//! Again   `FLUENCE_PIN=1 cargo test -p fluence-tests --test detection` writes both anew

use std::fmt::Write;
use std::path::PathBuf;

const CONFIDENCE: f64 = 0.999;
const SAMPLES: u32 = 16;
const PROOFS: [u32; 5] = [1, 2, 4, 8, 16];
const LOSSES: [f64; 7] = [0.5, 0.1, 0.05, 0.01, 0.005, 0.001, 0.0001];

/// A proof misses the loss with this probability: `even` and `odd` are the chances of one sample of each kind to fall on it.
fn missed(samples: u32, even: f64, odd: f64) -> f64 {
    let (evens, odds) = (samples.div_ceil(2), samples / 2);
    (1.0 - even).powi(evens as i32) * (1.0 - odd).powi(odds as i32)
}

/// Epochs until a loss is seen with [`CONFIDENCE`]. A miss of every sample in h epochs is a product, so h is a quotient of logarithms.
fn hours(proofs: u32, missed_by_one: f64) -> u64 {
    let per_hour = f64::from(proofs) * missed_by_one.ln();
    ((1.0 - CONFIDENCE).ln() / per_hour).ceil().max(1.0) as u64
}

fn percent(f: f64) -> String {
    let text = format!("{:.4}", f * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

fn tables() -> String {
    let mut out = String::from("| lost, spread evenly |");
    PROOFS.iter().for_each(|p| write!(out, " {p} an hour |").unwrap());
    out.push_str("\n|---|");
    out.push_str(&"---|".repeat(PROOFS.len()));
    for f in LOSSES {
        write!(out, "\n| {} |", percent(f)).unwrap();
        PROOFS.iter().for_each(|p| write!(out, " {} |", hours(*p, missed(SAMPLES, f, f))).unwrap());
    }
    out.push_str("\n\n| one database, lost whole: of all cells | among 2 | among 16 | among 256 |\n|---|---|---|---|");
    for share in [0.1, 0.01, 0.001, 0.000001] {
        write!(out, "\n| {} |", percent(share)).unwrap();
        for n in [2.0, 16.0, 256.0] {
            write!(out, " {} |", hours(1, missed(SAMPLES, share, 1.0 / n))).unwrap();
        }
    }
    out
}

/// Hours against the lost fraction, both logarithmic: a line for each number of proofs.
fn chart() -> String {
    let (width, height, left, top, right, bottom) = (790.0, 420.0, 70.0, 50.0, 180.0, 60.0);
    let (w, h) = (width - left - right, height - top - bottom);
    // 10^-4 .. 1 and 1 .. 10^4 hours.
    let x = |f: f64| left + w * (f.log10() + 4.0) / 4.0;
    let y = |hours: f64| top + h * (1.0 - hours.log10() / 4.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{left}\" y=\"24\" font-size=\"15\">Hours until a loss is caught with 99.9 %, {SAMPLES} samples a proof</text>\n"
    );
    for e in 0..=4 {
        let (gx, gy) = (x(10f64.powi(e - 4)), y(10f64.powi(e)));
        let label = percent(10f64.powi(e - 4));
        let (base, end) = (top + h, left + w);
        writeln!(svg, "<path d=\"M{gx:.1} {top}V{base}M{left} {gy:.1}H{end}\" stroke=\"#ddd\"/>").unwrap();
        writeln!(svg, "<text x=\"{gx:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>", base + 18.0).unwrap();
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} h</text>",
            left - 8.0,
            gy + 4.0,
            10u32.pow(e as u32)
        )
        .unwrap();
    }
    for (label, hours) in [("a day", 24.0), ("a month", 720.0)] {
        let gy = y(hours);
        writeln!(svg, "<path d=\"M{left} {gy:.1}H{}\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>", left + w).unwrap();
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#666\">{label}</text>",
            left + w - 4.0,
            gy + 14.0 // below: above it, "a month" would lie on the line of 1000 hours
        )
        .unwrap();
    }
    for (i, (p, color)) in PROOFS.iter().zip(["#b3261e", "#c77700", "#2e7d32", "#1565c0", "#6a1b9a"]).enumerate() {
        let mut d = String::new();
        for step in 0..=80 {
            let f = 10f64.powf(-4.0 + f64::from(step) / 20.0 * 0.99);
            let exact = (1.0 - CONFIDENCE).ln() / (f64::from(*p) * missed(SAMPLES, f, f).ln());
            let verb = if step == 0 { 'M' } else { 'L' };
            write!(d, "{verb}{:.1} {:.1}", x(f), y(exact.max(1.0))).unwrap();
        }
        writeln!(svg, "<path d=\"{d}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>").unwrap();
        let (ly, lx) = (top + 20.0 + 22.0 * i as f64, left + w + 16.0);
        writeln!(svg, "<path d=\"M{lx} {ly}h22\" stroke=\"{color}\" stroke-width=\"2\"/>").unwrap();
        let plural = if *p == 1 { "proof" } else { "proofs" };
        writeln!(svg, "<text x=\"{}\" y=\"{}\">{p} {plural} an hour</text>", lx + 28.0, ly + 4.0).unwrap();
    }
    writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">fraction of the data lost</text>",
        left + w / 2.0,
        height - 16.0
    )
    .unwrap();
    svg.push_str("</svg>\n");
    svg
}

fn docs(name: &str) -> PathBuf {
    fluence_tests::repository().join("docs").join(name)
}

#[test]
fn the_table_and_the_chart_in_the_docs_are_these() {
    let (begin, end) = ("<!-- computed: tests/detection.rs -->\n", "\n<!-- end -->");
    let page = std::fs::read_to_string(docs("storage-shapes.md")).unwrap();
    let (before, rest) = page.split_once(begin).expect("the page has the mark");
    let (inside, after) = rest.split_once(end).expect("the page has the end mark");
    if std::env::var_os("FLUENCE_PIN").is_some() {
        std::fs::write(docs("storage-shapes.md"), format!("{before}{begin}{}{end}{after}", tables())).unwrap();
        std::fs::write(docs("detection.svg"), chart()).unwrap();
        return;
    }
    assert_eq!(inside, tables());
    assert_eq!(std::fs::read_to_string(docs("detection.svg")).unwrap(), chart());
}

#[test]
fn hours_are_the_least_that_reach_the_confidence() {
    for p in PROOFS {
        for f in LOSSES {
            let one = missed(SAMPLES, f, f);
            let unseen = |h: u64| one.powf(h as f64 * f64::from(p));
            let h = hours(p, one);
            assert!(1.0 - unseen(h) >= CONFIDENCE - 1e-12, "{p} {f}");
            assert!(h == 1 || 1.0 - unseen(h - 1) < CONFIDENCE, "{p} {f}");
        }
    }
    // By hand: 16 samples miss half of everything with 2^-16; 1 % takes ln 1000 / (16 * 0.01005) = 43 hours.
    assert!((missed(16, 0.5, 0.5) - 2f64.powi(-16)).abs() < 1e-12);
    assert_eq!((hours(1, missed(16, 0.01, 0.01)), hours(1, missed(16, 0.5, 0.5))), (43, 1));
}

/// What the model says, drawn: a node of 1,000 cells in 5 databases, its samples drawn as the seed would, by a counter through a mixer.
#[test]
fn the_model_is_what_sampling_does() {
    let mix = |mut x: u64| {
        // splitmix64
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let scaled = |x: u64, n: u64| ((u128::from(x) * u128::from(n)) >> 64) as u64;
    // The database of 10 cells is lost: 1 % by size, a fifth by number.
    let sizes = [400u64, 300, 200, 90, 10];
    let (total, epochs) = (sizes.iter().sum::<u64>(), 20_000u64);
    let mut unseen = 0;
    for epoch in 0..epochs {
        let caught = (0..u64::from(SAMPLES)).any(|k| {
            let a = mix(epoch << 8 | k);
            if k % 2 == 0 { scaled(a, total) >= total - 10 } else { scaled(a, sizes.len() as u64) == 4 }
        });
        unseen += u64::from(!caught);
    }
    let (got, want) = (unseen as f64 / epochs as f64, missed(SAMPLES, 0.01, 0.2));
    // Three and a half standard deviations of 20,000 draws.
    let tolerance = 3.5 * (want * (1.0 - want) / epochs as f64).sqrt();
    assert!((got - want).abs() < tolerance, "{got} {want}");
}
