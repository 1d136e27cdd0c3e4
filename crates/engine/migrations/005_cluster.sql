-- The nodes of the cluster, those that were removed among them: a removed peer id never comes back. A node makes these tables
-- itself when it becomes part of a cluster, so they may be there.
CREATE TABLE IF NOT EXISTS nodes (
    peer_id TEXT PRIMARY KEY NOT NULL,
    name TEXT NOT NULL,
    -- Multiaddrs with the peer id, a JSON array.
    addresses TEXT NOT NULL,
    -- Where other nodes reach its Raft port; empty: nowhere.
    raft_address TEXT NOT NULL DEFAULT '',
    -- voter, replica or relay.
    role TEXT NOT NULL,
    version TEXT NOT NULL DEFAULT '',
    joined_at INTEGER NOT NULL,
    removed_at INTEGER,
    updated_at INTEGER NOT NULL
) WITHOUT ROWID;

-- Secrets that let one new node in, until they expire. SHA-256; the secret itself is never stored.
CREATE TABLE IF NOT EXISTS join_tokens (
    hash BLOB PRIMARY KEY NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    -- The node that it let in. It may show the token again.
    used_by TEXT,
    used_at INTEGER
) WITHOUT ROWID;
