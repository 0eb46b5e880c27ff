//! WASI: the 45 functions that Envoy has, under both module names, each with its answer.

use std::fmt::Write as _;

use crate::hostcalls::check;
use crate::support::{Guest, Harness, IMPORTS, wasm};

#[test]
fn environment_clocks_and_randomness() {
    check(
        "request_headers",
        &[
            ("environ_sizes_get @ @", 0),
            ("environ_get @ 1024", 0),
            ("environ_get far 1024", 21),
            ("environ_sizes_get far @", 21),
            ("args_sizes_get @ @", 0),
            ("args_sizes_get far @", 21),
            ("args_get 0 0", 0),
            ("clock_time_get 0 1l @", 0),
            ("clock_time_get 1 1l @", 0),
            ("clock_time_get 2 1l @", 58),
            ("clock_time_get 0 1l far", 21),
            ("clock_res_get 1 @", 0),
            ("clock_res_get 2 @", 58),
            ("clock_res_get 0 far", 21),
            ("random_get 1024 16", 0),
            ("random_get 1024 65537", 28),
            ("random_get far 16", 21),
            ("sched_yield", 0),
            ("poll_oneoff 0 0 0 @", 0),
            ("poll_oneoff 0 0 0 far", 21),
        ],
    );
}

#[test]
fn two_descriptors_that_log() {
    check(
        "request_headers",
        &[
            ("fd_write 2 1024 0 @", 0),
            ("fd_write 3 1024 0 @", 8),
            ("fd_write 2 far 1 @", 21),
            ("fd_write 2 0 1025 @", 28),
            ("fd_pwrite 1 1024 0 0l @", 0),
            ("fd_pwrite 0 1024 0 0l @", 8),
            ("fd_read 0 0 0 @", 52),
            ("fd_pread 0 0 0 0l @", 52),
            ("fd_seek 0 0l 0 @", 0),
            ("fd_close 0", 0),
            ("fd_tell 0 @", 0),
            ("fd_fdstat_get 1 @", 0),
            ("fd_fdstat_get 3 @", 8),
            ("fd_fdstat_set_flags 1 0", 52),
            ("fd_fdstat_set_rights 1 0l 0l", 0),
            ("fd_fdstat_set_rights 3 0l 0l", 8),
            ("fd_prestat_get 3 @", 8),
            ("fd_prestat_dir_name 3 0 0", 52),
            ("fd_filestat_get 1 @", 8),
        ],
    );
}

#[test]
fn no_files_and_no_sockets() {
    let mut calls = vec![
        ("fd_advise 3 0l 0l 0", 0),
        ("fd_readdir 3 0 0 0l @", 20),
        ("fd_renumber 1 2", 58),
        ("fd_renumber 3 4", 8),
        ("path_open 3 0 0 0 0 0l 0l 0 @", 44),
        ("path_filestat_get 3 0 0 0 @", 58),
        ("path_filestat_set_times 3 0 0 0 0l 0l 0", 58),
        ("path_create_directory 3 0 0", 58),
        ("path_remove_directory 3 0 0", 58),
        ("path_unlink_file 3 0 0", 58),
        ("path_rename 3 0 0 3 0 0", 58),
        ("path_link 3 0 0 0 0 0", 58),
        ("path_symlink 0 0 3 0", 58),
        ("path_readlink 3 0 0 0 0 @", 58),
        ("sock_accept 3 0 @", 58),
        ("sock_recv 3 0 0 0 @ @", 58),
        ("sock_send 3 0 0 0 @", 58),
        ("sock_shutdown 3 0", 58),
    ];
    for (own, other) in [
        ("fd_allocate 1 0l 0l", "fd_allocate 3 0l 0l"),
        ("fd_datasync 2", "fd_datasync 0"),
        ("fd_sync 1", "fd_sync 3"),
        ("fd_filestat_set_size 1 0l", "fd_filestat_set_size 3 0l"),
        ("fd_filestat_set_times 2 0l 0l 0", "fd_filestat_set_times 3 0l 0l 0"),
    ] {
        calls.extend([(own, 0), (other, 8)]);
    }
    check("request_headers", &calls);
}

#[test]
fn both_module_names_have_all_45() {
    let names: Vec<_> = IMPORTS.iter().filter(|(module, ..)| module.starts_with("wasi")).collect();
    assert_eq!(names.len() + 1, 45);
    let mut wat = String::from("(module (import \"wasi_unstable\" \"proc_exit\" (func (param i32)))\n");
    for (_, name, params) in names {
        let params: String = params.chars().map(|c| if c == 'l' { "i64 " } else { "i32 " }).collect();
        let _ = writeln!(wat, "(import \"wasi_unstable\" \"{name}\" (func (param {params}) (result i32)))");
    }
    wat += r#"(func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.const 0)))"#;
    let module = wat::parse_str(&wat).unwrap();
    assert_eq!(Harness::new(vec![wasm("a", |_| {})], &[("a", module)]).get("/").status, 200);
}

#[test]
fn a_write_is_one_line_without_its_newline_and_exit_returns() {
    let guest = Guest::default().on("request_headers", |g| {
        let text = g.text("out\n");
        let (at, len) = text.split_once(") (").unwrap();
        format!(
            "(i32.store (i32.const 1024) {at})) (i32.store (i32.const 1028) ({len})
             (drop (call $fd_write (i32.const 1) (i32.const 1024) (i32.const 1) (i32.const 512)))
             (call $number (i32.load (i32.const 512)))
             (drop (call $fd_write (i32.const 2) (i32.const 1024) (i32.const 1) (i32.const 512)))
             (i32.const 0)"
        )
    });
    let harness = Harness::of(guest);
    assert_eq!(harness.get("/").status, 200);
    let lines = harness.log.lines();
    assert!(lines[0].starts_with("info: ") && lines[0].ends_with(": out"), "{lines:?}");
    assert!(lines[1].ends_with(": 4"), "{lines:?}");
    assert!(lines[2].starts_with("error: ") && lines[2].ends_with(": out"), "{lines:?}");
}
