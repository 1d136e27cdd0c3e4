//! Sign-in by wallet, sessions, keys and members, at the node itself: every call over P2P, without
//! any gateway that could check first. Time passes by a clock that the tests put ahead.

mod bounds;
mod keys;
mod members;
mod migration;
mod namespaces;
mod sessions;
mod sign_in;
mod signatures;
mod support;
mod tokens;
