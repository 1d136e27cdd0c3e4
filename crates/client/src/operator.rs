//! What only operators may do.

use crate::{Client, Error, Result, expect_answer};
use debros_p2p::EventStream;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Backup, CreateApiKeyResponse, Event, SigningKey};
use futures::StreamExt as _;

/// What only operators may do: API keys for any namespace, backups, dialling peers, signing keys.
#[derive(Clone, Copy, Debug)]
pub struct Operator<'a> {
    pub(crate) client: &'a Client,
}

/// The events of a long operation: `progress`, `chunk`, and at the end `done`.
#[derive(Debug)]
pub struct Transfer {
    events: EventStream,
}

impl Transfer {
    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        self.events.next().await
    }
}

impl Operator<'_> {
    /// Makes an API key for a namespace. The key is returned this once; only its hash is kept.
    ///
    /// `role` is `reader`, `writer` or `admin`; no scopes: everything the role allows.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`.
    pub async fn create_api_key(
        &self,
        namespace: impl Into<String>,
        name: impl Into<String>,
        role: impl Into<String>,
        scopes: Vec<String>,
    ) -> Result<CreateApiKeyResponse> {
        let create = rpc::CreateApiKeyRequest {
            namespace: namespace.into(),
            name: name.into(),
            role: role.into(),
            scopes,
        };
        expect_answer!(self.client.call(Call::CreateApiKey(create)).await?, CreateApiKey)
    }

    /// Makes the node sign access tokens with a new key. Tokens signed with the old one stay valid.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn rotate_signing_key(&self) -> Result<SigningKey> {
        let answer =
            self.client.call(Call::RotateSigningKey(rpc::RotateSigningKeyRequest {})).await?;
        let answer = expect_answer!(answer, RotateSigningKey)?;
        answer.key.ok_or_else(|| Error::internal("the node answered without the key"))
    }

    /// Stops believing access tokens signed with a key; false when there was no such key or it was
    /// removed before.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn remove_signing_key(&self, kid: impl Into<String>) -> Result<bool> {
        let request = rpc::RemoveSigningKeyRequest { kid: kid.into() };
        expect_answer!(self.client.call(Call::RemoveSigningKey(request)).await?, RemoveSigningKey)
            .map(|answer| answer.removed)
    }

    /// Lets the node dial a peer and returns its id.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`, `unavailable`.
    pub async fn connect_peer(&self, multiaddr: impl Into<String>) -> Result<String> {
        let connect = rpc::ConnectPeerRequest { multiaddr: multiaddr.into() };
        expect_answer!(self.client.call(Call::ConnectPeer(connect)).await?, ConnectPeer)
            .map(|answer| answer.peer_id)
    }

    /// Lets the node close its connections to a peer; false when there were none.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`.
    pub async fn disconnect_peer(&self, peer_id: impl Into<String>) -> Result<bool> {
        let disconnect = rpc::DisconnectPeerRequest { peer_id: peer_id.into() };
        expect_answer!(self.client.call(Call::DisconnectPeer(disconnect)).await?, DisconnectPeer)
            .map(|answer| answer.disconnected)
    }

    /// Makes a verified copy of everything the node keeps: progress events, then `done` with the
    /// copy.
    ///
    /// # Errors
    /// `forbidden`, `conflict` when another backup, a restore or a deletion is running.
    pub async fn backup(&self) -> Result<Transfer> {
        self.open_transfer(Call::Backup(rpc::BackupRequest {})).await
    }

    /// The copies that the node keeps, newest first.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn backups(&self) -> Result<Vec<Backup>> {
        expect_answer!(
            self.client.call(Call::ListBackups(rpc::ListBackupsRequest {})).await?,
            ListBackups
        )
        .map(|answer| answer.backups)
    }

    /// Verifies a copy and puts it in place of what the node holds: progress events, then `done`.
    ///
    /// # Errors
    /// `forbidden`, `not_found`, `database_corrupt` when a checksum fails.
    pub async fn restore(&self, name: impl Into<String>) -> Result<Transfer> {
        self.open_transfer(Call::Restore(rpc::RestoreRequest { name: name.into() })).await
    }

    /// The namespace's SQL database as one SQLite file: `chunk` events in order, then `done` with
    /// the SHA-256.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn export(&self) -> Result<Transfer> {
        self.open_transfer(Call::Export(rpc::ExportRequest {})).await
    }

    async fn open_transfer(&self, call: Call) -> Result<Transfer> {
        let (response, events) =
            self.client.connections.open(self.client.request(call), self.client.deadline()).await?;
        let answer =
            response.result.ok_or_else(|| Error::internal("the node answered without a result"))?;
        expect_answer!(answer, StreamOpened)?;
        Ok(Transfer { events })
    }
}
