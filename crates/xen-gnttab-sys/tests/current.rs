// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bindings that are checked in are those of the headers of Debian's libxen-dev, and the
//! libraries have all functions that the bindings name. `UPDATE_BINDINGS=1` writes them anew
//! instead of comparing.

use std::path::{Path, PathBuf};

/// One header and what is made of it.
struct Library {
    header: &'static str,
    file: &'static str,
    table: &'static str,
    functions: &'static str,
}

const LIBRARIES: [Library; 3] = [
    Library {
        header: "xengnttab.h",
        file: "gnttab.rs",
        table: "XenGnttab",
        functions: "xengn.*",
    },
    Library {
        header: "xenevtchn.h",
        file: "evtchn.rs",
        table: "XenEvtchn",
        functions: "xenevtchn_.*",
    },
    Library {
        header: "xenstore.h",
        file: "store.rs",
        table: "XenStore",
        // Without those that are deprecated, which may go away.
        functions: "xs_(open|close|directory|read|write|mkdir|rm|get_permissions|set_permissions|\
                    watch|unwatch|fileno|check_watch|read_watch|transaction_start|\
                    transaction_end|get_domain_path|is_domain_introduced)",
    },
];

/// Whether there is what a test needs. With `CI=true` a test that cannot run fails.
fn installed() -> bool {
    let found = Path::new("/usr/include/xenstore.h").exists();
    let ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(
        found || !ci,
        "libxen-dev is not installed (see ci/packages.txt)"
    );
    if !found {
        eprintln!("skipped: libxen-dev is not installed");
    }
    found
}

fn generate(library: &Library) -> String {
    let bindings = bindgen::Builder::default()
        .header_contents(
            "all.h",
            // How a logger is made, which the header only mentions.
            &format!("#include <xentoollog.h>\n#include <{}>\n", library.header),
        )
        .dynamic_library_name(library.table)
        .dynamic_link_require_all(true)
        .allowlist_function(library.functions)
        .allowlist_var("XS_PERM_.*|XS_UNWATCH_FILTER|XBT_NULL")
        .generate_comments(false)
        .disable_header_comment()
        .wrap_unsafe_ops(true)
        .formatter(bindgen::Formatter::Prettyplease)
        .raw_line("// SPDX-License-Identifier: MIT OR Apache-2.0")
        .raw_line(format!(
            "//! The functions of `{}`, made by bindgen from that header; not to be edited.",
            library.header
        ))
        .generate();
    bindings.expect("bindgen, with libclang").to_string()
}

#[test]
fn the_bindings_are_those_of_the_installed_headers() {
    if !installed() {
        return;
    }
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/bindings");
    for library in &LIBRARIES {
        let path = directory.join(library.file);
        let made = generate(library);
        if std::env::var_os("UPDATE_BINDINGS").is_some() {
            std::fs::write(&path, &made).expect("the bindings can be written");
        }
        let kept = std::fs::read_to_string(&path).expect("the bindings");
        assert!(
            kept == made,
            "{} is not what bindgen makes of {}; to make it anew: \
             UPDATE_BINDINGS=1 cargo test -p xen-gnttab-sys",
            path.display(),
            library.header
        );
    }
}

#[test]
fn the_libraries_have_every_function_of_the_bindings() {
    if !installed() {
        return;
    }
    xen_gnttab_sys::gnttab().expect("libxengnttab");
    xen_gnttab_sys::evtchn().expect("libxenevtchn");
    xen_gnttab_sys::store().expect("libxenstore");
}
