//! Coded, evidenced statements about what is wrong.
