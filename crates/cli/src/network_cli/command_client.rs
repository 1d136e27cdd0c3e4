//! With whose credential a command calls: the user's, or that of the node's operator.
//!
//! A command asks for its client before it reads any input: one that finds no credential may run a
//! second time, after a sign-in.

use super::node_connection::{DEFAULT_NAMESPACE, NodeConnection};
use super::output::{print_note, printable};
use crate::cli_error::CliError;
use crate::credentials::CredentialFile;
use debros_client::{Client, Code, Error};

const OPERATOR_WAY: &str = "with --operator the command acts as the node's operator";

impl NodeConnection {
    /// With the user's credential.
    pub(super) async fn user_client(&self) -> Result<Client, CliError> {
        Ok(self.client_with(self.credential().await?))
    }

    /// With the operator's credential, when this user may read it on this machine; else with the
    /// user's own.
    pub(super) async fn operator_client(&self) -> Result<Client, CliError> {
        match self.operator_credential()? {
            Some(credential) => Ok(self.client_with(&credential)),
            None => self.user_client().await,
        }
    }

    /// To change what a namespace's admins may change, and the operator in their place: with the
    /// operator's credential when that is asked for, else with the user's own and no other, so that
    /// no command writes as the operator by accident. The operator has no namespace of its own, so
    /// one has to be named.
    pub(super) async fn manager_client(&self, as_operator: bool) -> Result<Client, CliError> {
        if as_operator {
            let namespace = self.namespace.clone().ok_or_else(|| {
                CliError::usage(
                    "--operator: the namespace to act in has to be named, for the operator has none of its own",
                )
                .with_hint("add --namespace NAME; `network-cli namespace list --operator` lists them")
            })?;
            return self.strict_operator_client(namespace);
        }
        match self.broadest_credential().await? {
            Some(credential) => Ok(self.client_with(&credential)),
            None => {
                self.user_client().await.map_err(|cli_error| self.with_operator_hint(cli_error))
            }
        }
    }

    /// To read the same. Where nothing at all is stored for the node, the operator's credential
    /// serves as well, and a note says so; a user that is signed in anywhere on the node reads as
    /// that wallet or not at all.
    pub(super) async fn reader_client(&self, as_operator: bool) -> Result<Client, CliError> {
        if !as_operator && self.may_serve_as_operator().await? {
            let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            print_note(&printable(&format!(
                "acting as the node's operator in the namespace {namespace}"
            )));
            return self.strict_operator_client(namespace.to_owned());
        }
        self.manager_client(as_operator).await
    }

    /// To list namespaces: as [`reader_client`](NodeConnection::reader_client), but the operator
    /// names none, for it sees all.
    pub(super) async fn namespace_list_client(
        &self,
        as_operator: bool,
    ) -> Result<Client, CliError> {
        if !as_operator {
            if !self.may_serve_as_operator().await? {
                return self.manager_client(false).await;
            }
            print_note("acting as the node's operator");
        }
        self.strict_operator_client(
            self.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
        )
    }

    /// Whether the operator's credential serves a user that has none at all for the node.
    async fn may_serve_as_operator(&self) -> Result<bool, CliError> {
        Ok(self.may_operate()
            && self.broadest_credential().await?.is_none()
            && !self.has_stored_entry()?)
    }

    fn strict_operator_client(&self, namespace: String) -> Result<Client, CliError> {
        let Some(credential) = self.operator_credential()? else {
            return Err(CliError::no_credential("this node's operator.key cannot be read here").with_hint(
                "run this on the node's machine, as the user that the node runs as, with DEBROS_NODE_DATA_DIR set to its \
                 data folder",
            ));
        };
        Ok(self.scoped_client(&credential, namespace))
    }

    /// Whether any credential is stored for the node, in whichever namespace.
    fn has_stored_entry(&self) -> Result<bool, CliError> {
        Ok(CredentialFile::in_home()?.entries()?.iter().any(|entry| entry.peer_id == self.peer_id))
    }

    /// The node's error; one that the operator would not get names the option.
    pub(super) fn permission_error(&self, error: Error) -> CliError {
        let is_forbidden = error.code == Code::Forbidden;
        let cli_error = CliError::from(error);
        if is_forbidden && self.may_operate() {
            cli_error.with_hint(OPERATOR_WAY)
        } else {
            cli_error
        }
    }

    /// Adds the other way there is on the node's machine.
    fn with_operator_hint(&self, cli_error: CliError) -> CliError {
        if !self.may_operate() {
            return cli_error;
        }
        let hint = match &cli_error.hint {
            Some(hint) => format!("{hint}; {OPERATOR_WAY}"),
            None => OPERATOR_WAY.to_owned(),
        };
        cli_error.with_hint(hint)
    }
}
