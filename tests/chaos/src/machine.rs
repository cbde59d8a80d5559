//! What this machine can break: file systems and networks need namespaces of our own, clocks need libfaketime.
//!
//! ```text
//! fluence-chaos ── unshare --mount --net ── fluence-chaos --inside
//!                        │
//!                        ├─ tmpfs for each node's data          bridge flchaos 10.77.0.1
//!                        └─ network namespace for each node ──── veth ──┘  node i is 10.77.0.(10 + i)
//! ```
//! Rule    nothing outside of the namespaces changes, and the kernel takes all of it away with the last process in them.

use crate::plan::Fault;
use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Set for the program inside the namespaces.
const INSIDE: &str = "FLUENCE_CHAOS_INSIDE";
const BRIDGE: &str = "flchaos";
/// Of a tmpfs with one node's data, in MiB.
const DISK_MIB: u64 = 512;

/// What is at hand.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Namespaces of our own, in which file systems may be mounted and networks made.
    pub namespaces: bool,
    /// The library that lies about the time.
    pub faketime: Option<PathBuf>,
    /// Nodes get file systems of their own.
    pub(crate) disks: bool,
}

/// Runs a command; an error names it with what it said.
pub(crate) fn run<S: AsRef<OsStr>>(words: &[S]) -> anyhow::Result<()> {
    let (program, args) = words.split_first().context("a command has a name")?;
    let said = || words.iter().map(|w| w.as_ref().to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ");
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().with_context(said)?;
    if !output.status.success() {
        bail!("{}: {} {}", said(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

impl Machine {
    /// Only what needs no rights: processes.
    #[must_use]
    pub fn plain() -> Self {
        Self::default()
    }

    /// Looks what is at hand. Inside namespaces of our own, prepares the network that the nodes are put into.
    ///
    /// # Errors
    /// Where the network cannot be made, though the namespaces are there.
    pub fn look() -> anyhow::Result<Self> {
        let namespaces = std::env::var_os(INSIDE).is_some();
        if namespaces {
            // Names of network namespaces are files: ours must not stay behind.
            std::fs::create_dir_all("/run/netns")?;
            run(&["mount", "-t", "tmpfs", BRIDGE, "/run/netns"])?;
            run(&["ip", "link", "set", "lo", "up"])?;
            run(&["ip", "link", "add", BRIDGE, "type", "bridge"])?;
            run(&["ip", "address", "add", "10.77.0.1/24", "dev", BRIDGE])?;
            run(&["ip", "link", "set", BRIDGE, "up"])?;
        }
        let places =
            ["x86_64-linux-gnu", "aarch64-linux-gnu"].map(|arch| format!("/usr/lib/{arch}/faketime/libfaketime.so.1"));
        let faketime = places.into_iter().chain(["/usr/lib/faketime/libfaketime.so.1".to_owned()]);
        Ok(Self { namespaces, faketime: faketime.map(PathBuf::from).find(|p| p.is_file()), disks: false })
    }

    /// This program again, in namespaces of its own; `None` where they cannot be had, or we are in them already.
    #[must_use]
    pub fn inside() -> Option<Command> {
        if std::env::var_os(INSIDE).is_some() || run(&["unshare", "--mount", "--net", "ip", "-V"]).is_err() {
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--propagation", "private"]).arg(std::env::current_exe().ok()?);
        command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
        Some(command)
    }

    /// Why this kind of fault cannot be had here; `None` where it can.
    #[must_use]
    pub fn lacks(&self, fault: Fault) -> Option<&'static str> {
        match fault {
            Fault::Kill | Fault::Pause | Fault::Restart => None,
            Fault::Full if !self.namespaces => Some("needs root for a file system of its own (unshare, mount)"),
            Fault::Unplug | Fault::Split if !self.namespaces => {
                Some("needs root and iproute2 for network namespaces (unshare, ip)")
            }
            Fault::Clock if self.faketime.is_none() => {
                Some("libfaketime is not installed (apt-get install libfaketime)")
            }
            _ => None,
        }
    }

    /// What a round with these faults needs of it: no clock is tampered with, and no disk made, for nothing.
    pub(crate) fn for_faults(&self, faults: &[Fault]) -> Self {
        let faketime = self.faketime.clone().filter(|_| faults.contains(&Fault::Clock));
        Self { faketime, disks: self.namespaces && faults.contains(&Fault::Full), ..self.clone() }
    }

    /// Puts a file system of its own where a node keeps its data.
    pub(crate) fn disk(&self, dir: &Path) -> anyhow::Result<()> {
        if !self.disks {
            return Ok(());
        }
        let size = format!("size={DISK_MIB}m,mode=700");
        run(&[
            OsStr::new("mount"),
            "-t".as_ref(),
            "tmpfs".as_ref(),
            "-o".as_ref(),
            size.as_ref(),
            "flchaos".as_ref(),
            dir.as_ref(),
        ])
    }

    /// Takes it away again.
    pub(crate) fn no_disk(&self, dir: &Path) {
        if self.disks {
            let _ = run(&[OsStr::new("umount"), "--lazy".as_ref(), dir.as_ref()]);
        }
    }

    /// Makes the network of node `i`; gives the address on which it listens.
    pub(crate) fn plug(&self, i: usize) -> anyhow::Result<String> {
        if !self.namespaces {
            return Ok("/ip4/127.0.0.1/tcp/0".to_owned());
        }
        let Names { namespace, outer, address } = names(i);
        let inner = format!("{outer}i");
        run(&["ip", "netns", "add", &namespace])?;
        run(&["ip", "link", "add", &outer, "type", "veth", "peer", "name", &inner])?;
        run(&["ip", "link", "set", &inner, "netns", &namespace])?;
        run(&["ip", "link", "set", &outer, "master", BRIDGE])?;
        run(&["ip", "link", "set", &outer, "up"])?;
        run(&["ip", "-n", &namespace, "address", "add", &format!("{address}/24"), "dev", &inner])?;
        run(&["ip", "-n", &namespace, "link", "set", &inner, "up"])?;
        run(&["ip", "-n", &namespace, "link", "set", "lo", "up"])?;
        Ok(format!("/ip4/{address}/tcp/4001"))
    }

    /// Takes the network of node `i` away.
    pub(crate) fn unplug_for_good(&self, i: usize) {
        if self.namespaces {
            let Names { namespace, outer, .. } = names(i);
            let _ = run(&["ip", "link", "del", &outer]);
            let _ = run(&["ip", "netns", "del", &namespace]);
        }
    }

    /// The link of a node, up or down.
    pub(crate) fn link(&self, i: usize, up: bool) -> anyhow::Result<()> {
        run(&["ip", "link", "set", &names(i).outer, if up { "up" } else { "down" }])
    }

    /// Whether node `from` sends to node `to`.
    pub(crate) fn hears(&self, from: usize, to: usize, may: bool) -> anyhow::Result<()> {
        let (from, to) = (names(from), names(to));
        let act = if may { "del" } else { "add" };
        run(&["ip", "-n", &from.namespace, "route", act, "blackhole", &format!("{}/32", to.address)])
    }

    /// The program as node `i` runs it: in its network, under its clock.
    pub(crate) fn command(&self, program: &Path, i: usize, clock: &Path) -> Command {
        let mut command = match self.namespaces {
            true => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &names(i).namespace]).arg(program);
                command
            }
            false => Command::new(program),
        };
        if let Some(library) = &self.faketime {
            // Read anew every second, so that the clock jumps while the node runs.
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", clock)
                .env("FAKETIME_CACHE_DURATION", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("DONT_FAKE_MONOTONIC", "1");
        }
        command
    }
}

struct Names {
    namespace: String,
    outer: String,
    address: String,
}

fn names(i: usize) -> Names {
    Names { namespace: format!("flchaos{i}"), outer: format!("flc{i}"), address: format!("10.77.0.{}", 10 + i) }
}
