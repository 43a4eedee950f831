//! Which panics are printed: the test's own hook, set before the first call, hears the rest. One test, since
//! hooks belong to the process.

use std::panic;
use std::sync::{Arc, Mutex};
use std::thread;

use tritforge_support::caught;

#[test]
fn only_panics_that_are_caught_are_silent() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    panic::set_hook(Box::new(move |info| {
        kept.lock().unwrap().push(info.payload_as_str().unwrap_or_default().to_string());
    }));
    assert_eq!(caught(|| 3), Some(3));
    assert_eq!(caught(|| -> u32 { panic!("caught") }), None);
    // Nested calls: the outer one is still inside after the inner one ended.
    let nested = caught(|| -> u32 {
        assert_eq!(caught(|| -> u32 { panic!("inner") }), None);
        panic!("outer")
    });
    assert_eq!(nested, None);
    // A panic of another thread is its own, whatever this one does.
    let other = caught(|| thread::spawn(|| panic!("thread")).join().is_err());
    assert_eq!(other, Some(true));
    // After a call has ended by a panic, the next one is printed again.
    assert!(panic::catch_unwind(|| panic!("after")).is_err());
    assert_eq!(*heard.lock().unwrap(), ["thread", "after"]);
}
