//! A stack large enough for parsers that recurse.

/// Far more than the deepest text that the limits let through needs; the system gives memory only to what is used.
const STACK: usize = 64 << 20;

/// Runs `f` on a stack of its own. `None` where it panicked or no thread could be had: other people's parsers read what strangers
/// send, and a panic in one is a syntax error.
pub(crate) fn with_large_stack<T: Send>(f: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("parser".to_owned()).stack_size(STACK);
        thread.spawn_scoped(scope, f).ok()?.join().ok()
    })
}
