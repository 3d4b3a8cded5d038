//! Figures of many rounds, and how they are told: medians of per-round ratios, with the least and the most.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// One measure: for each candidate, a figure per round.
#[derive(Debug, Default)]
struct Measure {
    name: String,
    unit: String,
    base: String,
    rounds: BTreeMap<String, Vec<f64>>,
}

/// All measures of a run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    measures: Vec<Measure>,
}

/// The middle of some figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Report {
    /// Notes a figure of one candidate in one round. Ratios are to the candidate `base`.
    pub(crate) fn note(&mut self, what: (&str, &str, &str), candidate: &str, figure: f64) {
        let (name, unit, base) = what;
        let known = self.measures.iter().position(|measure| measure.name == name);
        let at = known.unwrap_or_else(|| {
            let rounds = BTreeMap::new();
            self.measures.push(Measure { name: name.into(), unit: unit.into(), base: base.into(), rounds });
            self.measures.len() - 1
        });
        self.measures[at].rounds.entry(candidate.into()).or_default().push(figure);
    }

    /// A table for people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        for measure in &self.measures {
            out.push_str(&format!("\n{} ({}; ratio to {})\n", measure.name, measure.unit, measure.base));
            for (candidate, figures) in &measure.rounds {
                let ratios = measure.ratios(figures);
                let (least, most) = extremes(&ratios);
                let (figure, ratio) = (median(figures), median(&ratios));
                out.push_str(&format!(
                    "  {candidate:<18} {figure:>12.3}   {ratio:>6.2}  ({least:.2} to {most:.2})\n"
                ));
            }
        }
        out
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> String {
        let measures: Vec<Value> = self.measures.iter().map(Measure::to_json).collect();
        format!("{:#}\n", Value::Array(measures))
    }
}

impl Measure {
    fn ratios(&self, figures: &[f64]) -> Vec<f64> {
        let base = self.rounds.get(&self.base).cloned().unwrap_or_default();
        figures.iter().zip(&base).map(|(figure, base)| figure / base).collect()
    }

    fn to_json(&self) -> Value {
        let candidates: BTreeMap<&String, Value> = self
            .rounds
            .iter()
            .map(|(candidate, figures)| {
                let ratios = self.ratios(figures);
                let (least, most) = extremes(&ratios);
                let told = json!({"median": median(figures), "ratio": median(&ratios), "least": least, "most": most, "rounds": figures});
                (candidate, told)
            })
            .collect();
        json!({"measure": self.name, "unit": self.unit, "base": self.base, "candidates": candidates})
    }
}

fn extremes(figures: &[f64]) -> (f64, f64) {
    figures.iter().fold((f64::NAN, f64::NAN), |(least, most), figure| (least.min(*figure), most.max(*figure)))
}
