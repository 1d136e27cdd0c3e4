//! Values that stand on the command line, in a file, or come from stdin.

use crate::cli_error::CliError;
use debros_proto::regular_file;
use std::io::{self, Read};
use std::path::Path;

/// The bytes that a VALUE means: `-` is stdin, `@FILE` a file, anything else (and everything with
/// `text`) itself. More than `max` bytes are not read.
pub(super) fn read(value: String, text: bool, max: usize) -> Result<Vec<u8>, CliError> {
    if text {
        return Ok(value.into_bytes());
    }
    if value == "-" {
        return read_all(io::stdin().lock(), "stdin", max);
    }
    match value.strip_prefix('@') {
        Some(path) => {
            let file = regular_file::open_or_handed_over(Path::new(path)).map_err(|error| {
                CliError::usage(format!("{path} cannot be read: {error}"))
                    .with_hint("--text takes the value as it stands")
            })?;
            read_all(file, path, max)
        }
        None => Ok(value.into_bytes()),
    }
}

fn read_all(source: impl Read, name: &str, max: usize) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    // One more than allowed, to tell "just fits" from "too long" without reading an endless source.
    let read = source.take(max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| CliError::new(format!("{name} cannot be read: {error}")))?;
    if bytes.len() > max {
        return Err(CliError::usage(format!(
            "{name} holds more than the {max} bytes that are allowed"
        )));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_value_is_itself_a_file_or_refused_when_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("value");
        std::fs::write(&path, [0, 255, b'\n']).unwrap();
        let at_path = format!("@{}", path.display());
        assert_eq!(read(at_path.clone(), false, 3).unwrap(), [0, 255, b'\n']);
        assert_eq!(read(at_path.clone(), true, 3).unwrap(), at_path.as_bytes());
        assert_eq!(read(at_path, false, 2).unwrap_err().exit, 2);
        assert_eq!(read("x".into(), false, 3).unwrap(), b"x");
        // A pipe of a name would keep it waiting; what is open already is read.
        assert_eq!(read("@/dev/zero".into(), false, 3).unwrap_err().exit, 2);
        use std::os::fd::AsRawFd as _;
        let open = std::fs::File::open(&path).unwrap();
        assert_eq!(
            read(format!("@/dev/fd/{}", open.as_raw_fd()), false, 3).unwrap(),
            [0, 255, b'\n']
        );
        assert_eq!(
            read(format!("@{}", dir.path().join("missing").display()), false, 3).unwrap_err().exit,
            2
        );
    }
}
