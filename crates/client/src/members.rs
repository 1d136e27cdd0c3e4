//! Who may act in a namespace.

use crate::{Client, Error, Result, expect_answer};
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Member};

/// The wallets that may act in the caller's namespace. For its owner and its admins.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    pub(crate) client: &'a Client,
}

impl Members<'_> {
    /// The owner, then the others in order of their wallets.
    ///
    /// # Errors
    /// `forbidden`.
    pub async fn list(&self) -> Result<Vec<Member>> {
        expect_answer!(
            self.client.call(Call::ListMembers(rpc::ListMembersRequest {})).await?,
            ListMembers
        )
        .map(|answer| answer.members)
    }

    /// Gives a wallet a role (`reader`, `writer` or `admin`) in place of the one that it had. Only
    /// the owner gives or takes `admin`.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`.
    pub async fn set(&self, wallet: impl Into<String>, role: impl Into<String>) -> Result<Member> {
        let request = rpc::SetMemberRequest { wallet: wallet.into(), role: role.into() };
        let answer = expect_answer!(self.client.call(Call::SetMember(request)).await?, Member)?;
        answer.member.ok_or_else(|| Error::internal("the node answered without the member"))
    }

    /// Takes a wallet's role away; false when it had none. Its sessions and keys stop working
    /// within 5 seconds.
    ///
    /// # Errors
    /// `forbidden`, `invalid_argument`.
    pub async fn remove(&self, wallet: impl Into<String>) -> Result<bool> {
        let request = rpc::RemoveMemberRequest { wallet: wallet.into() };
        expect_answer!(self.client.call(Call::RemoveMember(request)).await?, RemoveMember)
            .map(|answer| answer.removed)
    }
}
