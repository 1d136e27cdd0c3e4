//! Starting a node, step by step.

mod reseed;

pub(crate) use reseed::{folder_size, replaced_files};

use crate::Node;
use crate::auth::{AuthDb, AuthService, SigningError};
use crate::background_tasks::BackgroundTasks;
use crate::cluster::{
    ClusterKeyError, ClusterService, ClusterSetup, Keyring, MembersLink, NodeRole, Relay,
    Replication, ReplicationStartError, ReseedRecord, known_role, start_rqlited,
};
use crate::config::NodeConfig;
use crate::dispatcher::{CallDispatcher, RpcHandler};
use crate::health::HealthProbe;
use crate::late_handler::LateHandler;
use crate::operator_key::{self, OperatorKeyError};
use crate::pubsub::TopicHub;
use crate::run_record::{RunPhase, RunRecord};
use crate::services::{NodeFacts, NodeServices};
use debros_cluster::LocalState;
use debros_engine::Engine;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_p2p::{Host, HostConfig, Keypair, PeerId, PeerLimits, identity, peer_info};
use debros_proto::{Code, Error, now_ms};
use debros_rqlite::Rqlited;
use reseed::finish_reseeding;
use std::fs::Permissions;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The mode of the data folder.
const PRIVATE: u32 = 0o700;
/// How long a connection on which nothing is open stays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeStartError {
    /// The data folder cannot be made or written.
    #[error(
        "the data folder {path} cannot be used: {source}. Choose another with --data-dir, or let this user write there"
    )]
    DataDir {
        /// Which folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Other users may look into the data folder, and this one may not change that.
    #[error(
        "the data folder {path} is open to other users (mode {mode:03o}) and cannot be closed to them: {source}. Run chmod 700 \
         {path} as its owner, or choose another with --data-dir"
    )]
    Exposed {
        /// Which folder.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
        /// Why.
        source: std::io::Error,
    },
    /// The identity cannot be read or made.
    #[error(transparent)]
    Identity(#[from] identity::IdentityError),
    /// The operator key cannot be read or made.
    #[error(transparent)]
    OperatorKey(#[from] OperatorKeyError),
    /// The database does not open.
    #[error(transparent)]
    Database(#[from] debros_engine::embedded::EngineOpenError),
    /// Access tokens cannot be signed, or sign-in has no secret.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The cluster's key cannot be read.
    #[error(transparent)]
    ClusterKey(#[from] ClusterKeyError),
    /// The node cannot be a node of its cluster, or of the one of its join token.
    #[error("the node cannot be part of the cluster: {0}")]
    Cluster(debros_proto::Error),
    /// The node does not take part in the cluster's database.
    #[error("the node cannot take part in the cluster's database: {0}")]
    Replication(#[from] ReplicationStartError),
    /// What is known of the database's folder cannot be read or written.
    #[error(transparent)]
    LocalState(#[from] debros_cluster::LocalStateError),
    /// A node that has data of its own cannot join a cluster: the cluster's data would take its
    /// place.
    #[error(
        "{path} holds data of this node's own, in whose place the cluster's would be put: start the node with --join and an empty \
         data folder, or take the data along with network-cli db export"
    )]
    HasData {
        /// The database's folder.
        path: PathBuf,
    },
    /// The P2P host does not start.
    #[error(transparent)]
    Host(#[from] debros_p2p::HostStartError),
    /// The node listens, but cannot say where.
    #[error("the file {path} cannot be written: {source}")]
    PeerInfo {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Starts a node, on an engine of its own unless there is one.
pub(crate) async fn start(
    config: NodeConfig,
    shared: Option<Arc<dyn Engine>>,
) -> Result<Node, NodeStartError> {
    make_folder(&config.data_dir)?;
    let record = RunRecord::begin(&config);
    let mut node = start_recorded(config, shared, record.clone()).await?;
    record.note(RunPhase::Ready);
    node.record = record;
    Ok(node)
}

async fn start_recorded(
    config: NodeConfig,
    shared: Option<Arc<dyn Engine>>,
    record: RunRecord,
) -> Result<Node, NodeStartError> {
    let keypair = identity::load_or_create(&config.data_dir.join("identity.key"))?;
    let operator_credential = operator_key::load_or_create(&config.data_dir)?;
    if let Some(engine) = shared {
        let database = NodeDatabase { owns_engine: false, ..NodeDatabase::alone(engine) };
        return start_with(config, keypair, operator_credential, database).await;
    }
    loop {
        // First: between two of its steps there is no database where one is looked for.
        let rqlited = finish_reseeding(&config, &keypair, &operator_credential).await?;
        // A node that keeps its data alone joins as what it is, below.
        let is_of_cluster = config.cluster.join.is_some() || has_register(&config);
        let takes_data = config.cluster.is_wanted && is_of_cluster;
        if takes_data
            && LocalState::read(&config.database.data_dir)?.is_none()
            && let Some(relay) = enter_cluster(&config, &keypair, &operator_credential).await?
        {
            return start_with(register_config(&config), keypair, operator_credential, relay).await;
        }
        let own = keypair.public().to_peer_id();
        let database = open_database(&config, own, rqlited, &record).await?;
        let is_replicated = database.replication.is_some();
        let started =
            start_with(config.clone(), keypair.clone(), operator_credential.clone(), database);
        match started.await {
            Err(error) if is_replicated && needs_copy(&config) => {
                tracing::warn!(%error, "the node does not start with the files that it has");
            }
            started => return started,
        }
    }
}

/// Whether the files that a start was tried with have to be replaced.
fn needs_copy(config: &NodeConfig) -> bool {
    ReseedRecord::read(&config.data_dir).is_ok_and(|record| record.pending.is_some())
}

/// What a node keeps its data with.
struct NodeDatabase {
    engine: Arc<dyn Engine>,
    replication: Option<(Arc<Replication>, MembersLink)>,
    /// The engine is closed with the node.
    owns_engine: bool,
    /// It holds none of the cluster's data, only the register.
    is_relay: bool,
    /// False: it is there only until the cluster's data is.
    serves_callers: bool,
}

impl NodeDatabase {
    /// An engine of the node's own, in no cluster's database.
    fn alone(engine: Arc<dyn Engine>) -> Self {
        Self { engine, replication: None, owns_engine: true, is_relay: false, serves_callers: true }
    }

    async fn close(&self, deadline: Instant) {
        if self.owns_engine {
            self.engine.close_by(deadline).await;
        }
        if let Some((replication, _)) = &self.replication {
            replication.stop().await;
        }
    }
}

/// Where a node of a cluster keeps the register while it holds none of the data: as a relay, and
/// before its copy of the data is there.
fn register_folder(config: &NodeConfig) -> PathBuf {
    config.database.data_dir.with_extension("register")
}

/// Whether the node is of a cluster, and holds none of its data.
fn has_register(config: &NodeConfig) -> bool {
    config.cluster.key_file.exists() && register_folder(config).exists()
}

/// The configuration of a node on that folder.
fn register_config(config: &NodeConfig) -> NodeConfig {
    let mut alone = config.clone();
    alone.database.data_dir = register_folder(config);
    // There is nothing that is not elsewhere too.
    alone.database.backup_interval = None;
    alone
}

async fn open_register(config: &NodeConfig) -> Result<NodeDatabase, NodeStartError> {
    let engine = engine_config(&register_config(config), config.data_dir.join("register.files"));
    Ok(NodeDatabase::alone(Arc::new(open_embedded(engine).await?)))
}

/// Enters the cluster of the token, unless the node is in it, and copies its data; the node serves
/// nobody meanwhile. `Some`: the node is a relay, and this is what it has.
async fn enter_cluster(
    config: &NodeConfig,
    keypair: &Keypair,
    operator_credential: &str,
) -> Result<Option<NodeDatabase>, NodeStartError> {
    let target = &config.database.data_dir;
    if target.join("system.db").exists() {
        return Err(NodeStartError::HasData { path: target.clone() });
    }
    let folder_error = |source| NodeStartError::DataDir { path: target.clone(), source };
    let (register, copy) = (register_folder(config), target.with_extension("copy"));
    remove_folder(&copy).map_err(folder_error)?;
    // Without the key the node is in no cluster, and what is there is of an attempt before.
    if !has_register(config) {
        remove_register(config).map_err(folder_error)?;
    }
    make_folder(&register)?;
    let database = open_register(config).await?;
    let own = keypair.public().to_peer_id();
    if known_role(&database.engine, config, &own).await == Some(NodeRole::Relay) {
        return Ok(Some(NodeDatabase { is_relay: true, ..database }));
    }
    make_folder(&copy)?;
    let node = start_with(
        register_config(config),
        keypair.clone(),
        operator_credential.to_owned(),
        NodeDatabase { serves_callers: false, ..database },
    )
    .await?;
    let cluster = &node.dispatcher.services.cluster;
    let fetched = match cluster.own_role() {
        Some(NodeRole::Relay) => Ok(None),
        _ => cluster.fetch_data(&copy).await.map(Some),
    };
    node.shutdown(Instant::now() + Duration::from_secs(5)).await;
    let Some(state) = fetched.map_err(NodeStartError::Cluster)? else {
        remove_folder(&copy).map_err(folder_error)?;
        tracing::info!(
            "the cluster has as many nodes that hold the data as it is to have: this one is a relay"
        );
        return Ok(Some(NodeDatabase { is_relay: true, ..open_register(config).await? }));
    };
    state.write(&copy)?;
    std::fs::rename(&copy, target).map_err(folder_error)?;
    if let Err(error) = remove_register(config) {
        tracing::warn!(%error, folder = %register.display(), "a folder that is not needed any more cannot be removed");
    }
    Ok(None)
}

fn remove_register(config: &NodeConfig) -> std::io::Result<()> {
    remove_folder(&register_folder(config))?;
    remove_file(&config.data_dir.join("register.files"))
}

/// Removes a folder, if it is there.
fn remove_folder(folder: &Path) -> std::io::Result<()> {
    ignore_missing(std::fs::remove_dir_all(folder))
}

/// Removes a file, if it is there.
fn remove_file(file: &Path) -> std::io::Result<()> {
    ignore_missing(std::fs::remove_file(file))
}

fn ignore_missing(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn start_with(
    config: NodeConfig,
    keypair: Keypair,
    operator_credential: String,
    database: NodeDatabase,
) -> Result<Node, NodeStartError> {
    let engine = Arc::clone(&database.engine);
    let owns_engine = database.owns_engine;
    let started = start_services(config, keypair, operator_credential, &database).await;
    match started {
        Ok(parts) => Ok(Node {
            host: parts.host,
            dispatcher: parts.dispatcher,
            engine,
            owns_engine,
            replication: database.replication.map(|(replication, _)| replication),
            background_tasks: parts.background_tasks,
            operator_credential: parts.operator_credential,
            peer_info: parts.peer_info,
            record: RunRecord::default(),
        }),
        Err(error) => {
            database.close(Instant::now() + Duration::from_secs(5)).await;
            Err(error)
        }
    }
}

struct StartedParts {
    host: Host,
    dispatcher: Arc<CallDispatcher>,
    background_tasks: BackgroundTasks,
    operator_credential: String,
    peer_info: PathBuf,
}

async fn start_services(
    config: NodeConfig,
    keypair: Keypair,
    operator_credential: String,
    database: &NodeDatabase,
) -> Result<StartedParts, NodeStartError> {
    let NodeDatabase { engine, replication, is_relay, .. } = database;
    let peer_id = keypair.public().to_peer_id();
    let node_id =
        if config.node_id.is_empty() { peer_id.to_string() } else { config.node_id.clone() };
    let cluster = ClusterSetup {
        engine: Arc::clone(engine),
        clock: config.clock.clone(),
        peer_id,
        name: node_id.clone(),
        version: config.build.version.clone(),
        key_path: config.cluster.key_file.clone(),
        replication: replication.as_ref().map(|(replication, _)| Arc::clone(replication)),
        data_dir: config.data_dir.clone(),
        is_relay: *is_relay,
        database_dir: config.database.data_dir.clone(),
    };
    let cluster = Arc::new(ClusterService::load(cluster, &config.cluster)?);
    let host_config = HostConfig {
        keypair,
        listen: config.listen_addresses.clone(),
        max_connections: config.max_connections,
        agent: format!("debros/{}", config.build.version),
        idle_timeout: IDLE_TIMEOUT,
        limits: PeerLimits::default(),
    };
    // What the node needs for its services may be on another node, which it reaches over the host.
    let late = Arc::new(LateHandler::default());
    let host = Host::start(host_config, Some(Arc::clone(&late) as _)).await?;
    let stop = async |error| {
        cluster.stop().await;
        host.shutdown(Instant::now() + Duration::from_secs(1)).await;
        Err(error)
    };
    if let Some((replication, link)) = replication {
        link.set_members(Arc::clone(&cluster.members));
        if let Err(error) = cluster.start(host.clone(), config.cluster.join.as_ref()).await {
            return stop(NodeStartError::Cluster(error)).await;
        }
        replication.wait_for_leader().await;
        if let Some(need) = replication.wait_first_look().await
            && cluster.begin_reseeding(&need).is_ok()
        {
            let error = Error::new(Code::Unavailable, need.message);
            return stop(NodeStartError::Cluster(error)).await;
        }
    }
    let auth_db = AuthDb::new(
        Arc::clone(engine),
        config.clock.clone(),
        config.open_namespaces.iter().cloned(),
        config.admin_wallets.iter().copied(),
    )
    .shared(replication.is_some());
    let auth = AuthService::start(
        auth_db,
        node_id.clone(),
        &config.data_dir,
        &operator_credential,
        &config.sign_in_domains,
    )
    .await;
    let auth = match auth {
        Ok(auth) => auth,
        Err(error) => return stop(error.into()).await,
    };
    let services = NodeServices {
        cluster: Arc::clone(&cluster),
        engine: Arc::clone(engine),
        hub: Arc::new(TopicHub::default()),
        health: HealthProbe::default(),
        facts: NodeFacts {
            node_id,
            build: config.build.clone(),
            engine: match replication {
                Some(_) => "rqlite",
                None if *is_relay => "relay",
                None => "embedded",
            },
            started: Instant::now(),
            started_at: now_ms(),
        },
        host: OnceLock::new(),
    };
    let relay = is_relay.then(|| Relay::new(Arc::clone(&cluster)));
    let dispatcher =
        Arc::new(CallDispatcher::new(auth, services, operator_credential.clone(), relay));
    // Set once: this is the only place.
    let _ = dispatcher.services.host.set(host.clone());
    if !database.serves_callers {
        dispatcher.refuse_callers();
    }
    late.set_handler(RpcHandler(Arc::clone(&dispatcher)));
    match replication {
        Some((replication, _)) => replication.database.begin_serving(),
        None => {
            if let Err(error) = cluster.start(host.clone(), config.cluster.join.as_ref()).await {
                return stop(NodeStartError::Cluster(error)).await;
            }
        }
    }
    let path = config.data_dir.join("peer.info");
    let addresses = host.listen_addresses();
    let written = peer_info::best_local_address(&addresses)
        .map_or(Ok(()), |address| peer_info::write(&path, address));
    match written {
        // On a full disk a node that reads and deletes is needed. An address in an old file is
        // tried before it is used.
        Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            tracing::warn!(path = %path.display(), %error, "programs on this machine may not find the node");
        }
        Err(source) => return stop(NodeStartError::PeerInfo { path, source }).await,
        Ok(()) => {}
    }
    let background_tasks = BackgroundTasks::start(&config, &dispatcher, &host);
    Ok(StartedParts { host, dispatcher, background_tasks, operator_credential, peer_info: path })
}

/// The folder holds secrets: only its owner may look inside. One that is there and open to others
/// is closed to them, which the system lets its owner do.
fn make_folder(path: &Path) -> Result<(), NodeStartError> {
    let unusable = |source| NodeStartError::DataDir { path: path.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(PRIVATE).create(path).map_err(unusable)?;
    let mode = std::fs::metadata(path).map_err(unusable)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(PRIVATE))
            .map_err(|source| NodeStartError::Exposed { path: path.to_owned(), mode, source })?;
        tracing::warn!(folder = %path.display(), mode = format!("{mode:03o}"), "the data folder was open to other users, and is closed to them now");
    }
    Ok(())
}

/// Opens the database: with its part in the cluster's, when its folder belongs to one.
async fn open_database(
    config: &NodeConfig,
    peer_id: PeerId,
    running: Option<Rqlited>,
    record: &RunRecord,
) -> Result<NodeDatabase, NodeStartError> {
    // Not among the databases: it is there when their disk is not.
    let engine = engine_config(config, config.data_dir.join("database.files"));
    let folder = &config.database.data_dir;
    let state = if config.cluster.is_wanted { LocalState::read(folder)? } else { None };
    let Some(state) = state else {
        if LocalState::set_aside(folder)? {
            tracing::warn!(
                folder = %folder.display(),
                "the database was a cluster's; from now on it is this node's alone, and does not go back into the cluster"
            );
        }
        let engine = Arc::new(open_embedded(engine).await?);
        return Ok(NodeDatabase::alone(engine));
    };
    let keyring = Keyring::load(&config.cluster.key_file)?
        .ok_or_else(|| NodeStartError::Cluster(key_missing_error(&state.cluster, config)))?;
    let rqlited = match running {
        Some(rqlited) => rqlited,
        None => {
            record.note(RunPhase::WaitingForMajority);
            start_rqlited(config, peer_id, &keyring, &state).await?
        }
    };
    let link = MembersLink::default();
    let replication =
        Replication::open(config, engine, peer_id, rqlited, state, link.clone(), record).await?;
    let engine = replication.database.engine();
    let replication = Arc::new(replication);
    tokio::spawn(Replication::hand_over_when_unfit(Arc::downgrade(&replication)));
    let replication = Some((replication, link));
    Ok(NodeDatabase { replication, ..NodeDatabase::alone(engine) })
}

/// What a node keeps that is alone must not be written to a database of a cluster.
fn key_missing_error(cluster: &str, config: &NodeConfig) -> Error {
    Error::new(
        Code::Conflict,
        format!(
            "the database {} belongs to the cluster {}, whose key is not in {}: put the key there, or start the node with \
             database.engine: embedded to have it alone for good",
            config.database.data_dir.display(),
            cluster,
            config.cluster.key_file.display()
        ),
    )
}

pub(crate) fn engine_config(config: &NodeConfig, file_record: PathBuf) -> EmbeddedConfig {
    let mut engine = EmbeddedConfig::new(config.database.data_dir.clone());
    engine.max_size = config.database.max_size;
    engine.max_namespace_size = config.database.max_namespace_size;
    engine.max_owner_size = config.database.max_owner_size;
    engine.max_memory = config.database.max_memory;
    engine.max_temp_size = config.database.max_temp_size;
    engine.open_databases = config.database.open_databases;
    engine.backup_dir = config.data_dir.join("backups");
    engine.file_record = file_record;
    engine
}

async fn open_embedded(engine: EmbeddedConfig) -> Result<EmbeddedEngine, NodeStartError> {
    // Opening may check a whole database after a crash: not a thing for a thread that serves
    // others.
    let opened = tokio::task::spawn_blocking(move || EmbeddedEngine::open(engine)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
