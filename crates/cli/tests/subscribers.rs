//! A thousand WebSocket subscribers on one topic, ten of which do not read.
//!
//! To make the node forget something for the slow ones, 40 MB have to be published. Sent to all
//! that read, that is 40 GB through the kernel: too much for every test run, so most of them leave
//! before. `SUBSCRIBERS_STAY=990` lets all stay (best with `--release`). The gateway disconnects
//! who takes nothing for a minute, which is right: such a socket is dead. Where publishing takes
//! longer than that, those that do not read take a sip now and then, far less than is published.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test prints what it draws and finds"
)]

#[allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
mod support;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use support::Node;
use support::socket::{Frame, Socket};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

const READING: usize = 990;
const SLOW: usize = 10;
/// How many of those that read stay to the end, unless told otherwise.
const STAY: usize = 150;
/// Messages that all receive who read.
const FOR_ALL: u64 = 100;
const SMALL: usize = 4 * 1024;
/// Then messages for those who stay, together more than a node and a kernel keep for a slow
/// subscriber, 36 MB: 39 MB.
const LARGE_MESSAGES: u64 = 300;
/// So many more for each sip of those that do not read, at most.
const LARGE_MESSAGES_PER_SIP: u64 = 17;
/// Sips that a run may take, on a busy machine or when all stay: 20 minutes.
const MOST_SIPS: u64 = 30;
/// Stands in the number of the last message.
const LAST: u64 = 1 << 63;
const LARGE: usize = 128 * 1024;
/// How long one that does not read reads nothing at all. The gateway's patience is 60 s.
const NAP: Duration = Duration::from_secs(40);
/// What it reads then: a third of what a kernel holds for it at most, else the kernel takes no more
/// from the gateway.
const SIP: usize = 2 << 20;
/// How far the publisher may be ahead of the slowest of those that read.
const AHEAD: u64 = 64;
const MAX_RESIDENT: u64 = 300 << 20;
/// Each side holds one socket for each subscriber.
const OPEN_FILES: u64 = 4096;

#[test]
fn slow_subscribers_hurt_nobody_and_learn_what_they_missed() {
    if !enough_open_files("slow_subscribers_hurt_nobody_and_learn_what_they_missed") {
        return;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(a_thousand_subscribers());
}

async fn a_thousand_subscribers() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node");
    let mut command = Command::new("sh");
    let inner = Node::command(&data_dir);
    command
        .args(["-c", &format!("ulimit -n {OPEN_FILES}; exec \"$0\" \"$@\"")])
        .arg(inner.get_program());
    command.args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let node = Node::start_by(&mut command, &data_dir);
    let key = node.api_key("crowd");

    let stay =
        std::env::var("SUBSCRIBERS_STAY").map_or(STAY, |text| text.parse().expect("a number"));
    let progress = Arc::new(Progress::new(
        FOR_ALL + LARGE_MESSAGES + MOST_SIPS * LARGE_MESSAGES_PER_SIP,
        stay,
    ));
    let mut readers = JoinSet::new();
    for index in 0..READING {
        let socket = Socket::open(node.address, &key, "crowd").await;
        let messages = if index < stay { u64::MAX } else { FOR_ALL };
        readers.spawn(read_all(socket, messages, Arc::clone(&progress)));
    }
    let mut slow = JoinSet::new();
    let mut wake_up = Vec::new();
    for _ in 0..SLOW {
        let socket = Socket::open_with(node.address, &key, "crowd", Some(16 * 1024)).await;
        let (awake, sleeping) = oneshot::channel();
        slow.spawn(read_late(socket, sleeping, Arc::clone(&progress)));
        wake_up.push(awake);
    }

    let mut publisher = Socket::open(node.address, &key, "crowd").await;
    let mut highest = 0;
    let mut all = 0;
    loop {
        let number = all;
        all += 1;
        let sips = progress.sips.load(Ordering::SeqCst);
        assert!(sips < MOST_SIPS, "publishing takes too long on this machine");
        let is_last = all >= FOR_ALL + LARGE_MESSAGES + (sips + 1) * LARGE_MESSAGES_PER_SIP;
        if let Some(reached) = number.checked_sub(AHEAD) {
            progress.wait_for(reached).await;
        }
        publisher.send(&message(number, is_last)).await;
        progress.published.store(all, Ordering::SeqCst);
        // A publisher on a WebSocket is a subscriber too.
        assert_eq!(publisher.next_start().await.map(number_of), Ok((number, is_last)));
        highest = highest.max(node.program.resident_bytes());
        if is_last {
            break;
        }
    }
    readers.join_all().await;
    highest = highest.max(node.program.resident_bytes());
    println!("the node's memory: {} MiB at most", highest >> 20);
    assert!(highest < MAX_RESIDENT, "{} MiB resident", highest >> 20);

    for awake in wake_up {
        awake.send(()).unwrap();
    }
    for (received, missed) in slow.join_all().await {
        assert_eq!(received + missed, all, "{received} received, {missed} told as missed");
        assert!(missed > 0, "a slow subscriber missed nothing: the test publishes too little");
    }
}

/// How far everybody is.
struct Progress {
    /// For each message, how many have yet to read it.
    unread: Vec<AtomicUsize>,
    published: AtomicU64,
    /// The most that one that does not read has taken.
    sips: AtomicU64,
    all_read: Notify,
}

impl Progress {
    fn new(at_most: u64, stay: usize) -> Self {
        let readers = |number| AtomicUsize::new(if number < FOR_ALL { READING } else { stay });
        Self {
            unread: (0..at_most).map(readers).collect(),
            published: AtomicU64::new(0),
            sips: AtomicU64::new(0),
            all_read: Notify::new(),
        }
    }

    fn message(&self, number: u64) -> &AtomicUsize {
        &self.unread[usize::try_from(number).unwrap()]
    }

    fn read(&self, number: u64) {
        if self.message(number).fetch_sub(1, Ordering::SeqCst) == 1 {
            self.all_read.notify_one();
        }
    }

    /// Waits until this message and those before it were read by all.
    async fn wait_for(&self, number: u64) {
        while self.message(number).load(Ordering::SeqCst) > 0 {
            self.all_read.notified().await;
        }
    }
}

/// Reads so many messages, or all, in order, and leaves.
async fn read_all(mut socket: Socket, messages: u64, progress: Arc<Progress>) {
    for number in 0..messages {
        let (found, is_last) = match socket.next_start().await {
            Ok(found) => number_of(found),
            Err(other) => panic!("message {number} was to come, and {other:?} came"),
        };
        assert_eq!(found, number);
        progress.read(number);
        if is_last {
            break;
        }
    }
}

/// Reads nothing until it is woken, then everything; returns how many messages came and how many
/// were told as missed. When that takes too long, it reads just enough to be taken for alive.
async fn read_late(
    mut socket: Socket,
    mut wake_up: oneshot::Receiver<()>,
    progress: Arc<Progress>,
) -> (u64, u64) {
    let mut late = Late::default();
    let mut sips = 0;
    while tokio::time::timeout(NAP, &mut wake_up).await.is_err() {
        // Counted before: what it takes now, the publisher has to send besides.
        sips += 1;
        progress.sips.fetch_max(sips, Ordering::SeqCst);
        // The gateway's own ping waits behind all that is not read.
        socket.give_sign_of_life().await;
        let mut read = 0;
        while read < SIP && late.next < progress.published.load(Ordering::SeqCst) {
            read += late.read(&mut socket).await;
        }
    }
    while !late.has_read_last {
        late.read(&mut socket).await;
    }
    (late.received, late.missed)
}

/// What one that does not read has read.
#[derive(Default)]
struct Late {
    received: u64,
    missed: u64,
    has_read_last: bool,
    /// The message that is to come.
    next: u64,
}

impl Late {
    /// Reads a message or a notice, and returns its bytes.
    async fn read(&mut self, socket: &mut Socket) -> usize {
        match socket.next_start().await {
            Ok(found) => {
                let (number, is_last) = number_of(found);
                assert_eq!(number, self.next, "the notice stands where the messages are missing");
                self.has_read_last = is_last;
                self.received += 1;
                self.next += 1;
                found.1
            }
            Err(Frame::Text(text)) => {
                let count = missed_count(&text);
                self.missed += count;
                self.next += count;
                text.len()
            }
            Err(other) => panic!("{other:?} after {} messages", self.received),
        }
    }
}

fn missed_count(text: &str) -> u64 {
    let notice: serde_json::Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(notice["type"], "missed", "{text}");
    notice["count"].as_u64().expect("a count")
}

fn size_of(number: u64) -> usize {
    if number < FOR_ALL { SMALL } else { LARGE }
}

fn message(number: u64, is_last: bool) -> Vec<u8> {
    let mut message = vec![b'.'; size_of(number)];
    let marked = if is_last { number | LAST } else { number };
    message[..8].copy_from_slice(&marked.to_be_bytes());
    message
}

/// A message's number, and whether it is the last.
fn number_of((start, length): ([u8; 8], usize)) -> (u64, bool) {
    let marked = u64::from_be_bytes(start);
    let number = marked & !LAST;
    assert_eq!(length, size_of(number), "message {number}");
    (number, marked != number)
}

/// Lesson 25: a message that was equal to one of the last two seconds was dropped as a repetition.
/// Lesson 23: a second subscriber of a topic got nothing, and the first that left took the topic
/// from all.
#[tokio::test]
async fn lesson_25_two_equal_messages_arrive_as_two() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("node"));
    let key = node.api_key("twice");
    let mut publisher = Socket::open(node.address, &key, "t").await;
    let mut first = Socket::open(node.address, &key, "t").await;
    let mut second = Socket::open(node.address, &key, "t").await;
    for _ in 0..2 {
        publisher.send(b"1").await;
    }
    for socket in [&mut publisher, &mut first, &mut second] {
        for _ in 0..2 {
            assert_eq!(socket.next().await, Frame::Binary(b"1".to_vec()));
        }
    }
    drop(first);
    publisher.send(b"2").await;
    assert_eq!(second.next().await, Frame::Binary(b"2".to_vec()));
    assert_eq!(publisher.next().await, Frame::Binary(b"2".to_vec()), "and no third one before it");
}

/// Whether this process may open enough files. If not, the test runs again in a process that may,
/// and this one is done.
fn enough_open_files(test: &str) -> bool {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next())
        .and_then(|number| number.parse::<u64>().ok());
    if soft.is_none_or(|soft| soft >= OPEN_FILES) {
        return true;
    }
    let status = Command::new("sh")
        .args(["-c", &format!("ulimit -n {OPEN_FILES} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .status()
        .expect("run sh");
    assert!(
        status.success(),
        "the test failed in the process with more open files, or {OPEN_FILES} are not allowed"
    );
    false
}
