-- Namespaces by who is somebody in them, and what goes with a namespace that is deleted.
CREATE INDEX namespaces_owner ON namespaces (owner);
CREATE INDEX grants_wallet ON grants (wallet, namespace);
CREATE INDEX sessions_namespace ON sessions (namespace);
