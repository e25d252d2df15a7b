//! The record layout both sides share.
#![no_std]
