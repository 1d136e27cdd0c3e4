//! The command line of `network-cli auth`.

use super::completion_values;
use crate::arg_parsers::parse_scope;
use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use std::path::PathBuf;

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum AuthCommand {
    /// Signs a wallet in: in the browser, or with a keystore file
    Login(LoginArgs),
    /// Ends the session, and revokes and forgets the wallet's stored API key
    Logout {
        /// Ends all sessions of the wallet in the namespace, those of other programs too
        #[arg(long)]
        all: bool,
    },
    /// Shows whose the credential is and what it allows
    Whoami,
    /// Writes the credential that commands use to stdout
    Token,
    /// Lists the stored wallets and keys; those that commands use are marked
    Wallets,
    /// Makes commands for the node use another stored wallet
    Use {
        /// The wallet, as `auth wallets` shows it; operator: a key that an operator made
        #[arg(add = ArgValueCandidates::new(completion_values::wallets_and_operator))]
        wallet: String,
    },
    /// Wallets in files (Ethereum keystore V3)
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Signs a text with the wallet of a keystore file (personal_sign), for scripts
    Sign {
        #[command(flatten)]
        wallet: KeystoreArgs,
        /// The text; - reads stdin, without a line end at its end
        #[arg(allow_hyphen_values = true)]
        message: String,
    },
    /// API keys of a namespace
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Members: the wallets that may act in a namespace
    #[command(subcommand)]
    Members(MembersCommand),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LoginArgs {
    /// The gateway whose page is opened; else DEBROS_GATEWAY_URL, else that of the node
    #[arg(long, value_name = "URL", conflicts_with = "keystore")]
    pub(crate) gateway: Option<String>,
    /// Only prints the address of the page, for a browser that is opened by hand, and waits; works
    /// without a terminal
    #[arg(long, conflicts_with = "keystore")]
    pub(crate) no_browser: bool,
    /// Signs with this keystore file, without a browser and a gateway
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: Option<PathBuf>,
    /// File with the keystore's password; else DEBROS_KEYSTORE_PASSWORD, else it is asked for
    #[arg(long, value_name = "FILE", requires = "keystore")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct KeystoreArgs {
    /// The keystore file
    #[arg(long, value_name = "FILE")]
    pub(crate) keystore: PathBuf,
    /// File with its password; else DEBROS_KEYSTORE_PASSWORD, else it is asked for
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Makes a wallet, and prints its address
    New {
        /// The file to make; else one in ~/.debros/keystores
        #[arg(long, value_name = "FILE")]
        keystore: Option<PathBuf>,
        /// File with the password to protect it; else DEBROS_KEYSTORE_PASSWORD, else it is asked
        /// for
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Lists the keys, revoked ones too: all for an admin, else the wallet's own
    List {
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
    /// Makes a key; it is shown this once
    Create {
        /// What the key is for
        #[arg(long, default_value = "")]
        name: String,
        /// The highest role that it acts with; else writer, or less where the maker has less
        #[arg(long, value_parser = ["reader", "writer", "admin"])]
        role: Option<String>,
        /// Narrows the role to these, such as db:read,storage:read
        #[arg(long, value_delimiter = ',', value_name = "SCOPE,…", value_parser = parse_scope,
            add = ArgValueCandidates::new(completion_values::scopes))]
        scopes: Vec<String>,
        /// Also stores it for later commands
        #[arg(long)]
        save: bool,
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
    /// Revokes a key by its id
    Revoke {
        /// The id, as the list shows it
        id: String,
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum MembersCommand {
    /// Lists the wallets that may act in the namespace
    List {
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
    /// Gives a wallet a role in place of the one that it had
    Set {
        /// The wallet: 0x and 40 hex digits
        wallet: String,
        /// What it may do
        #[arg(value_parser = ["reader", "writer", "admin"])]
        role: String,
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
    /// Takes a wallet's role away
    ///
    /// A wallet may remove itself, and so leave the namespace, whatever its role.
    Remove {
        /// The wallet
        #[arg(add = ArgValueCandidates::new(completion_values::wallets))]
        wallet: String,
        #[command(flatten)]
        operator_args: OperatorArgs,
    },
}

/// Whether a command manages a namespace as the node's operator.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Acts as the node's operator, on the node's machine, in the --namespace that is named;
    /// without it only reading commands do, where no credential is stored
    #[arg(long)]
    pub(crate) operator: bool,
}
