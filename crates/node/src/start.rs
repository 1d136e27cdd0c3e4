//! Starting a node, step by step.

use crate::Node;
use crate::auth::{AuthDb, AuthService, SigningError};
use crate::background_tasks::BackgroundTasks;
use crate::cluster::{ClusterKeyError, ClusterService, ClusterSetup};
use crate::config::NodeConfig;
use crate::dispatcher::{CallDispatcher, RpcHandler};
use crate::health::HealthProbe;
use crate::operator_key::{self, OperatorKeyError};
use crate::pubsub::TopicHub;
use crate::services::{NodeFacts, NodeServices};
use debros_engine::Engine;
use debros_engine::embedded::{EmbeddedConfig, EmbeddedEngine};
use debros_p2p::{Host, HostConfig, Keypair, PeerLimits, identity, peer_info};
use debros_proto::now_ms;
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
    let keypair = identity::load_or_create(&config.data_dir.join("identity.key"))?;
    let operator_credential = operator_key::load_or_create(&config.data_dir)?;
    let owns_engine = shared.is_none();
    let engine: Arc<dyn Engine> = match shared {
        Some(engine) => engine,
        None => Arc::new(open_database(&config).await?),
    };
    let started =
        start_with(config, keypair, operator_credential, Arc::clone(&engine), owns_engine).await;
    if started.is_err() && owns_engine {
        engine.close().await;
    }
    started
}

async fn start_with(
    config: NodeConfig,
    keypair: Keypair,
    operator_credential: String,
    engine: Arc<dyn Engine>,
    owns_engine: bool,
) -> Result<Node, NodeStartError> {
    let peer_id = keypair.public().to_peer_id();
    let node_id =
        if config.node_id.is_empty() { peer_id.to_string() } else { config.node_id.clone() };
    let auth_db = AuthDb::new(
        Arc::clone(&engine),
        config.clock.clone(),
        config.open_namespaces.iter().cloned(),
        config.admin_wallets.iter().copied(),
    );
    let auth = AuthService::start(
        auth_db,
        node_id.clone(),
        &config.data_dir,
        &operator_credential,
        &config.sign_in_domains,
    )
    .await?;
    let cluster = ClusterSetup {
        engine: Arc::clone(&engine),
        clock: config.clock.clone(),
        peer_id,
        name: node_id.clone(),
        version: config.build.version.clone(),
        key_path: config.cluster.key_file.clone(),
    };
    let cluster = Arc::new(ClusterService::load(cluster, &config.cluster)?);
    let services = NodeServices {
        cluster: Arc::clone(&cluster),
        engine: Arc::clone(&engine),
        hub: Arc::new(TopicHub::default()),
        health: HealthProbe::default(),
        facts: NodeFacts {
            node_id,
            build: config.build.clone(),
            engine: "embedded",
            started: Instant::now(),
            started_at: now_ms(),
        },
        host: OnceLock::new(),
    };
    let dispatcher = Arc::new(CallDispatcher::new(auth, services));

    let host_config = HostConfig {
        keypair,
        listen: config.listen_addresses.clone(),
        max_connections: config.max_connections,
        agent: format!("debros/{}", config.build.version),
        idle_timeout: IDLE_TIMEOUT,
        limits: PeerLimits::default(),
    };
    let host =
        Host::start(host_config, Some(Arc::new(RpcHandler(Arc::clone(&dispatcher))))).await?;
    // Set once: this is the only place.
    let _ = dispatcher.services.host.set(host.clone());

    if let Err(error) = cluster.start(host.clone(), config.cluster.join.as_ref()).await {
        cluster.stop().await;
        host.shutdown(Instant::now() + Duration::from_secs(1)).await;
        return Err(NodeStartError::Cluster(error));
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
        Err(source) => {
            cluster.stop().await;
            host.shutdown(Instant::now() + Duration::from_secs(1)).await;
            return Err(NodeStartError::PeerInfo { path, source });
        }
        Ok(()) => {}
    }
    let background_tasks = BackgroundTasks::start(&config, &dispatcher, &host);
    Ok(Node {
        host,
        dispatcher,
        engine,
        owns_engine,
        background_tasks,
        operator_credential,
        peer_info: path,
    })
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

async fn open_database(config: &NodeConfig) -> Result<EmbeddedEngine, NodeStartError> {
    let mut engine = EmbeddedConfig::new(config.database.data_dir.clone());
    engine.max_size = config.database.max_size;
    engine.max_namespace_size = config.database.max_namespace_size;
    engine.max_owner_size = config.database.max_owner_size;
    engine.max_memory = config.database.max_memory;
    engine.max_temp_size = config.database.max_temp_size;
    engine.open_databases = config.database.open_databases;
    engine.backup_dir = config.data_dir.join("backups");
    // Not among the databases: it is there when their disk is not.
    engine.file_record = config.data_dir.join("database.files");
    // Opening may check a whole database after a crash: not a thing for a thread that serves
    // others.
    let opened = tokio::task::spawn_blocking(move || EmbeddedEngine::open(engine)).await;
    match opened {
        Ok(opened) => Ok(opened?),
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
