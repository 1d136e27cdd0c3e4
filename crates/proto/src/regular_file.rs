//! Files that are opened by a configured path: only regular ones. A pipe keeps the program waiting
//! for a writer that never comes, and a device may do anything. [`open_or_handed_over`] also opens
//! what a shell hands over, where a person names it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;

/// Where the system shows what is open already.
const HANDED_OVER: [&str; 2] = ["/dev/fd", "/proc/self/fd"];

/// What the system says of a regular file; links are followed.
///
/// # Errors
/// What the system says; `InvalidInput`, with what it is, when it is no regular file.
pub fn metadata(path: &Path) -> io::Result<Metadata> {
    let metadata = fs::metadata(path)?;
    if metadata.is_file() {
        return Ok(metadata);
    }
    let kind = kind_of(&metadata);
    let kind_of_error =
        if metadata.is_dir() { io::ErrorKind::IsADirectory } else { io::ErrorKind::InvalidInput };
    Err(io::Error::new(kind_of_error, format!("it is {kind}, and a regular file is needed")))
}

/// Opens a regular file to read it.
///
/// # Errors
/// As [`metadata`].
pub fn open(path: &Path) -> io::Result<File> {
    metadata(path)?;
    File::open(path)
}

/// As [`open`], or what was opened for this program already: its standard input, and what a shell
/// puts in the place of `<(command)`.
///
/// # Errors
/// As [`metadata`].
pub fn open_or_handed_over(path: &Path) -> io::Result<File> {
    let is_handed_over = path == Path::new("/dev/stdin")
        || HANDED_OVER.iter().any(|folder| path.starts_with(folder));
    if is_handed_over { File::open(path) } else { open(path) }
}

/// Opens a regular file, or a device as /dev/null is, to write at its end; makes the file when it
/// is not there. What the program has open already, as /dev/stdout, may be anything.
///
/// # Errors
/// What the system says; `InvalidInput`, with what it is, when it is something else. A pipe would
/// keep the program waiting for a reader.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let is_open_already = ["/dev/stdout", "/dev/stderr"].iter().any(|open| path == Path::new(open))
        || HANDED_OVER.iter().any(|folder| path.starts_with(folder));
    if !is_open_already && !fs::metadata(path).is_ok_and(|metadata| is_character_device(&metadata))
    {
        match metadata(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::options().create(true).append(true).open(path)
}

/// All bytes of a regular file.
///
/// # Errors
/// As [`metadata`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The text of a regular file.
///
/// # Errors
/// As [`metadata`], and `InvalidData` when it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn kind_of(metadata: &Metadata) -> &'static str {
    if metadata.is_dir() {
        return "a folder";
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt as _;
        let kind = metadata.file_type();
        if kind.is_fifo() {
            return "a named pipe";
        }
        if kind.is_socket() {
            return "a socket";
        }
        if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    "something else"
}

#[cfg(unix)]
fn is_character_device(metadata: &Metadata) -> bool {
    std::os::unix::fs::FileTypeExt::is_char_device(&metadata.file_type())
}

#[cfg(not(unix))]
fn is_character_device(_: &Metadata) -> bool {
    false
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;

    #[test]
    fn what_is_appended_to_is_a_file_or_a_device() {
        use std::io::Write as _;
        let socket =
            std::env::temp_dir().join(format!("debros-regular-file-{}.sock", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let refused = super::open_to_append(&socket).unwrap_err();
        assert!(refused.to_string().contains("a socket"), "{refused}");
        drop(listener);
        std::fs::remove_file(&socket).unwrap();
        assert!(
            super::open_to_append(Path::new("/")).unwrap_err().to_string().contains("a folder")
        );
        super::open_to_append(Path::new("/dev/null")).unwrap().write_all(b"x").unwrap();
        super::open_to_append(&socket).unwrap().write_all(b"x").unwrap();
        super::open_to_append(&socket).unwrap().write_all(b"y").unwrap();
        assert_eq!(super::read_to_string(&socket).unwrap(), "xy");
        std::fs::remove_file(&socket).unwrap();
    }

    #[test]
    fn only_regular_files_are_opened() {
        let device = super::read_to_string(Path::new("/dev/zero")).unwrap_err();
        assert!(device.to_string().contains("a device"), "{device}");
        let folder = super::read(Path::new("/")).unwrap_err();
        assert!(folder.to_string().contains("a folder"), "{folder}");
        let missing = super::open(Path::new("/nowhere/at/all")).unwrap_err();
        assert_eq!(missing.kind(), std::io::ErrorKind::NotFound);
        let own = super::read_to_string(Path::new("src/regular_file.rs")).unwrap();
        assert!(own.contains("only_regular_files_are_opened"));
    }
}
