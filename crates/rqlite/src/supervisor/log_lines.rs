//! The child's lines in our log.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use tracing::Level;

/// A node that is away makes the same two lines again and again, several times a second.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// How many kinds of lines are remembered.
const MAX_KINDS: usize = 256;

/// Writes lines, of each kind one a minute.
#[derive(Default)]
pub(super) struct LogLines {
    kinds: HashMap<String, Kind>,
    last: Option<String>,
}

struct Kind {
    written: Instant,
    held_back: u64,
}

impl LogLines {
    pub(super) fn line(&mut self, line: &str) {
        if line.trim().is_empty() {
            return;
        }
        let message = without_time(line);
        self.last = Some(message.clone());
        let level = level_of(line);
        let Some(times) = self.admit(&message, Instant::now()) else { return };
        match level {
            Level::ERROR => tracing::error!(target: "rqlited", times, "{message}"),
            Level::WARN => tracing::warn!(target: "rqlited", times, "{message}"),
            _ => tracing::debug!(target: "rqlited", times, "{message}"),
        }
    }

    /// The last line, also one that was held back: it often says why the child ended.
    pub(super) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// How many lines this one stands for, when it is to be written.
    fn admit(&mut self, message: &str, now: Instant) -> Option<u64> {
        // Lines that differ in numbers alone, such as of ports and terms, are of one kind.
        let kind: String = message.chars().filter(|c| !c.is_ascii_digit()).collect();
        if let Some(known) = self.kinds.get_mut(&kind) {
            if now.duration_since(known.written) < REPEAT_AFTER {
                known.held_back += 1;
                return None;
            }
            let times = known.held_back + 1;
            *known = Kind { written: now, held_back: 0 };
            return Some(times);
        }
        if self.kinds.len() >= MAX_KINDS {
            self.kinds.clear();
        }
        self.kinds.insert(kind, Kind { written: now, held_back: 0 });
        Some(1)
    }
}

/// rqlited has no levels but those of its Raft library.
fn level_of(line: &str) -> Level {
    let lower = line.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if has(&["[error]", "panic", "fatal"]) {
        Level::ERROR
    } else if has(&["[info]", "[debug]"]) {
        Level::DEBUG
    } else if has(&["[warn]", "fail", "error", "unable", "cannot", "refused"]) {
        Level::WARN
    } else {
        Level::DEBUG
    }
}

/// Our log has a time already. Both of rqlited's forms are a date and a time of digits and signs.
fn without_time(line: &str) -> String {
    let is_time = |word: &&str| {
        let mut digits = 0;
        let only = word.chars().all(|c| {
            digits += usize::from(c.is_ascii_digit());
            c.is_ascii_digit() || "/:.-TZ+".contains(c)
        });
        only && digits >= 6
            && (word.matches(':').count() == 2 || word.matches(['/', '-']).count() >= 2)
    };
    let words: Vec<_> = line.split_whitespace().collect();
    // It is at the start, maybe after the name of a part.
    let (head, rest) = words.split_at(words.len().min(3));
    let head = head.iter().filter(|word| !is_time(word));
    head.chain(rest).copied().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::{LogLines, REPEAT_AFTER, level_of, without_time};
    use std::time::Instant;
    use tracing::Level;

    #[test]
    fn lines_lose_their_time_and_keep_all_else() {
        let listen = "[rqlited] 2026/11/22 22:38:17 failed to listen on 127.0.0.1:17091: in use";
        assert_eq!(without_time(listen), "[rqlited] failed to listen on 127.0.0.1:17091: in use");
        assert_eq!(level_of(listen), Level::WARN);
        let raft = "2026-11-22T22:38:17.123Z [WARN]  raft: heartbeat timeout reached";
        assert_eq!(without_time(raft), "[WARN] raft: heartbeat timeout reached");
        assert_eq!(level_of("[raft] 2026/11/22 [ERROR] raft: failed to heartbeat"), Level::ERROR);
        assert_eq!(level_of("[http] 2026/11/22 22:38:17 service listening"), Level::DEBUG);
    }

    #[test]
    fn a_repeated_line_is_one_a_minute_and_says_how_many() {
        let mut lines = LogLines::default();
        let start = Instant::now();
        assert_eq!(lines.admit("failed to reach 127.0.0.1:7001", start), Some(1));
        assert_eq!(lines.admit("failed to reach 127.0.0.1:7002", start), None);
        assert_eq!(lines.admit("another", start), Some(1));
        assert_eq!(lines.admit("failed to reach 127.0.0.1:7001", start + REPEAT_AFTER), Some(2));
        lines.line("why it ended");
        assert_eq!(lines.last(), Some("why it ended"));
    }
}
