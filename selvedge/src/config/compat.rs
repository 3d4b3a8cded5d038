//! Which clients of old are served although the engine of today does not.

/// What is done for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Compat {
    /// Answers are made fit for Mesos.
    pub(crate) mesos: bool,
    /// N of the oldest version 1.N that clients may ask with.
    pub(crate) api_min: Option<u32>,
}

/// The versions that may be the oldest: older ones lack what is translated to, later ones no engine refuses.
const OLDEST: std::ops::RangeInclusive<u32> = 18..=44;

impl Compat {
    /// `mesos`, `api-min=1.24`, or both with a comma.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut compat = Self::default();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word.split_once("=1.") {
                None if word == "mesos" => compat.mesos = true,
                Some(("api-min", minor)) => compat.api_min = Some(oldest(minor)?),
                _ => return Err("must be mesos, api-min=1.24 or both, with a comma".to_owned()),
            }
        }
        Ok(compat)
    }
}

fn oldest(minor: &str) -> Result<u32, String> {
    let told = || format!("api-min must be 1.{} to 1.{}", OLDEST.start(), OLDEST.end());
    minor.parse().ok().filter(|minor| OLDEST.contains(minor)).ok_or_else(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_old_are_named() {
        assert_eq!(Compat::read(""), Ok(Compat::default()));
        assert_eq!(Compat::read("mesos, api-min=1.24"), Ok(Compat { mesos: true, api_min: Some(24) }));
        for wrong in ["kubernetes", "api-min", "api-min=1.9", "api-min=1.45", "api-min=2.24", "mesos=1.24"] {
            assert!(Compat::read(wrong).is_err(), "{wrong}");
        }
    }
}
