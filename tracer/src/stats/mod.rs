//! Counters, histograms, top lists.
