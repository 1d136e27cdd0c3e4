//! Finding the nodes of this machine through the files that they write.

use crate::config::peer_id_of;
use debros_client::PeerId;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file in a node's data folder that says how to reach it.
const PEER_INFO: &str = "peer.info";
/// The file in a node's data folder with the operator's credential.
const OPERATOR_KEY: &str = "operator.key";

/// A node of this machine. It was running when it wrote the file; whether it still is, shows when
/// it is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalNode {
    /// Its data folder.
    pub data_dir: PathBuf,
    /// How to reach it: a multiaddr with its peer id.
    pub address: String,
    /// Its identity.
    pub peer_id: PeerId,
}

impl LocalNode {
    /// The node with this data folder, if it wrote how to reach it.
    pub fn read(data_dir: &Path) -> Option<Self> {
        let address = debros_p2p::peer_info::read(&data_dir.join(PEER_INFO)).ok()?.to_string();
        let peer_id = peer_id_of(&address)?;
        Some(Self { data_dir: data_dir.to_owned(), address, peer_id })
    }

    /// The operator's credential, if this user may read it.
    ///
    /// # Errors
    /// When the file is there and cannot be used: readable by others, or damaged.
    pub fn operator_credential(
        &self,
    ) -> Result<Option<String>, debros_node::operator_key::OperatorKeyError> {
        read_operator_key(&self.data_dir.join(OPERATOR_KEY))
    }
}

/// The operator's credential in a file; `None` when there is no such file or this user may not read
/// it.
fn read_operator_key(
    path: &Path,
) -> Result<Option<String>, debros_node::operator_key::OperatorKeyError> {
    match debros_proto::regular_file::open(path) {
        Ok(_) => debros_node::operator_key::load(path).map(Some),
        // The error says what stands there in place of a file.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::IsADirectory) => {
            debros_node::operator_key::load(path).map(Some)
        }
        Err(_) => Ok(None),
    }
}

/// Where nodes of this machine keep their data: the folder that is named (`DEBROS_NODE_DATA_DIR`),
/// the folders in `./data`, the development node first, and those of the production tree.
pub fn data_dirs(named: Option<&str>) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = named.map(PathBuf::from).into_iter().collect();
    dirs.push(PathBuf::from("data/dev"));
    dirs.extend(list_folders(Path::new("data")));
    dirs.extend(list_folders(Path::new("/opt/debros/data")));
    let mut seen = Vec::new();
    dirs.retain(|dir| {
        let is_new = !seen.contains(dir);
        seen.push(dir.clone());
        is_new
    });
    dirs
}

/// The nodes of this machine, in the order in which they are tried.
pub fn local_nodes(named: Option<&str>) -> Vec<LocalNode> {
    data_dirs(named).iter().filter_map(|dir| LocalNode::read(dir)).collect()
}

fn list_folders(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::{LocalNode, data_dirs};
    use std::path::PathBuf;

    #[test]
    fn only_a_file_with_an_address_and_a_peer_id_tells_a_node() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(dir.path().join("peer.info"), text).unwrap();
        assert_eq!(LocalNode::read(dir.path()), None);
        let address =
            "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
        write(&format!("{address}\n"));
        assert_eq!(LocalNode::read(dir.path()).unwrap().address, address);
        for bad in [
            "",
            "\n",
            "/ip4/127.0.0.1/tcp/4001",
            "/nonsense/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp",
            "\u{0}",
        ] {
            write(bad);
            assert_eq!(LocalNode::read(dir.path()), None, "{bad:?}");
        }
    }

    #[test]
    fn the_named_folder_comes_first_and_the_development_node_next() {
        assert_eq!(
            data_dirs(Some("/srv/n"))[..2],
            [PathBuf::from("/srv/n"), PathBuf::from("data/dev")]
        );
        assert_eq!(data_dirs(None)[0], PathBuf::from("data/dev"));
    }
}
