//! A network for the nodes: each node is in a network namespace of its own, with a link to each
//! other node, and one more to the clients, which is never touched.
//!
//! All that nodes send each other goes over the link between the two, whatever the port. Neighbour
//! entries are written by hand: a packet to a hardware address that nobody has is lost without a
//! word, as in a broken network, and in one direction alone.

use anyhow::{Result, bail};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// What a packet is sent to that nobody is to get.
const NOBODY: &str = "02:00:00:00:ff:ff";

/// The network of a cluster. It ends with the program, as its namespaces do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    nodes: usize,
}

/// What makes a link slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkLimit {
    /// Each packet is late, in milliseconds, and not always by the same.
    Delay(u64),
    /// Few bits pass in a second, in kbit/s; what has waited for a second is lost.
    Rate(u64),
}

impl Network {
    /// Makes the namespaces and links, in the network namespace of this process.
    ///
    /// # Errors
    /// What `ip` or `mount` say.
    pub(crate) fn build(nodes: usize) -> Result<Self> {
        run("mount", "-t tmpfs tmpfs /run")?;
        run("ip", "link set lo up")?;
        let network = Self { nodes };
        for node in 1..=nodes {
            run("ip", &format!("netns add n{node}"))?;
            run("ip", &format!("link add c{node} type veth peer name clients netns n{node}"))?;
            run("ip", &format!("addr add 10.71.{node}.1/24 dev c{node}"))?;
            run("ip", &format!("link set c{node} up"))?;
            for command in [
                "link set lo up".to_owned(),
                format!("addr add 10.72.0.{node}/32 dev lo"),
                format!("addr add 10.71.{node}.2/24 dev clients"),
                "link set clients up".to_owned(),
            ] {
                run("ip", &format!("-n n{node} {command}"))?;
            }
        }
        for (one, other) in network.links().filter(|(one, other)| one < other) {
            network.make_link(one, other)?;
        }
        network.heal()?;
        Ok(network)
    }

    fn make_link(self, one: usize, other: usize) -> Result<()> {
        let (a, b) = (one + 1, other + 1);
        let (of_a, of_b) = (hardware(one, other), hardware(other, one));
        run(
            "ip",
            &format!(
                "link add to{b} address {of_a} netns n{a} type veth peer name to{a} address {of_b} netns n{b}"
            ),
        )?;
        for (from, to) in [(a, b), (b, a)] {
            run("ip", &format!("-n n{from} link set to{to} up"))?;
            let route = format!("route add 10.72.0.{to}/32 dev to{to} src 10.72.0.{from}");
            run("ip", &format!("-n n{from} {route}"))?;
        }
        Ok(())
    }

    /// All links, in both directions.
    fn links(self) -> impl Iterator<Item = (usize, usize)> {
        let all = move |from| (0..self.nodes).map(move |to| (from, to));
        (0..self.nodes).flat_map(all).filter(|(from, to)| from != to)
    }

    /// The address of a node for other nodes.
    pub(crate) fn node_address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 72, 0, octet(index + 1))
    }

    /// The address of a node for clients.
    pub(crate) fn client_address(index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 71, octet(index + 1), 2)
    }

    /// Loses what one node sends another.
    ///
    /// # Errors
    /// What `ip` says.
    pub(crate) fn cut(self, from: usize, to: usize) -> Result<()> {
        set_neighbour(from, to, NOBODY)
    }

    /// Makes the way from one node to another slow.
    ///
    /// # Errors
    /// What `tc` says.
    pub(crate) fn limit(self, from: usize, to: usize, limit: LinkLimit) -> Result<()> {
        let (from, to) = (from + 1, to + 1);
        let discipline = match limit {
            LinkLimit::Delay(ms) => format!("netem delay {ms}ms {}ms", ms / 4),
            LinkLimit::Rate(kbit) => format!("tbf rate {kbit}kbit burst 16kb latency 1s"),
        };
        run("tc", &format!("-n n{from} qdisc replace dev to{to} root {discipline}"))
    }

    /// Gives all links back what they can do.
    ///
    /// # Errors
    /// What `ip` says.
    pub(crate) fn heal(self) -> Result<()> {
        for (from, to) in self.links() {
            set_neighbour(from, to, &hardware(to, from))?;
            // There is none to remove on a link that was not slow.
            let _ = run("tc", &format!("-n n{} qdisc del dev to{} root", from + 1, to + 1));
        }
        Ok(())
    }
}

/// A command that runs in the network of a node.
pub(crate) fn command_of_node(index: usize, program: &std::path::Path) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/n{}", index + 1)).arg(program);
    command
}

/// The hardware address of a node's end of its link to another.
fn hardware(of: usize, towards: usize) -> String {
    format!("02:00:00:00:{:02x}:{:02x}", of + 1, towards + 1)
}

fn set_neighbour(from: usize, to: usize, hardware: &str) -> Result<()> {
    let (from, to) = (from + 1, to + 1);
    run(
        "ip",
        &format!(
            "-n n{from} neigh replace 10.72.0.{to} lladdr {hardware} dev to{to} nud permanent"
        ),
    )
}

fn octet(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn run(program: &str, arguments: &str) -> Result<()> {
    let mut command = Command::new(program);
    let output = command.args(arguments.split(' ')).stdin(Stdio::null()).output()?;
    if !output.status.success() {
        bail!("{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
