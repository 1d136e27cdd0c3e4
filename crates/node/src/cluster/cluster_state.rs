//! What this node knows of its cluster: the keys, the register as it was read last, and itself.

use super::cluster_key::{ClusterKey, random_bytes};
use super::keyring::{ClusterKeyError, Keyring};
use super::node_record::{NodeDescription, NodeRecord};
use super::register::NodeRegister;
use debros_cluster::LocalState;
use debros_p2p::{Host, PeerId, advertised_addresses};
use debros_proto::{Code, Error, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use tokio::sync::{Notify, watch};

/// Addresses that a node tells others of itself.
const MAX_OWN_ADDRESSES: usize = 8;

/// Random for each start of the program.
pub(crate) type Incarnation = [u8; 16];

/// The register as it was read last.
pub(crate) type NodeList = BTreeMap<PeerId, NodeRecord>;

/// What is shared by everything that has to do with the cluster.
pub(crate) struct ClusterState {
    pub(crate) own: OwnNode,
    pub(crate) register: NodeRegister,
    key_path: PathBuf,
    /// `None`: the node is part of no cluster.
    keyring: RwLock<Option<Arc<Keyring>>>,
    nodes: RwLock<Arc<NodeList>>,
    /// Held by the one that changes the keys or enters the cluster.
    pub(crate) changing: tokio::sync::Mutex<()>,
    /// The register may have changed.
    pub(crate) changed: Notify,
    host: OnceLock<Host>,
    database_dir: PathBuf,
    /// The database is the cluster's.
    is_replicated: bool,
    /// Why the node has to be started again.
    restart: watch::Sender<Option<&'static str>>,
}

/// This node.
pub(crate) struct OwnNode {
    pub(crate) peer_id: PeerId,
    pub(crate) name: String,
    pub(crate) raft_address: String,
    pub(crate) version: String,
    pub(crate) incarnation: Incarnation,
}

impl OwnNode {
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn new(
        peer_id: PeerId,
        name: String,
        raft_address: String,
        version: String,
    ) -> Result<Self> {
        Ok(Self { peer_id, name, raft_address, version, incarnation: random_bytes()? })
    }
}

impl ClusterState {
    /// Reads the key, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, or others may read it.
    pub(crate) fn load(
        own: OwnNode,
        register: NodeRegister,
        key_path: PathBuf,
        database_dir: PathBuf,
        is_replicated: bool,
    ) -> Result<Self, ClusterKeyError> {
        let keyring = Keyring::load(&key_path)?.map(Arc::new);
        Ok(Self {
            own,
            register,
            key_path,
            keyring: RwLock::new(keyring),
            nodes: RwLock::default(),
            changing: tokio::sync::Mutex::default(),
            changed: Notify::new(),
            host: OnceLock::new(),
            database_dir,
            is_replicated,
            restart: watch::Sender::default(),
        })
    }

    /// Says of the database's folder that the cluster begins with it: at its next start the node
    /// makes the cluster's log.
    ///
    /// # Errors
    /// When that cannot be written.
    pub(crate) fn begin_database(&self, cluster_id: &str) -> Result<()> {
        let state = LocalState {
            cluster: cluster_id.to_owned(),
            durable: 0,
            begins: true,
            non_voter: false,
            raft_peers: Vec::new(),
        };
        state.write(&self.database_dir).map_err(|error| {
            tracing::error!(%error, "that the database is a cluster's cannot be written");
            Error::internal("the cluster cannot be begun; the node's log has more")
        })
    }

    /// The node has to be started again, because of this.
    pub(crate) fn request_restart(&self, why: &'static str) {
        self.restart.send_replace(Some(why));
    }

    /// Waits until the node has to be started again.
    pub(crate) async fn restart_requested(&self) -> &'static str {
        let mut restart = self.restart.subscribe();
        let why = restart.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        match why {
            Some(why) => why,
            // The sender lives as long as this.
            None => std::future::pending().await,
        }
    }

    /// Set once, when the host runs: the host itself needs the handler first.
    pub(crate) fn set_host(&self, host: Host) {
        // There is one place that does it.
        let _ = self.host.set(host);
    }

    /// The network.
    ///
    /// # Errors
    /// `unavailable` while the node starts.
    pub(crate) fn host(&self) -> Result<&Host> {
        self.host.get().ok_or_else(|| Error::new(Code::Unavailable, "the node is starting"))
    }

    /// The cluster's keys.
    ///
    /// # Errors
    /// `conflict` when the node is part of no cluster.
    pub(crate) fn keyring(&self) -> Result<Arc<Keyring>> {
        self.find_keyring().ok_or_else(|| {
            Error::new(
                Code::Conflict,
                "this node is part of no cluster: run `network-cli cluster init` on it to begin one, or start it with --join and a \
                 token of a node that is in one",
            )
        })
    }

    /// The cluster's keys; `None` when the node is part of no cluster.
    pub(crate) fn find_keyring(&self) -> Option<Arc<Keyring>> {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the keys of the cluster that the node enters, in a file first. The caller holds
    /// `changing`.
    ///
    /// # Errors
    /// When the file cannot be written, or is there.
    pub(crate) async fn enter_cluster(&self, keyring: Keyring) -> Result<()> {
        self.store(keyring, Keyring::create).await
    }

    /// Takes a key in place of the present one, in the file first; false when it does not replace
    /// that.
    ///
    /// # Errors
    /// When the file cannot be written: the present key stays.
    pub(crate) async fn adopt_key(&self, key: ClusterKey) -> Result<bool> {
        let _alone = self.changing.lock().await;
        let Some(next) = self.keyring()?.with_key(key) else { return Ok(false) };
        let epoch = next.current().epoch();
        self.store(next, Keyring::replace).await?;
        tracing::info!(epoch, "the cluster has a new key");
        self.note_new_key();
        Ok(true)
    }

    /// Makes a new key in place of the present one.
    ///
    /// # Errors
    /// When the file cannot be written: the present key stays.
    pub(crate) async fn replace_key(&self) -> Result<ClusterKey> {
        let _alone = self.changing.lock().await;
        let next = self.keyring()?.with_new_key()?;
        let key = next.current().clone();
        self.store(next, Keyring::replace).await?;
        tracing::info!(epoch = key.epoch(), "the cluster's key was replaced");
        self.note_new_key();
        Ok(key)
    }

    /// The certificates of the Raft port are made from the key, and read when rqlited starts.
    fn note_new_key(&self) {
        if self.is_replicated {
            self.request_restart("the cluster's key was replaced");
        }
    }

    async fn store(
        &self,
        keyring: Keyring,
        write: fn(&Keyring, &std::path::Path) -> Result<(), ClusterKeyError>,
    ) -> Result<()> {
        let (path, keyring) = (self.key_path.clone(), Arc::new(keyring));
        let written = Arc::clone(&keyring);
        // It waits for the disk.
        tokio::task::spawn_blocking(move || write(&written, &path))
            .await
            .map_err(|_| Error::internal("writing the cluster's key failed"))?
            .map_err(ClusterKeyError::into_call_error)?;
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = Some(keyring);
        Ok(())
    }

    /// The register as it was read last.
    pub(crate) fn nodes(&self) -> Arc<NodeList> {
        Arc::clone(&self.nodes.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A node that is in the cluster now.
    pub(crate) fn live_node(&self, peer: &PeerId) -> Option<NodeRecord> {
        self.nodes().get(peer).filter(|node| !node.is_removed()).cloned()
    }

    /// Whether a peer is a node of the cluster now. This node itself has to be one for that.
    pub(crate) fn is_live(&self, peer: &PeerId) -> bool {
        let nodes = self.nodes();
        let is_live = |id| nodes.get(id).is_some_and(|node| !node.is_removed());
        is_live(peer) && is_live(&self.own.peer_id)
    }

    /// The node that has a name, other than `except`.
    pub(crate) fn node_named(&self, name: &str, except: &PeerId) -> Option<NodeRecord> {
        let nodes = self.nodes();
        let mut others = nodes.values().filter(|node| !node.is_removed());
        others.find(|node| node.description.name == name && node.peer_id != *except).cloned()
    }

    /// Reads the register again; says whether it is another one.
    ///
    /// # Errors
    /// As a read of the database: what was read before stays.
    pub(crate) async fn reload(&self) -> Result<bool> {
        if self.find_keyring().is_none() {
            return Ok(false);
        }
        let mut list = self.read_register().await?;
        // A backup that was put back knows less than this node: a removal is never undone.
        let known = self.nodes();
        let lost: Vec<NodeRecord> = known
            .values()
            .filter(|node| list.get(&node.peer_id).is_none_or(|read| node.is_newer_than(read)))
            .cloned()
            .collect();
        if !lost.is_empty() {
            self.register.merge(&lost).await?;
            list = self.read_register().await?;
        }
        let mut nodes = self.nodes.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = **nodes != list;
        if is_new {
            *nodes = Arc::new(list);
        }
        Ok(is_new)
    }

    async fn read_register(&self) -> Result<NodeList> {
        let read = match self.register.list().await {
            // A backup from before the cluster was put back.
            Err(error) if error.code == Code::Sql => {
                self.register.make_tables().await?;
                self.register.list().await
            }
            read => read,
        };
        Ok(read?.into_iter().map(|node| (node.peer_id, node)).collect())
    }

    /// Writes what another node knows better into the register; says whether that was anything.
    ///
    /// # Errors
    /// As a write to the database.
    pub(crate) async fn learn(&self, records: Vec<NodeRecord>) -> Result<bool> {
        let nodes = self.nodes();
        let is_news = |record: &NodeRecord| {
            nodes.get(&record.peer_id).is_none_or(|known| record.is_newer_than(known))
        };
        let news: Vec<NodeRecord> = records.into_iter().filter(is_news).collect();
        if news.is_empty() {
            return Ok(false);
        }
        self.register.merge(&news).await?;
        self.changed.notify_one();
        Ok(true)
    }

    /// What this node says of itself.
    ///
    /// # Errors
    /// `unavailable` while the node starts.
    pub(crate) fn own_description(&self) -> Result<NodeDescription> {
        let mut addresses = advertised_addresses(&self.host()?.listen_addresses());
        addresses.truncate(MAX_OWN_ADDRESSES);
        Ok(NodeDescription {
            name: self.own.name.clone(),
            addresses,
            raft_address: self.own.raft_address.clone(),
            version: self.own.version.clone(),
        })
    }
}

/// The error of a name that another node has.
pub(crate) fn name_taken_error(name: &str, by: &NodeRecord) -> Error {
    Error::new(
        Code::Conflict,
        format!(
            "another node of the cluster, {}, has the name \"{name}\": give this one another node.id",
            by.peer_id
        ),
    )
}
