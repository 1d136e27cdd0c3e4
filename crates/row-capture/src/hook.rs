//! The calls to SQLite.

#![allow(unsafe_code)]

use crate::{RowEvent, RowOperation, RowValues, RowVersion, UnreadableRow};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ffi};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

type Callback = unsafe extern "C" fn(
    *mut c_void,
    *mut ffi::sqlite3,
    c_int,
    *const c_char,
    *const c_char,
    i64,
    i64,
);

unsafe extern "C" {
    fn sqlite3_preupdate_hook(
        db: *mut ffi::sqlite3,
        callback: Option<Callback>,
        context: *mut c_void,
    ) -> *mut c_void;
    fn sqlite3_preupdate_old(
        db: *mut ffi::sqlite3,
        column: c_int,
        value: *mut *mut ffi::sqlite3_value,
    ) -> c_int;
    fn sqlite3_preupdate_new(
        db: *mut ffi::sqlite3,
        column: c_int,
        value: *mut *mut ffi::sqlite3_value,
    ) -> c_int;
    fn sqlite3_preupdate_count(db: *mut ffi::sqlite3) -> c_int;
    fn sqlite3_preupdate_blobwrite(db: *mut ffi::sqlite3) -> c_int;
}

/// Under which name the connection keeps the observer.
const CLIENT_DATA: &CStr = c"debros_row_capture";

type Observer = Box<dyn FnMut(&RowEvent<'_>) + Send>;

/// Calls `observer` for each row of the main database that the connection is about to change, until
/// the connection is closed. A later observer takes the place of an earlier one. SQLite does not
/// report its own tables (`sqlite_sequence`, `sqlite_stat1`), nor what statements of the schema do.
///
/// The observer must not use the connection, and a row that it was told of may be taken back with
/// its statement or a savepoint. If it panics, the program ends: the change could be neither kept
/// nor refused.
///
/// # Errors
/// SQLite's, when memory has run out.
pub fn observe_changes(
    connection: &Connection,
    observer: impl FnMut(&RowEvent<'_>) + Send + 'static,
) -> rusqlite::Result<()> {
    // A pointer to the box, because a pointer to a trait object does not fit into one of C's.
    let context = Box::into_raw(Box::new(Box::new(observer) as Observer)).cast::<c_void>();
    // SAFETY: the handle is that of an open connection. The observer is given to the connection,
    // which drops it (`drop_observer`) when it is closed or gets another one, also when this call
    // fails. The hook is set to the new observer right after the old one was dropped, and no
    // statement runs in between, because `Connection` is not shared between threads.
    unsafe {
        let db = connection.handle();
        sqlite3_preupdate_hook(db, None, std::ptr::null_mut());
        let code =
            ffi::sqlite3_set_clientdata(db, CLIENT_DATA.as_ptr(), context, Some(drop_observer));
        if code != ffi::SQLITE_OK {
            return Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
        }
        sqlite3_preupdate_hook(db, Some(report_row), context);
    }
    Ok(())
}

unsafe extern "C" fn drop_observer(context: *mut c_void) {
    // SAFETY: the pointer is the one that `observe_changes` made, and SQLite gives it back once.
    drop(unsafe { Box::from_raw(context.cast::<Observer>()) });
}

unsafe extern "C" fn report_row(
    context: *mut c_void,
    db: *mut ffi::sqlite3,
    operation: c_int,
    database: *const c_char,
    table: *const c_char,
    old_rowid: i64,
    new_rowid: i64,
) {
    // SAFETY: the observer lives as long as the connection, and SQLite calls this from the one
    // thread that runs a statement on it, never from within itself. Both names are strings that
    // live for the call.
    let (observer, database, table) = unsafe {
        (&mut *context.cast::<Observer>(), CStr::from_ptr(database), CStr::from_ptr(table))
    };
    if database != c"main" {
        return;
    }
    // SAFETY: it only looks at the connection whose hook is running.
    let writes_blob = unsafe { sqlite3_preupdate_blobwrite(db) } >= 0;
    let (operation, old_rowid, new_rowid) = match operation {
        // SQLite calls it a DELETE.
        _ if writes_blob => (RowOperation::WriteBlob, old_rowid, old_rowid),
        ffi::SQLITE_INSERT => (RowOperation::Insert, 0, new_rowid),
        ffi::SQLITE_UPDATE => (RowOperation::Update, old_rowid, new_rowid),
        _ => (RowOperation::Delete, old_rowid, 0),
    };
    let reported = catch_unwind(AssertUnwindSafe(|| {
        let table = table.to_string_lossy();
        let values = HookValues(db);
        observer(&RowEvent { operation, table: &table, old_rowid, new_rowid, values: &values });
    }));
    if reported.is_err() {
        // A panic must not unwind through SQLite.
        std::process::abort();
    }
}

/// The values of the row that the hook reports; it lives as long as the hook's call.
struct HookValues(*mut ffi::sqlite3);

impl RowValues for HookValues {
    fn read(
        &self,
        version: RowVersion,
        each: &mut dyn FnMut(ValueRef<'_>),
    ) -> Result<(), UnreadableRow> {
        // SAFETY: it only looks at the connection whose hook is running.
        let count = unsafe { sqlite3_preupdate_count(self.0) };
        for column in 0..count {
            let mut value = std::ptr::null_mut();
            // SAFETY: the hook is running, and the value is read before the next call.
            let code = unsafe {
                match version {
                    RowVersion::Old => sqlite3_preupdate_old(self.0, column, &mut value),
                    RowVersion::New => sqlite3_preupdate_new(self.0, column, &mut value),
                }
            };
            match code {
                // SAFETY: SQLite just returned the value, and it stays until the hook returns.
                ffi::SQLITE_OK if !value.is_null() => each(unsafe { value_ref(value) }),
                // A generated column that is not stored.
                ffi::SQLITE_RANGE => each(ValueRef::Null),
                _ => return Err(UnreadableRow),
            }
        }
        Ok(())
    }
}

/// # Safety
/// `value` is a value of SQLite's that outlives the answer.
unsafe fn value_ref<'v>(value: *mut ffi::sqlite3_value) -> ValueRef<'v> {
    // SAFETY: the functions fit to the type that SQLite names, and a length belongs to the pointer
    // that was asked for just before.
    unsafe {
        match ffi::sqlite3_value_type(value) {
            ffi::SQLITE_INTEGER => ValueRef::Integer(ffi::sqlite3_value_int64(value)),
            ffi::SQLITE_FLOAT => ValueRef::Real(ffi::sqlite3_value_double(value)),
            ffi::SQLITE_TEXT => {
                let text = ffi::sqlite3_value_text(value);
                ValueRef::Text(bytes_at(text, ffi::sqlite3_value_bytes(value)))
            }
            ffi::SQLITE_BLOB => {
                let blob = ffi::sqlite3_value_blob(value);
                ValueRef::Blob(bytes_at(blob.cast(), ffi::sqlite3_value_bytes(value)))
            }
            _ => ValueRef::Null,
        }
    }
}

/// # Safety
/// `start` is null or points to so many bytes, which outlive the answer.
unsafe fn bytes_at<'v>(start: *const u8, length: c_int) -> &'v [u8] {
    match usize::try_from(length) {
        Ok(length) if length > 0 && !start.is_null() => {
            // SAFETY: as above.
            unsafe { std::slice::from_raw_parts(start, length) }
        }
        _ => &[],
    }
}

/// Whether the open transaction has broken deferred foreign keys, so that its COMMIT would fail.
pub fn has_broken_references(connection: &Connection) -> bool {
    let (mut broken, mut unused) = (0, 0);
    // SAFETY: the handle is that of an open connection, and both numbers live for the call.
    let code = unsafe {
        ffi::sqlite3_db_status(
            connection.handle(),
            ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
            &mut broken,
            &mut unused,
            0,
        )
    };
    code == ffi::SQLITE_OK && broken != 0
}
