//! A peer that speaks libp2p well and the RPC protocol as badly as a test wants.
