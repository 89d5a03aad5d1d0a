//! What becomes of memory that is given back.

/// Has the allocator give back to the system what is free. By itself glibc's keeps a
/// heap for each thread, up to eight a core, with whatever is free in its midst: a
/// consumer whose threads came and went with its sessions had 41 MiB in sixteen
/// heaps, of which 2 were in use. For moments when much has been freed; it looks at
/// every heap. Allocators other than glibc's are left as they are.
pub fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[expect(unsafe_code, reason = "there is no other way to tell the allocator")]
    // SAFETY: it takes a number of bytes to be kept, touches only what nobody has,
    // and locks each heap as it comes to it.
    unsafe {
        libc::malloc_trim(0);
    }
}
