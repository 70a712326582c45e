//! Counts words, with a thread-local of the lane's thread that has a destructor, and environment variables, which Rust
//! reads from libc's `environ`. A panic is caught where the program unwinds; compiled with `panic=abort` there is nothing
//! to catch.

#[path = "../../../fixtures/handler.rs"]
mod handler;

use handler::{Description, Request, Response, OK};
use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::raw::c_void;
use std::panic::{catch_unwind, set_hook, UnwindSafe};

static DESCRIPTION: Description = Description::new("words\0", concat!(env!("BUILD"), "\0"));

const PANICKED: i32 = 5;

thread_local! {
    static COUNTS: RefCell<BTreeMap<String, u64>> = RefCell::new(BTreeMap::new());
}

fn serve(request: &[u8]) -> String {
    assert!(request != b"do panic", "asked to");
    let text = String::from_utf8_lossy(request);
    // Another thread, with a panic of its own when the program unwinds, and an environment.
    let variables = std::thread::spawn(|| std::env::vars_os().count()).join().unwrap_or(usize::MAX);
    COUNTS.with(|counts| {
        let mut counts = counts.borrow_mut();
        counts.clear();
        for word in text.split_whitespace() {
            *counts.entry(word.to_owned()).or_insert(0) += 1;
        }
        let lines: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}\n")).collect();
        assert!(variables != usize::MAX);
        lines.concat()
    })
}

/// Panics are told by the errors that they become, and not on standard error as well.
#[no_mangle]
pub extern "C" fn handler_init(_context: *const c_void, _response: *mut Response) -> i32 {
    set_hook(Box::new(|_| {}));
    OK
}

#[no_mangle]
pub extern "C" fn handler_info() -> *const Description {
    &DESCRIPTION
}

/// # Safety
/// The pointers are the host's: see include/handler.h.
#[no_mangle]
pub unsafe extern "C" fn handler_entry(
    _context: *const c_void,
    request: &Request,
    response: &mut Response,
) -> i32 {
    let bytes = request.bytes();
    answer(response, || serve(bytes).into_bytes())
}

/// Answers with what `serve` returns. A panic becomes an error with the panic's message.
unsafe fn answer(response: &mut Response, serve: impl FnOnce() -> Vec<u8> + UnwindSafe) -> i32 {
    let (code, bytes) = match catch_unwind(serve) {
        Ok(reply) => (OK, reply),
        Err(panic) => (PANICKED, message_of(panic)),
    };
    response.write(&bytes, code)
}

fn message_of(panic: Box<dyn Any + Send>) -> Vec<u8> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (_, Some(text)) => text.as_bytes().to_vec(),
        _ => b"a panic without a message".to_vec(),
    }
}
