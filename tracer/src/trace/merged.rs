//! Several capture files as one.

use super::{Reader, Record, Recorded, Told, TraceError};
use crate::model::{Frame, Timestamp, Vantages};
use std::path::Path;

/// Reads several files by time; frames of one time in the order of the files. A frame keeps the number it has in
/// its own file, and its vantage says which file that is.
///
/// Each file is taken to be in order of time by itself; where it is not, its frames come as they are. Files of several
/// nodes have several clocks: see [`Self::shift`].
#[derive(Debug)]
pub struct MergedReader {
    sources: Vec<Source>,
    /// Whose frame comes next, as [`Self::next_time`] found.
    due: Option<usize>,
    /// Whose frame was given last.
    last: Option<usize>,
}

#[derive(Debug)]
struct Source {
    reader: Reader,
    next: Next,
    /// Nanoseconds that its times are put later.
    shift: i64,
    /// The times of its first and last frame so far.
    span: Option<(Timestamp, Timestamp)>,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    /// Not looked at yet, or not there yet.
    Unknown,
    /// The frame loaded is of this time.
    At(Timestamp),
    /// There is none.
    Ended,
}

impl MergedReader {
    /// Opens all files; the first is source 0.
    ///
    /// # Errors
    /// When one of them cannot be opened or is no capture file.
    pub fn open<P: AsRef<Path>>(paths: &[P]) -> Result<Self, TraceError> {
        let open = |(index, path): (usize, &P)| {
            Reader::open(path.as_ref(), u16::try_from(index).unwrap_or(u16::MAX))
        };
        Ok(Self::new(paths.iter().enumerate().map(open).collect::<Result<_, _>>()?))
    }

    /// Opens files that still grow; otherwise as [`Self::open`].
    ///
    /// # Errors
    /// As [`Reader::follow`].
    pub fn follow<P: AsRef<Path>>(paths: &[P]) -> Result<Self, TraceError> {
        let open = |(index, path): (usize, &P)| {
            Reader::follow(path.as_ref(), u16::try_from(index).unwrap_or(u16::MAX))
        };
        Ok(Self::new(paths.iter().enumerate().map(open).collect::<Result<_, _>>()?))
    }

    /// Joins readers; each should have been opened with its place as `source`.
    #[must_use]
    pub fn new(readers: Vec<Reader>) -> Self {
        let source = |reader| Source { reader, next: Next::Unknown, shift: 0, span: None };
        Self { sources: readers.into_iter().map(source).collect(), due: None, last: None }
    }

    /// Puts all times of a file so many nanoseconds later, or earlier where they are negative: to be said before the first
    /// frame is read.
    pub fn shift(&mut self, source: usize, nanos: i64) {
        if let Some(source) = self.sources.get_mut(source) {
            source.shift = nanos;
        }
    }

    /// The next frame of all files; `None` once all have ended.
    ///
    /// # Errors
    /// As [`Reader::next_frame`], when the file whose turn it is cannot be read on.
    pub fn next_frame(&mut self, vantages: &Vantages) -> Result<Option<Frame<'_>>, TraceError> {
        Ok(self.next_record(vantages)?.map(|record| record.frame))
    }

    /// The next frame with its comment; otherwise as [`Self::next_frame`].
    ///
    /// # Errors
    /// As [`Self::next_frame`].
    pub fn next_record(&mut self, vantages: &Vantages) -> Result<Option<Record<'_>>, TraceError> {
        self.next_time(vantages)?;
        Ok(self.due_record())
    }

    /// The frame whose time [`Self::next_time`] gave just before.
    pub fn due_frame(&mut self) -> Option<Frame<'_>> {
        Some(self.due_record()?.frame)
    }

    #[inline]
    fn due_record(&mut self) -> Option<Record<'_>> {
        self.last = self.due.take();
        let source = self.sources.get_mut(self.last?)?;
        let mut record = source.reader.loaded()?;
        record.frame.time = record.frame.time.shifted(source.shift);
        source.span.get_or_insert((record.frame.time, record.frame.time)).1 = record.frame.time;
        Some(record)
    }

    /// The time of the frame that [`Self::next_frame`] will give.
    ///
    /// # Errors
    /// As [`Self::next_frame`].
    pub fn next_time(&mut self, vantages: &Vantages) -> Result<Option<Timestamp>, TraceError> {
        let earliest = self.earliest(vantages)?;
        self.due = earliest.map(|(_, index)| index);
        Ok(earliest.map(|(time, _)| time))
    }

    /// Whether the next frame of one of the files is not there yet: it may be earlier than the next one here.
    #[must_use]
    pub fn waiting(&self) -> bool {
        self.sources.iter().any(|source| matches!(source.next, Next::Unknown) && source.reader.waiting())
    }

    fn earliest(&mut self, vantages: &Vantages) -> Result<Option<(Timestamp, usize)>, TraceError> {
        if let Some(given) = self.last.take().and_then(|index| self.sources.get_mut(index)) {
            given.next = Next::Unknown;
        }
        let mut earliest: Option<(Timestamp, usize)> = None;
        for (index, source) in self.sources.iter_mut().enumerate() {
            if let Next::Unknown = source.next {
                source.next = match source.reader.load(vantages)? {
                    Some(time) => Next::At(time.shifted(source.shift)),
                    None if source.reader.waiting() => Next::Unknown,
                    None => Next::Ended,
                };
            }
            if let Next::At(time) = source.next
                && earliest.is_none_or(|(first, _)| time < first)
            {
                earliest = Some((time, index));
            }
        }
        Ok(earliest)
    }

    /// Frames that the files themselves say were lost while they were written.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sources.iter().map(|source| source.reader.lost()).sum()
    }

    /// What the recordings say of their session, as one; `None` where one of the files is no recording of dnspath.
    #[must_use]
    pub fn recorded(&self) -> Option<Recorded> {
        let mut all = self.sources.iter().map(Source::recorded);
        let first = all.next()??;
        all.try_fold(first, |one, other| Some(one.and(other?)))
    }

    /// Each file by its name, and between when it was recorded: as it says itself where it came to its end, else from its
    /// first frame to its last so far.
    pub fn files(&self) -> impl Iterator<Item = (&str, Option<(Timestamp, Timestamp)>)> {
        self.sources.iter().map(|source| (source.reader.file(), source.window()))
    }

    /// What was watched, each once, as recordings of dnspath say it; of other files their names.
    #[must_use]
    pub fn sources(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for said in self.sources.iter().flat_map(|source| source.reader.sources()) {
            if !all.contains(&said) {
                all.push(said);
            }
        }
        all
    }

    /// What the files tell of the node before the frame that [`Self::next_frame`] will give, each thing once: asked
    /// after [`Self::next_time`]. Of files that have no further frame it is what they told at their end.
    #[must_use]
    pub fn take_told(&mut self) -> Vec<Told> {
        if !self.sources.iter().any(|source| source.reader.has_told()) {
            return Vec::new();
        }
        let of_source = |source: &Source| match source.next {
            Next::At(time) => Some(time),
            Next::Unknown | Next::Ended => None,
        };
        let earliest = self.sources.iter().filter_map(of_source).min();
        let is_due = |source: &&mut Source| of_source(source).is_none_or(|time| Some(time) == earliest);
        self.sources.iter_mut().filter(is_due).flat_map(Source::take_told).collect()
    }

    /// Whether one of the files ended inside a record.
    #[must_use]
    pub fn cut(&self) -> bool {
        self.sources.iter().any(|source| source.reader.cut())
    }
}

impl Source {
    fn recorded(&self) -> Option<Recorded> {
        Some(self.reader.recorded()?.shifted(self.shift))
    }

    fn window(&self) -> Option<(Timestamp, Timestamp)> {
        let said = self.recorded().map(|recorded| (recorded.started, recorded.until, recorded.ended));
        match (said, self.span) {
            (Some((from, until, true)), Some((first, last))) => Some((from.min(first), until.max(last))),
            (_, Some(span)) => Some(span),
            (Some((from, until, _)), None) => Some((from, until)),
            (None, None) => None,
        }
    }

    fn take_told(&mut self) -> Vec<Told> {
        let mut all = self.reader.take_told();
        if self.shift != 0 {
            for told in &mut all {
                told.at = told.at.map(|at| at.shifted(self.shift));
                told.news = told.news.clone().shifted(self.shift);
            }
        }
        all
    }
}
