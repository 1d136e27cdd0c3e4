//! The cluster, with real nodes in one process: who gets in, who is a node to whom, and who comes
//! back.

mod healing;
mod joining;
mod names_and_identities;
mod proofs;
mod removal;
mod support;
