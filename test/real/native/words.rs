//! Counts words, with a thread-local of the lane's thread that has a destructor, and environment variables, which Rust
//! reads from libc's `environ`. A panic is caught where the program unwinds; compiled with `panic=abort` there is nothing
//! to catch. The structs are those of include/handler.h.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, set_hook, UnwindSafe};
use std::ptr;

#[repr(C)]
pub struct Request {
    struct_size: u32,
    reserved: u32,
    data: *const u8,
    length: u64,
}

#[repr(C)]
pub struct Response {
    struct_size: u32,
    reserved: u32,
    data: *mut u8,
    capacity: u64,
    length: u64,
    owner: *mut c_void,
}

#[repr(C)]
pub struct Description {
    struct_size: u32,
    reserved: u32,
    name: *const c_char,
    version: *const c_char,
    description: *const c_char,
}

// Plain pointers to constants.
unsafe impl Sync for Description {}

static DESCRIPTION: Description = Description {
    struct_size: 32,
    reserved: 0,
    name: concat!("words", "\0").as_ptr() as *const c_char,
    version: concat!(env!("BUILD"), "\0").as_ptr() as *const c_char,
    description: ptr::null(),
};

const OK: i32 = 0;
const PANICKED: i32 = 5;
const RESPONSE_TOO_LARGE: i32 = -2147483001;

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

#[no_mangle]
pub extern "C" fn handler_abi_version() -> u32 {
    1
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
    let bytes = std::slice::from_raw_parts(request.data, request.length as usize);
    answer(response, || serve(bytes).into_bytes())
}

/// Answers with what `serve` returns. A panic becomes an error with the panic's message.
unsafe fn answer(response: &mut Response, serve: impl FnOnce() -> Vec<u8> + UnwindSafe) -> i32 {
    let (code, bytes) = match catch_unwind(serve) {
        Ok(reply) => (OK, reply),
        Err(panic) => (PANICKED, message_of(panic)),
    };
    response.length = bytes.len() as u64;
    if response.length > response.capacity {
        return RESPONSE_TOO_LARGE;
    }
    ptr::copy_nonoverlapping(bytes.as_ptr(), response.data, bytes.len());
    code
}

fn message_of(panic: Box<dyn Any + Send>) -> Vec<u8> {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (_, Some(text)) => text.as_bytes().to_vec(),
        _ => b"a panic without a message".to_vec(),
    }
}
