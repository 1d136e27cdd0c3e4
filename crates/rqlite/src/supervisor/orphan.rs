//! Ends the `rqlited` of an earlier life of this node, which would hold the folder and the ports.
//!
//! The folder is locked by now, so that whatever runs in it is nobody's.

use super::StartError;
use super::data_lock::DataLock;
use super::proc_stat::has_folder;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::time::Duration;
use tokio::time::Instant;

/// To hand over leadership and close its files; then it is killed.
const TIME_TO_END: Duration = Duration::from_secs(3);
const TIME_TO_DIE: Duration = Duration::from_secs(3);

pub(super) async fn clear(lock: &DataLock) -> Result<(), StartError> {
    let recorded = fs::read_to_string(lock.pid_file()).ok();
    let Some(pid) = recorded.and_then(|text| text.trim().parse::<u32>().ok()) else {
        return Ok(());
    };
    let store = lock.store();
    // The number may be another program's by now.
    if !has_folder(pid, &store) {
        return Ok(());
    }
    tracing::warn!(target: "rqlited", pid, "rqlited of an earlier start still runs, and is ended");
    for (signal, time) in [(Signal::TERM, TIME_TO_END), (Signal::KILL, TIME_TO_DIE)] {
        if let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            // It may have ended meanwhile.
            let _ = kill_process(process, signal);
        }
        let until = Instant::now() + time;
        while has_folder(pid, &store) {
            if Instant::now() >= until {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    if has_folder(pid, &store) { Err(StartError::Orphan { pid }) } else { Ok(()) }
}
