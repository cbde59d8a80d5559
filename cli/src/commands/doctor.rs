//! `fluence doctor`: what this machine, home, nodes and chain look like, and what to do about it.
//!
//! Rule    it changes nothing and needs no passphrase. A failed check is exit code 1, a doubtful one is not.

use crate::args::Doctor;
use crate::error::{Failure, Result};
use crate::home::{Config, Home};
use crate::output::{self, Out};
use alloy::providers::{Provider, ProviderBuilder};
use fluence_client::Transport;
use fluence_client::dial::{DialOptions, Dialer};
use fluence_wire::{Request, Response};
use serde::Serialize;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Least free disk for a comfortable demo: keys, four stores and the report.
const DISK_MIB_MIN: u64 = 2048;
/// Least memory: a storage proof of the production shape peaks below 2 GiB.
const MEMORY_MIB_MIN: u64 = 3072;

#[derive(Serialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    Warn,
    Fail,
}

#[derive(Serialize)]
struct Check {
    name: &'static str,
    state: State,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), advice: None }
    }
    fn warn(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Warn, found: found.into(), advice: Some(advice.into()) }
    }
    fn fail(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, state: State::Fail, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Runs every check and prints them.
pub(crate) async fn run(args: &Doctor, home: &Home, out: &Out) -> Result<()> {
    let limit = Duration::from_secs(args.timeout);
    let mut checks =
        vec![cpu(), memory(), disk(home), tool("python3", "the demo's plain computation needs it"), anvil()];
    checks.extend(home_checks(home));
    checks.push(prover_keys(home));
    if let Ok(config) = home.config() {
        for (name, database) in &config.databases {
            for node in &database.nodes {
                checks.push(reach_node(name, node, limit).await);
            }
        }
        checks.extend(chain(&config, limit).await);
    }

    let failed = checks.iter().filter(|c| c.state == State::Fail).count();
    let doubtful = checks.iter().filter(|c| c.state == State::Warn).count();
    let value = serde_json::json!({ "ok": failed == 0, "failed": failed, "warnings": doubtful, "checks": checks });
    out.result(&value, |out| {
        for check in &checks {
            let mark = match check.state {
                State::Ok => out.green("ok  "),
                State::Warn => out.yellow("warn"),
                State::Fail => out.red("FAIL"),
            };
            out.line(format!("{mark}  {:<14} {}", check.name, check.found));
            if let Some(advice) = &check.advice {
                out.line(out.dim(&format!("      {:<14} -> {advice}", "")));
            }
        }
    });
    if failed > 0 {
        return Err(
            Failure::failed(format!("{failed} of {} checks failed", checks.len())).help("the advice stands below each")
        );
    }
    Ok(())
}

fn cpu() -> Check {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    #[cfg(target_arch = "x86_64")]
    let aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let aes = false;
    let found = format!("{cores} cores, AES hardware: {}", if aes { "yes" } else { "no" });
    if !aes {
        Check::warn(
            "cpu",
            found,
            "without AES hardware cells are sealed with XChaCha20-Poly1305, and sums are masked slowly",
        )
    } else if cores < 2 {
        Check::warn("cpu", found, "proofs take twice as long as on two cores")
    } else {
        Check::ok("cpu", found)
    }
}

fn memory() -> Check {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse::<u64>().ok());
    match kib.map(|k| k / 1024) {
        None => Check::warn("memory", "unknown", "a storage proof of the production shape needs up to 2 GiB"),
        Some(mib) if mib < MEMORY_MIB_MIN => Check::warn(
            "memory",
            format!("{mib} MiB available"),
            "a storage proof of the production shape needs up to 2 GiB",
        ),
        Some(mib) => Check::ok("memory", format!("{mib} MiB available")),
    }
}

fn disk(home: &Home) -> Check {
    let dir = home.dir().ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("/"));
    let answer = Command::new("df").arg("-Pk").arg(dir).stderr(Stdio::null()).output();
    let text = answer.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    let free = text.lines().nth(1).and_then(|l| l.split_whitespace().nth(3)?.parse::<u64>().ok()).map(|kib| kib / 1024);
    match free {
        None => Check::warn("disk", "unknown", "df did not answer"),
        Some(mib) if mib < DISK_MIB_MIN => Check::fail(
            "disk",
            format!("{mib} MiB free at {}", dir.display()),
            format!("free at least {DISK_MIB_MIN} MiB"),
        ),
        Some(mib) => Check::ok("disk", format!("{} free at {}", output::bytes(mib << 20), dir.display())),
    }
}

fn tool(name: &'static str, why: &str) -> Check {
    let answer = Command::new(name).arg("--version").stdin(Stdio::null()).output();
    match answer {
        Ok(o) if o.status.success() => {
            Check::ok(name, String::from_utf8_lossy(&o.stdout).lines().next().unwrap_or_default().trim())
        }
        _ => Check::warn(name, "not found", why),
    }
}

fn anvil() -> Check {
    let found = crate::demo::place::repository().and_then(|repo| crate::demo::place::anvil(&repo));
    match found {
        Ok(path) => Check::ok("anvil", path.display().to_string()),
        Err(_) => Check::warn("anvil", "not found", "only the demo needs it: run `npm ci` in the contracts folder"),
    }
}

fn home_checks(home: &Home) -> Vec<Check> {
    let dir = home.dir().display().to_string();
    let Ok(meta) = std::fs::metadata(home.dir()) else {
        return vec![Check::warn("home", format!("{dir} does not exist"), "run `fluence init`")];
    };
    let mode = |m: &std::fs::Metadata| m.permissions().mode() & 0o777;
    let mut checks = vec![if mode(&meta) & 0o077 == 0 {
        Check::ok("home", dir)
    } else {
        Check::warn("home", format!("{dir} can be entered by others"), format!("chmod 700 {}", home.dir().display()))
    }];
    checks.push(match home.config() {
        Ok(config) => Check::ok("config", format!("{} databases", config.databases.len())),
        Err(e) => Check::fail("config", e.one_line(), "correct the file, or move it away and run `fluence init`"),
    });
    let keystore = home.keystore();
    checks.push(match std::fs::metadata(&keystore) {
        Err(_) => Check::warn("keystore", "none", "run `fluence keys new`, or `fluence keys restore`"),
        Ok(meta) if mode(&meta) & 0o077 != 0 => Check::fail(
            "keystore",
            format!("{} has mode {:03o}", keystore.display(), mode(&meta)),
            format!("chmod 600 {}", keystore.display()),
        ),
        Ok(_) => Check::ok("keystore", format!("{}, only yours", keystore.display())),
    });
    checks
}

fn prover_keys(home: &Home) -> Check {
    let dir = home.prover_keys();
    let files = std::fs::read_dir(&dir).map(|entries| {
        entries
            .filter_map(|e| e.ok()?.metadata().ok().filter(std::fs::Metadata::is_file).map(|m| m.len()))
            .collect::<Vec<_>>()
    });
    match files {
        Ok(sizes) if !sizes.is_empty() => Check::ok(
            "proving keys",
            format!("{} files, {} in {}", sizes.len(), output::bytes(sizes.iter().sum()), dir.display()),
        ),
        _ => Check::warn("proving keys", format!("none in {}", dir.display()), "the first proof makes dev keys, once"),
    }
}

async fn reach_node(name: &str, address: &str, limit: Duration) -> Check {
    let advice = format!("is it running? its address may have changed: `fluence init --db {name} --node ADDR`");
    let Ok(node) = crate::remote::check_address(address) else {
        return Check::fail("node", format!("{name}: {address} is no address"), advice);
    };
    let dialer = match Dialer::start(DialOptions { request_timeout: limit, ..DialOptions::default() }) {
        Ok(dialer) => dialer,
        Err(e) => return Check::fail("node", format!("{name}: {e}"), "the network cannot be used"),
    };
    if let Err(e) = dialer.add_address(&node, address) {
        return Check::fail("node", format!("{name}: {e}"), advice);
    }
    match tokio::time::timeout(limit, dialer.request(&node, Request::Status)).await {
        Ok(Ok(Response::Status(status))) => {
            let lost: u64 = status.databases.iter().map(|d| d.lost_pages).sum();
            let software = String::from_utf8_lossy(&status.software).into_owned();
            let found = format!("{name}: {software}, {} databases", status.databases.len());
            if lost > 0 {
                Check::warn("node", format!("{found}, {lost} lost pages"), "its disk lost data; it cannot prove them")
            } else {
                Check::ok("node", found)
            }
        }
        Ok(Ok(_)) => Check::fail("node", format!("{name}: it answered something else"), advice),
        Ok(Err(e)) => Check::fail("node", format!("{name}: {e}"), advice),
        Err(_) => Check::fail("node", format!("{name}: no answer in time"), advice),
    }
}

async fn chain(config: &Config, limit: Duration) -> Option<Check> {
    let chain = config.chain.as_ref()?;
    let rpc = chain.rpc.as_ref()?;
    let Ok(url) = rpc.parse() else {
        return Some(Check::fail("chain", format!("{rpc} is no URL"), "correct chain.rpc in config.toml"));
    };
    let provider = ProviderBuilder::new().connect_http(url);
    let id = match tokio::time::timeout(limit, provider.get_chain_id()).await {
        Ok(Ok(id)) => id,
        Ok(Err(e)) => {
            return Some(Check::fail(
                "chain",
                format!("no answer: {e}"),
                "is it running? check chain.rpc in config.toml",
            ));
        }
        Err(_) => {
            return Some(Check::fail("chain", "no answer in time", "is it running? check chain.rpc in config.toml"));
        }
    };
    let Some(contract) = &chain.contract else {
        return Some(Check::ok("chain", format!("chain {id}")));
    };
    let Ok(address) = contract.parse() else {
        return Some(Check::fail(
            "chain",
            format!("{contract} is no address"),
            "correct chain.contract in config.toml",
        ));
    };
    Some(match tokio::time::timeout(limit, provider.get_code_at(address)).await {
        Ok(Ok(code)) if !code.is_empty() => Check::ok("chain", format!("chain {id}, contract {contract}")),
        Ok(Ok(_)) => Check::fail(
            "chain",
            format!("chain {id} has no code at {contract}"),
            "correct chain.contract in config.toml",
        ),
        _ => Check::fail("chain", format!("chain {id} did not answer for {contract}"), "try again"),
    })
}
