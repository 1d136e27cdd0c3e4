//! The engine's side of a cluster: what a transaction has changed is recorded, and what others have
//! changed is applied.

mod apply;
mod automatic_merges;
mod change_set;
mod checksum;
mod file_image;
mod position;
mod recorded_size;
mod recorder;
mod sequences;
mod table_shape;

pub(super) use apply::EntryApplier;
pub(super) use change_set::ChangeSet;
pub(super) use checksum::FileSnapshot;
pub(super) use file_image::FileImage;
pub(super) use position::{prepare_position, read_position, write_position};
pub(super) use recorded_size::RecordingLimit;
pub(super) use recorder::{ChangeRecorder, RecordedDdl, RecorderMark};
pub(super) use table_shape::NamelessRowid;
