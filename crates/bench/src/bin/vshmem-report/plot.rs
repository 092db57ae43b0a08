// SPDX-License-Identifier: MIT OR Apache-2.0
//! Draws a figure as SVG and as PNG: both axes logarithmic, a curve through the medians, and from
//! each of these a line to the shortest and the longest sample.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::path::{Path, PathBuf};
use vshmem_bench::Result;
use vshmem_bench::stats::time;

/// Where a font may be: of Debian's package fonts-dejavu-core, and of other distributions.
const FONTS: [&str; 3] = [
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf",
    "/usr/share/fonts/dejavu-sans-fonts/DejaVuSans.ttf",
    "/usr/share/fonts/TTF/DejaVuSans.ttf",
];

const SIZE: (u32, u32) = (960, 540);
/// Width of the part with the names of the curves.
const LEGEND: u32 = 260;

/// A figure.
#[derive(Debug)]
pub struct Chart {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub curves: Vec<Curve>,
}

/// A curve of it.
#[derive(Debug)]
pub struct Curve {
    /// Decides colour and mark, the same in all figures.
    pub id: String,
    pub name: String,
    pub dots: Vec<Dot>,
}

/// A point of it; times are nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Dot {
    pub x: f64,
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// What a point looks like; those of curves that lie on each other are all seen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mark {
    Ring(i32),
    Disk(i32),
    Triangle(i32),
    Square(i32),
    Cross(i32),
}

/// Colours that are told apart by those who see few of them (Okabe and Ito), with marks.
const STYLES: [(&str, RGBColor, Mark); 17] = [
    ("sysv", RGBColor(0, 0, 0), Mark::Ring(7)),
    ("vshmem-one", RGBColor(0, 114, 178), Mark::Triangle(6)),
    ("vshmem-two", RGBColor(213, 94, 0), Mark::Disk(3)),
    ("openmp", RGBColor(0, 158, 115), Mark::Square(4)),
    ("mpi", RGBColor(204, 121, 167), Mark::Cross(5)),
    ("serial", RGBColor(150, 150, 150), Mark::Disk(3)),
    ("tcp", RGBColor(0, 158, 115), Mark::Square(4)),
    ("udp", RGBColor(204, 121, 167), Mark::Cross(5)),
    ("unix", RGBColor(0, 114, 178), Mark::Square(4)),
    ("pipe", RGBColor(86, 180, 233), Mark::Cross(5)),
    ("tcp-free", RGBColor(0, 158, 115), Mark::Disk(4)),
    ("sysv-sem", RGBColor(86, 180, 233), Mark::Ring(5)),
    ("vshmem-two-sem", RGBColor(230, 159, 0), Mark::Disk(4)),
    ("semsync", RGBColor(150, 150, 150), Mark::Square(4)),
    ("semsync-two", RGBColor(230, 159, 0), Mark::Triangle(5)),
    ("msgsync", RGBColor(0, 0, 0), Mark::Ring(6)),
    ("msgsync-two", RGBColor(120, 80, 160), Mark::Disk(4)),
];

/// For curves that have none of their own, by their place in the figure.
const OTHER_STYLES: [(RGBColor, Mark); 6] = [
    (RGBColor(0, 0, 0), Mark::Ring(6)),
    (RGBColor(213, 94, 0), Mark::Disk(4)),
    (RGBColor(230, 159, 0), Mark::Triangle(5)),
    (RGBColor(120, 80, 160), Mark::Ring(6)),
    (RGBColor(150, 150, 150), Mark::Square(4)),
    (RGBColor(0, 114, 178), Mark::Cross(5)),
];

fn style(id: &str, place: usize) -> (RGBColor, Mark) {
    STYLES
        .iter()
        .find(|style| style.0 == id)
        .map_or(OTHER_STYLES[place % OTHER_STYLES.len()], |style| {
            (style.1, style.2)
        })
}

/// Makes a font known to the drawing. Before anything is measured, lest that was in vain.
pub fn take_font() -> Result<()> {
    let font = FONTS
        .iter()
        .find_map(|path| std::fs::read(path).ok())
        .ok_or("no font: apt-get install fonts-dejavu-core")?;
    register_font("sans-serif", FontStyle::Normal, font.leak())
        .map_err(|_| "the font DejaVuSans.ttf cannot be read".into())
}

/// Writes `dir/NAME.svg` and `dir/NAME.png`; returns the SVG.
pub fn draw(chart: &Chart, dir: &Path, name: &str) -> Result<String> {
    let mut svg = String::new();
    onto(
        chart,
        SVGBackend::with_string(&mut svg, SIZE).into_drawing_area(),
    )?;
    let file = |extension| -> PathBuf { dir.join(name).with_extension(extension) };
    std::fs::write(file("svg"), &svg)?;
    onto(
        chart,
        BitMapBackend::new(&file("png"), SIZE).into_drawing_area(),
    )?;
    Ok(svg)
}

/// A tenth more room than the values need, on a logarithmic axis.
fn range(values: impl Iterator<Item = f64> + Clone) -> Result<std::ops::Range<f64>> {
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.fold(0.0, f64::max);
    if !(low > 0.0 && high.is_finite()) {
        return Err("nothing to draw".into());
    }
    let room = (high / low).powf(0.1).max(1.5);
    Ok(low / room..high * room)
}

/// Powers of ten in a range that is not narrow, else its ends.
fn ticks(range: &std::ops::Range<f64>) -> Vec<f64> {
    let powers = (-3..16).map(|exponent| 10f64.powi(exponent));
    let inside: Vec<_> = powers.filter(|power| range.contains(power)).collect();
    if inside.len() > 1 {
        return inside;
    }
    let steps = inside
        .iter()
        .flat_map(|power| [power / 5.0, power / 2.0, *power, power * 2.0, power * 5.0]);
    steps.filter(|step| range.contains(step)).collect()
}

fn onto<B: DrawingBackend>(chart: &Chart, root: DrawingArea<B, Shift>) -> Result<()>
where
    B::ErrorType: 'static,
{
    let dots = || chart.curves.iter().flat_map(|curve| &curve.dots);
    let mut sizes: Vec<_> = dots().map(|dot| dot.x).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let x = range(sizes.iter().copied())?;
    let y = range(
        dots()
            .flat_map(|dot| [dot.min, dot.max])
            .collect::<Vec<_>>()
            .into_iter(),
    )?;
    let y_ticks = ticks(&y);
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 - LEGEND);
    let mut area = ChartBuilder::on(&left)
        .caption(&chart.title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(86)
        .build_cartesian_2d(
            x.log_scale().with_key_points(sizes),
            y.log_scale().with_key_points(y_ticks),
        )?;
    area.configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.15))
        .x_desc(&chart.x_label)
        .y_desc(&chart.y_label)
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| time(*y).replace(".00", "").replace(".0", ""))
        .draw()?;
    for (place, curve) in chart.curves.iter().enumerate() {
        let (color, mark) = style(&curve.id, place);
        let medians = curve.dots.iter().map(|dot| (dot.x, dot.median));
        area.draw_series(LineSeries::new(medians.clone(), color.stroke_width(2)))?;
        for dot in &curve.dots {
            let span = vec![(dot.x, dot.min), (dot.x, dot.max)];
            area.plotting_area()
                .draw(&PathElement::new(span, color.mix(0.35)))?;
        }
        for (x, median) in medians {
            // The chart is at the left edge, where the drawing's coordinates are its own.
            let at = area.backend_coord(&(x, median));
            draw_mark(&left, at, color, mark)?;
        }
        let at = (10, 60 + 26 * place as i32);
        right.draw(&PathElement::new(
            vec![at, (at.0 + 34, at.1)],
            color.stroke_width(2),
        ))?;
        draw_mark(&right, (at.0 + 17, at.1), color, mark)?;
        let font = ("sans-serif", 13).into_font();
        right.draw(&Text::new(curve.name.clone(), (at.0 + 42, at.1 - 7), font))?;
    }
    root.present()?;
    Ok(())
}

fn draw_mark<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (x, y): (i32, i32),
    color: RGBColor,
    mark: Mark,
) -> Result<()>
where
    B::ErrorType: 'static,
{
    match mark {
        Mark::Ring(r) => area.draw(&Circle::new((x, y), r, color.stroke_width(2)))?,
        Mark::Disk(r) => area.draw(&Circle::new((x, y), r, color.filled()))?,
        Mark::Triangle(r) => area.draw(&TriangleMarker::new((x, y), r, color.filled()))?,
        Mark::Square(r) => {
            area.draw(&Rectangle::new(
                [(x - r, y - r), (x + r, y + r)],
                color.filled(),
            ))?;
        }
        Mark::Cross(r) => area.draw(&Cross::new((x, y), r, color.stroke_width(2)))?,
    }
    Ok(())
}

/// A size in few characters.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.1}M", value / 1e6),
        value if value >= 1e5 => format!("{:.0}k", value / 1e3),
        value => format!("{value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let dots = [8.0, 64.0, 65536.0].map(|x| Dot {
            x,
            median: 100.0 + x,
            min: 90.0 + x,
            max: 200.0 + x,
        });
        let curve = |id: &str| Curve {
            id: id.into(),
            name: format!("curve {id}"),
            dots: dots.to_vec(),
        };
        Chart {
            title: "a title".into(),
            x_label: "bytes".into(),
            y_label: "time".into(),
            curves: vec![curve("sysv"), curve("another")],
        }
    }

    #[test]
    fn a_chart_is_drawn_as_svg_and_as_png() {
        take_font().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let svg = draw(&chart(), dir.path(), "chart").unwrap();
        for text in ["a title", "bytes", "curve sysv", "curve another"] {
            assert!(svg.contains(text), "{text}");
        }
        assert_eq!(
            std::fs::read_to_string(dir.path().join("chart.svg")).unwrap(),
            svg
        );
        let png = std::fs::read(dir.path().join("chart.png")).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
    }

    #[test]
    fn a_chart_without_points_is_an_error() {
        take_font().unwrap();
        let empty = Chart {
            curves: Vec::new(),
            ..chart()
        };
        assert!(draw(&empty, Path::new("/nonesuch"), "chart").is_err());
    }
}
