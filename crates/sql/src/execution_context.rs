//! The execution context of a statement: one time and one source of random numbers, so that it
//! gives the same result wherever and whenever it runs.

use std::fmt;
use std::fmt::Write as _;

/// The table from which views and triggers read the time of a write. It has at most one row, and
/// only while a write transaction is open whose statements need it: see [`MOMENT_SET`] and
/// [`MOMENT_CLEAR`].
pub const MOMENT_TABLE: &str = "_debros_moment";

/// Creates [`MOMENT_TABLE`]. The engine runs it when it creates a namespace's database.
pub const MOMENT_DDL: &str = "CREATE TABLE IF NOT EXISTS \"_debros_moment\" (id INTEGER PRIMARY KEY CHECK (id = 1), now TEXT NOT NULL) STRICT";

/// Sets the time for the views and triggers of the transaction's statements; one argument, from
/// [`ExecutionContext::timestamp`]. It changes the connection's counters: see
/// [`restore_counters`](crate::counters::restore_counters).
pub const MOMENT_SET: &str = "INSERT OR REPLACE INTO \"_debros_moment\" (id, now) VALUES (1, ?1)";

/// Empties [`MOMENT_TABLE`] before the commit, so that readers see the time of their own reading.
pub const MOMENT_CLEAR: &str = "DELETE FROM \"_debros_moment\"";

/// The time in a view or trigger: that of the open write, else the present.
pub(crate) const STORED_NOW: &str = "coalesce((SELECT now FROM \"_debros_moment\"),'now')";

/// The values that a statement takes from outside. Passed in, so that the same statement and
/// context always make the same text.
pub struct ExecutionContext<'a> {
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
    /// Fills the bytes with random ones.
    pub random: &'a mut dyn FnMut(&mut [u8]),
}

impl ExecutionContext<'_> {
    /// The time as `YYYY-MM-DD HH:MM:SS.SSS`, UTC: the argument of [`MOMENT_SET`].
    pub fn timestamp(&self) -> String {
        format_timestamp(self.now_ms)
    }
}

impl fmt::Debug for ExecutionContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecutionContext").field("now_ms", &self.now_ms).finish_non_exhaustive()
    }
}

/// A placeholder in a rewritten statement, which is filled when the statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Placeholder {
    /// `'now'`, to the millisecond.
    Now,
    CurrentTimestamp,
    CurrentDate,
    CurrentTime,
    /// `random()`
    Random,
    /// `randomblob(n)`
    RandomBlob(u32),
}

impl Placeholder {
    /// Writes the literal.
    pub(crate) fn fill(self, context: &mut ExecutionContext<'_>, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Placeholder::Now => write!(text, "'{}'", format_timestamp(context.now_ms)),
            Placeholder::CurrentTimestamp => {
                write!(text, "'{}'", &format_timestamp(context.now_ms)[..19])
            }
            Placeholder::CurrentDate => {
                write!(text, "'{}'", &format_timestamp(context.now_ms)[..10])
            }
            Placeholder::CurrentTime => {
                write!(text, "'{}'", &format_timestamp(context.now_ms)[11..19])
            }
            Placeholder::Random => {
                let mut bytes = [0; 8];
                (context.random)(&mut bytes);
                write_integer(text, i64::from_le_bytes(bytes))
            }
            Placeholder::RandomBlob(length) => {
                let mut bytes = vec![0; length as usize];
                (context.random)(&mut bytes);
                text.push_str("X'");
                bytes
                    .iter()
                    .try_for_each(|byte| write!(text, "{byte:02X}"))
                    .and_then(|()| text.write_char('\''))
            }
        };
    }

    /// Bytes of the literal, at most.
    pub(crate) fn max_size(self) -> usize {
        match self {
            Placeholder::RandomBlob(length) => 3 + 2 * length as usize,
            // A time to the millisecond in quotes; a negative integer in parentheses has 22.
            _ => 25,
        }
    }

    /// A literal of the same kind, for checks of the statement's form alone.
    pub(crate) fn stand_in(self) -> &'static str {
        match self {
            Placeholder::Now
            | Placeholder::CurrentTimestamp
            | Placeholder::CurrentDate
            | Placeholder::CurrentTime => "''",
            Placeholder::Random => "0",
            Placeholder::RandomBlob(_) => "X''",
        }
    }
}

/// Writes an integer. A negative one is in parentheses, so that a minus before it makes no comment.
fn write_integer(text: &mut String, value: i64) -> fmt::Result {
    if value < 0 { write!(text, "({value})") } else { write!(text, "{value}") }
}

/// `YYYY-MM-DD HH:MM:SS.SSS` in UTC. Times outside the years 0 to 9999, which SQLite does not know,
/// are clamped to them.
fn format_timestamp(ms: i64) -> String {
    const FIRST: i64 = -62_167_219_200_000;
    const LAST: i64 = 253_402_300_799_999;
    let ms = ms.clamp(FIRST, LAST);
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = civil_date(days);
    let (seconds, millis) = (in_day / 1000, in_day % 1000);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{millis:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Year, month and day of the Gregorian calendar for a number of days after 1970-01-01. Counted in
/// years that begin in March, so that the leap day is a year's last, and in eras of 400 years.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (day, month) = (
        day_of_year - (153 * shifted + 2) / 5 + 1,
        if shifted < 10 { shifted + 3 } else { shifted - 9 },
    );
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{ExecutionContext, Placeholder, format_timestamp};

    #[test]
    fn times_are_what_sqlite_says_they_are() {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        for ms in [
            0_i64,
            1,
            -1,
            951_782_399_999,
            951_782_400_000,
            1_767_225_600_123,
            253_402_300_799_999,
            -62_167_219_200_000,
        ] {
            let expected: String = db
                .query_row(
                    "SELECT strftime('%Y-%m-%d %H:%M:%f', (?1 - ?2) / 1000, 'unixepoch', (?2 / 1000.0) || ' seconds')",
                    [ms, ms.rem_euclid(1000)],
                    |row| row.get(0),
                )
                .unwrap();
            assert_eq!(format_timestamp(ms), expected, "{ms}");
        }
    }

    #[test]
    fn placeholders_become_literals_of_the_right_kind() {
        let mut ones = |bytes: &mut [u8]| bytes.fill(0xff);
        let mut context = ExecutionContext { now_ms: 1_767_225_600_123, random: &mut ones };
        let mut filled = |placeholder: Placeholder| {
            let mut text = String::new();
            placeholder.fill(&mut context, &mut text);
            text
        };
        assert_eq!(filled(Placeholder::Now), "'2026-01-01 00:00:00.123'");
        assert_eq!(filled(Placeholder::CurrentTimestamp), "'2026-01-01 00:00:00'");
        assert_eq!(filled(Placeholder::CurrentDate), "'2026-01-01'");
        assert_eq!(filled(Placeholder::CurrentTime), "'00:00:00'");
        assert_eq!(filled(Placeholder::Random), "(-1)");
        assert_eq!(filled(Placeholder::RandomBlob(2)), "X'FFFF'");
    }
}
