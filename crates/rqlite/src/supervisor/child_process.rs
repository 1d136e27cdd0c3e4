//! A child process with a thread of its own, which starts it, reads what it prints, and waits.
//!
//! The thread is there for Linux: the signal on the death of the parent comes when the *thread* that
//! started the child ends, and threads of the async runtime come and go.

use super::data_lock::DataLock;
use super::log_lines::LogLines;
use debros_proto::lock;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// A longer line is read in parts.
const MAX_LINE: u64 = 8 * 1024;

/// The child that runs now, if one does. What is in it was not waited for, so that its number is
/// surely still its own when a signal is sent.
#[derive(Debug, Default)]
pub(super) struct ChildSlot(Mutex<Option<RunningChild>>);

#[derive(Debug)]
struct RunningChild {
    pid: Pid,
    told_to_end: bool,
}

impl ChildSlot {
    pub(super) fn pid(&self) -> Option<u32> {
        let pid = lock(&self.0).as_ref()?.pid;
        u32::try_from(pid.as_raw_nonzero().get()).ok()
    }

    /// Tells the child to end, once: a second time could cut short what it does to end.
    pub(super) fn terminate(&self) {
        if let Some(child) = lock(&self.0).as_mut().filter(|child| !child.told_to_end) {
            child.told_to_end = true;
            // It can only have ended, and then the signal has no use.
            let _ = kill_process(child.pid, Signal::TERM);
        }
    }

    pub(super) fn kill(&self) {
        if let Some(child) = lock(&self.0).as_ref() {
            let _ = kill_process(child.pid, Signal::KILL);
        }
    }
}

/// Starts a child and returns what will tell how it ended. `data` stays locked until then.
pub(super) fn start(
    mut command: Command,
    slot: Arc<ChildSlot>,
    data: Arc<DataLock>,
) -> io::Result<oneshot::Receiver<String>> {
    command
        .stdin(Stdio::null())
        // A drawing of its name.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // Ctrl-C is for us, who stop the child when its turn comes.
        .process_group(0);
    let (ended, end) = oneshot::channel();
    std::thread::Builder::new().name("rqlited".to_owned()).spawn(move || {
        let reason = match command.spawn() {
            Ok(child) => attend(child, &slot, &data),
            Err(error) => format!("it cannot be started: {error}"),
        };
        // Whoever would hear it may have gone.
        let _ = ended.send(reason);
    })?;
    Ok(end)
}

/// Reads a child's lines until it ends, and says how it ended.
fn attend(mut child: Child, slot: &ChildSlot, data: &DataLock) -> String {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    *lock(&slot.0) = pid.map(|pid| RunningChild { pid, told_to_end: false });
    if let Err(error) = fs::write(data.pid_file(), child.id().to_string()) {
        // Only after a crash of ours would it be missed.
        tracing::warn!(target: "rqlited", %error, "the process id of rqlited is not recorded");
    }
    let mut lines = LogLines::default();
    if let Some(stderr) = child.stderr.take() {
        read_lines(stderr, |line| lines.line(line));
    }
    if let Some(pid) = pid {
        // Until it is waited for, its number is not given to another process: first nobody may send
        // it a signal any more.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
    }
    *lock(&slot.0) = None;
    let status = match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    match lines.last() {
        Some(line) => format!("{status}: {line}"),
        None => status,
    }
}

fn read_lines(from: impl Read, mut each: impl FnMut(&str)) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => each(String::from_utf8_lossy(&line).trim_end()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
