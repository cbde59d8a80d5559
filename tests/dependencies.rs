//! The direction of dependencies: a crate may use only what stands below it, and a heavy library stays where it is kept.
//!
//! Source  DESIGN section 11; ARCHITECTURE.md

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, PackageId};
use std::collections::{BTreeMap, BTreeSet};

/// Each crate of ours and those of ours it may name in `[dependencies]`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("crypto", &["types"]),
    ("wire", &["types"]),
    ("engine", &["types", "crypto"]),
    ("consensus", &["types", "crypto", "engine"]),
    ("circuits", &["types", "crypto"]),
    ("verifier", &["types", "crypto"]),
    ("prover", &["types", "crypto", "circuits", "verifier"]),
    ("client", &["types", "crypto", "wire", "verifier"]),
    ("gateway", &["types", "client", "verifier"]),
    ("bindings", &["types"]),
    ("node", &["types", "crypto", "wire", "engine", "consensus", "circuits", "prover", "verifier", "bindings"]),
    (
        "cli",
        &[
            "types", "crypto", "wire", "engine", "circuits", "prover", "verifier", "client", "gateway", "bindings",
            "node",
        ],
    ),
    ("benches", &["types", "crypto", "wire", "engine", "circuits", "prover", "verifier", "client"]),
    ("tests", &[]),
    ("sim", &["types", "crypto", "engine", "consensus"]),
    ("chaos", &["types", "wire", "client"]),
];

/// Heavy or dangerous libraries, and the crates in whose normal dependency tree they may be (with default features).
const KEPT_IN: &[(&str, &[&str])] = &[
    ("fjall", &["engine", "consensus", "sim", "node", "cli", "benches"]),
    ("ark-r1cs-std", &["circuits", "prover", "node", "cli", "benches"]),
    ("ark-groth16", &["prover", "node", "cli", "benches"]),
    ("libp2p", &["chaos", "node", "cli"]),
    ("tokio", &["consensus", "sim", "chaos", "gateway", "bindings", "node", "cli"]),
    ("commonware-consensus", &["consensus", "sim", "node", "cli"]),
    ("alloy", &["bindings", "node", "cli"]),
    ("datafusion", &["gateway"]),
    ("pgwire", &["gateway"]),
    ("parquet", &["gateway", "cli"]),
    ("utoipa", &["gateway"]),
    ("arrow-array", &["client", "gateway", "chaos", "cli", "benches"]),
    (
        "ark-ff",
        &[
            "crypto",
            "engine",
            "consensus",
            "sim",
            "circuits",
            "prover",
            "verifier",
            "client",
            "gateway",
            "chaos",
            "node",
            "cli",
            "benches",
        ],
    ),
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(fluence_tests::repository().join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .expect("cargo metadata runs in the repository")
}

fn ours(name: &str) -> Option<&str> {
    name.strip_prefix("fluence-")
}

#[test]
fn crates_use_only_what_stands_below_them() {
    let metadata = metadata();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let name = ours(&package.name).expect("every crate of the workspace is called fluence-*");
        let Some(allowed) = allowed.get(name) else {
            wrong.push(format!("{name} has no row in ALLOWED"));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal) {
            if let Some(used) = ours(&dependency.name)
                && !allowed.contains(&used)
            {
                wrong.push(format!("{name} must not depend on {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Everything a crate links with its default features, dev and build dependencies left out.
fn closure(crate_name: &str) -> BTreeSet<String> {
    let tree = std::process::Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}", "-p"])
        .arg(format!("fluence-{crate_name}"))
        .current_dir(fluence_tests::repository())
        .output()
        .expect("cargo tree runs");
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8_lossy(&tree.stdout)
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn heavy_libraries_stay_where_they_are_kept() {
    let mut wrong = Vec::new();
    for (name, _) in ALLOWED {
        let closure = closure(name);
        // The listing must list something, or the test could not fail.
        assert!(closure.contains(&format!("fluence-{name}")), "{name}: {closure:?}");
        for (library, kept_in) in KEPT_IN {
            if closure.contains(*library) && !kept_in.contains(name) {
                wrong.push(format!("{name} links {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The simulator breaks rules on purpose, behind a feature; nothing that ships may be built with it.
#[test]
fn no_binary_is_built_with_planted_bugs() {
    let features = |crate_name: &str| {
        let tree = std::process::Command::new(env!("CARGO"))
            .args(["tree", "--locked", "--edges", "normal,features", "--prefix", "none", "-p"])
            .arg(format!("fluence-{crate_name}"))
            .current_dir(fluence_tests::repository())
            .output()
            .expect("cargo tree runs");
        assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
        String::from_utf8_lossy(&tree.stdout).into_owned()
    };
    let planted = "feature \"planted\"";
    // The listing must show it where it is, or the test could not fail.
    assert!(features("sim").contains(planted));
    for crate_name in ["node", "cli", "client", "verifier"] {
        assert!(!features(crate_name).contains(planted), "{crate_name} is built with planted bugs");
    }
}

#[test]
fn every_crate_is_permissive_until_sharing_comes() {
    let metadata = metadata();
    let members: BTreeSet<&PackageId> = metadata.workspace_members.iter().collect();
    for package in metadata.packages.iter().filter(|p| members.contains(&p.id)) {
        assert_eq!(package.license.as_deref(), Some("Apache-2.0 OR MIT"), "{}", package.name);
    }
    let gpl: Vec<_> = metadata.packages.iter().filter(|p| p.name.as_str() == "umbral-pre").collect();
    assert!(gpl.is_empty(), "umbral-pre belongs in a crate `sharing` that ships as GPL-3.0-only");
}
