//! Figures of many rounds, and how they are told: medians of per-round ratios, with the least and the most.
//!
//! Must never judge more than arithmetic can: a figure is held against the aim that was set, nothing else.

use serde_json::{Map, Value, json};

/// What is measured, in which unit, and against whom.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Scale {
    /// What the table calls it.
    pub(crate) name: String,
    /// Of the figures.
    pub(crate) unit: &'static str,
    /// Ratios are to these candidates.
    pub(crate) bases: &'static [&'static str],
    /// The candidate that runs twice a round, the second time as [`again`]: it tells how noisy the round was.
    pub(crate) yardstick: &'static str,
    /// What Selvedge should reach.
    pub(crate) aim: Option<Aim>,
}

/// What Selvedge should reach (design, section 10).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Aim {
    /// Its ratio to this candidate is at most so much.
    AtMost(f64, &'static str),
    /// Its ratio to this candidate is at least so much.
    AtLeast(f64, &'static str),
    /// Its figure is at most so much.
    Below(f64),
    /// It adds at most so much to the figure of the yardstick, which had its turns before and after.
    Adds(f64),
}

/// The candidate to which aims apply.
pub(crate) const SELVEDGE: &str = "Selvedge";

/// A round in which the yardstick against itself is outside of this says little.
const QUIET: std::ops::RangeInclusive<f64> = 0.9..=1.1;

/// The second turn of a yardstick in a round.
pub(crate) fn again(yardstick: &str) -> String {
    format!("{yardstick} again")
}

#[derive(Debug)]
struct Measure {
    scale: Scale,
    /// In the order in which they were first noted: a figure per round.
    candidates: Vec<(String, Vec<f64>)>,
}

/// All measures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    measures: Vec<Measure>,
}

/// The figure below which so many hundredths of all are.
pub(crate) fn percentile(figures: &[f64], hundredths: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * hundredths / 100).copied().unwrap_or(f64::NAN)
}

/// The middle of some figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    percentile(figures, 50)
}

impl Report {
    /// Notes a candidate's figure of one round.
    pub(crate) fn note(&mut self, scale: &Scale, candidate: &str, figure: f64) {
        let at = self.measures.iter().position(|measure| measure.scale == *scale).unwrap_or_else(|| {
            self.measures.push(Measure { scale: scale.clone(), candidates: Vec::new() });
            self.measures.len() - 1
        });
        let candidates = &mut self.measures[at].candidates;
        match candidates.iter_mut().find(|(name, _)| name == candidate) {
            Some((_, rounds)) => rounds.push(figure),
            None => candidates.push((candidate.to_owned(), vec![figure])),
        }
    }

    /// Tables for people: each measure, then the aims.
    pub(crate) fn table(&self) -> String {
        let mut out: String = self.measures.iter().map(Measure::table).collect();
        out.push_str("\nAims (design, section 10)\n");
        for (measure, (told, met)) in self.measures.iter().filter_map(|one| Some((one, one.verdict()?))) {
            let mark = if met { "met   " } else { "MISSED" };
            out.push_str(&format!("  {mark}  {}: {told}{}\n", measure.scale.name, measure.noise()));
        }
        out
    }

    /// The same for machines, with the figures of each round.
    pub(crate) fn json(&self) -> String {
        let measures: Vec<Value> = self.measures.iter().map(Measure::to_json).collect();
        format!("{:#}\n", json!({"measures": measures}))
    }
}

impl Measure {
    fn rounds(&self, candidate: &str) -> Option<&[f64]> {
        self.candidates.iter().find(|(name, _)| name == candidate).map(|(_, rounds)| &rounds[..])
    }

    /// Rounds (from 0) in which the yardstick differed from itself.
    fn marked(&self) -> Vec<usize> {
        let (one, other) = (self.scale.yardstick, again(self.scale.yardstick));
        let (Some(one), Some(other)) = (self.rounds(one), self.rounds(&other)) else { return Vec::new() };
        let loud = |round: &usize| !QUIET.contains(&(other[*round] / one[*round]));
        (0..one.len().min(other.len())).filter(loud).collect()
    }

    /// The rounds that count: those that are not marked, or all when hardly any is left.
    fn counted(&self) -> Vec<usize> {
        let all = self.candidates.iter().map(|(_, rounds)| rounds.len()).max().unwrap_or(0);
        let marked = self.marked();
        let quiet: Vec<usize> = (0..all).filter(|round| !marked.contains(round)).collect();
        if quiet.len() >= 3 { quiet } else { (0..all).collect() }
    }

    fn figure(&self, candidate: &str) -> f64 {
        let rounds = self.rounds(candidate).unwrap_or_default();
        median(&self.counted().iter().filter_map(|&round| rounds.get(round).copied()).collect::<Vec<_>>())
    }

    /// Per-round ratios of the rounds that count.
    fn ratios(&self, candidate: &str, base: &str) -> Vec<f64> {
        let (Some(own), Some(base)) = (self.rounds(candidate), self.rounds(base)) else { return Vec::new() };
        let ratio = |round: usize| Some(own.get(round)? / base.get(round)?);
        self.counted().into_iter().filter_map(ratio).filter(|ratio| ratio.is_finite()).collect()
    }

    /// What Selvedge adds in each round that counts to the mean of the yardstick before and after it.
    fn added(&self) -> Vec<f64> {
        let again = again(self.scale.yardstick);
        let names = [SELVEDGE, self.scale.yardstick, &again];
        let [Some(own), Some(before), Some(after)] = names.map(|name| self.rounds(name)) else {
            return Vec::new();
        };
        let one =
            |round: usize| Some(own.get(round)? - f64::midpoint(*before.get(round)?, *after.get(round)?));
        self.counted().into_iter().filter_map(one).collect()
    }

    fn noise(&self) -> String {
        let (marked, counted) = (self.marked().len(), self.counted().len());
        if marked == 0 {
            return String::new();
        }
        let rounds = self.candidates.first().map_or(0, |(_, rounds)| rounds.len());
        let left_out = if counted < rounds { "left out" } else { "counted all the same" };
        format!(" [noise: {marked} of {rounds} rounds marked, {left_out}]")
    }

    fn table(&self) -> String {
        let scale = &self.scale;
        let bases: String = scale.bases.iter().map(|base| format!("{:>25}", format!("to {base}"))).collect();
        let mut out = format!("\n{}{}\n  {:<18} {:>12}{bases}\n", scale.name, self.noise(), "", scale.unit);
        for (candidate, _) in &self.candidates {
            out.push_str(&format!("  {candidate:<18} {:>12}", told(self.figure(candidate))));
            for base in scale.bases {
                out.push_str(&format!("{:>25}", span(&self.ratios(candidate, base))));
            }
            out.push('\n');
        }
        out
    }

    /// What Selvedge reached, and whether that was the aim.
    fn verdict(&self) -> Option<(String, bool)> {
        let ratio = |base: &str| median(&self.ratios(SELVEDGE, base));
        Some(match self.scale.aim? {
            Aim::AtMost(limit, base) => {
                (format!("{:.2} of {base}, aim at most {limit}", ratio(base)), ratio(base) <= limit)
            }
            Aim::AtLeast(limit, base) => {
                (format!("{:.2} of {base}, aim at least {limit}", ratio(base)), ratio(base) >= limit)
            }
            Aim::Adds(limit) => {
                let added = median(&self.added());
                let (least, most) = extremes(&self.added());
                let told = format!(
                    "{added:+.1} {} to {} ({least:+.1}..{most:+.1}), aim at most +{limit}",
                    self.scale.unit, self.scale.yardstick
                );
                (told, added <= limit)
            }
            Aim::Below(limit) => {
                let figure = self.figure(SELVEDGE);
                (format!("{} {}, aim at most {limit}", told(figure), self.scale.unit), figure <= limit)
            }
        })
    }

    fn to_json(&self) -> Value {
        let candidate = |(name, rounds): &(String, Vec<f64>)| {
            let ratios: Map<String, Value> = self
                .scale
                .bases
                .iter()
                .map(|base| (base.to_string(), self.ratios_json(name, base)))
                .collect();
            (name.clone(), json!({"median": self.figure(name), "rounds": rounds, "ratios": ratios}))
        };
        let candidates: Map<String, Value> = self.candidates.iter().map(candidate).collect();
        let aim = self.verdict().map(|(told, met)| json!({"told": told, "met": met}));
        json!({
            "measure": self.scale.name, "unit": self.scale.unit, "yardstick": self.scale.yardstick,
            "marked_rounds": self.marked(), "candidates": candidates, "aim": aim,
        })
    }

    fn ratios_json(&self, candidate: &str, base: &str) -> Value {
        let ratios = self.ratios(candidate, base);
        let (least, most) = extremes(&ratios);
        json!({"median": median(&ratios), "least": least, "most": most})
    }
}

fn told(figure: f64) -> String {
    match figure {
        big if big.abs() >= 1000.0 => format!("{big:.0}"),
        small if small.abs() < 10.0 => format!("{small:.3}"),
        other => format!("{other:.1}"),
    }
}

fn span(ratios: &[f64]) -> String {
    if ratios.is_empty() {
        return "-".into();
    }
    let (least, most) = extremes(ratios);
    format!("{:.2} ({least:.2}..{most:.2})", median(ratios))
}

fn extremes(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::NAN, f64::NAN), |(least, most), figure| (least.min(*figure), most.max(*figure)))
}
