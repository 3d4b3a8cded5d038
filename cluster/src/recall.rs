//! The registry's last known content, saved in memory that outlives this process: a worker that starts while there is
//! no registry then knows as much as its predecessor.
//!
//! Must never be taken for the truth: whatever the registry says replaces it. An interrupted write is invisible,
//! because the head, which says where the whole text is, is written last.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use ipnet::Ipv4Net;

const MAGIC: u64 = u64::from_be_bytes(*b"SVREGIS1");
/// Magic, place, length and check sum.
const HEAD: usize = 32;

/// What a host knows before it asks the registry.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The registry's last known content; it outlives this process.
    pub memory: Option<File>,
    /// Blocks that this host had: the first view has them, so that it does not claim another for want of them.
    pub blocks: BTreeSet<Ipv4Net>,
}

/// The memory.
#[derive(Debug)]
pub(crate) struct Recall {
    file: File,
}

/// The position of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    from: u64,
    length: u64,
    sum: u64,
}

impl Recall {
    pub(crate) fn new(file: File) -> Self {
        Self { file }
    }

    /// The saved keys, if they are whole.
    pub(crate) fn load(&self) -> Option<Vec<(String, String)>> {
        let place = self.place()?;
        let mut text = vec![0; usize::try_from(place.length).ok()?];
        self.file.read_exact_at(&mut text, place.from).ok()?;
        if sum(&text) != place.sum {
            return None;
        }
        let text = String::from_utf8(text).ok()?;
        let pair = |line: &str| line.split_once('\t').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(text.lines().filter_map(pair).collect())
    }

    /// Saves all keys with their values; neither may have a tab or a newline.
    ///
    /// # Errors
    /// There is no memory left; the previous content stays.
    pub(crate) fn save(&self, keys: impl Iterator<Item = (String, String)>) -> io::Result<()> {
        let mut text = String::new();
        for (key, value) in keys.filter(|(key, value)| !key.contains(['\t', '\n']) && !value.contains('\n')) {
            text.extend([key.as_str(), "\t", value.as_str(), "\n"]);
        }
        let length = text.len() as u64;
        // In front of the existing text, if it fits, else behind it: the existing one stays whole until the head is
        // written.
        let old = self.place();
        let from = match old {
            Some(old) if old.from < HEAD as u64 + length => old.from + old.length,
            _ => HEAD as u64,
        };
        self.file.write_all_at(text.as_bytes(), from)?;
        let head = [MAGIC, from, length, sum(text.as_bytes())].map(u64::to_be_bytes).concat();
        self.file.write_all_at(&head, 0)?;
        self.file.set_len(from + length)
    }

    fn place(&self) -> Option<Place> {
        let mut head = [0; HEAD];
        self.file.read_exact_at(&mut head, 0).ok()?;
        let mut numbers =
            head.chunks_exact(8).map(|part| part.try_into().map(u64::from_be_bytes).unwrap_or(0));
        (numbers.next()? == MAGIC).then_some(())?;
        let place = Place { from: numbers.next()?, length: numbers.next()?, sum: numbers.next()? };
        let size = self.file.metadata().ok()?.len();
        (place.from.checked_add(place.length)? <= size).then_some(place)
    }
}

/// FNV-1a, 64 bits.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(count: usize) -> Vec<(String, String)> {
        (0..count).map(|number| (format!("names/h/{number};a=10.32.0.1"), format!("v{number}"))).collect()
    }

    #[test]
    fn the_last_whole_text_is_read_back_whatever_its_length() {
        let recall = Recall::new(tempfile::tempfile().unwrap());
        assert_eq!(recall.load(), None);
        for count in [3, 0, 500, 2, 1000, 1000, 1] {
            recall.save(pairs(count).into_iter()).unwrap();
            assert_eq!(recall.load().unwrap(), pairs(count), "{count}");
        }
        assert!(recall.file.metadata().unwrap().len() < 100_000, "it does not grow for ever");
    }

    #[test]
    fn what_was_cut_off_or_is_none_of_ours_is_not_believed() {
        let recall = Recall::new(tempfile::tempfile().unwrap());
        recall.save(pairs(10).into_iter()).unwrap();
        recall.file.write_all_at(b"x", HEAD as u64 + 5).unwrap();
        assert_eq!(recall.load(), None);
        recall.file.write_all_at(&[0xff; HEAD], 0).unwrap();
        assert_eq!(recall.load(), None);
        recall.save(pairs(2).into_iter()).unwrap();
        assert_eq!(recall.load().unwrap(), pairs(2));
    }
}
