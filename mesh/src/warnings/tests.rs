//! Each trap: what falls into it, and what is beside it and does not.
