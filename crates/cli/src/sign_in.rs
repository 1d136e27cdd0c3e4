//! Signing in with a private key that this program holds, over P2P and without a gateway.

use debros_auth::PrivateKey;
use debros_auth::challenge::{self, SignInTerms};
use debros_client::rpc::{ChallengeRequest, Proof, SessionResponse};
use debros_client::{Client, Code, Error, Namespace, Result};

/// Opens a session for a wallet in a namespace.
///
/// # Errors
/// What the node says; and `internal` when the node asks for a signature over anything else than
/// this sign-in.
pub(crate) async fn sign_in_with_key(
    client: &Client,
    key: &PrivateKey,
    namespace: &Namespace,
) -> Result<SessionResponse> {
    let wallet = key.wallet();
    let request = ChallengeRequest {
        wallet: wallet.to_string(),
        namespace: namespace.to_string(),
        purpose: "network-cli".to_owned(),
        ..ChallengeRequest::default()
    };
    let asked = client.auth().challenge(request).await?;
    // What is signed is made here: a node that turned bad gets no signature over a text of its
    // choice.
    let terms = SignInTerms::p2p(wallet, namespace.clone());
    let message = challenge::message(&terms, &asked.nonce, asked.issued_at)
        .filter(|text| *text == asked.message);
    let message = message.ok_or_else(|| {
        Error::new(
            Code::Internal,
            "the node asks the wallet to sign another text than that of this sign-in: nothing was signed. Do client and \
             node have the same version?",
        )
    })?;
    let proof = Proof {
        wallet: wallet.to_string(),
        namespace: namespace.to_string(),
        nonce: asked.nonce,
        signature: key.sign_personal(&message),
        ..Proof::default()
    };
    client.auth().sign_in(proof).await
}
