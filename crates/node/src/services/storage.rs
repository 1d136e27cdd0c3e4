//! Key-value pairs.

use super::{ServiceReply, parse_consistency};
use crate::caller::Caller;
use debros_engine::{CallOptions, Engine};
use debros_proto::limits::{DEFAULT_LIST_LIMIT, MAX_KEY_BYTES, MAX_LIST_LIMIT, MAX_VALUE_BYTES};
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Key, Result};

pub(super) async fn put(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::PutRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    let key = Key::new(&request.key)?;
    let size = request.value.len();
    if size > MAX_VALUE_BYTES {
        let message = format!("the value has {size} bytes: at most {MAX_VALUE_BYTES} are allowed");
        return Err(Error::new(Code::TooLarge, message));
    }
    if request.ttl_seconds == Some(0) {
        return Err(Error::invalid("ttl is 0: it takes at least 1 second"));
    }
    let condition = request.condition.unwrap_or_default();
    let written = engine
        .kv_put(caller.namespace()?, &key, request.value, condition, request.ttl_seconds, options)
        .await?;
    Ok(ServiceReply::from_write(written, |version| {
        response::Result::Put(rpc::PutResponse { version, size: size as u64 })
    }))
}

pub(super) async fn get(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::GetRequest,
    mut options: CallOptions,
) -> Result<ServiceReply> {
    options.consistency = parse_consistency(request.consistency)?;
    let entry = engine.kv_get(caller.namespace()?, &Key::new(&request.key)?, options).await?;
    Ok(response::Result::Get(rpc::GetResponse { entry }).into())
}

pub(super) async fn delete(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::DeleteRequest,
    options: CallOptions,
) -> Result<ServiceReply> {
    let condition = request.condition.unwrap_or_default();
    let written =
        engine.kv_delete(caller.namespace()?, &Key::new(&request.key)?, condition, options).await?;
    Ok(ServiceReply::from_write(written, |deleted| {
        response::Result::Delete(rpc::DeleteResponse { deleted })
    }))
}

pub(super) async fn exists(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::ExistsRequest,
    mut options: CallOptions,
) -> Result<ServiceReply> {
    options.consistency = parse_consistency(request.consistency)?;
    let exists = engine.kv_exists(caller.namespace()?, &Key::new(&request.key)?, options).await?;
    Ok(response::Result::Exists(rpc::ExistsResponse { exists }).into())
}

pub(super) async fn list(
    engine: &dyn Engine,
    caller: &Caller,
    request: rpc::ListRequest,
    mut options: CallOptions,
) -> Result<ServiceReply> {
    options.consistency = parse_consistency(request.consistency)?;
    if request.prefix.len() > MAX_KEY_BYTES {
        return Err(Error::invalid(format!(
            "the prefix has more than {MAX_KEY_BYTES} bytes: no key is that long"
        )));
    }
    let limit = match request.limit {
        0 => DEFAULT_LIST_LIMIT,
        limit @ 1..=MAX_LIST_LIMIT => limit,
        limit => {
            return Err(Error::invalid(format!(
                "limit is {limit}: it takes 1 to {MAX_LIST_LIMIT}"
            )));
        }
    };
    let after = (!request.cursor.is_empty()).then(|| last_key_of(&request.cursor)).transpose()?;
    let page = engine
        .kv_list(caller.namespace()?, &request.prefix, after.as_deref(), limit as usize, options)
        .await?;
    let next_cursor =
        page.keys.last().filter(|_| page.more).map(|key| cursor_after(key)).unwrap_or_default();
    Ok(response::Result::List(rpc::ListResponse { keys: page.keys, next_cursor }).into())
}

/// A cursor is the page's last key in base64: opaque to the caller, so that its form can change.
fn cursor_after(key: &str) -> String {
    debros_proto::json::encode_base64(key.as_bytes())
}

fn last_key_of(cursor: &str) -> Result<String> {
    let bad =
        || Error::invalid("the cursor is not one that a list returned: start again without it");
    let bytes = debros_proto::json::decode_base64(cursor).map_err(|_| bad())?;
    let key = String::from_utf8(bytes).map_err(|_| bad())?;
    Key::new(&key).map_err(|_| bad())?;
    Ok(key)
}
