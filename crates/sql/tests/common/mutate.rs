//! Statements made from others: words swapped, dropped, doubled, and parts of one put into another.

use std::path::{Path, PathBuf};

/// A small generator of numbers, so that a run can be repeated by its seed.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % limit.max(1)
    }
}

/// The words of a statement: names, strings, numbers, signs.
pub fn words(sql: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            c if c.is_whitespace() => {
                rest = rest.trim_start();
                continue;
            }
            '\'' | '"' | '`' => rest[1..].find(first).map_or(rest.len(), |end| end + 2),
            '[' => rest.find(']').map_or(rest.len(), |end| end + 1),
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        words.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    words
}

/// Makes a new statement from one of a corpus, with parts of others of it.
pub fn mutate(corpus: &[Vec<String>], numbers: &mut Numbers) -> String {
    let mut words = corpus[numbers.below(corpus.len())].clone();
    for _ in 0..=numbers.below(2) {
        let other = &corpus[numbers.below(corpus.len())];
        let at = numbers.below(words.len() + 1);
        match numbers.below(7) {
            0 if at < words.len() => {
                words.remove(at);
            }
            1 if at < words.len() => words[at] = other[numbers.below(other.len())].clone(),
            2 => words.insert(at, other[numbers.below(other.len())].clone()),
            3 => {
                let start = numbers.below(other.len());
                let end = (start + 1 + numbers.below(12)).min(other.len());
                words.splice(at..at, other[start..end].iter().cloned());
            }
            4 if at < words.len() => {
                let end = (at + 1 + numbers.below(6)).min(words.len());
                let start = numbers.below(other.len());
                let stop = (start + 1 + numbers.below(8)).min(other.len());
                words.splice(at..end, other[start..stop].iter().cloned());
            }
            5 => {
                // A whole statement in parentheses.
                let mut inner = vec!["(".to_owned()];
                inner.extend(other.iter().cloned());
                inner.push(")".to_owned());
                let end = (at + numbers.below(2)).min(words.len());
                words.splice(at.min(end)..end, inner);
            }
            _ if words.len() > 1 => {
                let with = numbers.below(words.len());
                let at = at.min(words.len() - 1);
                words.swap(at, with);
            }
            _ => (),
        }
    }
    words.join(" ")
}

/// The statements of all corpora, as words.
pub fn corpus() -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for file in files("corpus").into_iter().chain(files("hostile")) {
        let text = std::fs::read_to_string(file).unwrap();
        let text = text
            .replace("{X}", "\"ns::victim::secrets\"")
            .replace("{own}", "users")
            .replace("{docs}", "docs")
            .replace("{docs_data}", "docs_data")
            .replace("{new}", "evil")
            .replace("{new2}", "evil2");
        found.extend(
            text.split_inclusive(";\n")
                .map(|line| words(line.trim().trim_end_matches(';')))
                .filter(|words| is_of_use(words)),
        );
    }
    found
}

/// The files of the corpus that shows what SQL can do: their names, and their statements.
pub fn scripts() -> Vec<(String, Vec<String>)> {
    let statements = |file: &Path| {
        let text = std::fs::read_to_string(file).unwrap();
        debros_proto::sql::split(&text)
            .unwrap()
            .iter()
            .map(|statement| statement.text.to_owned())
            .collect()
    };
    let name = |file: &Path| file.file_stem().unwrap().to_string_lossy().into_owned();
    files("corpus").iter().map(|file| (name(file), statements(file))).collect()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Whether words are ones to mix with others: some there are, and not too many.
pub fn is_of_use(words: &[String]) -> bool {
    (1..120).contains(&words.len())
}

/// Whether what a statement gives depends on more than the data: then two databases may well
/// differ.
pub fn is_of_more_than_the_data(sql: &str) -> bool {
    const WORDS: &[&str] = &[
        "now",
        "current_timestamp",
        "current_date",
        "current_time",
        "random",
        "randomblob",
        "explain",
        "date",
        "time",
        "datetime",
        "julianday",
        "unixepoch",
        "strftime",
        "timediff",
        "changes",
        "last_insert_rowid",
        "pragma",
        "localtime",
    ];
    sql.to_ascii_lowercase().split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| {
        WORDS.contains(&word) || word.starts_with("sqlite_") || word.starts_with("pragma_")
    })
}
