//! Key-value pairs.

use crate::{Client, Result, expect_answer};
use bytes::Bytes;
use debros_proto::rpc::request::Call;
use debros_proto::rpc::{self, Condition, Consistency, Entry, ListResponse, PutResponse};

/// Key-value pairs in the caller's namespace. Keys: 1 to 1,024 bytes of UTF-8; values: 0 to 4 MiB
/// of any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Storage<'a> {
    pub(crate) client: &'a Client,
}

/// The options of a put.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// Put only when this holds.
    pub condition: Condition,
    /// Forget the value after this many seconds, at least 1.
    pub ttl_seconds: Option<u64>,
}

impl Storage<'_> {
    /// Stores a value. It is durable when this returns.
    ///
    /// # Errors
    /// `invalid_argument`, `too_large`, `forbidden`, `database_full`, `unknown_outcome`, …
    pub async fn put(
        &self,
        key: impl Into<String>,
        value: impl Into<Bytes>,
    ) -> Result<PutResponse> {
        self.put_with(key, value, PutOptions::default()).await
    }

    /// Stores a value under a condition or for a time.
    ///
    /// # Errors
    /// As [`put`](Storage::put), and `precondition_failed`.
    pub async fn put_with(
        &self,
        key: impl Into<String>,
        value: impl Into<Bytes>,
        options: PutOptions,
    ) -> Result<PutResponse> {
        let condition = (options.condition != Condition::default()).then_some(options.condition);
        let put = rpc::PutRequest {
            key: key.into(),
            value: value.into(),
            condition,
            ttl_seconds: options.ttl_seconds,
        };
        expect_answer!(self.client.call(Call::Put(put)).await?, Put)
    }

    /// Reads a value with its version; `None` when the key does not exist.
    ///
    /// # Errors
    /// `invalid_argument`, `forbidden`, `unavailable`, …
    pub async fn get(&self, key: impl Into<String>) -> Result<Option<Entry>> {
        self.get_at(key, Consistency::Weak).await
    }

    /// Reads a value as fresh as requested.
    ///
    /// # Errors
    /// As [`get`](Storage::get).
    pub async fn get_at(
        &self,
        key: impl Into<String>,
        consistency: Consistency,
    ) -> Result<Option<Entry>> {
        let get = rpc::GetRequest { key: key.into(), consistency: consistency.into() };
        expect_answer!(self.client.call(Call::Get(get)).await?, Get).map(|answer| answer.entry)
    }

    /// Deletes a key; false when there was none.
    ///
    /// # Errors
    /// As [`put`](Storage::put).
    pub async fn delete(&self, key: impl Into<String>) -> Result<bool> {
        self.delete_if(key, Condition::default()).await
    }

    /// Deletes a key when a condition holds.
    ///
    /// # Errors
    /// As [`put`](Storage::put), and `precondition_failed`.
    pub async fn delete_if(&self, key: impl Into<String>, condition: Condition) -> Result<bool> {
        let condition = (condition != Condition::default()).then_some(condition);
        let delete = rpc::DeleteRequest { key: key.into(), condition };
        expect_answer!(self.client.call(Call::Delete(delete)).await?, Delete)
            .map(|answer| answer.deleted)
    }

    /// Whether a key exists.
    ///
    /// # Errors
    /// As [`get`](Storage::get).
    pub async fn exists(&self, key: impl Into<String>) -> Result<bool> {
        let exists = rpc::ExistsRequest { key: key.into(), consistency: Consistency::Weak.into() };
        expect_answer!(self.client.call(Call::Exists(exists)).await?, Exists)
            .map(|answer| answer.exists)
    }

    /// A page of the keys that start with `prefix`, in byte order.
    ///
    /// `limit` is 1 to 1,000, 0 means 100. `cursor` is the last page's `next_cursor`, empty for the
    /// first page.
    ///
    /// # Errors
    /// As [`get`](Storage::get).
    pub async fn list(
        &self,
        prefix: impl Into<String>,
        limit: u32,
        cursor: impl Into<String>,
    ) -> Result<ListResponse> {
        let list = rpc::ListRequest {
            prefix: prefix.into(),
            limit,
            cursor: cursor.into(),
            consistency: Consistency::Weak.into(),
        };
        expect_answer!(self.client.call(Call::List(list)).await?, List)
    }
}
