//! What faults need of the machine: namespaces that an ordinary user may make on most Linux
//! systems, so that links are cut and disks are full for the nodes alone.

use anyhow::{Context as _, Result};
use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

/// Something that a fault needs, and that a machine may not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Facility {
    /// A view of the file system of its own, with small disks in it.
    Mounts,
    /// Networks of their own, one for each node.
    Network,
    /// Links with a delay (`tc netem`).
    Delay,
    /// Links with a limited rate (`tc tbf`).
    Rate,
    /// A C compiler, for the library that moves clocks.
    Clock,
}

/// Ways to namespaces: as root of a user namespace, which anyone may be on most systems; else as
/// root.
const WAYS: [&[&str]; 2] = [&["--user", "--map-root-user"], &[]];

impl Facility {
    const ALL: [Self; 5] = [Self::Mounts, Self::Network, Self::Delay, Self::Rate, Self::Clock];

    /// What fails where the facility is missing. Each script needs what those before it need.
    const fn probe(self) -> &'static str {
        match self {
            // `ip netns` keeps its files there, where only root may write.
            Self::Mounts => "mount -t tmpfs tmpfs /run",
            Self::Network => {
                "mount -t tmpfs tmpfs /run && ip netns add probe && ip link set lo up && \
                 ip link add probe0 type veth peer name probe1 netns probe && \
                 nsenter --net=/run/netns/probe true"
            }
            Self::Delay => "tc qdisc add dev lo root netem delay 1ms",
            Self::Rate => "tc qdisc add dev lo root tbf rate 1mbit burst 16kb latency 100ms",
            Self::Clock => "cc -shared -fPIC -x c -o /dev/null /dev/null",
        }
    }

    const fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Clock => &[],
            Self::Mounts => &["--mount"],
            Self::Network | Self::Delay | Self::Rate => &["--mount", "--net"],
        }
    }
}

/// What the machine has, and why not the rest.
#[derive(Debug, Default)]
pub(crate) struct Facilities {
    pub(crate) found: BTreeSet<Facility>,
    pub(crate) missing: Vec<(Facility, String)>,
    way: &'static [&'static str],
}

impl Facilities {
    /// Tries each facility that is wanted, in namespaces that end at once.
    pub(crate) fn probe(wanted: &BTreeSet<Facility>) -> Self {
        let all = WAYS.map(|way| Self::probe_way(way, wanted));
        let most = all.iter().map(|found| found.found.len()).max();
        all.into_iter().find(|found| Some(found.found.len()) == most).unwrap_or_default()
    }

    fn probe_way(way: &'static [&'static str], wanted: &BTreeSet<Facility>) -> Self {
        let mut facilities = Self { way, ..Self::default() };
        for facility in Facility::ALL.into_iter().filter(|facility| wanted.contains(facility)) {
            match run_in_namespaces(way, facility) {
                Ok(()) => {
                    facilities.found.insert(facility);
                }
                Err(why) => facilities.missing.push((facility, why)),
            }
        }
        facilities
    }

    /// Becomes this program again, in namespaces of its own. Returns when that fails.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn enter(&self, arguments: &[String]) -> Result<()> {
        let flags =
            self.found.iter().map(|facility| facility.flags()).max_by_key(|some| some.len());
        let mut command = Command::new("unshare");
        command.args(self.way).args(flags.unwrap_or_default()).arg(std::env::current_exe()?);
        command.args(std::env::args_os().skip(1)).args(arguments);
        Err(command.exec()).context("run unshare")
    }
}

fn run_in_namespaces(way: &[&str], facility: Facility) -> Result<(), String> {
    let mut command = Command::new("unshare");
    command.args(way).args(facility.flags()).args(["sh", "-c", facility.probe()]);
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("unshare: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().next().unwrap_or("unshare failed").to_owned())
}
