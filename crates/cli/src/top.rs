// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem top`: domains and constructs as they are now, looked at again and again. What is there is asked
//! for as `peers` and `ls` do; [`View`] is what the keys have chosen, and draws.

use crate::constructs::{self, Construct, Of};
use crate::ls::Kinds;
use crate::survey::{Survey, Via};
use crate::{Doing, Failure, show};
use ratatui::Frame;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::Modifier;
use ratatui::text::Line;
use ratatui::widgets::{Row, Table};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use vshmem_abi::Kind;
use vshmem_report::DomainReport;

/// Rows of domains that are shown; constructs have the rest.
const DOMAINS: usize = 6;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub via: Via,

    /// Seconds from one look to the next
    #[arg(long, short, value_name = "SECONDS", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub interval: u16,
}

/// What there is.
#[derive(Default)]
struct Seen {
    domains: Vec<DomainReport>,
    constructs: Vec<Construct>,
    /// Why there is nothing, or not all.
    trouble: Option<String>,
}

impl Seen {
    fn now(via: &Via) -> Self {
        let look = || -> Result<Self, Failure> {
            let (name, daemon) = via.connect()?;
            let survey = Survey::of(&via.dir.path())?;
            let kinds = Kinds::default().wanted();
            let silent: Vec<_> = survey.silent.iter().map(|s| s.name.as_str()).collect();
            let trouble = match silent.as_slice() {
                [] => None,
                names => Some(format!("no answer from {}", names.join(", "))),
            };
            Ok(Self {
                constructs: constructs::routed(&name, &daemon, &survey, &kinds)?,
                domains: survey
                    .domains
                    .iter()
                    .map(|told| told.report.clone())
                    .collect(),
                trouble,
            })
        };
        look().unwrap_or_else(|failure| Self {
            trouble: Some(failure.text),
            ..Self::default()
        })
    }
}

/// What constructs are sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sort {
    /// The one that was used last comes first.
    #[default]
    Activity,
    /// The one that most processes have comes first.
    Holders,
    /// The largest comes first.
    Size,
    /// By owner domain and key.
    Domain,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::Activity => Self::Holders,
            Self::Holders => Self::Size,
            Self::Size => Self::Domain,
            Self::Domain => Self::Activity,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Activity => "activity",
            Self::Holders => "holders",
            Self::Size => "size",
            Self::Domain => "domain",
        }
    }
}

/// What the keys have chosen.
#[derive(Default)]
struct View {
    sort: Sort,
    kind: Option<Kind>,
    filter: String,
    /// Keys go to the filter.
    types: bool,
    /// Constructs that are scrolled past.
    above: usize,
}

impl View {
    /// A key was pressed. `true`: it is the end.
    fn press(&mut self, key: KeyEvent) -> bool {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return key.code == KeyCode::Char('c');
        }
        match (key.code, self.types) {
            (KeyCode::Enter, true) => self.types = false,
            (KeyCode::Esc, _) => {
                self.types = false;
                self.filter.clear();
            }
            (KeyCode::Backspace, true) => drop(self.filter.pop()),
            (KeyCode::Char(c), true) => self.filter.push(c),
            (KeyCode::Char('q'), false) => return true,
            (KeyCode::Char('s'), false) => self.sort = self.sort.next(),
            (KeyCode::Char('k'), false) => {
                self.kind = match self.kind {
                    None => Some(Kind::Shm),
                    Some(Kind::Shm) => Some(Kind::Sem),
                    Some(Kind::Sem) => Some(Kind::Msg),
                    Some(Kind::Msg) => None,
                };
            }
            (KeyCode::Char('/'), false) => self.types = true,
            (KeyCode::Down, _) => self.above = self.above.saturating_add(1),
            (KeyCode::Up, _) => self.above = self.above.saturating_sub(1),
            (KeyCode::PageDown, _) => self.above = self.above.saturating_add(10),
            (KeyCode::PageUp, _) => self.above = self.above.saturating_sub(10),
            (KeyCode::Home, _) => self.above = 0,
            _ => {}
        }
        false
    }

    /// The constructs that are wanted, in order.
    fn chosen<'a>(&self, all: &'a [Construct]) -> Vec<&'a Construct> {
        let wanted = |one: &&Construct| {
            let cells = cells(one);
            self.kind.is_none_or(|kind| one.kind() == kind)
                && cells.iter().any(|cell| cell.contains(&self.filter))
        };
        let mut chosen: Vec<_> = all.iter().filter(wanted).collect();
        match self.sort {
            Sort::Activity => chosen.sort_by_key(|one| one.idle),
            Sort::Holders => chosen.sort_by_key(|one| std::cmp::Reverse(one.in_use())),
            Sort::Size => chosen.sort_by_key(|one| std::cmp::Reverse(size(one))),
            Sort::Domain => chosen.sort_by(|a, b| (a.domid, &a.key).cmp(&(b.domid, &b.key))),
        }
        chosen
    }

    fn draw(&mut self, frame: &mut Frame<'_>, seen: &Seen) {
        let domains = seen.domains.len().min(DOMAINS) as u16;
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(domains + 1),
            Constraint::Length(1),
            Constraint::Min(2),
            Constraint::Length(1),
        ]);
        let [title, of_domains, gap, of_constructs, keys] = areas.areas(frame.area());
        let waiting: u64 = seen.domains.iter().map(|domain| domain.waiting).sum();
        let summary = format!(
            "{}, {}, {}",
            show::count(seen.domains.len() as u64, "domain"),
            show::count(seen.constructs.len() as u64, "construct"),
            show::count(waiting, "waiter")
        );
        frame.render_widget(Line::raw(summary), title);

        let mut by_waiters: Vec<_> = seen.domains.iter().collect();
        by_waiters.sort_by_key(|domain| std::cmp::Reverse(domain.waiting));
        let head = [
            "DOMAIN", "DOMID", "CLIENTS", "WAITERS", "SHM", "SEM", "MSG", "GRANTS",
        ];
        let widths = [24, 6, 8, 8, 6, 6, 6, 8].map(Constraint::Length);
        let rows = by_waiters.iter().map(|domain| {
            Row::new([
                domain.name.clone(),
                domain.domid.to_string(),
                domain.clients.to_string(),
                domain.waiting.to_string(),
                domain.owned.segments.to_string(),
                domain.owned.sets.to_string(),
                domain.owned.queues.to_string(),
                domain.grants_used.to_string(),
            ])
        });
        let table = Table::new(rows, widths).header(head_of(head));
        frame.render_widget(table.column_spacing(1), of_domains);
        if let Some(trouble) = &seen.trouble {
            frame.render_widget(Line::raw(trouble.as_str()), gap);
        }

        let chosen = self.chosen(&seen.constructs);
        self.above = self.above.min(chosen.len().saturating_sub(1));
        let rows = chosen
            .iter()
            .skip(self.above)
            .map(|one| Row::new(cells(one)));
        let head = [
            "KEY", "ID", "KIND", "DOMAIN", "OWNER", "SIZE", "HOLDERS", "IDLE",
        ];
        let widths = [10, 10, 4, 17, 9, 12, 7, 4].map(Constraint::Length);
        let table = Table::new(rows, widths).header(head_of(head));
        frame.render_widget(table.column_spacing(1), of_constructs);
        frame.render_widget(Line::raw(self.keys()), keys);
    }

    /// The last line.
    fn keys(&self) -> String {
        if self.types {
            return format!("/{}_  Enter: done  Esc: all", self.filter);
        }
        let kind = match self.kind {
            None => "all",
            Some(Kind::Shm) => "shm",
            Some(Kind::Sem) => "sem",
            Some(Kind::Msg) => "msg",
        };
        let filter = match self.filter.as_str() {
            "" => "filter".to_owned(),
            filter => format!("filter: {filter} (Esc: all)"),
        };
        let sort = self.sort.name();
        format!("q quit  s sort: {sort}  k kind: {kind}  / {filter}  arrows scroll")
    }
}

fn head_of<const N: usize>(names: [&'static str; N]) -> Row<'static> {
    Row::new(names).style(Modifier::REVERSED)
}

/// Bytes of a segment, semaphores of a set, bytes in a queue.
fn size(one: &Construct) -> u64 {
    match one.of {
        Of::Shm { bytes, .. } => bytes,
        Of::Sem { nsems, .. } => nsems,
        Of::Msg { used_bytes, .. } => used_bytes,
    }
}

/// A row of the lower table.
fn cells(one: &Construct) -> [String; 8] {
    let kind = match one.kind() {
        Kind::Shm => "shm",
        Kind::Sem => "sem",
        Kind::Msg => "msg",
    };
    let domid = || one.domid.map(|domid| domid.to_string());
    [
        one.key.clone(),
        one.id.to_string(),
        kind.to_owned(),
        one.domain.clone().or_else(domid).unwrap_or_default(),
        one.owner.clone(),
        size(one).to_string(),
        one.in_use().to_string(),
        show::span(one.idle),
    ]
}

/// Shows it until a key says that it is enough.
pub fn top(args: &Args) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        return Err(Failure::new(
            "`vshmem top` needs a terminal; for programs there are `vshmem ls --json` and `vshmem peers \
             --json`",
        ));
    }
    // Nothing to look at is said before the terminal is taken.
    args.via.connect()?;
    let mut terminal = ratatui::try_init().doing(|| "cannot take the terminal".into())?;
    let done = run(args, &mut terminal);
    ratatui::restore();
    done.doing(|| "terminal".into())
}

fn run(args: &Args, terminal: &mut ratatui::DefaultTerminal) -> std::io::Result<()> {
    let interval = Duration::from_secs(args.interval.into());
    let mut view = View::default();
    loop {
        let seen = Seen::now(&args.via);
        let until = Instant::now() + interval;
        loop {
            terminal.draw(|frame| view.draw(frame, &seen))?;
            let left = until.saturating_duration_since(Instant::now());
            if !event::poll(left)? {
                break;
            }
            if let Event::Key(key) = event::read()?
                && key.kind == KeyEventKind::Press
                && view.press(key)
            {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constructs::Maker;
    use crate::constructs::tests::{stat, survey};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use vshmem_abi::wire::State;

    /// Two domains, a large segment that is idle, and a small set that nobody has.
    fn seen() -> Seen {
        let survey = survey();
        let mut maker = Maker::new(&survey);
        let mut segment = maker.segment(&stat(State::Live, 0o644));
        (segment.key, segment.idle) = ("0x56000001".to_owned(), 500);
        let mut set = maker.set(&stat(State::Live, 0o644));
        (set.key, set.idle, set.domid) = ("0x56000002".to_owned(), 3, Some(1));
        set.holders.clear();
        let beta = DomainReport {
            name: "beta".into(),
            domid: 3,
            waiting: 4,
            ..DomainReport::default()
        };
        let alpha = survey.domains.iter().map(|told| told.report.clone());
        Seen {
            domains: alpha.chain([beta]).collect(),
            constructs: vec![segment, set],
            trouble: None,
        }
    }

    fn press(view: &mut View, keys: &str) {
        for key in keys.chars() {
            assert!(!view.press(KeyCode::Char(key).into()), "{key}");
        }
    }

    /// The lines of a terminal of 80 columns.
    fn drawn(view: &mut View, seen: &Seen) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 16)).unwrap();
        terminal.draw(|frame| view.draw(frame, seen)).unwrap();
        let cells = terminal.backend().buffer().content();
        let lines = cells
            .chunks(80)
            .map(|line| line.iter().map(|c| c.symbol()).collect());
        lines
            .map(|line: String| line.trim_end().to_owned())
            .collect()
    }

    /// The keys of the constructs, from above.
    fn order(view: &mut View, seen: &Seen) -> Vec<char> {
        let lines = drawn(view, seen);
        let keys = lines.iter().filter(|line| line.starts_with("0x"));
        keys.map(|line| line.chars().nth(9).unwrap()).collect()
    }

    #[test]
    fn domains_with_waiters_and_constructs_that_are_used_come_first_in_80_columns() {
        let lines = drawn(&mut View::default(), &seen());
        assert_eq!(lines[0], "2 domains, 2 constructs, 4 waiters");
        assert!(lines[1].starts_with("DOMAIN") && lines[1].ends_with("GRANTS"));
        assert!(
            lines[2].starts_with("beta") && lines[3].starts_with("alpha"),
            "{lines:?}"
        );
        assert!(
            lines[5].starts_with("KEY") && lines[5].ends_with("IDLE"),
            "{lines:?}"
        );
        assert!(
            lines[6].starts_with("0x56000002 1300000000 sem"),
            "{lines:?}"
        );
        assert!(
            lines[6].ends_with(" 3s") && lines[7].ends_with(" 8m"),
            "{lines:?}"
        );
        assert!(lines[15].starts_with("q quit  s sort: activity  k kind: all"));
    }

    #[test]
    fn s_sorts_by_something_else() {
        let (mut view, seen) = (View::default(), seen());
        for (name, order_is) in [
            ("activity", ['2', '1']),
            ("holders", ['1', '2']),
            ("size", ['1', '2']),
            ("domain", ['2', '1']),
            ("activity", ['2', '1']),
        ] {
            assert_eq!(
                (view.sort.name(), order(&mut view, &seen)),
                (name, order_is.to_vec())
            );
            press(&mut view, "s");
        }
    }

    #[test]
    fn k_and_a_filter_leave_out_what_is_not_wanted() {
        let (mut view, seen) = (View::default(), seen());
        press(&mut view, "k");
        assert_eq!(order(&mut view, &seen), ['1']);
        press(&mut view, "kk");
        assert_eq!(order(&mut view, &seen), []);
        press(&mut view, "k/56000002sq");
        assert_eq!(order(&mut view, &seen), []);
        for _ in 0..2 {
            view.press(KeyCode::Backspace.into());
        }
        assert_eq!(order(&mut view, &seen), ['2']);
        view.press(KeyCode::Esc.into());
        assert_eq!(order(&mut view, &seen), ['2', '1']);
        assert!(view.press(KeyCode::Char('q').into()));
    }

    #[test]
    fn scrolling_ends_at_the_last_and_trouble_is_told() {
        let (mut view, mut seen) = (View::default(), seen());
        view.press(KeyCode::PageDown.into());
        assert_eq!(order(&mut view, &seen), ['1']);
        view.press(KeyCode::Up.into());
        assert_eq!(order(&mut view, &seen), ['2', '1']);
        seen.trouble = Some("no answer from gamma".into());
        assert_eq!(drawn(&mut view, &seen)[4], "no answer from gamma");
    }
}
