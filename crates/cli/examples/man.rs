// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes the man pages of `vshmem` and its subcommands to a directory: `man DIR SECTIONS`.
//!
//! Names and options come from the command line itself. What else there is to say of a command is in
//! `SECTIONS/COMMAND.man`: a synopsis and a description in place of the short ones, and sections that
//! follow the options.

use clap_mangen::Man;
use std::io::{Error, Result, Write};
use std::path::{Path, PathBuf};

/// The sections of `COMMAND.man`, by title and in their order, each with its heading.
type Sections = Vec<(String, String)>;

fn main() -> Result<()> {
    let mut args = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(out), Some(sections), None) = (args.next(), args.next(), args.next()) else {
        return Err(Error::other(
            "it takes a directory to write to and one with *.man",
        ));
    };
    let mut command = vshmem_cli::command().disable_help_subcommand(true);
    // So that subcommands have the names by which they are called.
    command.build();
    std::fs::create_dir_all(&out)?;
    write(&command, &out, &sections)
}

/// Writes the page of one command, and those of its subcommands.
fn write(command: &clap::Command, out: &Path, sections: &Path) -> Result<()> {
    for subcommand in command.get_subcommands() {
        write(subcommand, out, sections)?;
    }
    let name = command.get_display_name().unwrap_or(command.get_name());
    let page = Man::new(command.clone());
    let own = read(&sections.join(format!("{name}.man")))?;
    let (first, later): (Sections, Sections) = own
        .into_iter()
        .partition(|(title, _)| matches!(title.as_str(), "SYNOPSIS" | "DESCRIPTION"));
    let has = |wanted: &str| first.iter().chain(&later).any(|(title, _)| title == wanted);

    let (version, date) = (env!("CARGO_PKG_VERSION"), date()?);
    let mut text =
        format!(".TH {name} 1 {date} \"Vshmem {version}\" \"Vshmem manual\"\n").into_bytes();
    page.render_name_section(&mut text)?;
    if !has("SYNOPSIS") {
        page.render_synopsis_section(&mut text)?;
    }
    if !has("DESCRIPTION") {
        page.render_description_section(&mut text)?;
    }
    for (_, section) in &first {
        text.write_all(section.as_bytes())?;
    }
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    page.render_options_section(&mut text)?;
    for (_, section) in &later {
        text.write_all(section.as_bytes())?;
    }
    if !has("SEE ALSO") {
        text.write_all(b".SH SEE ALSO\n.BR vshmem (1),\n.BR libvshmem (7),\n.BR vshmemd (8)\n")?;
    }
    let text = String::from_utf8(text).map_err(Error::other)?;
    std::fs::write(out.join(format!("{name}.1")), tidy(&text))
}

/// The day that the page is of: today, or what a reproducible build is told to take for it.
fn date() -> Result<String> {
    let day = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => {
            let seconds = seconds.parse().map_err(Error::other)?;
            chrono::DateTime::from_timestamp(seconds, 0)
                .ok_or_else(|| Error::other("SOURCE_DATE_EPOCH is no time"))?
        }
        Err(_) => chrono::Utc::now(),
    };
    Ok(day.format("%Y-%m-%d").to_string())
}

/// The sections of a file, of which there need be none.
fn read(path: &Path) -> Result<Sections> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let parts = text.split_inclusive('\n');
    let mut sections = Sections::new();
    for line in parts {
        match (line.strip_prefix(".SH "), sections.last_mut()) {
            (Some(title), _) => sections.push((title.trim().to_owned(), line.to_owned())),
            (None, Some((_, section))) => section.push_str(line),
            (None, None) => {}
        }
    }
    Ok(sections)
}

/// What the generator writes unlike other pages: angle brackets around what is in italics already, breaks
/// beside empty lines, and spaces at the ends of lines.
fn tidy(text: &str) -> String {
    let mut tidy = String::with_capacity(text.len());
    for line in text.lines().filter(|line| *line != ".br") {
        let line = line
            .replace("\\fI<", "\\fI")
            .replace(">\\fR", "\\fR")
            .replace("<\\fI", "\\fI")
            .replace("\\fR>", "\\fR");
        tidy.push_str(line.trim_end());
        tidy.push('\n');
    }
    tidy
}
