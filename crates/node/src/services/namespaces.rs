//! Namespaces as things: listed with what they hold, described, and deleted as a whole.

use super::NodeServices;
use crate::auth::{AuthService, NamespaceRecord, PageRequest};
use crate::caller::{Caller, Permission, Role};
use debros_engine::{CallOptions, Engine, NamespaceFilter};
use debros_proto::ids::excerpt;
use debros_proto::rpc::{self, response};
use debros_proto::{Code, Error, Namespace, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Namespaces on a page whose size is not named, and the largest page.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;
/// How long a page is filled: a page ends early when looking into its namespaces takes longer.
const PAGE_TIME: Duration = Duration::from_secs(3);

/// A namespace to describe.
struct FoundNamespace {
    namespace: Namespace,
    role: String,
    known: Option<NamespaceRecord>,
}

pub(super) async fn list(
    engine: &dyn Engine,
    auth: &AuthService,
    caller: &Caller,
    request: rpc::ListNamespacesRequest,
    options: CallOptions,
) -> Result<response::Result> {
    let limit = match usize::try_from(request.limit).unwrap_or(usize::MAX) {
        0 => DEFAULT_PAGE,
        limit if limit <= MAX_PAGE => limit,
        limit => {
            return Err(Error::invalid(format!(
                "a page of {limit} namespaces: at most {MAX_PAGE} are allowed"
            )));
        }
    };
    // One more, to know whether more follow.
    let page = PageRequest { prefix: request.prefix, after: request.after, limit: limit + 1 };
    let mut found = if caller.identity().role == Role::Operator {
        all_namespaces(engine, page, &options).await?
    } else {
        namespaces_of_caller(auth, caller, &page).await?
    };
    let mut more = found.len() > limit;
    found.truncate(limit);
    let began = Instant::now();
    let (mut namespaces, mut next) = (Vec::with_capacity(found.len()), String::new());
    for found in found {
        if began.elapsed() > PAGE_TIME && !namespaces.is_empty() {
            more = true;
            break;
        }
        let namespace = found.namespace.clone();
        next = namespace.to_string();
        if auth.check_not_deleting(&namespace).is_err() {
            continue;
        }
        match describe_namespace(engine, auth, found, &options).await {
            Ok(info) => namespaces.push(info),
            // Its deletion began meanwhile.
            Err(_) if auth.check_not_deleting(&namespace).is_err() => {}
            Err(error) => return Err(error),
        }
    }
    if !more {
        next.clear();
    }
    Ok(response::Result::ListNamespaces(rpc::ListNamespacesResponse { namespaces, more, next }))
}

/// Every namespace of the node.
async fn all_namespaces(
    engine: &dyn Engine,
    page: PageRequest,
    options: &CallOptions,
) -> Result<Vec<FoundNamespace>> {
    let after = if page.after.is_empty() { None } else { Some(Namespace::new(&page.after)?) };
    let filter = NamespaceFilter { prefix: page.prefix, after, limit: page.limit };
    let names = engine.namespaces(filter, options.clone()).await?;
    let role = Role::Operator.name();
    Ok(names
        .into_iter()
        .map(|namespace| FoundNamespace { namespace, role: role.to_owned(), known: None })
        .collect())
}

/// A wallet's namespaces, for its session or a key that manages its namespace. Other keys are given
/// to programs and pages, which have no business in the wallet's other namespaces: they see their
/// own.
async fn namespaces_of_caller(
    auth: &AuthService,
    caller: &Caller,
    page: &PageRequest,
) -> Result<Vec<FoundNamespace>> {
    let (identity, own) = (caller.identity(), caller.namespace()?);
    let is_session = matches!(identity.source, crate::caller::CredentialSource::Session { .. });
    let wallet = identity.wallet.filter(|_| is_session || caller.may(Permission::Keys));
    let known = auth.list_namespaces(wallet, own, page).await?;
    let found = known.into_iter().map(|known| {
        // In its own namespace a key may do less than its wallet.
        let role = if known.namespace == *own { Some(identity.role) } else { known.role };
        let role = role.map(|role| role.name().to_owned()).unwrap_or_default();
        FoundNamespace { namespace: known.namespace.clone(), role, known: Some(known) }
    });
    Ok(found.collect())
}

pub(super) async fn get(
    engine: &dyn Engine,
    auth: &AuthService,
    caller: &Caller,
    options: CallOptions,
) -> Result<response::Result> {
    let info = requested_namespace(engine, auth, caller, &options).await?;
    Ok(response::Result::Namespace(rpc::NamespaceResponse { namespace: Some(info) }))
}

pub(super) async fn delete(
    services: &NodeServices,
    auth: &Arc<AuthService>,
    caller: &Caller,
    request: rpc::DeleteNamespaceRequest,
    options: CallOptions,
) -> Result<response::Result> {
    let namespace = caller.namespace()?.clone();
    auth.check_may_delete(caller.identity(), &namespace).await?;
    if request.confirm != namespace.as_str() {
        return Err(Error::invalid(format!(
            "deleting the namespace \"{namespace}\" deletes everything in it: confirm it with its name, not with \"{}\"",
            excerpt(&request.confirm)
        )));
    }
    let deleted = match requested_namespace(&*services.engine, auth, caller, &options).await {
        // A deletion that failed in the middle: this one goes on with it. Or another one is under
        // way, and this one gets an error that says so.
        Err(error) if error.code == Code::Unavailable => {
            let role = caller.identity().role.name().to_owned();
            rpc::NamespaceInfo { name: namespace.to_string(), role, ..Default::default() }
        }
        described => described?,
    };
    let (auth, hub, by) = (Arc::clone(auth), Arc::clone(&services.hub), caller.identity().clone());
    let deadline = options.deadline;
    // A task of its own: once begun it is finished, whether its caller waits for it or not.
    let deletion = tokio::spawn(async move {
        let end = || hub.end_namespace(&namespace);
        auth.delete_namespace(&by, &namespace, deadline, end).await
    });
    deletion.await.unwrap_or_else(|_| {
        Err(Error::internal("the deletion broke off; the node's log has more"))
    })?;
    Ok(response::Result::DeleteNamespace(rpc::DeleteNamespaceResponse { deleted: Some(deleted) }))
}

async fn requested_namespace(
    engine: &dyn Engine,
    auth: &AuthService,
    caller: &Caller,
    options: &CallOptions,
) -> Result<rpc::NamespaceInfo> {
    let namespace = caller.namespace()?.clone();
    let role = caller.identity().role.name().to_owned();
    let found = FoundNamespace { namespace: namespace.clone(), role, known: None };
    let info = describe_namespace(engine, auth, found, options).await?;
    let is_there = !info.owner.is_empty()
        || info.created_at > 0
        || info.sql_bytes > 0
        || info.keys > 0
        || !info.problem.is_empty();
    if is_there {
        Ok(info)
    } else {
        Err(Error::new(
            Code::NotFound,
            format!("there is no namespace \"{namespace}\": nobody has used it yet"),
        ))
    }
}

async fn describe_namespace(
    engine: &dyn Engine,
    auth: &AuthService,
    found: FoundNamespace,
    options: &CallOptions,
) -> Result<rpc::NamespaceInfo> {
    let FoundNamespace { namespace, role, known } = found;
    let known = match known {
        Some(known) => Some(known),
        None => auth.namespace_record(&namespace).await?,
    };
    let holds = engine.namespace_info(&namespace, options.clone()).await.map_err(|error| {
        Error { message: format!("the namespace \"{namespace}\": {}", error.message), ..error }
    })?;
    let (owner, created_at) =
        known.map_or_else(Default::default, |known| (known.owner, known.created_at));
    Ok(rpc::NamespaceInfo {
        name: namespace.to_string(),
        role,
        owner,
        // What was there before the node wrote it down is older than its row.
        created_at: holds.created_at.unwrap_or(created_at),
        sql_bytes: holds.sql_bytes,
        tables: holds.tables,
        rows: holds.rows,
        rows_are_exact: holds.rows_are_exact,
        keys: holds.kv_keys,
        key_bytes: holds.kv_bytes,
        max_bytes: holds.max_bytes,
        // They are counted with each write.
        keys_are_exact: true,
        taken_bytes: holds.taken_bytes,
        free_bytes: holds.free_bytes,
        problem: holds.problem.unwrap_or_default(),
    })
}
